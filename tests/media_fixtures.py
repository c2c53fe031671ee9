"""Clips and sounds for the tests, made with PyAV: each frame carries its number, each sound a click at a known time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import soundfile

BITS = 8  # of the number in every frame, one block each, most significant first
BLOCK = 16  # pixels


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """A [H,W,3] uint8 picture: `number` as white and black blocks along the top, a fixed coloured slope below."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([40 + 150 * x / width, 40 + 150 * y / height, np.full(x.shape, 90.0)], axis=-1).astype(np.uint8)
    for bit in range(BITS):
        picture[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> (BITS - 1 - bit) & 1 else 16
    return picture


def number_in(rgb: np.ndarray) -> int:
    """The number that numbered() wrote, read from the middles of the blocks."""
    middles = rgb[BLOCK // 2, BLOCK // 2 : BITS * BLOCK : BLOCK].mean(axis=-1)
    return int("".join("1" if value > 128 else "0" for value in middles), 2)


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Undo what SVT-AV1 does where root runs it: it makes the calling thread, and so all that is started from it later,
    real-time. A browser of a later test then starves the server that it waits for, for ever."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


@ordinary_priority()
def make_video(
    path: Path,
    frames: int | Iterable[np.ndarray | av.VideoFrame] = 25,
    *,
    size: tuple[int, int] = (160, 96),
    rate: Fraction | int = 25,
    ticks: Sequence[int] | None = None,
    unit: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    colour: tuple[int, int, int, int] | None = None,
    clicks: Sequence[float] | None = None,
    sound: dict[str, object] | None = None,
    sound_from: float = 0.0,
    sound_for: float | None = None,
    format: str | None = None,  # noqa: A002
    container_options: dict[str, str] | None = None,
) -> Path:
    """A video at `path`.

    ticks x unit: when each frame is shown (default: i / rate). colour: matrix, primaries, transfer, range (H.273).
    clicks: seconds at which the sound clicks. It lasts as long as the video, or sound_for seconds, and is laid on
    sound_from seconds later; sound: what make_track takes beside."""
    pictures = [numbered(i, *size) for i in range(frames)] if isinstance(frames, int) else frames
    unit = unit or 1 / Fraction(rate)
    with av.open(str(path), "w", format=format, options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = unit
        if colour:
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = colour
        last = 0
        waiting = []
        voice = make_track(out, **(sound or {})) if clicks is not None else None
        for i, picture in enumerate(pictures):
            image = picture if isinstance(picture, av.VideoFrame) else to_yuv(picture, pix_fmt, colour)
            if not i:
                context.width, context.height = image.width, image.height
            last = i if ticks is None else ticks[i]
            image.pts, image.time_base = last, unit
            waiting += stream.encode(image)
        waiting += stream.encode(None)
        if voice:
            seconds = sound_for or float((last + 1) * unit)
            waiting += track_packets(
                voice, click_sound(seconds, clicks, voice.rate, len(voice.layout.channels)), sound_from
            )
        for packet in sorted(waiting, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


def to_yuv(rgb: np.ndarray, pix_fmt: str, colour: tuple[int, int, int, int] | None) -> av.VideoFrame:
    """RGB picture -> frame of the pixel format, by the matrix that `colour` (or BT.601) names."""
    matrix = {1: 1, 9: 9}.get(colour[0] if colour else 6, 5)
    full = colour[3] if colour else 1
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    if pix_fmt in {"rgb24", "gbrp", "bgr0", "bgr24"}:
        return image.reformat(format=pix_fmt)
    return image.reformat(format=pix_fmt, src_color_range=2, dst_colorspace=matrix, dst_color_range=full)


def click_sound(seconds: float, clicks: Sequence[float], rate: int, channels: int) -> np.ndarray:
    """[N,channels] int16: faint noise, and at each of `clicks` a burst of 2 ms."""
    rng = np.random.default_rng(7)
    samples = rng.normal(0, 30, (round(seconds * rate), channels))
    for click in clicks:
        start = round(click * rate)
        samples[start : start + max(8, rate // 500)] += 20_000
    return np.clip(samples, -32768, 32767).astype(np.int16)


LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def make_track(
    out: av.container.OutputContainer, codec: str = "aac", rate: int = 48_000, channels: int = 1
) -> av.audio.AudioStream:
    """An audio stream in the container."""
    return out.add_stream(codec, rate=rate, layout=LAYOUTS[channels])


def track_packets(stream: av.audio.AudioStream, samples: np.ndarray, start: float = 0.0) -> list[av.Packet]:
    """The encoded sound, shown from `start` seconds on."""
    packets = []
    rate, layout = stream.rate, stream.layout.name
    for at in range(0, len(samples), 4096):
        part = np.ascontiguousarray(samples[at : at + 4096]).reshape(1, -1)
        sound = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
        sound.sample_rate, sound.pts, sound.time_base = rate, at + round(start * rate), Fraction(1, rate)
        packets += stream.encode(sound)
    return packets + stream.encode(None)


def make_sound(
    path: Path,
    seconds: float = 2.0,
    clicks: Sequence[float] = (1.0,),
    *,
    codec: str = "pcm_s16le",
    rate: int = 48_000,
    channels: int = 1,
    samples: np.ndarray | None = None,
    format: str | None = None,  # noqa: A002
    language: str = "und",
    title: str = "",
    container_options: dict[str, str] | None = None,
) -> Path:
    """A sound file: faint noise with clicks, or the samples given ([N,channels] int16)."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as out:
        stream = make_track(out, codec, rate, channels)
        stream.metadata.update({"language": language, "title": title})
        given = click_sound(seconds, clicks, rate, channels) if samples is None else samples
        for packet in track_packets(stream, given):
            out.mux(packet)
    return path


def click_at(samples: np.ndarray, rate: int, after: float = 0.0) -> float:
    """The second at which the first click after `after` starts: where the sound first passes half its peak."""
    from_there = np.abs(samples[round(after * rate) :])
    return after + int(np.argmax(from_there > 0.5 * from_there.max())) / rate


def decode(path: Path) -> tuple[list[av.VideoFrame], np.ndarray, int]:
    """(frames, sound [N,channels] float32, rate) by PyAV, apart from the code under test. Sound starts at time 0."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, np.zeros((0, 1), np.float32), 0
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="flt", rate=rate)
        sounds = list(container.decode(audio=0))
        parts = [part.to_ndarray() for sound in sounds for part in resampler.resample(sound)]
    channels = len(sounds[0].layout.channels)
    samples = np.concatenate([part.reshape(-1, channels) for part in parts])
    start = round(sounds[0].time * rate)
    return frames, np.pad(samples, ((max(0, start), 0), (0, 0)))[max(0, -start) :], rate


def rgb_frames(path: Path) -> np.ndarray:
    """[T,H,W,3] uint8 of a video."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shrunk_video(source: Path, out: Path, frames: int, side: int) -> Path:
    """The first frames of a video as a square one of `side` px, without sound."""
    with av.open(str(source)) as container:
        images = [frame.reformat(side, side, "yuv420p") for frame in islice(container.decode(video=0), frames)]
    return make_video(out, images, options={"crf": "10"})


def part_of_sound(source: Path, out: Path, seconds: float, start: float = 0.0) -> Path:
    """A part of a sound file as wav."""
    samples, rate = soundfile.read(source)
    soundfile.write(out, samples[round(start * rate) :][: round(seconds * rate)], rate)
    return out


def without_sound(source: Path, out: Path) -> Path:
    """The pictures of a video, packet by packet, without its sound."""
    with av.open(str(source)) as container, av.open(str(out), "w") as silent:
        stream = silent.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(container.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                silent.mux(packet)
    return out


def turn_in_file(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix (a, b, c, d of ISO 14496-12, 6.2.2) into the first video track of an mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    assert data[at] == 0, "a version 0 track header was expected"
    a, b, c, d = (value * 65536 for value in matrix)
    data[at + 40 : at + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def planted(image: av.VideoFrame) -> list[np.ndarray]:
    """The planes of an 8-bit planar frame, as [h,w] uint8."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in image.planes
    ]


def luma(image: av.VideoFrame) -> np.ndarray:
    """[H,W] uint8, the frame's first plane."""
    plane = image.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: image.height, : image.width]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB, of 8-bit pictures."""
    error = np.mean(np.square(a.astype(np.float64) - b))
    return float("inf") if not error else 10 * np.log10(255**2 / error)
