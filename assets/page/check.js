// What was found in a video: `props.value` is {of, title, sentences}. An answer about another video than the newest is dropped.
const place = element.querySelector(".view");
function show() {
  const { of, title, sentences } = props.value;
  if (of !== (window.suspect ?? null)) return;
  const card = Object.assign(document.createElement("div"), { className: "card" }), list = document.createElement("ul");
  card.setAttribute("role", "status");
  card.append(Object.assign(document.createElement("h2"), { textContent: title }), list);
  list.append(...sentences.map((sentence) => Object.assign(document.createElement("li"), { textContent: sentence })));
  place.replaceChildren(...(title ? [card] : []));
}
watch("value", show);
