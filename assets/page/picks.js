// A row of buttons: `props.value` is {label, items: [{key, label, poster}], chosen}. A click tells the key.
const row = element.querySelector(".picks");

function show() {
  const { label, items, chosen } = props.value;
  row.setAttribute("aria-label", label);
  row.replaceChildren(...items.map((item) => {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    if (item.poster) {
      button.append(Object.assign(new Image(64, 64), { src: item.poster, alt: "" }));
      button.classList.add("portrait");
    }
    button.append(Object.assign(document.createElement("span"), { textContent: item.label }));
    if (chosen !== undefined) button.setAttribute("aria-pressed", String(item.key === chosen));
    button.addEventListener("click", () => {
      row.ariaBusy = "true";  // until the server has answered: see `settled` in syncdiff/page/build.py
      trigger("click", { key: item.key });
    });
    return button;
  }));
}
watch("value", show);
show();
