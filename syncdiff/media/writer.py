"""Writes the finished mp4: frames with patches, encoded once at the source's size, timing and colour, and the voice."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.container
import av.error
import av.video
import numpy as np
import soundfile

from syncdiff.media.clip import LAYOUTS, Clip, Frame, Patch, Speech, sws_matrix, to_rgb
from syncdiff.media.extras import Extras, ExtrasWriter
from syncdiff.media.timeline import Timeline

# Luma of six real clips, 40 frames each: 46.3 to 54.1 dB, 44.8 in the worst frame. Superfast at crf 15 gives 45.5 to
# 54.3 and 44.0 dB for 1.7 times the CPU and 0.8 times the bytes; of a film of 720p 21 ms a frame instead of 10. Without
# B-frames that film takes 1.4 times the bytes.
FINAL = {"preset": "ultrafast", "crf": "14", "coder": "ac", "bf": "3", "b_strategy": "0"}
PREVIEW = {"preset": "ultrafast", "crf": "18"}
FINE_TICK = Fraction(1, 90_000)  # seconds: time base of a video whose frame rate varies
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
GREY_LEVELS = 2  # chroma of a grey picture differs from 128 by no more
MAX_ROUNDING = 2  # levels of luma that conversion to RGB and back may lose; more is a colour outside RGB
SOUND_BITS = 96_000  # per second and channel


class ClipWriter:
    """A context manager: `with ClipWriter(path, clip, timeline, speech) as out: out.write(frame, time, *patches)`.

    Writes beside `path` and moves the file there when it is whole; after an exception nothing is left."""

    def __init__(
        self,
        path: Path,
        clip: Clip,
        timeline: Timeline,
        speech: Speech | None,
        *,
        scale_to: int | None = None,
    ) -> None:
        """scale_to: px; writes a preview that every player plays, its longer side at most this long."""
        self.path = Path(path)
        self._part = self.path.with_name(self.path.name + ".part")
        self._size = _output_size(clip, scale_to)
        self._tick = 1 / timeline.rate if timeline.steady else FINE_TICK
        self._ends = np.append(timeline.times[1:], timeline.seconds)
        self._durations: dict[int, int] = {}  # of the frames inside the encoder: tick -> ticks shown
        self._file = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
        self._picture = self._add_picture(clip, timeline, FINAL if scale_to is None else PREVIEW)
        self._voice = VoiceWriter(self._file, speech, timeline.seconds) if speech else None
        extras = clip.extras.until(timeline.seconds) if scale_to is None else Extras()
        self._extras = ExtrasWriter(self._file, extras, self._picture)

    def _add_picture(self, clip: Clip, timeline: Timeline, settings: dict[str, str]) -> av.video.VideoStream:
        # With B-frames, mp4 stores durations of decoding times, which at a varying rate differ from those shown.
        options = settings if timeline.steady else {**settings, "bf": "0"}
        stream = self._file.add_stream("libx264", rate=timeline.rate, options=dict(options))
        context = stream.codec_context
        (context.width, context.height), even = self._size, not (self._size[0] % 2 or self._size[1] % 2)
        context.pix_fmt = "yuv420p" if even else "yuv444p"
        context.time_base = stream.time_base = self._tick
        context.sample_aspect_ratio = clip.pixel_aspect
        colour = clip.colour
        context.colorspace, context.color_range = colour.matrix, 2 if colour.full else 1
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        return stream

    def write(self, frame: Frame, time: float, *patches: Patch | None) -> None:
        """Write the frame, shown from `time` on (s, on the timeline), with the patches in place of its own pixels.

        A later patch covers an earlier one; None is no patch."""
        image = copy_frame(frame.image)
        for patch in patches:
            if patch is not None:
                lay_patch(image, patch)
        if (image.width, image.height) != self._size:
            image = image.reformat(*self._size, format="yuv420p", interpolation="AREA")
        tick = round(Fraction(time) / self._tick)
        end = self._ends[np.searchsorted(self._ends, time, side="right")]
        self._durations[tick] = max(1, round(Fraction(end) / self._tick) - tick)
        image.pts, image.time_base, image.pict_type = tick, self._tick, 0
        self._mux(image)
        self._extras.write_until(time + 1.0)
        if self._voice:
            self._voice.write_until(time + 1.0)

    def _mux(self, image: av.VideoFrame | None) -> None:
        for packet in self._picture.encode(image):
            packet.duration = self._durations.pop(packet.pts or 0)
            self._file.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._mux(None)
                if self._voice:
                    self._voice.finish()
                self._file.close()
                self._part.replace(self.path)
            else:
                with suppress(av.error.FFmpegError):  # on a full disk the end cannot be written either
                    self._file.close()
        finally:
            if self._voice:
                self._voice.source.close()
            self._part.unlink(missing_ok=True)


class VoiceWriter:
    """Writes the sound track: the voice, then silence up to the end of the picture."""

    def __init__(self, file: av.container.OutputContainer, speech: Speech, seconds: float) -> None:
        self._file = file
        self.source = soundfile.SoundFile(speech.path)  # closed by the ClipWriter
        self._rate = speech.rate
        self._total, self._written = round(seconds * speech.rate), 0
        rate = min(AAC_RATES, key=lambda known: abs(known - speech.rate))
        layout = LAYOUTS[speech.channels]
        self._stream = file.add_stream("aac", rate=rate, layout=layout)
        self._stream.bit_rate = SOUND_BITS * speech.channels
        self._layout = layout
        speech.tags.write(self._stream)

    def write_until(self, seconds: float) -> None:
        """Encode the sound up to that second, so that picture and sound are interleaved in the file."""
        while self._written < min(self._total, round(seconds * self._rate)):
            count = min(8192, self._total - self._written)
            block = self.source.read(count, dtype="int16", always_2d=True, fill_value=0).reshape(-1)
            sound = av.AudioFrame.from_ndarray(block[None], format="s16", layout=self._layout)  # pyright: ignore[reportArgumentType] -- int16 is meant
            sound.sample_rate, sound.pts, sound.time_base = self._rate, self._written, Fraction(1, self._rate)
            self._written += count
            self._file.mux(self._stream.encode(sound))

    def finish(self) -> None:
        """Encode the rest, and flush the encoder."""
        self.write_until(self._total / self._rate)
        self._file.mux(self._stream.encode(None))


def _output_size(clip: Clip, scale_to: int | None) -> tuple[int, int]:
    if scale_to is None:
        return clip.width, clip.height
    scale = min(1.0, scale_to / max(clip.width, clip.height))
    return max(2, round(clip.width * scale / 2) * 2), max(2, round(clip.height * scale / 2) * 2)


def planes(image: av.VideoFrame) -> list[np.ndarray]:
    """The planes of an 8-bit planar frame as [h,w] uint8 arrays that share its memory."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]  # pyright: ignore[reportCallIssue, reportArgumentType]
        for plane in image.planes
    ]


def copy_frame(image: av.VideoFrame) -> av.VideoFrame:
    """A copy with its own memory."""
    copy = av.VideoFrame(image.width, image.height, image.format.name)
    for target, source in zip(planes(copy), planes(image), strict=True):
        target[:] = source
    copy.colorspace, copy.color_range = image.colorspace, image.color_range
    copy.color_primaries, copy.color_trc = image.color_primaries, image.color_trc
    return copy


def lay_patch(image: av.VideoFrame, patch: Patch) -> None:
    """Change the planes of a frame where the patch differs from it; chroma only where its 2x2 block lies in the patch.

    Pixels that the patch does not change stay exact. What conversion to RGB and back loses of the frame's luma is
    added again: without that, a patch came out 1.1 levels darker than the frame around it (swscale rounds down both
    ways). Grey frames stay grey: a black and white film, or the dark end of a fade. Raises ValueError for a patch that
    leaves the frame."""
    import cv2  # here: the decode worker imports this package and does not need it

    step = image.width // image.planes[1].width  # 2 for 4:2:0, 1 for 4:4:4
    h, w = patch.rgb.shape[:2]
    y, x = patch.y, patch.x
    if min(y, x, h - 1, w - 1) < 0 or y + h > image.height or x + w > image.width:
        raise ValueError(f"a patch of {w}x{h} at {x},{y} leaves the frame of {image.width}x{image.height}")
    top, left = y // step * step, x // step * step
    part = av.VideoFrame(-(-(x + w) // step) * step - left, -(-(y + h) // step) * step - top, image.format.name)
    part.color_range = image.color_range
    for target, source, s in zip(planes(part), planes(image), (1, step, step), strict=True):
        target[:] = source[top // s : top // s + target.shape[0], left // s : left // s + target.shape[1]]
    matrix = sws_matrix(image.colorspace, image.height)
    rgb = to_rgb(part, matrix)
    before = _to_yuv(rgb, part, matrix)
    rgb[y - top : y - top + h, x - left : x - left + w] = patch.rgb
    after = _to_yuv(rgb, part, matrix)
    for i, (plane, old, new) in enumerate(zip(planes(image), planes(before), planes(after), strict=True)):
        s = step if i else 1
        rows, columns = slice(-(-y // s), (y + h) // s), slice(-(-x // s), (x + w) // s)
        area = plane[rows, columns]
        if i and (not area.size or int(np.abs(area.astype(np.int16) - 128).max()) <= GREY_LEVELS):
            continue  # grey
        y0, x0 = rows.start - top // s, columns.start - left // s
        inner = slice(y0, y0 + area.shape[0]), slice(x0, x0 + area.shape[1])
        shown, changed = new[inner], cv2.compare(new[inner], old[inner], cv2.CMP_NE)
        if not i:
            lost = cv2.subtract(area, old[inner], dtype=cv2.CV_16S)
            lost = cv2.min(cv2.max(lost, -MAX_ROUNDING), MAX_ROUNDING)  # pyright: ignore[reportCallIssue, reportArgumentType]
            shown = cv2.add(shown, lost, dtype=cv2.CV_8U)
        cv2.copyTo(shown, changed, area)


def _to_yuv(rgb: np.ndarray, like: av.VideoFrame, matrix: int) -> av.VideoFrame:
    """[H,W,3] uint8 RGB in the pixel format and range of the picture `like`. matrix: swscale's number."""
    height, width = rgb.shape[:2]
    picture = av.VideoFrame(width, height, "rgb24")
    rows = np.frombuffer(picture.planes[0], np.uint8).reshape(height, -1)  # pyright: ignore[reportCallIssue, reportArgumentType]
    rows[:, : 3 * width] = rgb.reshape(height, -1)  # ten times as fast as from_ndarray where rows are padded
    return picture.reformat(
        format=like.format.name.replace("yuvj", "yuv"),
        src_color_range=2,
        dst_colorspace=matrix,
        dst_color_range=2 if like.color_range == 2 else 1,
        threads=1,
    )
