// What was redrawn, what was left as it was, and how well sound and lips agree, over time.
const plot = part("plot"), strip = part("strip");
const KINDS = { redrawn: "redrawn", silent: "redrawn, voice silent", left: "left as it was" };
let curves = [], spans = [];

const svg = (name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

function drawTimeline() {
  const end = seconds(), values = curves.flat().map((point) => point[1]);
  part("chart").hidden = !end;
  if (!end) return;
  const x = (t) => (1000 * Math.min(t, end)) / end;
  strip.replaceChildren(svg("rect", { class: "redrawn", x: 0, y: 0, width: 1000, height: 10 }));
  for (const [from, to, kind] of spans) strip.append(svg("rect", { class: kind, x: x(from), y: 0, width: x(to) - x(from), height: 10 }));
  const seen = ["redrawn", "silent", "left"].filter((kind) => kind === "redrawn" || spans.some((span) => span[2] === kind));
  const swatches = seen.map((kind) => [`swatch ${kind}`, KINDS[kind]]);
  if (values.length) swatches.unshift(["swatch original", "original"], ["swatch result", "result"]);
  part("legend").replaceChildren(...swatches.map(([className, words]) => {
    const item = document.createElement("span");
    item.append(Object.assign(document.createElement("i"), { className }), words);
    return item;
  }));
  plot.replaceChildren();
  plot.parentElement.hidden = !values.length;
  const low = Math.min(0, ...values), high = Math.max(...values, low + 0.1);
  const y = (v) => 96 - (92 * (v - low)) / (high - low);
  part("high").textContent = high.toFixed(1);
  part("low").textContent = low.toFixed(1);
  plot.append(svg("path", { class: "zero", d: `M0 ${y(0)}H1000` }));
  curves.forEach((curve, i) => plot.append(svg("path", {
    class: i ? "curve lit" : "curve", d: curve.map(([t, v], k) => `${k ? "L" : "M"}${x(t)} ${y(v)}`).join(""),
  })));
  plot.append(svg("path", { class: "head", d: "M0 0V100" }));
  part("end").textContent = `${end.toFixed(1)} s`;
}

function playhead(now) {
  const head = plot.querySelector(".head");
  if (head && seconds()) head.setAttribute("transform", `translate(${(1000 * now) / seconds()} 0)`);
  readout(now);
}

const nearest = (curve, time) => curve.reduce((best, p) => (Math.abs(p[0] - time) < Math.abs(best[0] - time) ? p : best));

function readout(time) {
  const here = spans.findLast(([from, to]) => from <= time && time < to);
  const state = here ? (here[3] ? `left as it was: ${here[3]}` : KINDS[here[2]]) : "redrawn";
  const words = ["original", "result"].map((name, i) => (curves[i]?.length ? `${name} ${nearest(curves[i], time)[1].toFixed(2)}` : ""));
  part("readout").textContent = [`${time.toFixed(1)} s`, state, ...words.filter(Boolean)].join(" · ");
}

for (const area of [plot, strip]) {
  const pointed = (event) => {
    const box = area.getBoundingClientRect();
    return (seconds() * (event.clientX - box.left)) / box.width;
  };
  area.addEventListener("pointermove", (event) => readout(pointed(event)));
  area.addEventListener("pointerleave", () => readout(lead.currentTime));
  area.addEventListener("click", (event) => go(pointed(event)));
}
