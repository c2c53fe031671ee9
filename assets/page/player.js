// Two videos, one clock: the result leads (it has the sound), the original follows. Side by side, or one over the other.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const original = part("original"), result = part("result"), play = part("play"), seek = part("seek");
const speed = part("speed"), loop = part("loop"), wipe = part("wipe"), stage = element.querySelector(".pair");
const PLAY = "M4 2.5v11l9-5.5z", PAUSE = "M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z";

const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const seconds = () => (Number.isFinite(result.duration) ? result.duration : 0);
const pressed = (button) => button.getAttribute("aria-pressed") === "true";
const press = (button, on) => button.setAttribute("aria-pressed", String(on));

function follow() {
  const ahead = original.currentTime - result.currentTime;
  if (Math.abs(ahead) > 0.25 && !original.seeking) original.currentTime = result.currentTime;
  // A nudge of the speed closes a small gap unseen; a seek would stutter. The original is mute, so nothing is heard.
  const nudge = Math.abs(ahead) < 0.02 ? 1 : 1 - Math.max(-0.5, Math.min(0.5, 4 * ahead));
  original.playbackRate = nudge * result.playbackRate;
  position();
  if (!result.paused && !result.ended) keepFollowing();
}

// One chain of frames at a time: a loop ends and begins again before the old chain has noticed.
let frame = 0;
function keepFollowing() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(follow);
}

function position() {
  const now = result.currentTime, end = seconds();
  seek.max = end || 1;
  seek.value = now;
  seek.style.setProperty("--done", `${end ? (100 * now) / end : 0}%`);
  seek.setAttribute("aria-valuetext", `${now.toFixed(1)} of ${end.toFixed(1)} seconds`);
  part("time").textContent = `${clock(now)} / ${clock(end)}`;
  playhead(now);
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
speed.addEventListener("change", () => { result.playbackRate = Number(speed.value); });
loop.addEventListener("click", () => press(loop, !pressed(loop)));
for (const video of [original, result]) video.addEventListener("click", () => play.click());
result.addEventListener("play", () => { button(); keepFollowing(); });
result.addEventListener("pause", () => { original.pause(); original.currentTime = result.currentTime; button(); });
result.addEventListener("ended", () => { if (pressed(loop)) play.click(); });
result.addEventListener("waiting", () => original.pause());
result.addEventListener("playing", () => original.play().catch(() => {}));
result.addEventListener("loadedmetadata", () => {
  stage.classList.toggle("tall", result.videoHeight > result.videoWidth);
  stage.style.setProperty("--shape", `${result.videoWidth} / ${result.videoHeight}`);
  result.playbackRate = Number(speed.value);
  drawTimeline();
  position();
});

// --- one over the other: the result to the right of a line that can be drawn across -------------------------------
const sides = [part("aside"), part("over")];
function compare(over) {
  if (over) result.pause();
  stage.classList.toggle("over", over);
  wipe.hidden = !over;
  sides.forEach((side, i) => press(side, over === Boolean(i)));
}
sides.forEach((side, i) => side.addEventListener("click", () => compare(Boolean(i))));
wipe.addEventListener("input", () => stage.style.setProperty("--at", `${wipe.value}%`));
