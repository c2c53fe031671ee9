"""Per-frame conditioning, and the source-to-output frame mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from syncdiff.faces import OK, FaceTrack, Gap
from syncdiff.geometry.crops import WINDOW, S, SkinWarp
from syncdiff.geometry.mouth_shape import SpeakerScale, calibrate_forecast, lip_shape
from syncdiff.geometry.warp import FaceCrop, bend, hint, lip_blend_mask, open_share
from syncdiff.media import Clip, Timeline

FADE_OUT = 0.2  # s over which the drawing fades where a shorter voice ends


class CropFile:
    """Crops [side, side, 3] uint8 by frame number, on disk. Not memory-mapped: mapped pages would count as in use."""

    def __init__(self, path: Path, side: int = S) -> None:
        self._file, self.side, self._size = path.open("w+b"), side, side * side * 3

    def __setitem__(self, index: int, crop: np.ndarray) -> None:
        self._file.seek(int(index) * self._size)
        self._file.write(crop.tobytes())

    def __getitem__(self, index: int) -> np.ndarray:
        self._file.seek(int(index) * self._size)
        return np.frombuffer(bytearray(self._file.read(self._size)), np.uint8).reshape(self.side, self.side, 3)


@dataclass(frozen=True)
class GeneratorStep:
    """One evaluation of an generator: which output frames it worked on, and what there is to see of them."""

    frames: tuple[int, ...]
    look: np.ndarray | None = None  # [side, side, 3] uint8: the first of them as it stands
    crops: np.ndarray | None = None  # [len(frames), side, side, 3] uint8, all of them, once they are finished
    shapes: np.ndarray | None = None  # [len(frames), SHAPE] crop px: what the frames' own mouths were bent to, if so


@dataclass(frozen=True)
class BaseFaceClip:
    """One face of the source, cut out of every frame. Each profile adds what its generator is told of it."""

    crops: CropFile | np.ndarray  # [T] of [side, side, 3] uint8
    to_frame: np.ndarray  # [T, 2, 3] crop px -> frame px


@dataclass(frozen=True)
class FaceClip(BaseFaceClip):
    """For the compact profile: how the lips stand in the crops, which way the head looks."""

    points: np.ndarray  # [T, 478, 2] landmarks, frame px; NaN rows where the face is missing
    yaw: np.ndarray  # [T] degrees
    usable: np.ndarray  # [T] bool

    @classmethod
    def of(cls, track: FaceTrack, to_frame: np.ndarray, crops: CropFile) -> FaceClip:
        return cls(crops, to_frame, track.points, track.yaw, track.state == OK)

    @cached_property
    def shapes(self) -> np.ndarray:
        """[T, SHAPE] float32 crop px; NaN rows where the face is missing."""
        scale = np.hypot(self.to_frame[:, 0, 0], self.to_frame[:, 1, 0])  # frame px per crop px
        return lip_shape(self.points) / scale[:, None].astype(np.float32)

    @cached_property
    def identity(self) -> int:
        """The frame that says who this is: turned as the head mostly is, mouth rather open, so that teeth are seen.

        One frame for the whole clip, so it cannot tell when the lips moved (the paper takes the first frame).
        """
        return self._usual(80)

    @cached_property
    def resting(self) -> int:
        """The same with the mouth rather closed: a mouth that is bent less far stays a better one."""
        return self._usual(10)

    def _usual(self, percentile: float) -> int:
        usable = np.flatnonzero(self.usable)
        turned = np.abs(self.yaw[usable] - np.median(self.yaw[usable]))
        usual = usable[turned <= np.percentile(turned, 30)]
        opening = self.shapes[usual, 0]
        return int(usual[np.abs(opening - np.percentile(opening, percentile)).argmin()])

    @cached_property
    def talker(self) -> SpeakerScale:
        """How this mouth moves when it speaks, from how it was seen moving."""
        return SpeakerScale.of(self.shapes[self.usable]).speaking()

    def landmarks(self, frame: int) -> np.ndarray:
        """[478, 2] crop px."""
        matrix = self.to_frame[frame]
        return (self.points[frame] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def seen(self, frame: int) -> FaceCrop:
        return FaceCrop(self.crops[frame], self.landmarks(frame))

    def hint(self, frame: int, wanted: np.ndarray) -> np.ndarray:
        """The identity's mouth in this frame's own jaw and surroundings, both bent to the wanted shape [S, S, 3].

        The whole of one identity frame smears jaws and collars where the head moves; the whole of the frame itself lets
        its own lips shine through (measured: docs/training-log.md). So the lips come from one and all else from the
        other. The identity's mouth is that of two moments, the resting one fading into the open one as a wider gap is
        wanted: both are bent to the same shape, so they lie on each other.
        """
        share = float(open_share(wanted, *self.shapes[[self.resting, self.identity]]))
        mouths = (self.seen(self.resting), 1 - share), (self.seen(self.identity), share)
        return hint(self.seen(frame), mouths, wanted)

    def region(self, frame: int, wanted: np.ndarray) -> np.ndarray:
        """Where the network has the say over the hint: on the lips, softly [S, S] float32 (see `lips.lip_blend_mask`).

        Around them the hint is the frame's own skin, bent; what a network redraws of that is only softer (measured:
        docs/training-log.md).
        """
        return lip_blend_mask(self.landmarks(frame), wanted, S)

    def bend(self, frame: int, wanted: np.ndarray) -> SkinWarp:
        """How the frame's own skin goes with a mouth of the wanted shape."""
        return SkinWarp(bend(self.landmarks(frame), wanted, S), 1 - self.region(frame, wanted))

    def shown(self, wanted: np.ndarray) -> np.ndarray:
        """Shapes [B, SHAPE] crop px -> the shape that the identity's mouth has, before it is bent to them."""
        closed, opened = self.shapes[[self.resting, self.identity]]
        return closed + open_share(wanted, closed, opened)[:, None] * (opened - closed)

    def lips(self, forecast: np.ndarray) -> np.ndarray:
        """A forecast [B, SHAPE] in a talker's units -> what the network is told [B, 2, SHAPE], crop px."""
        wanted = self.talker.pixels(calibrate_forecast(forecast))
        return np.stack([wanted, self.shown(wanted)], axis=1)


@dataclass(frozen=True)
class Scene:
    """What drawing needs to know about the output: which source frame is where, and how much of it is redrawn."""

    face_clip: BaseFaceClip
    indices: np.ndarray  # [T'] source frame of every output frame
    times: np.ndarray  # [T'] s, when every output frame is shown
    middles: np.ndarray  # [T'] s, the middle of the time that each output frame is shown for
    weight: np.ndarray  # [T'] float32: 0 where the frame is left alone, soft at the ends of what is redrawn

    @classmethod
    def of(cls, face_clip: BaseFaceClip, clip: Clip, line: Timeline, track: FaceTrack) -> Scene:
        weight = track.weight(clip.times)[line.indices]
        if line.spoken_until < line.times[-1]:
            weight = weight * np.clip((line.spoken_until - line.times) / FADE_OUT, 0, 1)
        middles = (line.times + np.append(line.times[1:], line.seconds)) / 2
        return cls(face_clip, line.indices, line.times, middles, weight.astype(np.float32))

    @property
    def wanted(self) -> np.ndarray:
        """[T'] bool: frames to redraw."""
        return self.weight > 0

    def __len__(self) -> int:
        return len(self.indices)

    def until(self, second: float) -> Scene:
        """Its frames that begin before that second."""
        n = int(np.searchsorted(self.times, second))
        return replace(self, **{k: getattr(self, k)[:n] for k in ("indices", "times", "middles", "weight")})

    def ahead(self, seconds: float) -> Scene:
        """The same with lips that move so much earlier: every frame hears what is said later."""
        return replace(self, middles=self.middles + seconds)

    def matrix(self, i: int) -> np.ndarray:
        """Crop -> frame transform [2, 3] of output frame `i`."""
        return self.face_clip.to_frame[self.indices[i]]

    def windows(self, frames: Sequence[int]) -> np.ndarray:
        """Crop windows [B, 80, 96, 3] uint8 of output frames."""
        return np.stack([self.face_clip.crops[self.indices[i]][WINDOW] for i in frames])

    def complete(self, frames: Sequence[int], windows: np.ndarray) -> np.ndarray:
        """SamplerStep windows [B, 80, 96, 3] set into their crops [B, S, S, 3]."""
        crops = np.stack([self.face_clip.crops[self.indices[i]] for i in frames])
        crops[:, WINDOW[0], WINDOW[1]] = windows
        return crops

    def passed_through(self, clip: Clip, line: Timeline, track: FaceTrack) -> tuple[Gap, ...]:
        """Spans of the output, in seconds, that show the source's own pixels, and why."""
        ends = np.append(line.times[1:], line.seconds)
        reason = {(g.start, g.end): g.reason for g in track.gaps(clip.times)}
        spans: list[Gap] = []
        for i in np.flatnonzero(~self.wanted):
            at = clip.times[line.indices[i]]
            why = next((r for (a, b), r in reason.items() if a <= at < b), "the voice has ended")
            if spans and spans[-1].reason == why and abs(spans[-1].end - line.times[i]) < 1e-6:
                spans[-1] = Gap(spans[-1].start, float(ends[i]), why)
            else:
                spans.append(Gap(float(line.times[i]), float(ends[i]), why))
        return tuple(spans)
