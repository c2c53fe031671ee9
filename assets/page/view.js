// Shows what syncdiff/page/views.py tells: `element` is view.html, `props.value` one dict, `watch` tells of a new one.
// Everything from the server goes in as text or as a number, never as markup. player.js and timeline.js come before.
let shown = null, finished = null;  // the state that is seen, and the last finished video

const all = (tag, texts) => texts.map((words) => Object.assign(document.createElement(tag), { textContent: words }));

function scores(rows) {
  part("scores").replaceChildren(...rows.map(([name, hint, ...both]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.append(name, ...all("small", [hint]));
    row.append(head, ...all("td", both));
    return row;
  }));
  element.querySelector(".scores").hidden = !rows.length;
}

const states = {
  empty() {
    part("offer").hidden = !props.offered.length;
    part("offered").replaceChildren(...props.offered.map((item) => {
      const card = Object.assign(document.createElement("button"), { type: "button" });
      if (item.poster) card.append(Object.assign(new Image(200, 200), { src: item.poster, alt: "" }));
      card.append(Object.assign(document.createElement("span"), { textContent: item.label }));
      card.addEventListener("click", () => trigger("click", { key: item.key }));
      return card;
    }));
  },
  ready(value) {
    part("settings").textContent = value.message;
  },
  waiting(value) {
    part("turn").textContent = value.message;
  },
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
  trial(value) {
    const [width, height] = value.size;
    part("before").src = value.before;
    part("after").src = value.after;
    part("still").style.setProperty("--shape", `${width} / ${height}`);
    part("where").setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const shape of ["crop", "mask"]) part("where").querySelector(`.${shape}`).setAttribute("points", value[shape]);
    part("trial-note").textContent = value.message;
    part("back").hidden = !finished;
  },
  error(value) {
    part("title").textContent = value.title;
    part("message").textContent = value.message;
    point(value.where);
  },
  done(value) {
    finished = value;
    if (result.src !== value.result.url) {
      [original.src, result.src] = [value.source.url, value.result.url];
      compare(false);
      button();
    }
    curves = value.curves;
    spans = value.spans;
    part("verdict").textContent = value.verdict;
    part("in-step").hidden = !value.in_step.words.length;
    part("offset").replaceChildren(...all("p", value.in_step.words));
    part("correct").hidden = !value.in_step.correctable;
    scores(value.table);
    part("judges").replaceChildren(...all("p", value.judges));
    part("notes").replaceChildren(...all("li", value.notes));
    part("download").href = value.result.url;
    part("report").href = value.report.url;
    part("link").value = `${location.origin}${location.pathname}?${value.link}`;
    part("shared").textContent = value.shared;
    copied(false);
    drawTimeline();
  },
};

part("still-wipe").addEventListener("input", (event) => part("still").style.setProperty("--at", `${event.target.value}%`));
part("outlines").addEventListener("click", (event) => {
  press(event.currentTarget, !pressed(event.currentTarget));
  part("where").toggleAttribute("hidden", !pressed(event.currentTarget));
});

part("correct").addEventListener("click", () => trigger("submit"));
part("back").addEventListener("click", () => show(finished));

// What has to be filled in first is brought into sight and marked, until something else is shown.
function point(id) {
  const place = id && document.getElementById(id);
  if (!place) return;
  place.classList.add("wanted");
  place.scrollIntoView({ behavior: "smooth", block: "center" });
  place.querySelector("input, button")?.focus({ preventScroll: true });
}

// Whether something that was given is not on the server yet: gradio marks an upload, a pick is busy until it is answered.
window.coming = () => Boolean(document.querySelector("#inputs .uploading, #inputs [aria-busy]"));

// Phones can hand the file itself on to another app; where that cannot be done there is the download.
const film = (content) => ({ files: [new File([content], "syncdiff.mp4", { type: "video/mp4" })] });
part("send").hidden = !navigator.canShare?.(film(""));
part("send").addEventListener("click", async () => {
  const content = await (await fetch(result.src)).blob();
  navigator.share(film(content)).catch(() => {});  // thought better of it
});

function copied(yes) {
  part("copy").textContent = yes ? "Copied" : "Copy link";
}
part("copy").addEventListener("click", async () => {
  part("link").select();
  try {
    await navigator.clipboard.writeText(part("link").value);
    copied(true);
  } catch {  // no leave for the clipboard: the address stands there, selected
    part("copy").textContent = "Press Ctrl+C";
  }
});

function show(value) {
  const fresh = value.state !== shown;
  for (const card of element.querySelectorAll("[data-state]")) card.hidden = card.dataset.state !== value.state;
  if (value.state !== "done") result.pause();
  for (const place of document.querySelectorAll(".wanted")) place.classList.remove("wanted");
  states[value.state]?.(value);
  // On a phone the view lies below the form: bring it into sight when a run starts, ends or fails.
  if (fresh && shown !== null && value.state !== "empty" && !value.where) element.scrollIntoView({ behavior: "smooth", block: "nearest" });
  shown = value.state;
}
watch("value", () => show(props.value));
show(props.value);
