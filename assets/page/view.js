// Shows one dict of syncdiff/web/view_state.py: `element` is view.html, `props.value` the dict, `watch` tells of a new one.
// Everything from the server goes in as text or as a number, never as markup. The other scripts come before this one.
let shown = null, finished = null;  // the state that is seen, and the result that is or was seen last
let latest = props.value;  // what the server said last; while an older result is looked at, a run may go on
let aside = false;  // whether an older result is looked at during a run

function all(tag, texts) {
  return texts.map((words) => Object.assign(document.createElement(tag), { textContent: words }));
}

function table({ title, rows }) {
  const made = document.createElement("table"), head = made.createTHead().insertRow();
  made.createCaption().textContent = title;
  made.className = "scores";
  head.append(document.createElement("td"), ...all("th", ["Original", "Result"]));
  const body = made.createTBody();
  for (const [name, hint, ...both] of rows) {
    const row = body.insertRow(), what = document.createElement("th");
    what.scope = "row";
    what.append(name, ...all("small", [hint]));
    row.append(what, ...all("td", both));
  }
  return made;
}

const states = {
  empty() {},
  looking() {},
  ready(value) {
    part("ready-title").textContent = value.title;
    part("settings").textContent = value.message;
    part("todo").textContent = value.todo;
  },
  waiting(value) {
    part("turn-title").textContent = value.message ? "Waiting" : "Starting";
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
  },
  error(value) {
    part("title").textContent = value.title;
    part("message").textContent = value.message;
    point(value.where);
  },
  done(value) {
    finished = value;
    mouth = value.mouth;
    if (result.getAttribute("src") !== value.result.url) {
      [original.src, result.src] = [value.source.url, value.result.url];
      [part("against").value, part("left-name").textContent] = ["", "Original"];
      compare("alone");
      hear("result");
      zoom(false);
      cutAt(mouth.length ? Math.round(100 * mouthAt(0)[1]) : 50);
      button();
    }
    part("zoom").hidden = !mouth.length;
    curves = value.curves;
    spans = value.spans;
    part("verdict").textContent = value.verdict;
    part("in-step").hidden = !value.in_step.words.length;
    part("offset").replaceChildren(...all("p", value.in_step.words));
    part("correct").hidden = !value.in_step.correctable;
    part("tables").replaceChildren(...value.tables.map(table));
    part("judges").replaceChildren(...all("p", value.judges));
    part("notes").replaceChildren(...all("li", value.notes));
    part("download").href = value.result.url;
    part("report").href = value.report.url;
    part("link").value = `${location.origin}${location.pathname}?${value.link}`;
    part("shared").textContent = value.shared;
    part("compared-note").textContent = "";
    part("copy").textContent = "Copy link";
    drawTimeline();
  },
};

part("still-wipe").addEventListener("input", (event) => part("still").style.setProperty("--at", `${event.target.value}%`));
part("outlines").addEventListener("click", (event) => {
  press(event.currentTarget, !pressed(event.currentTarget));
  part("where").toggleAttribute("hidden", !pressed(event.currentTarget));
});
part("correct").addEventListener("click", () => trigger("submit"));

// One video of the two is made by the server, on demand.
part("compared").addEventListener("click", () => {
  part("compared-note").textContent = "Making it: a few seconds …";
  trigger("download", { path: finished.result.path });
});
window.compared = ({ path, message }) => {
  part("compared-note").textContent = message ?? "";
  if (!path) return;
  const href = `gradio_api/file=${encodeURI(path)}`;
  Object.assign(document.createElement("a"), { href, download: "syncdiff-compared.mp4" }).click();
};

// What has to be filled in first is brought into sight and marked, until something else is shown.
function point(id) {
  const place = id && document.getElementById(id);
  if (!place) return;
  place.classList.add("wanted");
  if (!place.offsetParent) place.closest("#advanced")?.querySelector("button").click();
  setTimeout(() => {
    const bar = document.querySelector("#begin"), { top, bottom } = place.getBoundingClientRect();
    const end = bar.contains(place) ? innerHeight : bar.getBoundingClientRect().top;  // the bar lies over what is below
    if (top < 0 || bottom > end) place.scrollIntoView({ behavior: "smooth", block: "center" });
    place.querySelector("input, button")?.focus({ preventScroll: true });
  }, 50);
}

// What gradio sends without a mark in the page, such as a face that was trimmed, is counted on its way.
let sending = 0;
const ask = window.fetch;
window.fetch = async (...request) => {
  const sends = /\/upload(\?|$)/.test(request[0]?.url ?? request[0]);
  sending += sends;
  try {
    return await ask(...request);
  } finally {
    setTimeout(() => (sending -= sends), 200);  // when it stands in the form
  }
};

// Whether something is not here yet: gradio marks an upload, and trimming by locking its scissors; a pick is busy until its
// slot is filled; a link in the address is answered by the server.
window.linking ??= location.search.length > 1;
window.arriving = (place) => Boolean(place?.querySelector(".uploading, [aria-label^='Trim video']:disabled"));
window.coming = () => {
  const form = document.querySelector("#inputs");
  return window.linking || sending > 0 || window.arriving(form) || Boolean(form?.querySelector("[aria-busy]"));
};

// The second click of a double click would press Cancel, which has taken the button's place, or begin a second run.
document.addEventListener("click", (event) => {
  if (event.detail > 1 && event.target.closest?.("#begin button, .offered")) event.stopImmediatePropagation();
}, true);

// Gradio answers a file of the wrong kind with a list of MIME types.
new MutationObserver((changes) => {
  for (const node of changes.flatMap(({ addedNodes }) => [...addedNodes])) {
    const words = node.querySelector?.("[data-testid=toast-text]");
    if (!/file type/i.test(words?.textContent)) continue;
    words.textContent = "This file cannot be used here. A face is a video or a photo, a voice a sound file or a video with sound.";
  }
}).observe(document.body, { childList: true, subtree: true });

// A player shows a time once it has one: before, or where a recording has no length, gradio writes NaN:NaN.
for (const happened of ["loadedmetadata", "durationchange", "emptied", "error"]) {
  document.addEventListener(happened, ({ target }) => {
    if (target.matches?.("#inputs video, #check video")) {
      target.toggleAttribute("data-timed", Number.isFinite(target.duration));
    }
  }, true);
}

// Phones can hand the file itself on to another app; where that cannot be done there is the download.
const film = (content) => ({ files: [new File([content], "syncdiff.mp4", { type: "video/mp4" })] });
part("send").hidden = !navigator.canShare?.(film(""));
part("send").addEventListener("click", async () => {
  const content = await (await fetch(result.src)).blob();
  navigator.share(film(content)).catch(() => {});  // thought better of it
});
part("copy").addEventListener("click", async () => {
  part("link").select();
  try {
    await navigator.clipboard.writeText(part("link").value);
    part("copy").textContent = "Copied";
  } catch {  // no leave for the clipboard: the address stands there, selected
    part("copy").textContent = "Press Ctrl+C";
  }
  part("said").textContent = part("copy").textContent;
});

// --- the complete examples: before and after, muted, as soon as the page is there -------------------------------------
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
part("offer").hidden = !props.offered.length;
part("offered").replaceChildren(...props.offered.map((item) => {
  const card = Object.assign(document.createElement("button"), { type: "button" });
  if (item.clip) {
    const source = { src: `gradio_api/file=${encodeURI(item.clip)}`, muted: true, loop: true, autoplay: !still, playsInline: true };
    card.append(Object.assign(document.createElement("video"), source));
    card.classList.add("clip");
  } else if (item.poster) card.append(Object.assign(new Image(200, 200), { src: item.poster, alt: "" }));
  card.append(...all("span", [item.label]));
  card.addEventListener("click", () => {
    window.example = item.key;
    trigger("click", { key: item.key });
  });
  return card;
}));

for (const place of document.querySelectorAll(".here")) place.textContent = location.origin + location.pathname;

// --- for those who hear the page ----------------------------------------------------------------------------------------
const SAID = {
  waiting: (value) => value.message || "Starting.",
  running: (value) => `${value.stage}. ${value.left}.`,
  looking: () => "Redrawing one frame.",
  trial: () => "One frame is redrawn.",
  done: (value) => `Your video is ready. ${value.verdict}`,
};
let said = "";
function say(value) {  // once a stage: a region that is rewritten with every frame cannot be listened to
  const stage = `${value.state} ${value.stage ?? ""} ${value.result?.url ?? ""}`;
  if (stage !== said && SAID[value.state]) part("said").textContent = SAID[value.state](value);
  said = stage;
}
// The button that was pressed disappears, and the focus with it: it goes where the next thing to do is.
function refocus(selector) {
  let left = 20;
  const look = () => {
    const lost = [null, document.body].includes(document.activeElement), to = document.querySelector(selector);
    if (lost && to?.offsetParent) to.focus({ preventScroll: true });
    else if (left--) setTimeout(look, 50);
  };
  look();
}
function nameTabs() {
  for (const list of document.querySelectorAll("[role=tablist]")) {
    const step = list.closest(".step")?.querySelector("h2")?.textContent;
    list.setAttribute("aria-label", step ? `${step.replace(/^\d/, "")}: how to give it` : "What to do");
  }
}
for (const wait of [0, 500, 3000]) setTimeout(nameTabs, wait);  // gradio draws them once more when it has measured them

function show(value) {
  const before = shown;
  for (const card of element.querySelectorAll("[data-state]")) card.hidden = card.dataset.state !== value.state;
  if (props.offered.length) element.querySelector("[data-state=empty]").hidden = true;  // the examples say more
  if (value.state !== "done") result.pause();
  for (const place of document.querySelectorAll(".wanted")) place.classList.remove("wanted");
  shown = value.state;
  states[value.state]?.(value);
  drawHistory();
  // On a phone the view lies below the form: bring it into sight when a run starts, ends or fails.
  if (before !== null && before !== shown && shown !== "empty" && !value.where) toSight();
}

function toSight() {
  const { top } = element.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 3) element.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

// A result of the list. A run that goes on is not shown until it ends, or somebody asks for it.
function open(value) {
  aside = ["waiting", "running"].includes(latest.state);
  show(value);
}

function heard() {
  const before = latest.state;
  latest = props.value;
  say(latest);
  const busy = ["waiting", "running"].includes(latest.state);
  element.querySelector(".view").classList.toggle("busy", busy);
  if (latest.state === "done") remember(latest);
  if (busy && !["waiting", "running"].includes(before)) {
    aside = false;
    refocus("#cancel");
  }
  if (["waiting", "running"].includes(before) && !busy) refocus(latest.state === "done" ? "[data-part=verdict]" : "#run");
  if (busy && aside) return;
  if (aside && latest.state === "done") return drawHistory();  // it waits in the list
  aside = false;
  show(latest.state === "empty" && past.length ? (finished ?? past[0].value) : latest);
}
watch("value", heard);
show(latest.state === "empty" && past.length ? past[0].value : latest);
