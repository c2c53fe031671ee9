// Which answer may be shown. Each answer names what was asked; one that answers something else is dropped.
const path = (file) => file?.path ?? file?.video?.path ?? "";
const face_key = (video, photo) => path(video ?? photo);

// The faces of the file that is there now: those shown already, with the choice made among them, or those just found.
function faces(looked, video, photo, found) {
  const key = face_key(video, photo);
  return [found, looked].find((one) => one?.of === key) ?? { of: "", label: "", items: [] };
}

// The preset buttons, and what they cost for the files and settings that are there now.
function marks(row, steps) {
  return { ...row, chosen: String(steps) };
}
function costs(found, row, steps, ...now) {
  return marks(JSON.stringify(found.of) === JSON.stringify(now) ? found : row, steps);
}

const update = (changed) => ({ __type__: "update", ...changed });

// Examples lie in the rows of picks: [file, nothing in the other slot, the tab of the slot].
const file_of = (row, key) => row.items.find((item) => item.key === key)?.file ?? null;
const pick = (row, key, tab) => [file_of(row, key), null, update({ selected: tab })];
function pair(cancelled, faces, voices) {
  if (cancelled) return Array(6).fill(undefined);
  return [...pick(faces, window.example, "video"), ...pick(voices, window.example, "sound")];
}

// What a link asks for. What was touched before the answer came is newer than the link, and so is a press.
function link(asked, seen, faces, voices, began, video, photo, sound, film, ...settings) {
  if (!asked) return Array(9).fill(undefined);
  const free = (part, ...files) => {
    const step = document.querySelector(part)?.closest(".step");
    return !files.some(Boolean) && !window.arriving(step) && !step?.querySelector("[aria-busy]");
  };
  const face = asked.face && free("#face", video, photo) ? file_of(faces, asked.face) : undefined;
  const voice = asked.voice && free("#voice", sound, film) ? file_of(voices, asked.voice) : undefined;
  const [steps, ...others] = settings.map((now, i) => (asked.turned && now === began[i] ? asked.turned[i] : now));
  const range = { value: steps, maximum: Math.max(asked.most ?? 0, steps) }, labelled = others.at(-1);
  const promise = labelled === settings.at(-1) ? {} : { visible: !labelled };
  return [face, voice, update(range), ...others, update(promise), seen.state === "empty" ? asked.view : seen];
}
const buttons = (running) => [!running, !running, running].map((visible) => update({ visible }));
const TOO_MANY = {
  state: "error", title: "This did not work", message: "Too many people are here, or the connection broke. Please try once more.",
};

// A press is seen at once, before any server has answered: nobody has to press twice.
function begin_run() {
  const message = coming() ? "Your files are still on their way. It starts as soon as they are here." : "";
  return [{ state: "waiting", message }, ...buttons(true)];
}
// What is still uploading is not waited for any more. A run that began gives the buttons back when it has ended: another
// one that began before that would be ended with it.
function cancel() {
  window.asked++;
  return [{ state: "empty" }, ...(window.begun ? [undefined, undefined, undefined] : buttons(false)), true];
}
// A run ended without a word of the server: cancelled, gradio itself was full, or the connection broke.
function ended(seen, cancelled) {
  const unsaid = ["waiting", "running"].includes(seen.state);
  return [cancelled ? { state: "empty" } : unsaid ? TOO_MANY : seen, ...buttons(false)];
}

// The promise that goes with a video without the label.
function promise(labelled) {
  return update({ visible: !labelled, value: false });
}

// A trial takes the frame at which the player of the face was left; none where nobody touched it.
function begin_trial() {
  const ticket = (window.ticket = (window.ticket ?? 0) + 1);
  return [{ state: "looking", ticket }, ticket, document.querySelector("#face video")?.currentTime || null];
}
function trial(tried, seen) {
  return seen.state === "looking" && seen.ticket === tried.ticket ? tried : seen;
}
function failed_trial(seen) {
  return seen.state === "looking" ? TOO_MANY : seen;
}

// A part of the form was filled in or changed: what was said of it, or is being tried with it, no longer holds.
function given(where, seen) {
  const outdated = seen.where === where || (seen.state === "looking" && ["face", "voice"].includes(where));
  return outdated ? { state: "empty" } : seen;
}
