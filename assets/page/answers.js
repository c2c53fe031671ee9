// Which answer may be shown. Each answer names what was asked; one that answers something else is dropped.
const path = (file) => file?.path ?? file?.video?.path ?? "";
const face_key = (video, photo) => path(video ?? photo);

// The faces of the file that is there now: those shown already, with the choice made among them, or those just found.
function faces(looked, video, photo, found) {
  const key = face_key(video, photo);
  return [found, looked].find((one) => one?.of === key) ?? { of: "", label: "", items: [] };
}

// The presets as marks on the slider.
function marks(row, steps) {
  return { ...row, chosen: String(steps) };
}

// A trial takes the frame at which the player of the face was left; none where nobody touched it.
function begin_trial() {
  const ticket = (window.ticket = (window.ticket ?? 0) + 1);
  return [{ state: "looking", ticket }, ticket, document.querySelector("#face video")?.currentTime || null];
}
function trial(tried, seen) {
  return seen.state === "looking" && seen.ticket === tried.ticket ? tried : seen;
}
function failed_trial(tried, seen) {
  return seen.state === "looking" ? tried : seen;
}

// A part of the form was filled in or changed: what was said of it, or is being tried with it, no longer holds.
function given(where, seen) {
  const outdated = seen.where === where || (seen.state === "looking" && ["face", "voice"].includes(where));
  return outdated ? { state: "empty" } : seen;
}
