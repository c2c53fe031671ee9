// Shows what syncdiff/page.py sends: `element` is view.html, `props.value` one dict, `watch` tells of a new one.
// Everything from the server goes in as text or as a number, never as markup.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const original = part("original"), result = part("result"), play = part("play"), seek = part("seek"), plot = part("plot");
const PLAY = "M4 2.5v11l9-5.5z", PAUSE = "M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z";
const FRAME = 1 / 25;  // the judge counts its offset in frames of its own 25 fps clock
let shown = null, curves = [], gaps = [];

const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const seconds = () => (Number.isFinite(result.duration) ? result.duration : 0);

// --- two videos, one clock: the result leads (it has the sound), the original follows -------------------------------
function follow() {
  const ahead = original.currentTime - result.currentTime;
  if (Math.abs(ahead) > 0.25 && !original.seeking) original.currentTime = result.currentTime;
  // A nudge of the speed closes a small gap unseen; a seek would stutter. The original is mute, so nothing is heard.
  original.playbackRate = Math.abs(ahead) < 0.02 ? 1 : 1 - Math.max(-0.5, Math.min(0.5, 4 * ahead));
  position();
  if (!result.paused && !result.ended) requestAnimationFrame(follow);
}

function position() {
  const now = result.currentTime, end = seconds();
  seek.max = end || 1;
  seek.value = now;
  seek.style.setProperty("--done", `${end ? (100 * now) / end : 0}%`);
  seek.setAttribute("aria-valuetext", `${now.toFixed(1)} of ${end.toFixed(1)} seconds`);
  part("time").textContent = `${clock(now)} / ${clock(end)}`;
  const head = plot.querySelector(".head");
  if (head && end) head.setAttribute("transform", `translate(${(1000 * now) / end} 0)`);
  readout(now);
}

function go(time) {
  result.currentTime = original.currentTime = Math.max(0, Math.min(seconds(), time));
  position();
}

function button() {
  const stopped = result.paused || result.ended;
  play.querySelector("path").setAttribute("d", stopped ? PLAY : PAUSE);
  play.setAttribute("aria-label", stopped ? "Play both videos" : "Pause both videos");
}

play.addEventListener("click", () => {
  if (!result.paused && !result.ended) return result.pause();
  if (result.ended) go(0);
  original.currentTime = result.currentTime;
  original.play().catch(() => {});  // its play is broken off whenever the result stalls, and taken up again
  result.play().catch(button);
});
seek.addEventListener("input", () => go(Number(seek.value)));
for (const video of [original, result]) video.addEventListener("click", () => play.click());
result.addEventListener("play", () => { button(); requestAnimationFrame(follow); });
result.addEventListener("pause", () => { original.pause(); original.currentTime = result.currentTime; button(); });
result.addEventListener("waiting", () => original.pause());
result.addEventListener("playing", () => original.play().catch(() => {}));
result.addEventListener("loadedmetadata", () => {
  element.querySelector(".pair").classList.toggle("tall", result.videoHeight > result.videoWidth);
  draw();
  position();
});

// --- the curves -----------------------------------------------------------------------------------------------------
const svg = (name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

function draw() {
  const end = seconds(), values = curves.flat().map((point) => point[1]);
  part("chart").hidden = !values.length || !end;
  plot.replaceChildren();
  if (!values.length || !end) return;
  const low = Math.min(0, ...values), high = Math.max(1, ...values);
  const x = (t) => (1000 * t) / end, y = (v) => 96 - (92 * (v - low)) / (high - low);
  for (const gap of gaps) plot.append(svg("rect", { class: "gap", x: x(gap[0]), width: x(gap[1] - gap[0]), y: 0, height: 100 }));
  plot.append(svg("path", { class: "zero", d: `M0 ${y(0)}H1000` }));
  curves.forEach((curve, i) => plot.append(svg("path", {
    class: i ? "curve lit" : "curve", d: curve.map(([t, v], k) => `${k ? "L" : "M"}${x(t)} ${y(v)}`).join(""),
  })));
  plot.append(svg("path", { class: "head", d: "M0 0V100" }));
  part("start").textContent = "0 s";
  part("end").textContent = `${end.toFixed(1)} s`;
}

const at = (curve, time) => curve.reduce((best, p) => (Math.abs(p[0] - time) < Math.abs(best[0] - time) ? p : best));

function readout(time) {
  const words = ["Original", "Result"].map((name, i) => (curves[i]?.length ? `${name} ${at(curves[i], time)[1].toFixed(1)}` : ""));
  part("readout").textContent = [`${time.toFixed(1)} s`, ...words.filter(Boolean)].join(" · ");
}

const pointed = (event) => {
  const box = plot.getBoundingClientRect();
  return (seconds() * (event.clientX - box.left)) / box.width;
};
plot.addEventListener("pointermove", (event) => readout(pointed(event)));
plot.addEventListener("pointerleave", () => readout(result.currentTime));
plot.addEventListener("click", (event) => go(pointed(event)));

// --- the states -----------------------------------------------------------------------------------------------------
const figure = (value) => (value === null ? "–" : value.toFixed(2));
function offset(frames) {
  if (frames === null) return "–";
  if (frames === 0) return "none";
  return `${Math.round(Math.abs(frames) * FRAME * 1000)} ms, sound ${frames > 0 ? "early" : "late"}`;
}

function list(parent, tag, sentences) {
  parent.replaceChildren(...sentences.map((words) => Object.assign(document.createElement(tag), { textContent: words })));
}

function scores(both) {
  const rows = [
    ["Confidence", "higher is better", (s) => figure(s.confidence)],
    ["Distance", "lower is better", (s) => figure(s.distance)],
    ["Offset", "", (s) => offset(s.offset_frames)],
  ];
  part("scores").replaceChildren(...rows.map(([name, hint, show]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.append(name, Object.assign(document.createElement("small"), { textContent: hint }));
    row.append(head, ...both.map((s) => Object.assign(document.createElement("td"), { textContent: show(s) })));
    return row;
  }));
  const names = both[0].reason === both[1].reason ? ["Both"] : ["Original", "Result"];
  const reasons = names.map((name, i) => both[i].reason && `${name}: ${both[i].reason}.`).filter(Boolean);
  const judged = both.find((s) => !s.reason);
  if (judged) reasons.unshift(`Judged by ${judged.judge}: its figures compare only with each other.`);
  element.querySelector(".scores").hidden = !judged;
  part("judge").textContent = reasons.join(" ");
}

const states = {
  running(value) {
    part("stage").textContent = value.stage;
    part("percent").textContent = `${value.percent} %`;
    part("left").textContent = value.left;
    const bar = element.querySelector(".bar");
    bar.setAttribute("aria-valuenow", value.percent);
    bar.firstElementChild.style.width = `${value.percent}%`;
    const preview = part("preview");
    if (value.preview) preview.src = value.preview;
    preview.hidden = !value.preview;
  },
  error(value) {
    part("message").textContent = value.message;
  },
  done(value) {
    if (result.src !== value.result.url) {
      [original.src, result.src] = [value.source.url, value.result.url];
      button();
    }
    curves = value.scores.map((s) => s.curve);
    gaps = value.gaps;
    scores(value.scores);
    list(part("notes"), "li", value.notes);
    part("download").href = value.result.url;
    draw();
  },
};

function show() {
  const value = props.value, fresh = value.state !== shown;
  for (const card of element.querySelectorAll("[data-state]")) card.hidden = card.dataset.state !== value.state;
  if (value.state !== "done") result.pause();
  states[value.state]?.(value);
  shown = value.state;
  // On a phone the view lies below the form: bring it into sight when a run starts, ends or fails.
  if (fresh && value.state !== "empty") element.scrollIntoView({ behavior: "smooth", block: "nearest" });
}
watch("value", show);
show();
