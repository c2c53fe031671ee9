// The last results: in this tab's own storage, so that they outlive a cancelled run and a reload, for as long as the server
// keeps the files.
const KEPT_MS = 3600_000, KEPT_RUNS = 8, STORE = "syncdiff-results";
let past = [];  // {at, value}, the newest first

try {
  past = JSON.parse(sessionStorage.getItem(STORE) ?? "[]").filter(({ at }) => Date.now() - at < KEPT_MS);
} catch { /* no storage: they live as long as the page */ }

function store() {
  past = past.slice(0, KEPT_RUNS);
  try { sessionStorage.setItem(STORE, JSON.stringify(past)); } catch { /* as above */ }
  drawHistory();
}

function remember(value) {
  if (past.some((run) => run.value.result.url === value.result.url)) return;
  past.unshift({ at: Date.now(), value });
  store();
}

function forget(url) {
  past = past.filter((run) => run.value.result.url !== url);
  store();
}

const isShown = (value) => finished?.result.url === value.result.url;  // the same result may be another object

function drawHistory() {
  part("history").hidden = !past.length;
  part("past").replaceChildren(...past.map(({ value }) => {
    const card = Object.assign(document.createElement("button"), { type: "button" });
    if (value.thumb) card.append(Object.assign(new Image(96, 96), { src: value.thumb, alt: "" }));
    card.append(...all("span", [value.label]), ...all("small", [value.brief]));
    card.setAttribute("aria-pressed", String(shown === "done" && isShown(value)));
    card.addEventListener("click", () => open(value));
    return card;
  }));
  // Beside the shown result any other may stand, instead of the original.
  const others = past.filter((run) => !isShown(run.value));
  part("against-label").hidden = !others.length;
  const choices = [["", "the original"], ...others.map(({ value }) => [value.result.url, value.label])];
  const now = part("against").value;
  part("against").replaceChildren(...choices.map(([value, textContent]) => Object.assign(document.createElement("option"), { value, textContent })));
  part("against").value = choices.some(([value]) => value === now) ? now : "";
}

part("against").addEventListener("change", (event) => {
  const choice = event.target.selectedOptions[0];
  original.src = choice.value || finished.source.url;
  part("left-name").textContent = choice.value ? choice.textContent : "Original";
  original.currentTime = result.currentTime;
  if (stage.classList.contains("alone")) compare("aside");
});
result.addEventListener("error", () => {
  if (!finished || !result.getAttribute("src")) return;
  forget(finished.result.url);
  finished = null;
  show({ state: "error", title: "This result is gone", message: "The server deletes results after about an hour." });
});
