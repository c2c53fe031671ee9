"""Tracks faces from frame to frame by the detections of any detector, and finds scene cuts."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import cv2
import numpy as np

from syncdiff.faces.detection import (
    OTHER_PERSON,
    SAME_PERSON,
    Detection,
    appearance_distance,
    distance_in_another_shot,
    same_pose,
)
from syncdiff.faces.track import MAX_BRIDGED_FRAMES, FaceTrack, make_track

SEARCH_EVERY = 5  # frames between detections in the whole picture while everybody is in view
SEARCH_AFTER_LOSS = 12  # frames after a loss or a cut that are all searched
CLOSE_SEARCH_EVERY = 50  # frames between close searches for small faces; they cost three to five times as much
CLOSE_SEARCH_EVERY_EMPTY = 10  # the same, while no face is in view
MAX_LOST_FRAMES = 25  # after which a person out of view is given up; later tracks may still be merged
MAX_PEOPLE = 6  # followed at a time, and returned: nobody picks from a longer list by number
MIN_FRAMES = 5  # of a person; fewer are a false alarm, unless the clip itself is shorter
SAME_PLACE, SAME_SIZE = 0.5, 0.2  # face sizes, and log of the sizes' ratio, within which a face has not moved in a cut
MAX_STEP = 0.5  # face sizes, from the expected place to that of the next detection; beyond, the picture was cut

Backend = Literal["mediapipe", "face-alignment"]


class Detector(Protocol):
    """Detects faces in one picture."""

    def redetect(self, image: np.ndarray, previous: Detection) -> Detection | None:
        """The face that was detected in the previous frame, if it is still near that place."""
        ...

    def detect(self, image: np.ndarray, known: Sequence[Detection], *, closely: bool) -> list[Detection]:
        """Faces in this picture other than the `known` ones; `closely` finds small ones too, and costs more."""
        ...


def track_faces(
    images: Iterable[np.ndarray], backend: Backend = "mediapipe"
) -> Generator[int, None, list[FaceTrack]]:
    """Follow the faces in uint8 RGB [H, W, 3] frames. Yields the number of frames done; returns tracks, largest first.

    Frames are used one by one and not kept. "face-alignment" (S3FD boxes, 68 points) needs weights that are not
    shipped: without them, InputError says which files go where.
    """
    with _detector(backend) as detector:
        return (yield from follow(images, detector))


def _detector(backend: str) -> AbstractContextManager[Detector]:
    if backend == "mediapipe":
        from syncdiff.faces.mediapipe_backend import MediapipeDetector

        return MediapipeDetector()
    if backend == "face-alignment":
        from syncdiff.faces.face_alignment_backend import FaceAlignmentDetector

        return FaceAlignmentDetector()
    raise ValueError(f"backend {backend!r}: choose 'mediapipe' or 'face-alignment'")


def follow(images: Iterable[np.ndarray], detector: Detector) -> Generator[int, None, list[FaceTrack]]:
    """As track_faces, with the caller's detector."""
    people: list[Person] = []
    scenes, last_loss, done, picture = SceneCuts(), -SEARCH_AFTER_LOSS, 0, (0, 0)
    for t, image in enumerate(images):
        cut = scenes.changed(t, image)
        in_view = [person for person in people if person.end == t - 1]
        detections = _without_duplicates(d for person in in_view if (d := detector.redetect(image, person.last)))
        if len(detections) < len(in_view) or cut:
            last_loss = t
        if not detections or t % SEARCH_EVERY == 0 or t - last_loss < SEARCH_AFTER_LOSS:
            closely = cut or t % (CLOSE_SEARCH_EVERY if detections else CLOSE_SEARCH_EVERY_EMPTY) == 0
            detections = _without_duplicates([*detections, *detector.detect(image, detections, closely=closely)])
        detections = sorted(detections, key=lambda detection: -detection.size)[:MAX_PEOPLE]
        recent = [person for person in people if t - person.end <= MAX_LOST_FRAMES]
        people += _associate(t, detections, recent, scenes.cuts)
        people = [person for person in people if len(person.frames) >= MIN_FRAMES or t - person.end <= MAX_LOST_FRAMES]
        done, picture = t + 1, (image.shape[0], image.shape[1])
        yield done
    people = _merge_people([person for person in people if len(person.frames) >= min(MIN_FRAMES, done)], scenes.cuts)
    largest = sorted(people, key=lambda person: -person.presence)[:MAX_PEOPLE]
    tracks = [person.track(done, scenes.cuts, picture) for person in largest]
    return sorted(tracks, key=lambda track: -track.size)


class SceneCuts:
    """Finds the first frames of new shots, from the frames shrunk to 32 x 18."""

    def __init__(self) -> None:
        self.cuts: list[int] = []  # first frames of new shots
        self._recent: deque[np.ndarray] = deque(maxlen=4)  # shrunk frames
        self._recent_changes: deque[float] = deque([0.0], maxlen=8)  # grey levels, mean difference from frame to frame

    def changed(self, t: int, image: np.ndarray) -> bool:
        """Whether frame t begins another shot: it differs from the one before by much, and by more than usual."""
        coarse = cv2.resize(image[::4, ::4], (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        changes = [float(np.abs(coarse - before).mean()) for before in self._recent]  # oldest first
        change = changes[-1] if changes else 0.0
        limit = max(14.0, 4 * float(np.mean(self._recent_changes)) + 4)
        self._recent.append(coarse)
        self._recent_changes.append(min(change, limit))
        if change <= limit:
            return False
        if self.cuts and t - self.cuts[-1] < len(changes) and changes[self.cuts[-1] - t - 1] < limit / 2:
            self.cuts.pop()  # as it was before that "cut", which was a photographer's flash
            return False
        self.cuts.append(t)
        return True


@dataclass
class Person:
    """One face while it is being followed."""

    frames: list[int]
    points: list[np.ndarray]
    boxes: list[np.ndarray | None]
    first: Detection
    last: Detection
    appearance: np.ndarray  # [108], running mean
    presence: float  # px, sum of its sizes over time
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))  # [2] px a frame
    jumps: list[int] = field(default_factory=list)  # frames before which this face alone was cut

    @classmethod
    def new(cls, t: int, detection: Detection) -> Person:
        d = detection
        return cls([t], [d.points], [d.box], d, d, d.appearance, d.size)

    @property
    def end(self) -> int:
        return self.frames[-1]

    def distance(self, t: int, detection: Detection) -> float:
        """Distance, in face sizes, of a detection in frame t from the place that this face's velocity leads to.

        The face is expected to stop after 8 frames."""
        expected = self.last.centre + self.velocity * min(t - self.end, 8)
        return float(np.hypot(*(detection.centre - expected))) / self.last.size

    def add(self, t: int, detection: Detection, *, cut: bool) -> None:
        """Add the detection of frame t; `cut`: another shot has begun since the last one."""
        jump = t - self.end <= MAX_BRIDGED_FRAMES and self.distance(t, detection) > MAX_STEP
        if jump and not cut:
            self.jumps.append(t)
        step = (detection.centre - self.last.centre) / (t - self.end)
        self.velocity = np.zeros(2) if cut or jump else 0.6 * self.velocity + 0.4 * step
        self.appearance = 0.95 * self.appearance + 0.05 * detection.appearance
        self.presence += detection.size
        self.last = detection
        self.frames.append(t)
        self.points.append(detection.points)
        self.boxes.append(detection.box)

    def merge(self, later: Person) -> None:
        """Append the frames of `later`, the same face."""
        if later.frames[0] - self.end <= MAX_BRIDGED_FRAMES:
            self.jumps.append(later.frames[0])
        share = len(self.frames) / (len(self.frames) + len(later.frames))
        self.appearance = share * self.appearance + (1 - share) * later.appearance
        self.presence += later.presence
        self.last, self.velocity = later.last, later.velocity
        self.frames += later.frames
        self.points += later.points
        self.boxes += later.boxes
        self.jumps += later.jumps

    def track(self, frames: int, cuts: Sequence[int], picture: tuple[int, int]) -> FaceTrack:
        points = self._rows(self.points, frames)
        boxes = None if self.last.box is None else self._rows(self.boxes, frames)
        return make_track(points, cuts, self.jumps, boxes, picture)

    def _rows(self, values: list, frames: int) -> np.ndarray:
        """Values by frame number [frames, ...], NaN where this face was not detected."""
        rows = np.full((frames, *values[0].shape), np.nan, np.float32)
        for t, value in zip(self.frames, values, strict=True):  # rows[self.frames] = values would copy them all first
            rows[t] = value
        return rows


def _without_duplicates(detections: Iterable[Detection]) -> list[Detection]:
    """Detections of different faces: the squares of two faces that overlap may both lead to the nearer one."""
    kept: list[Detection] = []
    for detection in detections:
        if all(np.hypot(*(detection.centre - other.centre)) > 0.35 * max(detection.size, other.size) for other in kept):
            kept.append(detection)
    return kept


def _associate(t: int, detections: Sequence[Detection], people: Sequence[Person], cuts: Sequence[int]) -> list[Person]:
    """Add each detection to the person with the least cost, least first. Returns new people for those left over."""
    pairs = sorted(
        (cost, i, j)
        for i, person in enumerate(people)
        for j, detection in enumerate(detections)
        if (cost := _cost(t, person, detection, cut=_cut_between(person.end, t, cuts))) is not None
    )
    matched: dict[int, int] = {}  # detection -> person
    for _, i, j in pairs:
        if j not in matched and i not in matched.values():
            people[i].add(t, detections[j], cut=_cut_between(people[i].end, t, cuts))
            matched[j] = i
    return [Person.new(t, detection) for j, detection in enumerate(detections) if j not in matched]


def _cost(t: int, person: Person, detection: Detection, *, cut: bool) -> float | None:
    """Cost of giving a detection to a person; None if it cannot be the same face."""
    difference = appearance_distance(person.appearance, detection.appearance)
    away = t - person.end - 1  # frames out of view: the longer, the wider the limits
    distance, growth = person.distance(t, detection), abs(np.log(detection.size / person.last.size))
    if cut:  # another shot, where positions mean nothing; or another background, another light, or a jump cut
        if same_pose(person.last, detection):
            return 0.0
        stayed = distance < SAME_PLACE and growth < SAME_SIZE
        difference = distance_in_another_shot(person.appearance, detection.appearance, stayed=stayed)
        return difference / OTHER_PERSON if difference < SAME_PERSON else None
    if distance > min(1 + 0.1 * away, 2.5) or growth > min(0.35 + 0.03 * away, 0.7):
        return None
    if away and difference > OTHER_PERSON:
        return None
    return float(distance + growth + difference / OTHER_PERSON)


def _merge_people(people: list[Person], cuts: Sequence[int]) -> list[Person]:
    """Merge people who share no frame and are the same: at about the same place and size, or of the same appearance."""
    merged: list[Person] = []
    for later in sorted(people, key=lambda person: person.frames[0]):
        costs = [(cost, i) for i, person in enumerate(merged) if (cost := _merge_cost(person, later, cuts)) is not None]
        if costs:
            merged[min(costs)[1]].merge(later)
        else:
            merged.append(later)
    return merged


def _merge_cost(person: Person, later: Person, cuts: Sequence[int]) -> float | None:
    """Cost of taking `later` for the same face as `person`; None if it cannot be."""
    start = later.frames[0]
    if start <= person.end:
        return None
    difference = appearance_distance(person.appearance, later.appearance)
    distance = float(np.hypot(*(later.first.centre - person.last.centre))) / person.last.size
    growth = abs(np.log(later.first.size / person.last.size))
    stayed, cut = distance < SAME_PLACE and growth < SAME_SIZE, _cut_between(person.end, start, cuts)
    if stayed or cut:
        difference = distance_in_another_shot(person.appearance, later.appearance, stayed=stayed)
    near = distance < 2.5 and growth < 0.5 and not cut
    return difference if difference < (OTHER_PERSON if near else SAME_PERSON) else None


def _cut_between(before: int, after: int, cuts: Sequence[int]) -> bool:
    return any(before < cut <= after for cut in cuts)
