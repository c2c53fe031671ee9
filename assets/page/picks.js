// A row of buttons: `props.value` is {label, note, items: [{key, label, poster, hint, cost}], chosen}. A click tells the key.
const row = element.querySelector(".picks");
const uploading = () => row.closest(".step")?.querySelector(".uploading");
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

// A choice among what is there is made here. A pick that brings a file is answered by the server; while an upload of
// the same step is on its way it waits, for what was chosen last shall stay.
async function pick(key) {
  if (props.value.chosen !== undefined) {
    props.value = { ...props.value, chosen: key };
    show();
    return setTimeout(() => trigger("click", { key }));  // when gradio has the new value
  }
  const mine = ++newest;
  row.ariaBusy = "true";  // until the server has answered: see `settled` in syncdiff/web/build.py
  while (uploading()) await new Promise((done) => setTimeout(done, 100));
  if (mine === newest) trigger("click", { key });
}
watch("value", show);
show();
