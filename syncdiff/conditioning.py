"""Conditioning: what one denoising step sees and hears, built in one place for sampling, training and ablations.

CropFile     crops of a film on disk
FaceClip     one face of the source, and the reference for any wanted lip shape
FrameInputs  one frame's pixels before they are encoded: crop, reference, blend mask, lip shapes
condition    FrameInputs, previous frames and speech -> the denoiser's Conditioning
FramePlan    which source frame each output frame shows, and how much of it is redrawn
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from syncdiff.faces import OK, FaceTrack, Gap
from syncdiff.geometry.crops import WINDOW, S, SkinWarp
from syncdiff.geometry.mouth_shape import SpeakerScale, calibrate_forecast, lip_shape
from syncdiff.geometry.warp import FaceCrop, bend, hint, lip_blend_mask, open_share
from syncdiff.media import Clip, Timeline
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning

FADE_OUT_SECONDS = 0.2  # over which redrawing fades where a shorter voice ends


class CropFile:
    """Crops [side, side, 3] uint8 by frame number, on disk; safe to use from several threads.

    Not memory-mapped: mapped pages would count as in use.
    """

    def __init__(self, path: Path, side: int = S) -> None:
        self._file, self.side, self._size = path.open("w+b", buffering=0), side, side * side * 3

    def __setitem__(self, index: int, crop: np.ndarray) -> None:
        os.pwrite(self._file.fileno(), crop.tobytes(), int(index) * self._size)

    def __getitem__(self, index: int) -> np.ndarray:
        crop = bytearray(os.pread(self._file.fileno(), self._size, int(index) * self._size))
        return np.frombuffer(crop, np.uint8).reshape(self.side, self.side, 3)


@dataclass(frozen=True)
class FrameInputs:
    """One frame's pixels before encoding. Pictures are whole crops or, after `windowed`, the network's window."""

    crop: np.ndarray  # [S, S, 3] uint8: the frame to be redrawn
    reference: np.ndarray  # [S, S, 3] uint8: the person's mouth, warped to the target shape
    blend_mask: np.ndarray  # [S, S] float32, 0..1: 1 uses the prediction, 0 keeps the reference
    lip_shapes: np.ndarray  # [2, SHAPE] float32 crop px: the target shape, and the reference's before it was warped

    def windowed(self) -> FrameInputs:
        """The same, cut to the window that the network sees."""
        return replace(
            self, crop=self.crop[WINDOW], reference=self.reference[WINDOW], blend_mask=self.blend_mask[WINDOW]
        )


# A frame, the mouths of other moments with their shares, and the lip shapes [2, SHAPE] -> FrameInputs. Training gives
# the surroundings of a near frame, since the frame's own would show the answer.
BuildInputs = Callable[[FaceCrop, Sequence[tuple[FaceCrop, float]], np.ndarray, FaceCrop], FrameInputs]


def warped_inputs(
    frame: FaceCrop, mouths: Sequence[tuple[FaceCrop, float]], lip_shapes: np.ndarray, surroundings: FaceCrop
) -> FrameInputs:
    """The product's inputs: the mouths of other moments, warped to the target shape, in the surroundings' skin."""
    reference = hint(surroundings, mouths, lip_shapes[0])
    return FrameInputs(frame.crop, reference, lip_blend_mask(frame.points, lip_shapes[0], S), lip_shapes)


def condition(inputs: Sequence[FrameInputs], previous: Tensor, speech: Tensor) -> Conditioning:
    """Conditioning of a batch.

    Args:
        inputs: B windowed FrameInputs.
        previous: [B, C, h, w] encoded previous frames; zeros where there is none.
        speech: [B, K, D] speech tokens.
    """
    frames, references = (
        pixel_codec.encode(np.stack([getattr(one, name) for one in inputs])) for name in ("crop", "reference")
    )
    blend_mask = pixel_codec.spread(np.stack([one.blend_mask for one in inputs]))
    lip_shapes = torch.from_numpy(np.stack([one.lip_shapes for one in inputs]))
    masked = frames * (1 - pixel_codec.latent_mask())
    return Conditioning(masked, references, previous, speech, lip_shapes, blend_mask)


@dataclass(frozen=True)
class BaseFaceClip:
    """One face of the source, cut out of every frame. Each profile adds what its generator needs."""

    crops: CropFile | np.ndarray  # [T] of [side, side, 3] uint8
    to_frame: np.ndarray  # [T, 2, 3] crop px -> frame px


@dataclass(frozen=True)
class FaceClip(BaseFaceClip):
    """One face for the compact profile: its crops, landmarks and head turn."""

    points: np.ndarray  # [T, 478, 2] landmarks, frame px; NaN rows where the face is missing
    yaw: np.ndarray  # [T] degrees
    usable: np.ndarray  # [T] bool
    build: BuildInputs = field(default=warped_inputs)

    @classmethod
    def of(cls, track: FaceTrack, to_frame: np.ndarray, crops: CropFile | np.ndarray) -> FaceClip:
        return cls(crops, to_frame, track.points, track.yaw, track.state == OK)

    @cached_property
    def shapes(self) -> np.ndarray:
        """[T, SHAPE] float32 crop px; NaN rows where the face is missing."""
        scale = np.hypot(self.to_frame[:, 0, 0], self.to_frame[:, 1, 0])  # frame px per crop px
        return lip_shape(self.points) / scale[:, None].astype(np.float32)

    @cached_property
    def open_frame(self) -> int:
        """A frame turned as the head mostly is, mouth rather open, so that teeth are seen.

        One frame for the whole clip, so it cannot tell when the lips moved (the paper takes the first frame).
        """
        return self._typical(80)

    @cached_property
    def rest_frame(self) -> int:
        """The same with the mouth rather closed: a mouth that is warped less far stays sharper."""
        return self._typical(10)

    def _typical(self, percentile: float) -> int:
        usable = np.flatnonzero(self.usable)
        turned = np.abs(self.yaw[usable] - np.median(self.yaw[usable]))
        typical = usable[turned <= np.percentile(turned, 30)]
        opening = self.shapes[typical, 0]
        return int(typical[np.abs(opening - np.percentile(opening, percentile)).argmin()])

    @cached_property
    def scale(self) -> SpeakerScale:
        """How far this mouth moves when it speaks, from how it was seen moving."""
        return SpeakerScale.of(self.shapes[self.usable]).speaking()

    def landmarks(self, frame: int) -> np.ndarray:
        """[478, 2] crop px."""
        matrix = self.to_frame[frame]
        return (self.points[frame] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def face(self, frame: int) -> FaceCrop:
        return FaceCrop(self.crops[frame], self.landmarks(frame))

    def lip_shapes(self, forecast: np.ndarray) -> np.ndarray:
        """A forecast [B, SHAPE] in a speaker's units -> [B, 2, SHAPE] crop px: target shapes, and the reference's."""
        target = self.scale.pixels(calibrate_forecast(forecast))
        closed, opened = self.shapes[[self.rest_frame, self.open_frame]]
        shown = closed + open_share(target, closed, opened)[:, None] * (opened - closed)
        return np.stack([target, shown], axis=1)

    def inputs(self, frame: int, lip_shapes: np.ndarray) -> FrameInputs:
        """Inputs of one source frame for lip shapes [2, SHAPE].

        The whole of one open frame smears jaws and collars where the head moves; the whole of the frame itself lets its
        own lips shine through (measured: docs/training-log.md). So the lips come from other moments, all else from the
        frame. The rest frame's mouth fades into the open frame's as a wider gap is wanted; both are warped to the same
        shape, so they lie on each other.
        """
        here = self.face(frame)
        share = float(open_share(lip_shapes[0], *self.shapes[[self.rest_frame, self.open_frame]]))
        mouths = (self.face(self.rest_frame), 1 - share), (self.face(self.open_frame), share)
        return self.build(here, mouths, lip_shapes, here)

    def skin_warp(self, frame: int, target: np.ndarray) -> SkinWarp:
        """How the frame's own skin moves with a mouth of the target shape [SHAPE]."""
        points = self.landmarks(frame)
        return SkinWarp(bend(points, target, S), 1 - lip_blend_mask(points, target, S))


@dataclass(frozen=True)
class FramePlan:
    """Per-frame mapping from output to source, and how much of each frame is redrawn."""

    face: Any  # the profile's BaseFaceClip
    indices: np.ndarray  # [T'] source frame of every output frame
    times: np.ndarray  # [T'] s, when every output frame is shown
    middles: np.ndarray  # [T'] s, the middle of the time that each output frame is shown for
    weight: np.ndarray  # [T'] float32: 0 where the frame is left alone, soft at the ends of what is redrawn

    @classmethod
    def of(cls, face: BaseFaceClip, clip: Clip, line: Timeline, track: FaceTrack) -> FramePlan:
        weight = track.weight(clip.times)[line.indices]
        if line.spoken_until < line.times[-1]:
            weight = weight * np.clip((line.spoken_until - line.times) / FADE_OUT_SECONDS, 0, 1)
        middles = (line.times + np.append(line.times[1:], line.seconds)) / 2
        return cls(face, line.indices, line.times, middles, weight.astype(np.float32))

    @property
    def to_redraw(self) -> np.ndarray:
        """[T'] bool."""
        return self.weight > 0

    def __len__(self) -> int:
        return len(self.indices)

    def until(self, second: float) -> FramePlan:
        """Its frames that begin before that second."""
        n = int(np.searchsorted(self.times, second))
        return replace(self, **{k: getattr(self, k)[:n] for k in ("indices", "times", "middles", "weight")})

    def ahead(self, seconds: float) -> FramePlan:
        """The same with lips that move so much earlier: every frame is conditioned on later sound."""
        return replace(self, middles=self.middles + seconds)

    def matrix(self, i: int) -> np.ndarray:
        """Crop -> frame transform [2, 3] of output frame `i`."""
        return self.face.to_frame[self.indices[i]]

    def complete(self, frames: Sequence[int], windows: np.ndarray) -> np.ndarray:
        """Drawn windows [B, 80, 96, 3] set into their crops [B, S, S, 3]."""
        crops = np.stack([self.face.crops[self.indices[i]] for i in frames])
        crops[:, WINDOW[0], WINDOW[1]] = windows
        return crops

    def passed_through(self, clip: Clip, line: Timeline, track: FaceTrack) -> tuple[Gap, ...]:
        """Spans of the output, in seconds, that show the source's own pixels, and why."""
        ends = np.append(line.times[1:], line.seconds)
        reason = {(g.start, g.end): g.reason for g in track.gaps(clip.times)}
        spans: list[Gap] = []
        for i in np.flatnonzero(~self.to_redraw):
            at = clip.times[line.indices[i]]
            why = next((r for (a, b), r in reason.items() if a <= at < b), "the voice has ended")
            if spans and spans[-1].reason == why and abs(spans[-1].end - line.times[i]) < 1e-6:
                spans[-1] = Gap(spans[-1].start, float(ends[i]), why)
            else:
                spans.append(Gap(float(line.times[i]), float(ends[i]), why))
        return tuple(spans)
