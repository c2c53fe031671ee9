"""A face over time: its landmarks in every frame, and in which frames it cannot be redrawn, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from syncdiff.errors import InputError
from syncdiff.faces.head_pose import yaw_of

OK, MISSING, SMALL, TURNED, OUTSIDE, COVERED, OTHER = range(7)
REASONS = {
    MISSING: "no face",
    SMALL: "the face is too small",
    TURNED: "the face is turned away",
    OUTSIDE: "the face is half out of the picture",
    COVERED: "something covers the mouth",
    OTHER: "only another person is in view",
}
OUTER_EYE_CORNERS = {478: (33, 263), 68: (36, 45)}  # number of points -> outer eye corners, image left first
MIN_EYE_DISTANCE = 16.0  # px between the outer eye corners; below it a 128 px crop would be magnified over three times
MAX_YAW = 50.0  # degrees
LIPS = {478: (61, 291, 0, 17), 68: (48, 54, 51, 57)}  # corners, and the middles of the upper and the lower edge
MAX_LIPS_OUTSIDE = 1  # of these four
MAX_OUTSIDE_SHARE = 1 / 3  # of the points; a close-up that cuts off the chin or the forehead stays below it
FADE_SECONDS = 0.2  # over which weight() fades towards a gap
MAX_BRIDGED_FRAMES = 3  # frames of the longest drop-out that is interpolated


@dataclass(frozen=True)
class Gap:
    """A span of the clip, in seconds, in which a face cannot be redrawn."""

    start: float
    end: float
    reason: str


@dataclass(frozen=True)
class FaceTrack:
    """One face followed through the T frames of a clip."""

    points: np.ndarray  # [T, P, 2] float32, frame pixels; NaN rows where missing. P = 478 (mediapipe) or 68 (FAN)
    yaw: np.ndarray  # [T] float32, degrees, 0 = facing the camera, > 0 = nose towards the picture's right
    state: np.ndarray = field(repr=False)  # [T] uint8, OK or why not
    cuts: tuple[int, ...] = ()  # first frames after a discontinuity: scene cuts, and jumps of this face
    boxes: np.ndarray | None = None  # [T, 4] float32 x0 y0 x1 y1 of the detector, NaN rows; face-alignment only

    @property
    def size(self) -> float:
        """Sum over time of the distance between the outer eye corners, px: how much of the clip this face fills."""
        return float(np.nansum(_eye_distance(self.points)))

    @property
    def run(self) -> np.ndarray:
        """[T] int32: frames of one unbroken run share a number, -1 where missing. Never smooth across runs."""
        present = ~np.isnan(self.points[:, 0, 0])
        breaks = ~present
        breaks[list(self.cuts)] = True
        breaks[1:] |= present[1:] & ~present[:-1]
        return np.where(present, np.cumsum(breaks), -1).astype(np.int32)

    def gaps(self, times: np.ndarray) -> tuple[Gap, ...]:
        """Where the face cannot be used. times: [T] s, the start of each frame; the last lasts as the median one."""
        edges = _edges(times, len(self.state))
        bounds = [0, *(np.flatnonzero(np.diff(self.state)) + 1), len(self.state)]
        return tuple(
            Gap(float(edges[a]), float(edges[b]), REASONS[int(self.state[a])])
            for a, b in pairwise(bounds)
            if self.state[a] != OK
        )

    def weight(self, times: np.ndarray) -> np.ndarray:
        """[T] float32, 0 in gaps, rising to 1 within FADE_SECONDS of them; no fade at a cut or the clip's own ends."""
        edges = _edges(times, len(self.state))
        cut = np.isin(np.arange(len(self.state) + 1), self.cuts)
        since, until = np.empty(len(self.state)), np.empty(len(self.state))  # s, from and to the nearest gaps
        gap_end = -np.inf  # of the gap before; none across a cut
        for t, state in enumerate(self.state):
            gap_end = edges[t + 1] if state != OK else -np.inf if cut[t] else gap_end
            since[t] = edges[t] - gap_end
        gap_start = np.inf  # of the gap after
        for t in range(len(self.state) - 1, -1, -1):
            gap_start = edges[t] if self.state[t] != OK else np.inf if cut[t + 1] else gap_start
            until[t] = gap_start - edges[t + 1]
        half = (edges[1:] - edges[:-1]) / 2  # the fade is read at the middle of a frame, so it never starts at 0 or 1
        ramp = np.clip((np.minimum(since, until) + half) / FADE_SECONDS, 0, 1)
        return np.where(self.state == OK, ramp * ramp * (3 - 2 * ramp), 0).astype(np.float32)


def make_track(
    points: np.ndarray,
    scene_cuts: Sequence[int] = (),
    jumps: Sequence[int] = (),
    boxes: np.ndarray | None = None,
    picture: tuple[int, int] | None = None,
) -> FaceTrack:
    """A track from points [T, P, 2] px (NaN rows where missing): bridges short drop-outs, finds every frame's state.

    picture: height and width of the frames, px; without it no frame gets the state OUTSIDE.
    """
    cuts = tuple(sorted({int(t) for t in (*scene_cuts, *jumps)}))
    points = _bridge(points, cuts)
    boxes = None if boxes is None else _bridge(boxes, cuts)
    yaw = yaw_of(points)
    return FaceTrack(points, yaw, _states(points, yaw, picture), cuts, boxes)


def choose(tracks: Sequence[FaceTrack], index: int | None = None) -> FaceTrack:
    """The face to redraw: by index (0 is the largest over time), by default the largest with a frame to redraw.

    Raises InputError where there is no face, none with this index, or none that can be redrawn in any frame.
    """
    if not tracks:
        raise InputError("No face was found in the video: pick a clip where a face stays in view, towards the camera.")
    if index is None:
        track = next((track for track in tracks if (track.state == OK).any()), tracks[0])
    elif 0 <= index < len(tracks):
        track = tracks[index]
    else:
        raise InputError(f"Face {index} was asked for, but only {len(tracks)} found: choose 0 to {len(tracks) - 1}.")
    if not (track.state == OK).any():
        raise InputError(_why_unusable(track))
    others = [other.state != MISSING for other in tracks if other is not track]
    alone = (track.state == MISSING) & np.any(others, axis=0)
    return replace(track, state=np.where(alone, np.uint8(OTHER), track.state)) if alone.any() else track


@dataclass(frozen=True)
class Spot:
    """A place in the picture at some moment, by which a face is chosen. An index may change with the clip's length."""

    second: float
    x: float  # fraction of the picture's width
    y: float  # fraction of its height

    def __post_init__(self) -> None:
        if not (self.second >= 0 and 0 <= self.x <= 1 and 0 <= self.y <= 1):
            raise InputError(f"No face can be at {self}: choose a second from 0 on, and x and y between 0 and 1.")


def face_index(
    tracks: Sequence[FaceTrack], face: int | Spot | None, times: np.ndarray, picture: tuple[int, int]
) -> int | None:
    """Index for `choose`: of the track nearest to a Spot, None without tracks; an index or None stays as it is.

    A face that is out of view at the spot's moment counts where it is in the nearest frame that shows it.

    Args:
        times: [T] s, of the frames.
        picture: their height and width, px.
    """
    if not isinstance(face, Spot):
        return face
    place = np.array([face.x * picture[1], face.y * picture[0]])
    distances = []
    for track in tracks:
        present = np.flatnonzero(~np.isnan(track.points[:, 0, 0]))
        frame = present[np.abs(np.asarray(times)[present] - face.second).argmin()]
        distances.append(float(np.linalg.norm(track.points[frame].mean(0) - place)))
    return int(np.argmin(distances)) if distances else None


def _why_unusable(track: FaceTrack) -> str:
    """A sentence about the most frequent reason."""
    reason = max((SMALL, TURNED, OUTSIDE), key=lambda state: int((track.state == state).sum()))
    if reason == OUTSIDE:
        return "The face is half out of the picture in every frame. Pick a clip where all of it is in view."
    if reason == SMALL:
        widest = np.nanmax(_eye_distance(track.points, track.yaw))
        return (
            f"The face is too small in every frame: at most {widest:.1f} pixels from eye corner to eye corner, and "
            f"{MIN_EYE_DISTANCE:.0f} are needed. Pick a closer shot or a larger copy of the video."
        )
    least = np.nanmin(np.abs(track.yaw[track.state == TURNED]))
    return (
        f"The face is turned away in every frame: by {least:.0f} degrees at the least, and up to {MAX_YAW:.0f} can be "
        "redrawn. Pick a clip where it looks towards the camera."
    )


def _eye_distance(points: np.ndarray, yaw: np.ndarray | None = None) -> np.ndarray:
    """[T] px between the outer eye corners; given the yaw, without the foreshortening of a turned head."""
    left, right = (points[:, i] for i in OUTER_EYE_CORNERS[points.shape[1]])
    distance = np.linalg.norm(right - left, axis=-1)
    return distance if yaw is None else distance / np.cos(np.radians(np.clip(yaw, -75, 75)))


def _states(points: np.ndarray, yaw: np.ndarray, picture: tuple[int, int] | None) -> np.ndarray:
    """[T] uint8 state of every frame; of several reasons the last one set counts."""
    eyes = _eye_distance(points, yaw)
    state = np.full(len(points), OK, np.uint8)
    if picture is not None:
        outside = ((points < 0) | (points > picture[::-1])).any(-1)
        lips = outside[:, LIPS[points.shape[1]]].sum(-1)
        state[(outside.mean(-1) > MAX_OUTSIDE_SHARE) | (lips > MAX_LIPS_OUTSIDE)] = OUTSIDE
    state[np.abs(yaw) > MAX_YAW] = TURNED
    state[eyes < MIN_EYE_DISTANCE] = SMALL
    state[np.isnan(eyes)] = MISSING
    return state


def _bridge(rows: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    """Interpolate drop-outs of up to MAX_BRIDGED_FRAMES frames linearly, unless a cut lies in between."""
    rows = rows.copy()
    present = np.flatnonzero(~np.isnan(rows.reshape(len(rows), -1)[:, 0]))
    for a, b in pairwise(present):
        if 1 < b - a <= MAX_BRIDGED_FRAMES + 1 and not any(a < cut <= b for cut in cuts):
            share = (np.arange(a + 1, b) - a) / (b - a)
            share = share.reshape(-1, *[1] * (rows.ndim - 1)).astype(rows.dtype)
            rows[a + 1 : b] = rows[a] + share * (rows[b] - rows[a])
    return rows


def _edges(times: np.ndarray, frames: int) -> np.ndarray:
    """[T + 1] s: where each frame starts, and where the last one ends."""
    times = np.asarray(times, np.float64)
    if times.shape != (frames,):
        raise ValueError(f"times has shape {times.shape}, the track has {frames} frames")
    last = np.median(np.diff(times)) if frames > 1 else 1 / 25
    return np.append(times, times[-1:] + last)
