// Two videos, one clock: the one that is heard leads, the other follows. The result alone, side by side, or one over the other.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const original = part("original"), result = part("result"), play = part("play"), seek = part("seek");
const speed = part("speed"), loop = part("loop"), wipe = part("wipe"), stage = element.querySelector(".pair");
const PLAY = "M4 2.5v11l9-5.5z", PAUSE = "M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z";
let lead = result, other = original, mouth = [];

const finite = (number) => (Number.isFinite(number) ? number : 0);
const clock = (s) => `${Math.floor(finite(s) / 60)}:${String(Math.floor(finite(s) % 60)).padStart(2, "0")}`;
const seconds = () => finite(result.duration);
const pressed = (button) => button.getAttribute("aria-pressed") === "true";
const press = (button, on) => button.setAttribute("aria-pressed", String(on));

function follow() {
  const ahead = other.currentTime - lead.currentTime;
  if (Math.abs(ahead) > 0.25 && !other.seeking) other.currentTime = lead.currentTime;
  // A nudge of the speed closes a small gap unseen; a seek would stutter. The follower is mute, so nothing is heard.
  const nudge = Math.abs(ahead) < 0.02 ? 1 : 1 - Math.max(-0.5, Math.min(0.5, 4 * ahead));
  other.playbackRate = nudge * lead.playbackRate;
  position();
  if (!lead.paused && !lead.ended) keepFollowing();
}

// One chain of frames at a time: a loop ends and begins again before the old chain has noticed.
let frame = 0;
function keepFollowing() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(follow);
}

function position() {
  const now = lead.currentTime, end = seconds();
  seek.max = end || 1;
  seek.value = now;
  seek.style.setProperty("--done", `${end ? (100 * now) / end : 0}%`);
  seek.setAttribute("aria-valuetext", `${now.toFixed(1)} of ${end.toFixed(1)} seconds`);
  part("time").textContent = `${clock(now)} / ${clock(end)}`;
  if (pressed(part("zoom"))) aim(now);
  playhead(now);
}

function go(time) {
  result.currentTime = original.currentTime = Math.max(0, Math.min(seconds(), time));
  position();
}

function button() {
  const stopped = lead.paused || lead.ended;
  play.querySelector("path").setAttribute("d", stopped ? PLAY : PAUSE);
  play.setAttribute("aria-label", stopped ? "Play" : "Pause");
}

function start() {
  if (lead.ended) go(0);
  other.currentTime = lead.currentTime;
  other.play().catch(() => {});  // its play is broken off whenever the leader stalls, and taken up again
  lead.play().catch(button);
}

function hear(name) {
  const running = !lead.paused && !lead.ended;
  [original, result].forEach((video) => video.pause());
  [lead, other] = name === "original" ? [original, result] : [result, original];
  [lead.muted, other.muted] = [false, true];
  lead.playbackRate = Number(speed.value);
  part("sound").value = name;
  if (running) start();
}

play.addEventListener("click", () => (lead.paused || lead.ended ? start() : lead.pause()));
seek.addEventListener("input", () => go(Number(seek.value)));
speed.addEventListener("change", () => { lead.playbackRate = Number(speed.value); });
loop.addEventListener("click", () => press(loop, !pressed(loop)));
part("sound").addEventListener("change", (event) => hear(event.target.value));
part("volume").addEventListener("input", (event) => {
  original.volume = result.volume = Number(event.target.value);
  event.target.style.setProperty("--done", `${100 * event.target.value}%`);
});
part("full").addEventListener("click", () => {
  const full = document.fullscreenElement ? document.exitFullscreen() : part("frame").requestFullscreen?.();
  full?.catch(() => {});
  if (!part("frame").requestFullscreen) result.webkitEnterFullscreen?.();  // iPhones: the video alone
});
for (const video of [original, result]) {
  const leads = (then) => () => { if (video === lead) then(); };
  video.addEventListener("click", () => play.click());
  video.addEventListener("play", leads(() => { button(); keepFollowing(); }));
  video.addEventListener("pause", leads(() => { other.pause(); other.currentTime = lead.currentTime; button(); }));
  video.addEventListener("ended", leads(() => { if (pressed(loop)) start(); }));
  video.addEventListener("waiting", leads(() => other.pause()));
  video.addEventListener("playing", leads(() => other.play().catch(() => {})));
}
result.addEventListener("loadedmetadata", () => {
  stage.classList.toggle("tall", result.videoHeight > result.videoWidth);
  part("frame").style.setProperty("--shape", result.videoWidth / result.videoHeight);
  lead.playbackRate = Number(speed.value);
  drawTimeline();
  position();
});

// --- what is shown: the result alone, both side by side, or the result to the right of a line drawn across the face -----
const ways = ["alone", "aside", "over"];
function compare(way) {
  for (const name of ways) {
    stage.classList.toggle(name, name === way);
    press(part(name), name === way);
  }
  wipe.hidden = way !== "over";
}
for (const name of ways) part(name).addEventListener("click", () => compare(name));
function cutAt(percent) {
  wipe.value = percent;
  stage.style.setProperty("--at", `${percent}%`);
}
wipe.addEventListener("input", () => cutAt(wipe.value));

// --- the mouth: [second, x, y, width] of what was redrawn, in fractions of the picture --------------------------------
function mouthAt(time) {
  const after = mouth.findIndex((row) => row[0] > time);
  if (after < 1) return mouth.at(after);  // before the first or after the last
  const [one, other] = [mouth[after - 1], mouth[after]], part = (time - one[0]) / (other[0] - one[0]);
  return one.map((value, i) => value + part * (other[i] - value));
}
function aim(time) {
  const [, x, y, width] = mouthAt(time), scale = Math.min(8, Math.max(1, 0.7 / width));
  const shift = (at) => `${(100 * Math.min(0, Math.max(1 - scale, 0.5 - at * scale))).toFixed(2)}%`;
  for (const video of [original, result]) video.style.transform = `translate(${shift(x)}, ${shift(y)}) scale(${scale.toFixed(3)})`;
}
function zoom(on) {
  press(part("zoom"), on);
  if (on) aim(lead.currentTime);
  else for (const video of [original, result]) video.style.transform = "";
}
part("zoom").addEventListener("click", () => zoom(!pressed(part("zoom"))));
