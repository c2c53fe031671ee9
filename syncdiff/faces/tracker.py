"""Which face in this picture is which face in the last. Knows sightings, not nets, so that any finder can serve it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import cv2
import numpy as np

from syncdiff.faces.detection import OTHER_LOOKS, SAME_LOOKS, Sighting, unlike
from syncdiff.faces.track import BRIDGED, FaceTrack, make_track

SEARCH_EVERY = 5  # frames between searches of the whole picture while everybody is in view
SEARCH_AFTER_LOSS = 12  # frames of searching in every frame after somebody was lost
CLOSELY_EVERY = 50  # frames between close searches for small faces; they cost three to five times as much
CLOSELY_ALONE = 10  # the same, while nobody is in view
REMEMBERED = 25  # frames for which somebody out of view is expected where he was heading
PEOPLE = 6  # followed at a time, and returned: a crowd is not a choice that anyone can make by number
LEAST = 5  # frames: whoever is seen in fewer is a false alarm, unless the clip itself is shorter
JUMP = 0.5  # face sizes a face may be from where it was heading one frame later; beyond, the picture was cut


class Finder(Protocol):
    """Finds faces in one picture."""

    def again(self, image: np.ndarray, seen: Sighting) -> Sighting | None:
        """The face that was `seen` in the picture before, if it is still about there."""

    def search(self, image: np.ndarray, known: Sequence[Sighting], *, closely: bool) -> list[Sighting]:
        """Faces that are not yet `known` in this picture."""


def track_faces(
    images: Iterable[np.ndarray], backend: Literal["mediapipe", "face-alignment"] = "mediapipe"
) -> Generator[int, None, list[FaceTrack]]:
    """Follow the faces in uint8 RGB [H, W, 3] frames. Yields the number of frames done; returns tracks, largest first.

    Frames are used one by one and not kept. "face-alignment" (S3FD boxes, 68 points) needs weights that are not
    shipped: without them, InputError says which files go where.
    """
    with _finder(backend) as finder:
        return (yield from follow(images, finder))


def _finder(backend: str) -> AbstractContextManager[Finder]:
    if backend == "mediapipe":
        from syncdiff.faces.mediapipe_backend import MeshFinder

        return MeshFinder()
    if backend == "face-alignment":
        from syncdiff.faces.face_alignment_backend import FanFinder

        return FanFinder()
    raise ValueError(f"backend {backend!r}: choose 'mediapipe' or 'face-alignment'")


def follow(images: Iterable[np.ndarray], finder: Finder) -> Generator[int, None, list[FaceTrack]]:
    """As track_faces, with a finder of the caller's."""
    people: list[Person] = []
    scenes, lost, done, picture = Scenes(), -SEARCH_AFTER_LOSS, 0, (0, 0)
    for t, image in enumerate(images):
        cut = scenes.changed(t, image)
        in_view = [person for person in people if person.end == t - 1]
        seen = _distinct(sighting for person in in_view if (sighting := finder.again(image, person.last)))
        if len(seen) < len(in_view) or cut:
            lost = t
        if not seen or t % SEARCH_EVERY == 0 or t - lost < SEARCH_AFTER_LOSS:
            closely = cut or t % (CLOSELY_EVERY if seen else CLOSELY_ALONE) == 0
            seen = _distinct([*seen, *finder.search(image, seen, closely=closely)])
        seen = sorted(seen, key=lambda sighting: -sighting.size)[:PEOPLE]
        people += _recognise(t, seen, [person for person in people if t - person.end <= REMEMBERED], scenes.cuts)
        people = [person for person in people if len(person.frames) >= LEAST or t - person.end <= REMEMBERED]
        done, picture = t + 1, image.shape[:2]
        yield done
    people = _reunite([person for person in people if len(person.frames) >= min(LEAST, done)], scenes.cuts)
    largest = sorted(people, key=lambda person: -person.presence)[:PEOPLE]
    tracks = [person.track(done, scenes.cuts, picture) for person in largest]
    return sorted(tracks, key=lambda track: -track.size)


class Scenes:
    """Tells where one shot ends and the next begins, from 32 x 18 pictures of the frames."""

    def __init__(self) -> None:
        self.cuts: list[int] = []  # first frames of new shots
        self._recent: deque[np.ndarray] = deque(maxlen=4)
        self._usual: deque[float] = deque([0.0], maxlen=8)  # recent changes from frame to frame

    def changed(self, t: int, image: np.ndarray) -> bool:
        """Whether frame t begins another shot: it differs from the one before by much, and by more than usual."""
        coarse = cv2.resize(image[::4, ::4], (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        changes = [float(np.abs(coarse - before).mean()) for before in self._recent]  # oldest first
        change = changes[-1] if changes else 0.0
        limit = max(14.0, 4 * float(np.mean(self._usual)) + 4)
        self._recent.append(coarse)
        self._usual.append(min(change, limit))
        if change <= limit:
            return False
        if self.cuts and t - self.cuts[-1] < len(changes) and changes[self.cuts[-1] - t - 1] < limit / 2:
            self.cuts.pop()  # back where it was before that "cut": somebody's flash
            return False
        self.cuts.append(t)
        return True


@dataclass
class Person:
    """One face while it is being followed."""

    frames: list[int]
    points: list[np.ndarray]
    boxes: list[np.ndarray | None]
    first: Sighting
    last: Sighting
    looks: np.ndarray  # slow mean
    presence: float  # sum of its sizes over time
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))  # px a frame
    jumps: list[int] = field(default_factory=list)

    @classmethod
    def new(cls, t: int, seen: Sighting) -> Person:
        return cls([t], [seen.points], [seen.box], seen, seen, seen.looks, seen.size)

    @property
    def end(self) -> int:
        return self.frames[-1]

    def distance(self, t: int, seen: Sighting) -> float:
        """How far, in face sizes, from where this face should be in frame t: it goes on as it went, for some frames."""
        expected = self.last.centre + self.velocity * min(t - self.end, 8)
        return float(np.hypot(*(seen.centre - expected))) / self.last.size

    def meet(self, t: int, seen: Sighting, *, cut: bool) -> None:
        """Take in what was seen in frame t; `cut`: another shot has begun since the last time."""
        jump = t - self.end <= BRIDGED and self.distance(t, seen) > JUMP
        if jump and not cut:
            self.jumps.append(t)
        step = (seen.centre - self.last.centre) / (t - self.end)
        self.velocity = np.zeros(2) if cut or jump else 0.6 * self.velocity + 0.4 * step
        self.looks = 0.95 * self.looks + 0.05 * seen.looks
        self.presence += seen.size
        self.last = seen
        self.frames.append(t)
        self.points.append(seen.points)
        self.boxes.append(seen.box)

    def absorb(self, later: Person) -> None:
        """Go on as `later`, who was the same face all along."""
        if later.frames[0] - self.end <= BRIDGED:
            self.jumps.append(later.frames[0])
        share = len(self.frames) / (len(self.frames) + len(later.frames))
        self.looks = share * self.looks + (1 - share) * later.looks
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
        rows = np.full((frames, *values[0].shape), np.nan, np.float32)
        for t, value in zip(self.frames, values, strict=True):  # and no array of them all besides
            rows[t] = value
        return rows


def _distinct(sightings: Iterable[Sighting]) -> list[Sighting]:
    """Without those that show the face of an earlier one: two squares that overlap may both end on the nearer face."""
    kept: list[Sighting] = []
    for sighting in sightings:
        if all(np.hypot(*(sighting.centre - other.centre)) > 0.35 * max(sighting.size, other.size) for other in kept):
            kept.append(sighting)
    return kept


def _recognise(t: int, seen: Sequence[Sighting], people: Sequence[Person], cuts: Sequence[int]) -> list[Person]:
    """Give each sighting to the person it fits best, best fits first. Returns new people for those left over."""
    fits = sorted(
        (fit, i, j)
        for i, person in enumerate(people)
        for j, sighting in enumerate(seen)
        if (fit := _misfit(t, person, sighting, cut=_cut_between(person.end, t, cuts))) is not None
    )
    met: set[int] = set()
    known: set[int] = set()
    for _, i, j in fits:
        if i not in met and j not in known:
            people[i].meet(t, seen[j], cut=_cut_between(people[i].end, t, cuts))
            met.add(i)
            known.add(j)
    return [Person.new(t, sighting) for j, sighting in enumerate(seen) if j not in known]


def _misfit(t: int, person: Person, sighting: Sighting, *, cut: bool) -> float | None:
    """How badly a sighting fits a person, or None if it cannot be the same face."""
    unlikeness = unlike(person.looks, sighting.looks)
    if cut:  # another shot: places mean nothing
        return unlikeness / OTHER_LOOKS if unlikeness < SAME_LOOKS else None
    away = t - person.end - 1  # frames out of view: the longer, the less is known
    distance, growth = person.distance(t, sighting), abs(np.log(sighting.size / person.last.size))
    if distance > min(1 + 0.1 * away, 2.5) or growth > min(0.35 + 0.03 * away, 0.7):
        return None
    if away and unlikeness > OTHER_LOOKS:
        return None
    return float(distance + growth + unlikeness / OTHER_LOOKS)


def _reunite(people: list[Person], cuts: Sequence[int]) -> list[Person]:
    """Join people who never share a frame and are the same: at about the same place and size, or very alike."""
    together: list[Person] = []
    for later in sorted(people, key=lambda person: person.frames[0]):
        fits = [(_misfit_later(person, later, cuts), i) for i, person in enumerate(together)]
        fits = [(fit, i) for fit, i in fits if fit is not None]
        if fits:
            together[min(fits)[1]].absorb(later)
        else:
            together.append(later)
    return together


def _misfit_later(person: Person, later: Person, cuts: Sequence[int]) -> float | None:
    start = later.frames[0]
    if start <= person.end:
        return None
    unlikeness = unlike(person.looks, later.looks)
    distance = float(np.hypot(*(later.first.centre - person.last.centre))) / person.last.size
    growth = abs(np.log(later.first.size / person.last.size))
    near = distance < 2.5 and growth < 0.5 and not _cut_between(person.end, start, cuts)
    return unlikeness if unlikeness < (OTHER_LOOKS if near else SAME_LOOKS) else None


def _cut_between(before: int, after: int, cuts: Sequence[int]) -> bool:
    return any(before < cut <= after for cut in cuts)
