"""Reads the normalised files that the decode worker wrote: frames, samples and their times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import av.container
import numpy as np
import soundfile

from syncdiff.audio import SAMPLE_RATE
from syncdiff.media.extras import Extras, TrackTags

INDEX_RATE = Fraction(25)  # frames a second of every normalised file; the real times are in Clip.times
READ_THREADS = 4  # decoder threads, each of which holds a frame
GOP = 12  # frames from key frame to key frame of a normalised file; reading backwards holds as many in memory
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # by channel count
PHOTO_RATE = Fraction(25)  # frames per second of a still photo


@dataclass(frozen=True)
class Colour:
    """Colour tags of a video: code points of ITU-T H.273, where 2 is unspecified."""

    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    full: bool = False  # full range, 0..255; else limited range


# H.273 matrix -> swscale's number for the same coefficients
SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}


def sws_matrix(matrix: int, height: int) -> int:
    """swscale's number of the matrix. As in browsers, untagged video is BT.709 from 720 lines on, else BT.601."""
    return SWS_MATRIX.get(matrix, 1 if height >= 720 else 5)


@dataclass(frozen=True)
class Frame:
    """One picture and when it is shown."""

    time: float  # s
    image: av.VideoFrame  # 8-bit planar yuv, as it will be encoded

    def rgb(self) -> np.ndarray:
        """The picture as [H,W,3] uint8 RGB."""
        return to_rgb(self.image, sws_matrix(self.image.colorspace, self.image.height))


def to_rgb(image: av.VideoFrame, matrix: int) -> np.ndarray:
    """An 8-bit yuv picture as [H,W,3] uint8 RGB. matrix: swscale's number."""
    full = 2 if image.color_range == 2 else 1
    tags = {"src_colorspace": matrix, "src_color_range": full, "dst_color_range": 2}
    return image.reformat(format="rgb24", threads=1, **tags).to_ndarray()  # a thread pool for every frame costs more


@dataclass(frozen=True)
class Patch:
    """Pixels that replace the frame's own, from row y and column x on."""

    y: int
    x: int
    rgb: np.ndarray  # [h,w,3] uint8

    def apply(self, image: np.ndarray) -> None:
        """Replace the pixels of a frame [H, W, 3] in place."""
        image[self.y : self.y + self.rgb.shape[0], self.x : self.x + self.rgb.shape[1]] = self.rgb


@dataclass(frozen=True)
class Speech:
    """A voice at the sample rate and with the channels of its upload."""

    path: Path  # 16-bit wav, in the private job folder
    rate: int  # Hz
    channels: int
    seconds: float
    mono_channel: int | None = None  # used alone where a mix of the channels would lose the voice
    notes: tuple[str, ...] = ()  # what the visitor should know about this file
    tags: TrackTags = field(default_factory=TrackTags)

    def samples(self) -> np.ndarray:
        """Input of the networks: [N] float32 in [-1,1], mono, at SAMPLE_RATE; N = round(seconds * SAMPLE_RATE)."""
        samples, at = np.zeros(round(self.seconds * SAMPLE_RATE), np.float32), 0
        for part in self._resampled():
            room = min(len(part), len(samples) - at)
            samples[at : at + room] = part[:room] / np.float32(32_768)
            at += room
        return samples

    def _resampled(self) -> Iterator[np.ndarray]:
        """The whole file in pieces, int16 [n] each."""
        # For 16-bit samples swresample weights the channels so that their sum cannot clip; floats it would only add.
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        with soundfile.SoundFile(self.path) as file:
            layout = LAYOUTS[file.channels if self.mono_channel is None else 1]
            for block in file.blocks(65_536, dtype="int16", always_2d=True):
                used = block if self.mono_channel is None else block[:, self.mono_channel]
                sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(used).reshape(1, -1), "s16", layout)  # pyright: ignore[reportArgumentType] -- int16 is meant
                sound.sample_rate = file.samplerate
                for piece in resampler.resample(sound):
                    yield piece.to_ndarray()[0]
        for piece in resampler.resample(None):
            yield piece.to_ndarray()[0]


@dataclass(frozen=True)
class Clip:
    """A video, or a photo as a video of one frame: upright, 8-bit, SDR. Frames are decoded on demand."""

    path: Path  # H.264 in the private job folder: frame i at tick i, a key frame every GOP frames
    width: int
    height: int
    times: np.ndarray = field(repr=False)  # [T] float64, seconds, times[0] == 0
    seconds: float  # end of the last frame
    rate: Fraction  # frames per second; the average where the rate varies
    steady: bool  # times are exactly i / rate
    colour: Colour
    pixel_aspect: Fraction  # width of one pixel over its height
    photo: bool
    speech: Speech | None  # the video's own sound, from times[0] on
    notes: tuple[str, ...]  # what the visitor should know about this file
    extras: Extras = field(default_factory=Extras)  # tags, chapters and subtitles for the result

    def __len__(self) -> int:
        return len(self.times)

    def frames(self, indices: Sequence[int] | np.ndarray | None = None) -> Iterator[Frame]:
        """The frames at `indices`, in that order; by default all. Never holds more than 2 * GOP of them.

        Raises IndexError for an index outside 0..T-1."""
        wanted = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"frame indices must lie in 0..{len(self) - 1}, not {wanted.min()}..{wanted.max()}")
        with av.open(str(self.path)) as container:
            context = container.streams.video[0].codec_context
            context.thread_type, context.thread_count = "AUTO", READ_THREADS
            for run in _runs(wanted):
                read = self._forward if run[-1] >= run[0] else self._backward
                for index, image in read(container, run):
                    yield Frame(float(self.times[index]), image)

    def _forward(self, container: av.container.InputContainer, run: np.ndarray) -> Iterator[tuple[int, av.VideoFrame]]:
        pictures = self._from(container, int(run[0]))
        current, image = next(pictures)
        for index in run.tolist():
            if index > current + 2 * GOP:  # nearer from the next key frame
                pictures = self._from(container, index)
            while current < index:
                current, image = next(pictures)
            yield index, image

    def _backward(self, container: av.container.InputContainer, run: np.ndarray) -> Iterator[tuple[int, av.VideoFrame]]:
        for group in np.split(run, np.flatnonzero(np.diff(run // GOP)) + 1):
            first, last = int(group[-1]), int(group[0])
            images = dict(islice(self._from(container, first), last - first + 1))
            yield from ((index, images[index]) for index in group.tolist())

    def _from(self, container: av.container.InputContainer, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Index and picture of every frame from `first` on."""
        stream = container.streams.video[0]
        tick = Fraction(1) / (INDEX_RATE * (stream.time_base or 1))  # the muxer may choose finer ticks than one a frame
        container.seek(int(first // GOP * GOP * tick), stream=stream)
        for image in container.decode(stream):
            index = round((image.pts or 0) / tick)
            if index >= first:
                yield index, image


def _runs(wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Split into runs that never fall or never rise."""
    start, direction = 0, 0
    for i, (a, b) in enumerate(pairwise(wanted.tolist())):
        step = (b > a) - (b < a)
        if direction and step and step != direction:
            yield wanted[start : i + 1]
            start, direction = i + 1, 0
        else:
            direction = direction or step
    if wanted.size:
        yield wanted[start:]
