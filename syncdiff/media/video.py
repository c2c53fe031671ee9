"""The pictures of an upload -> near-lossless H.264, upright, 8-bit, SDR. Runs inside the intake process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from syncdiff.errors import InputError
from syncdiff.media.clip import GOP, INDEX_RATE, PHOTO_RATE, READ_THREADS, Limits
from syncdiff.media.normalize import FrameNormalizer
from syncdiff.media.timestamps import clock

# Near-lossless, and quick to write and to read. A constant quantiser, because a constant rate factor spends less where
# it is hard: white noise comes out at 52.6 dB with qp 8, at 43.9 dB with crf 8. Real clips: 53 dB and more. Input that
# is clean H.264 already goes the same way: what the later rooms read was then written here, by an encoder we trust.
NEAR_LOSSLESS = {
    "preset": "ultrafast",
    "qp": "8",
    "g": str(GOP),
    "keyint_min": str(GOP),
    "sc_threshold": "0",
    "bf": "0",
}


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

    def keep(self, picture: av.VideoFrame) -> None:
        picture.pts, picture.time_base, picture.pict_type = self.count, 1 / INDEX_RATE, 0
        self.count += 1
        self._file.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._file.mux(self._stream.encode(None))
        self._file.close()


def read_video(
    container: av.container.InputContainer,
    name: str,
    folder: Path,
    limits: Limits,
    report: Callable[[float], None],
    *,
    until: float | None = None,
) -> dict[str, Any]:
    """Write picture.mp4 and times.npy; the facts about them. until: seconds after which to stop. Raises InputError."""
    stream = _moving_picture(container, name)
    _check_header(container, stream, name, limits)
    keeper, upright, ticks = None, None, []
    damage: list[str] = []
    for image in _decode(container, stream, limits, damage):
        ticks.append(_tick(image, stream, ticks))
        length = float((ticks[-1] - ticks[0]) * stream.time_base)
        if length > limits.seconds:
            raise InputError(f"{name} is longer than {limits.seconds:.0f} s, the most a video may last; cut it.")
        if len(ticks) > limits.seconds * limits.rate:
            most = limits.seconds * limits.rate
            raise InputError(f"{name} has more than {most:.0f} pictures, the most a video may have; cut it.")
        upright = upright or FrameNormalizer(image, stream)
        picture = upright(image)
        keeper = keeper or IntermediateWriter(folder / "picture.mp4", picture, upright.aspect)
        keeper.keep(picture)
        report(length)
        if until is not None and length >= until:
            break
    if keeper is None:
        most = f"larger than the {limits.pixels / 1e6:.0f} million pixels a picture may have"
        raise InputError(f"No picture can be decoded from {name}: it is damaged, or {most}; export it again as an mp4.")
    keeper.close()
    times, seconds, rate, steady = clock(ticks, stream.time_base, image.duration, stream.average_rate)
    if rate > limits.rate:
        raise InputError(
            f"{name} shows {float(rate):.0f} frames a second, and the most is {limits.rate:.0f}; slow it down."
        )
    np.save(folder / "times.npy", times)
    if damage:
        upright.notes.append(f"The video file is damaged; what could not be read was left out ({len(damage)} packets).")
    return {
        "start": 0.0 if _only_knows_order(stream) else float(ticks[0] * stream.time_base),
        "seconds": seconds,
        "rate": str(rate),
        "steady": steady,
        "photo": len(times) == 1,
        "promised": float(stream.duration * stream.time_base) if stream.duration else 0.0,
        "notes": upright.notes,
        **upright.facts(),
    }


def _moving_picture(container: av.container.InputContainer, name: str) -> av.video.VideoStream:
    cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        what = "holds sound but no picture" if container.streams.audio else "holds neither picture nor sound"
        raise InputError(f"{name} {what}; give a video or a photo here, and the voice in its own place.")
    if streams[0].codec_context is None:
        raise InputError(f"The picture of {name} is coded in a way that is not known here; export it as H.264.")
    return streams[0]


def _check_header(
    container: av.container.InputContainer, stream: av.video.VideoStream, name: str, limits: Limits
) -> None:
    """Spare everybody the wait where the header already says it is too much. What is decoded counts all the same."""
    check_size(stream.codec_context.width, stream.codec_context.height, name, limits)
    length = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / av.time_base
    if length > limits.seconds * 1.01 + 1:
        most = limits.seconds
        raise InputError(f"{name} lasts {length:.0f} s, and the most a video may last is {most:.0f} s; cut it.")


def check_size(width: int, height: int, name: str, limits: Limits) -> None:
    """Raise InputError for a picture that is too large."""
    if width * height > limits.pixels or max(width, height) > limits.side:
        raise InputError(
            f"{name} is {width}x{height}, and the most is {limits.pixels / 1e6:.0f} million pixels with no side over "
            f"{limits.side}; scale it down."
        )
    if width and height and min(width, height) < 16:
        raise InputError(f"{name} is {width}x{height}; at least 16x16 pixels are needed.")


def decode_what_can_be(
    container: av.container.InputContainer, stream: av.stream.Stream, damage: list[str]
) -> Iterator[Any]:
    """Frames of the stream. A packet that cannot be read or decoded is left out, and noted in `damage`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
                raise
            damage.append(str(error))


def _decode(
    container: av.container.InputContainer, stream: av.video.VideoStream, limits: Limits, damage: list[str]
) -> Iterator[av.VideoFrame]:
    context = stream.codec_context
    context.thread_type, context.thread_count = "AUTO", READ_THREADS
    context.options = {"max_pixels": str(limits.pixels)}
    yield from decode_what_can_be(container, stream, damage)


def _only_knows_order(stream: av.video.VideoStream) -> bool:
    """Avi says when frames are decoded, from 0 on; when they are shown, ffmpeg guesses, and wrongly with B-frames."""
    return stream.container.format.name == "avi"


def _tick(image: av.VideoFrame, stream: av.video.VideoStream, ticks: list[int]) -> int:
    """When the picture is shown, in the stream's ticks; always later than the one before."""
    step = image.duration or max(1, round(1 / (stream.time_base * (stream.guessed_rate or PHOTO_RATE))))
    shown = image.dts if _only_knows_order(stream) else image.pts
    if shown is None:
        return ticks[-1] + step if ticks else 0
    return shown if not ticks or shown > ticks[-1] else ticks[-1] + step


def read_photo(source: str, name: str, folder: Path, limits: Limits) -> dict[str, Any]:
    """Write picture.mp4 with one frame; the facts about it. Raises InputError."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # check_size does it before a pixel is decoded, and can say the size
    try:
        with Image.open(source, formats=("PNG", "JPEG", "WEBP")) as file:
            check_size(*file.size, name, limits)
            photo = ImageOps.exif_transpose(_srgb(file))
            if photo.mode.startswith("I"):  # 16-bit grey
                photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
            if photo.has_transparency_data:
                photo = photo.convert("RGBA")
                photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
            pixels = np.asarray(photo.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise InputError(f"{name} cannot be read as a photo: it is damaged or cut off; save it again.") from error
    image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    upright = FrameNormalizer(image, None)
    picture = upright(image)
    keeper = IntermediateWriter(folder / "picture.mp4", picture, upright.aspect)
    keeper.keep(picture)
    keeper.close()
    np.save(folder / "times.npy", np.zeros(1))
    facts = {"seconds": float(1 / PHOTO_RATE), "rate": str(PHOTO_RATE), "steady": True, "photo": True}
    return facts | {"notes": upright.notes, **upright.facts()}


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
