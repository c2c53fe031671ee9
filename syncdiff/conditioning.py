"""Conditioning inputs of one denoising step, built in one place for sampling, training and ablations.

CropFile     crops of a film on disk
FaceClip     one face of the source: its moments, its articulation, and the reference for any target lip shape
MouthPlan    target lip shape and moments of every output frame
FrameInputs  one frame's pixels before they are encoded: crop, reference, blend mask, lip shapes
condition    FrameInputs, previous frames and speech -> the denoiser's Conditioning
FramePlan    which source frame each output frame shows, and how much of it is redrawn
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from syncdiff.faces import OK, FaceTrack, Gap
from syncdiff.geometry.crops import LIP_BOX, WINDOW, S, smoothed
from syncdiff.geometry.interior import Interior
from syncdiff.geometry.moments import choose_moments, moment_costs, plan_moments
from syncdiff.geometry.mouth_shape import (
    SHAPE,
    Articulation,
    SpeakerScale,
    calibrate_forecast,
    lip_shape,
    steadied,
)
from syncdiff.geometry.reference import UPRIGHT, FaceView, MouthWarps, Reference, interior_of, reference_mouth
from syncdiff.geometry.warp import mouth_pose
from syncdiff.media import Clip, Timeline
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning
from syncdiff.sync.film_offset import FilmOffset

FADE_OUT_SECONDS = 0.2  # over which redrawing fades where a shorter voice ends
MOMENT_MARGIN_PX = 8.0  # crop px around the window that are kept of a moment's frame
MEDIAN_FRAMES = 24  # frames of a shot, about, whose median shows the usual mouth
COVERED_LEVELS = 30.0  # grey levels, mean difference to that median: more is a hand, a microphone
LIP_ENDS = [0, 17, 61, 291]  # FaceMesh's top, bottom and corners of the lips
MAX_STRETCH = 1.8, 1.5  # times the film's widest gap, plus px: targets beyond get a drawn inside
INSIDE_FADE = 1.5  # px of gap over which the drawn inside comes in
PLACE_SMOOTHING = 1.0  # frames, standard deviation of the Gaussian over time: landmarks jitter by half a px
SLOPE_SMOOTHING = 6.0  # the same for slope and corners of the mouth: the tilt of the head and a smile, not what is said


class CropFile:
    """Crops [side, side, 3] uint8 by frame number, on disk; safe to use from several threads.

    Not memory-mapped: mapped pages would count as memory in use.
    """

    def __init__(self, path: Path, side: int = S) -> None:
        # Unbuffered, so that a full disk is an error of the write, not one that is lost when the file is closed.
        self._file, self.side, self._size = path.open("w+b", buffering=0), side, side * side * 3

    def __setitem__(self, index: int, crop: np.ndarray) -> None:
        if os.pwrite(self._file.fileno(), crop.tobytes(), int(index) * self._size) < self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

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
    warps: MouthWarps | None = None  # of the reference, for the same one at the film's scale

    def windowed(self) -> FrameInputs:
        """The same, cut to the window that the network sees."""
        return replace(
            self, crop=self.crop[WINDOW], reference=self.reference[WINDOW], blend_mask=self.blend_mask[WINDOW]
        )


# Frame, moments with their shares, lip shapes [2, SHAPE], surroundings, inside of the mouth with its opacity ->
# FrameInputs. In training the surroundings are of a frame near by, since the frame's own contain the target. The last
# moment's share may be 0: chosen without the target, it is the unwarped reference of `evaluation.ablate`.
BuildInputs = Callable[
    [FaceView, Sequence[tuple[FaceView, float]], np.ndarray, FaceView, tuple[Interior, float] | None], FrameInputs
]


def warped_inputs(
    frame: FaceView,
    mouths: Sequence[tuple[FaceView, float]],
    lip_shapes: np.ndarray,
    surroundings: FaceView,
    interior: tuple[Interior, float] | None = None,
) -> FrameInputs:
    """The product's BuildInputs: moments' mouths, warped to the target shape, in the surroundings' skin."""
    around = replace(surroundings, smoothed_pose=frame.pose)
    mouth = reference_mouth(around, mouths, lip_shapes[0], interior)
    reference, blend_mask = around.image.copy(), np.zeros((S, S), np.float32)
    reference[WINDOW], blend_mask[WINDOW] = mouth.pixels, mouth.warps.mask
    return FrameInputs(frame.image, reference, blend_mask, lip_shapes, mouth.warps)


def condition(inputs: Sequence[FrameInputs], previous: Tensor, speech: Tensor) -> Conditioning:
    """Conditioning of a batch, on the device of the previous frames.

    Args:
        inputs: B windowed FrameInputs.
        previous: [B, C, h, w] encoded previous frames; zeros where there is none.
        speech: [B, K, D] speech tokens.
    """
    crops, references, blend_masks, lip_shapes = (
        torch.from_numpy(np.stack([getattr(one, name) for one in inputs])).to(previous.device)
        for name in ("crop", "reference", "blend_mask", "lip_shapes")
    )
    masked = pixel_codec.encode(crops) * (1 - pixel_codec.latent_mask().to(previous.device))
    references, blend_masks = pixel_codec.encode(references), pixel_codec.spread(blend_masks)
    return Conditioning(masked, references, previous, speech.to(previous.device), lip_shapes, blend_masks)


@dataclass(frozen=True)
class BaseFaceClip:
    """One face of the source, cut out of every frame. Each profile adds what its generator needs."""

    crops: CropFile | np.ndarray  # [T] of [side, side, 3] uint8
    to_frame: np.ndarray  # [T, 2, 3] crop px -> frame px

    @property
    def offset(self) -> FilmOffset | None:
        """Between the film's own sound and its lips, where it was looked for."""
        return None


@dataclass(frozen=True)
class MouthPlan:
    """Target shape and moments of every output frame."""

    target: np.ndarray  # [T', SHAPE] float32 crop px
    moments: np.ndarray  # [T', 3] source frames whose mouths are used
    shares: np.ndarray  # [T', 3] float32, the moments' shares; they sum to 1
    unwarped: np.ndarray  # [T', SHAPE] float32 crop px: mean shape of the moments
    inside: np.ndarray  # [T'] float32 0..1: opacity of the drawn inside over the moments' own

    def moments_of(self, i: int) -> list[tuple[int, float]]:
        """Moments of output frame `i` with their shares, less those of share 0."""
        return [(int(m), float(s)) for m, s in zip(self.moments[i], self.shares[i], strict=True) if s]


@dataclass(frozen=True)
class FaceClip(BaseFaceClip):
    """One face for the compact profile: its crops, landmarks, head turn, and the film that it is in."""

    points: np.ndarray  # [T, 478, 2] landmarks, frame px; NaN rows where the face is missing
    yaw: np.ndarray  # [T] degrees
    usable: np.ndarray  # [T] bool
    shots: np.ndarray  # [T] int: moments are of the frame's own shot
    film: Callable[[np.ndarray], Iterable[np.ndarray]] | None = None  # source frames [H, W, 3]; None: crops only
    picture: tuple[int, int] | None = None  # height and width of the frames, px
    own_forecast: np.ndarray | None = None  # [T, SHAPE] speaker's units, of the film's own sound, brought into sync
    offset: FilmOffset | None = None  # between the film's own sound and its lips
    build: BuildInputs = field(default=warped_inputs)
    _film_views: dict[int, dict[int, FaceView]] = field(default_factory=dict, repr=False)  # by shot: views of moments
    _film_views_lock: Lock = field(default_factory=Lock, repr=False)  # frames are pasted in several threads
    _interiors: dict[int, Interior] = field(default_factory=dict, repr=False)  # by shot

    @classmethod
    def of(cls, track: FaceTrack, to_frame: np.ndarray, crops: CropFile | np.ndarray, **film: Any) -> FaceClip:
        """From a track; `film` are the fields of that name and below."""
        shots = np.searchsorted(track.cuts, np.arange(len(track.state)), side="right")
        return cls(crops, to_frame, track.points, track.yaw, track.state == OK, shots, **film)

    @cached_property
    def shapes(self) -> np.ndarray:
        """[T, SHAPE] float32 crop px; NaN rows where the face is missing."""
        scale = np.hypot(self.to_frame[:, 0, 0], self.to_frame[:, 1, 0])  # frame px per crop px
        return lip_shape(self.points) / scale[:, None].astype(np.float32)

    @cached_property
    def scale(self) -> SpeakerScale:
        """How far this mouth moves in speech, estimated from the film."""
        return SpeakerScale.of(self.shapes[self.usable]).speaking()

    @cached_property
    def articulation(self) -> Articulation:
        """Regression of this person's lip shapes on a forecast, fitted to the film's own sound where there is one."""
        if self.own_forecast is None:
            return Articulation.identity()
        return Articulation.of(self._in_px(self.own_forecast)[self.usable], self.shapes[self.usable])

    def _in_px(self, forecast: np.ndarray) -> np.ndarray:
        return self.scale.pixels(calibrate_forecast(forecast))

    @cached_property
    def mouth_poses(self) -> np.ndarray:
        """[T, 4] float32: the `mouth_pose` of every frame, smoothed over time; NaN where the face cannot be used."""
        poses = [mouth_pose(self.landmarks(i)) if ok else np.full(4, np.nan) for i, ok in enumerate(self.usable)]
        frames, shots = np.arange(len(poses)), np.where(self.usable, self.shots, -1)
        place, slope = (smoothed(np.array(poses), frames, shots, s) for s in (PLACE_SMOOTHING, SLOPE_SMOOTHING))
        return np.concatenate([place[:, :2], slope[:, 2:]], axis=1).astype(np.float32)

    @cached_property
    def moments(self) -> dict[int, np.ndarray]:
        """By shot, the source frames whose mouths are used, sorted; only shots with a usable frame."""
        moments = {}
        for shot in np.unique(self.shots[self.usable]):
            usable = self.usable & (self.shots == shot)
            sample = np.flatnonzero(usable)[:: max(1, int(usable.sum()) // MEDIAN_FRAMES)]
            median = np.median([_thumbnail(self.crops[i]) for i in sample], axis=0)
            sharpness = partial(self._sharpness, median=median)
            moments[int(shot)] = choose_moments(self.shapes, self.yaw, usable, sharpness)
        return moments

    def _sharpness(self, frame: int, median: np.ndarray) -> float:
        """Variance of the Laplacian in the lip box; -inf where the picture's edge cuts it, or something covers it.

        median: [8, 9, 3], thumbnail of the shot's usual mouth.
        """
        lips = self.points[frame][LIP_ENDS]
        if self.picture and ((lips < 2) | (lips > np.array(self.picture[::-1]) - 3)).any():
            return -np.inf
        crop = self.crops[frame]
        if np.abs(_thumbnail(crop) - median).mean() > COVERED_LEVELS:
            return -np.inf
        return float(cv2.Laplacian(cv2.cvtColor(crop[LIP_BOX], cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())

    @cached_property
    def open_frame(self) -> int:
        """The moment with the widest gap, of all shots."""
        frames = np.concatenate(list(self.moments.values()))
        return int(frames[self.shapes[frames, 0].argmax()])

    def interior(self, shot: int) -> Interior:
        """The inside of the mouth in a shot, with the light and the softness of its most closed moment."""
        if shot not in self._interiors:
            frames = self.moments[shot]
            closed = int(frames[self.shapes[frames, 0].argmin()])
            self._interiors[shot] = interior_of(self._moments_in_film(shot)[closed], self.scale.rest)
        return self._interiors[shot]

    def landmarks(self, frame: int) -> np.ndarray:
        """[478, 2] crop px."""
        matrix = self.to_frame[frame]
        return (self.points[frame] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def face(self, frame: int) -> FaceView:
        """The face of a source frame in its crop."""
        return self._view(frame, self.crops[frame], UPRIGHT)

    def in_film(self, frame: int, image: np.ndarray) -> FaceView:
        """The face of a source frame in the frame itself, `image` [H, W, 3]."""
        return self._view(frame, image, self.to_frame[frame].astype(np.float64))

    def _view(self, frame: int, image: np.ndarray, matrix: np.ndarray) -> FaceView:
        return FaceView(image, matrix, self.landmarks(frame), float(self.yaw[frame]), self.mouth_poses[frame])

    def plan_mouths(self, indices: np.ndarray, forecast: np.ndarray) -> MouthPlan:
        """Plan the mouths of output frames.

        Args:
            indices: [T'] source frame of every output frame.
            forecast: [T', SHAPE] lip shapes in the speaker's units.
        """
        target = steadied(self.articulation(self._in_px(forecast)))
        n = len(target)
        moments, shares = np.zeros((n, 3), np.int64), np.zeros((n, 3), np.float32)
        unwarped, inside = np.zeros((n, SHAPE), np.float32), np.zeros(n, np.float32)
        shots = self.shots[indices]
        edges = [0, *(np.flatnonzero(np.diff(shots)) + 1), n]
        for a, b in pairwise(edges):
            frames = self.moments.get(int(shots[a]))
            if frames is None:  # nothing is redrawn in this shot
                continue
            run, yaw = slice(a, b), np.nan_to_num(self.yaw[indices[a:b]])
            shapes = self.shapes[frames]
            all_shares = plan_moments(moment_costs(target[run], yaw, shapes, self.yaw[frames]), target[run, 0])
            top = np.argsort(-all_shares, axis=1, kind="stable")[:, :3]  # no more than three share a frame
            moments[run, : top.shape[1]] = frames[top]
            shares[run, : top.shape[1]] = np.take_along_axis(all_shares, top, axis=1)
            unwarped[run], widest = all_shares @ shapes, shapes[:, 0].max()
            if np.percentile(target[run, 0], 95) > MAX_STRETCH[0] * widest + MAX_STRETCH[1]:
                inside[run] = np.clip((target[run, 0] - max(widest, 0.5)) / INSIDE_FADE, 0, 1)
                self.interior(int(shots[a]))  # read from the film before frames are drawn and pasted in turn
        return MouthPlan(target, moments, shares, unwarped, inside)

    def inputs(self, frame: int, mouths: MouthPlan, i: int) -> FrameInputs:
        """Inputs of one source frame for output frame `i` of a mouth plan.

        The lips are from other moments, all else is from the frame: the whole of another frame smears jaws and collars
        where the head moves, and from the frame itself its own lips leak (measured: docs/training-log.md).
        """
        face, shapes = self.face(frame), np.stack([mouths.target[i], mouths.unwarped[i]])
        moments = [(self.face(m), share) for m, share in mouths.moments_of(i)]
        moments.append((self.face(self.open_frame), 0.0))
        return self.build(face, moments, shapes, face, self._inside(frame, mouths, i))

    def reference(
        self, view: FaceView, frame: int, mouths: MouthPlan, i: int, warps: MouthWarps | None = None
    ) -> Reference:
        """The reference for output frame `i` at the scale of the film, in a view of source frame `frame`.

        warps: of the same frame's FrameInputs, where they were made."""
        views = self._moments_in_film(int(self.shots[frame]))
        moments = [(views[m], share) for m, share in mouths.moments_of(i)]
        return reference_mouth(view, moments, mouths.target[i], self._inside(frame, mouths, i), warps)

    def _inside(self, frame: int, mouths: MouthPlan, i: int) -> tuple[Interior, float] | None:
        return (self.interior(int(self.shots[frame])), float(mouths.inside[i])) if mouths.inside[i] else None

    def _moments_in_film(self, shot: int) -> dict[int, FaceView]:
        """Views of a shot's moments in the film, by frame. Those of two shots are held, so memory does not grow."""
        with self._film_views_lock:
            if shot not in self._film_views:
                frames = self.moments[shot]
                if self.film is None:
                    views = {int(i): self.face(int(i)) for i in frames}
                else:
                    pictures = zip(frames.tolist(), self.film(frames), strict=True)
                    views = {i: self.in_film(i, image).part(MOMENT_MARGIN_PX).with_lips() for i, image in pictures}
                while len(self._film_views) > 1:
                    self._film_views.pop(next(iter(self._film_views)))
                self._film_views[shot] = views
            return self._film_views[shot]


def _thumbnail(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop[LIP_BOX], (9, 8), interpolation=cv2.INTER_AREA).astype(np.float32)


@dataclass(frozen=True)
class FramePlan:
    """Mapping from output frames to source frames, and how much of each is redrawn."""

    face: Any  # the profile's BaseFaceClip
    indices: np.ndarray  # [T'] source frame of every output frame
    times: np.ndarray  # [T'] s, when every output frame is shown
    middles: np.ndarray  # [T'] s, the middle of the time that each output frame is shown for
    weight: np.ndarray  # [T'] float32 0..1: opacity of the redrawn mouth; 0 leaves the frame alone

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
        """The frames that begin before that second."""
        n = int(np.searchsorted(self.times, second))
        return replace(self, **{k: getattr(self, k)[:n] for k in ("indices", "times", "middles", "weight")})

    def ahead(self, seconds: float) -> FramePlan:
        """The same with lips that lead by `seconds`: every frame is conditioned on later sound."""
        return replace(self, middles=self.middles + seconds)

    def matrix(self, i: int) -> np.ndarray:
        """Crop -> frame transform [2, 3] of output frame `i`."""
        return self.face.to_frame[self.indices[i]]

    def complete(self, frames: Sequence[int], windows: np.ndarray) -> np.ndarray:
        """Drawn windows [B, 80, 96, 3] of output frames, set into their crops [B, S, S, 3]."""
        crops = np.stack([self.face.crops[self.indices[i]] for i in frames])
        crops[:, WINDOW[0], WINDOW[1]] = windows
        return crops

    def passed_through(self, clip: Clip, line: Timeline, track: FaceTrack) -> tuple[Gap, ...]:
        """Spans of the output, in seconds, that show the source's own pixels, and why."""
        ends, gaps = np.append(line.times[1:], line.seconds), track.gaps(clip.times)
        spans: list[Gap] = []
        for i in np.flatnonzero(~self.to_redraw):
            start, end, source_time = float(line.times[i]), float(ends[i]), clip.times[line.indices[i]]
            reason = next((g.reason for g in gaps if g.start <= source_time < g.end), "the voice has ended")
            if spans and spans[-1].reason == reason and abs(spans[-1].end - start) < 1e-6:
                start = spans.pop().start
            spans.append(Gap(start, end, reason))
        return tuple(spans)
