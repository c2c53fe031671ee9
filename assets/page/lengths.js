// Seconds of each file, as far as this browser can tell: null for no file, or one it cannot play. A photo is 0.
async (video, photo, sound, film) => {
  const seconds = (file) => new Promise((answer) => {
    const url = file?.url ?? file?.video?.url;
    if (!url) return answer(null);
    const media = document.createElement("video");
    const end = () => answer(Number.isFinite(media.duration) && media.duration > 0 ? media.duration : null);
    media.preload = "metadata";
    media.onloadedmetadata = media.onerror = end;
    setTimeout(end, 5000);
    media.src = url;
  });
  return [[await seconds(video), photo ? 0 : null, await seconds(sound), await seconds(film)]];
}
