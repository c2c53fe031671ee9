"""The pictures of an upload -> near-lossless H.264, upright, 8-bit, SDR. Runs in the decode worker."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import av.video
import numpy as np

from syncdiff.errors import InputError
from syncdiff.media.clip import GOP, INDEX_RATE, PHOTO_RATE
from syncdiff.media.normalize import FrameNormalizer
from syncdiff.media.request import DecodeRequest, Limits
from syncdiff.media.streams import decode_pictures
from syncdiff.media.timestamps import StreamClock, frame_times, lacks_pts

# Near-lossless, and quick to write and to read. A constant quantiser, because a constant rate factor spends less on
# difficult frames: white noise comes out at 52.6 dB with qp 8, at 43.9 dB with crf 8. Real clips: 53 dB and more. Clean
# H.264 is encoded again as well, so that everything that is read later was written by this encoder.
NEAR_LOSSLESS = {"preset": "ultrafast", "qp": "8", "bf": "0"}
NEAR_LOSSLESS |= {"g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0"}  # key frames every GOP frames
MAX_LOST_SECONDS = 0.3  # of picture that may be missing at the start without a note


class IntermediateWriter:
    """Writes the normalised file: picture i at tick i."""

    def __init__(self, path: Path, first: av.VideoFrame, aspect: Fraction) -> None:
        self._file = av.open(str(path), "w", format="mp4")
        self._stream = self._file.add_stream("libx264", rate=INDEX_RATE, options=dict(NEAR_LOSSLESS))
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
        context.time_base = 1 / INDEX_RATE
        context.colorspace, context.color_range = first.colorspace, first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        context.sample_aspect_ratio = aspect
        self.count = 0

    def write(self, picture: av.VideoFrame) -> None:
        picture.pts, picture.time_base, picture.pict_type = self.count, 1 / INDEX_RATE, 0
        self.count += 1
        self._file.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._file.mux(self._stream.encode(None))
        self._file.close()


class PictureWriter:
    """Normalises pictures and writes them with their times: picture.mp4 and times.npy."""

    def __init__(self, request: DecodeRequest, unit: Fraction) -> None:
        """unit: seconds per tick of `write`."""
        self._request, self._folder, self._unit = request, Path(request.folder), unit
        self._normalizer: FrameNormalizer | None = None
        self._writer: IntermediateWriter | None = None
        self._last_duration = 0
        self.ticks: list[int] = []

    @property
    def length(self) -> float:
        """Seconds from the first picture to the start of the last."""
        return float((self.ticks[-1] - self.ticks[0]) * self._unit) if self.ticks else 0.0

    def write(self, image: av.VideoFrame, tick: int, stream: av.video.VideoStream | None) -> None:
        """Write a picture that is shown at `tick`. Raises InputError where the video is too long."""
        self.ticks.append(tick)
        self._last_duration = image.duration
        name, seconds = self._request.name, self._request.limits.seconds
        most = seconds * self._request.limits.rate
        if self.length > seconds:
            raise InputError(f"{name} is longer than {seconds:.0f} s, the most a video may last; cut it.")
        if len(self.ticks) > most:
            raise InputError(f"{name} has more than {most:.0f} pictures, the most a video may have; cut it.")
        self._normalizer = self._normalizer or FrameNormalizer(image, stream, self._request.clockwise)
        image.pts = len(self.ticks)  # filters require increasing times
        image.time_base = Fraction(1, 1000)
        self._encode(self._normalizer.push(image))

    def _encode(self, pictures: list[av.VideoFrame]) -> None:
        for picture in pictures:
            path, aspect = self._folder / "picture.mp4", self._normalizer.aspect  # pyright: ignore[reportOptionalMemberAccess]
            self._writer = self._writer or IntermediateWriter(path, picture, aspect)
            self._writer.write(picture)

    def finish(self, average: Fraction | None) -> dict[str, Any]:
        """Finish the files, of at least one picture; returns facts about them.

        average: the frame rate that the container states. Raises InputError for a frame rate above the limit."""
        self._encode(self._normalizer.flush())  # pyright: ignore[reportOptionalMemberAccess]
        self._writer.close()  # pyright: ignore[reportOptionalMemberAccess]
        times, seconds, rate, steady = frame_times(self.ticks, self._unit, self._last_duration, average)
        if rate > self._request.limits.rate:
            shown = f"{self._request.name} shows {float(rate):.0f} frames a second"
            raise InputError(f"{shown}, and the most is {self._request.limits.rate:.0f}; slow it down.")
        np.save(self._folder / "times.npy", times)
        facts = {"seconds": seconds, "rate": str(rate), "steady": steady, "photo": len(times) == 1}
        return facts | {"notes": self._normalizer.notes, **self._normalizer.facts()}  # pyright: ignore[reportOptionalMemberAccess]


def read_video(
    request: DecodeRequest,
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    clock: StreamClock,
    report: Callable[[float], None],
) -> dict[str, Any]:
    """Write picture.mp4 and times.npy; returns facts about them. Raises InputError.

    Among the facts, "start" is the time of the first picture on the file's clock, s, and "lost" the seconds before it
    that could not be decoded. report: is called with the seconds decoded so far."""
    limits, until = request.limits, request.until
    writer, damage = PictureWriter(request, stream.time_base or Fraction(1, 1000)), []
    for image in decode_pictures(container, stream, limits, damage):
        writer.write(image, _tick(image, stream, clock, writer.ticks), stream)
        report(writer.length)
        if until is not None and writer.length >= until:
            break
    if not writer.ticks:
        most = f"needs more than {limits.pixels / 1e6:.0f} million pixels or {limits.memory >> 20} MiB of memory"
        raise InputError(
            f"No picture can be decoded from {request.name}: it is damaged, or {most}; export it again as an mp4."
        )
    facts = writer.finish(stream.average_rate)
    start = float(writer.ticks[0] * (stream.time_base or 0))
    lost = start - (clock.start if clock.start is not None else start)
    if lost > MAX_LOST_SECONDS and until is None:
        why = "the recording begins between two key frames" if clock.first_key != clock.stretches[0].low else "damaged"
        facts["notes"].append(f"The first {lost:.2f} s of the video have no picture that can be decoded: {why}.")
    if damage and not lost > MAX_LOST_SECONDS:
        left_out = f"what could not be read was left out ({len(damage)} packets)"
        facts["notes"].append(f"The video file is damaged; {left_out}.")
    return facts | {"start": 0.0 if lacks_pts(container) else start, "lost": max(0.0, lost)}


def check_length(request: DecodeRequest, seconds: float) -> None:
    """Raise InputError for a video that is too long by its packets' times."""
    name, most = request.name, request.limits.seconds
    if seconds > most * 1.01 + 1:
        raise InputError(f"{name} lasts {seconds:.0f} s, and the most a video may last is {most:.0f} s; cut it.")


def check_size(width: int, height: int, name: str, pixels: int, side: int) -> None:
    """Raise InputError for a picture that is too large, or too small to hold a face."""
    if width * height > pixels or max(width, height) > side:
        known = "4096x2160 (4K) fits; " if pixels < 4320 * 7680 else ""
        raise InputError(
            f"{name} is {width}x{height}, and the most is {pixels / 1e6:.0f} million pixels with no side over {side}: "
            f"{known}scale it down."
        )
    if width and height and min(width, height) < 16:
        raise InputError(f"{name} is {width}x{height}; at least 16x16 pixels are needed.")


def _tick(image: av.VideoFrame, stream: av.video.VideoStream, clock: StreamClock, ticks: list[int]) -> int:
    """When the picture is shown, in the stream's ticks without jumps; always later than the one before."""
    step = image.duration or max(1, round(1 / ((stream.time_base or 1) * (stream.guessed_rate or PHOTO_RATE))))
    shown = image.dts if lacks_pts(stream.container) else image.pts
    tick = None if shown is None else clock(shown)
    if not ticks:
        return tick or 0
    return tick if tick is not None and tick > ticks[-1] else ticks[-1] + step


def read_picture(request: DecodeRequest, report: Callable[[float], None]) -> dict[str, Any]:
    """Write picture.mp4 and times.npy of a photo, or of an animated GIF, WebP, PNG or AVIF; returns facts about them.

    A photo of more than limits.pixels is scaled down. report: is called with the seconds decoded so far. Raises
    InputError."""
    from PIL import Image

    name, limits, until = request.name, request.limits, request.until
    Image.MAX_IMAGE_PIXELS = None  # check_size does it before a pixel is decoded, and can say the size
    writer = PictureWriter(request, Fraction(1, 1000))
    notes: list[str] = []
    try:
        with Image.open(request.source, formats=("PNG", "JPEG", "WEBP", "GIF", "AVIF")) as file:
            animated = getattr(file, "n_frames", 1) > 1 and file.format != "JPEG"  # in a JPEG, another view
            check_size(*file.size, name, limits.pixels if animated else limits.photo_pixels, limits.photo_side)
            tick = 0
            for i in range(file.n_frames if animated else 1):  # pyright: ignore[reportAttributeAccessIssue]
                if animated:
                    file.seek(i)
                pixels = _opaque(file, limits, notes)
                image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                duration = round(file.info.get("duration") or 0) if animated else 0  # ms
                image.duration = duration if duration > 10 else 100  # browsers too take 10 ms or less as 100
                writer.write(image, tick, None)
                tick += image.duration
                report(writer.length)
                if until is not None and writer.length >= until:
                    break
    except (OSError, SyntaxError) as error:
        if not writer.ticks:
            raise InputError(f"{name} cannot be read as a photo: it is damaged or cut off; save it again.") from error
        notes.append(f"The animation is damaged; its first {len(writer.ticks)} pictures were taken.")
    facts = writer.finish(None)
    if not facts["photo"]:
        facts["seconds"] = tick / 1000 if not facts["steady"] else facts["seconds"]
        notes.append(f"The picture moves: it was read as a video of {facts['seconds']:.2f} s.")
    return facts | {"notes": list(dict.fromkeys([*facts["notes"], *notes]))}


def _opaque(file: Any, limits: Limits, notes: list[str]) -> np.ndarray:
    """The open picture as [H,W,3] uint8 sRGB, upright, on white, of at most limits.pixels."""
    from PIL import Image, ImageOps

    width, height = file.size
    scale = min(1.0, (limits.pixels / (width * height)) ** 0.5)
    if scale < 1:
        size = tuple(int(side * scale) // 2 * 2 for side in (width, height))
        file.draft(None, size)  # a JPEG is then decoded at a half or a quarter, not below this size
        photo = file.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        photo.info = file.info
        notes.append(f"The photo was scaled down from {width}x{height} to {size[0]}x{size[1]}.")
    else:
        photo = file
    photo = ImageOps.exif_transpose(_srgb(photo))
    if photo.mode.startswith("I"):  # 16-bit grey
        photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        if photo.getextrema()[3][0] < 255:  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
            notes.append("The picture has transparent parts; they were laid on white.")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.asarray(photo.convert("RGB"))


def _srgb(photo: Any) -> Any:
    """The photo in sRGB where it says what colours it is in (phones save Display P3)."""
    from io import BytesIO

    from PIL import ImageCms

    profile = photo.info.get("icc_profile")
    if not profile or photo.mode not in {"RGB", "RGBA"}:
        return photo
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(photo, source, target, outputMode=photo.mode) or photo
    except (ImageCms.PyCMSError, OSError):
        return photo  # a broken profile: the pixels as they are
