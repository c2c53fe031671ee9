// A row of buttons: `props.value` is {label, note, items: [{key, label, poster, hint, cost, file}], chosen}. A click notes
// the key there: as `chosen`, one of what is there already, or as `picked`, whose file fills the slot.
const row = element.querySelector(".picks");
const uploading = () => window.arriving(row.closest(".step"));
let newest = 0;

function show() {
  const { label, note, items, chosen } = props.value;
  row.setAttribute("aria-label", label);
  const buttons = items.map((item) => {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    if (item.poster) {
      button.append(Object.assign(new Image(64, 64), { src: item.poster, alt: "" }));
      button.classList.add("portrait");
    }
    for (const [tag, text] of [["span", item.label], ["small", item.hint], ["small", item.cost]]) {
      if (text) button.append(Object.assign(document.createElement(tag), { textContent: text }));
    }
    if (chosen !== undefined) button.setAttribute("aria-pressed", String(item.key === chosen));
    button.addEventListener("click", () => pick(item.key));
    return button;
  });
  const said = note ? [Object.assign(document.createElement("p"), { textContent: note })] : [];
  const focused = [...row.querySelectorAll("button")].indexOf(document.activeElement);
  row.replaceChildren(...said, ...buttons);
  buttons[focused]?.focus();
}

// While an upload of the same step is on its way, a pick waits: what was chosen last shall stay.
async function pick(key) {
  const chooses = props.value.chosen !== undefined, mine = ++newest;
  if (!chooses) row.ariaBusy = "true";  // until the slot is filled: see `connect_form` in syncdiff/web/form_filling.py
  while (!chooses && uploading()) await new Promise((done) => setTimeout(done, 100));
  if (mine !== newest) return;
  props.value = { ...props.value, [chooses ? "chosen" : "picked"]: key };
  if (chooses) show();
  setTimeout(() => trigger("click", { key }));  // when gradio has the new value
}
watch("value", show);
show();
