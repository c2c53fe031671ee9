"""The invisible mark in the redrawn mouth: how it is drawn, and how it is read back from any copy of the video.

Where: blue against yellow (Cb), the channel that eyes see worst and that a mouth moves least. Each of 48 cosine
patterns, 19 to 80 crop pixels long, carries four chips: cosine and sine of two slow rhythms of *time* (not of frame
numbers), so the mark adds up over frames, the face itself cancels, and a copy of another frame rate or with its
beginning cut off still reads. Rhythms and patterns were chosen by what comes through H.264: docs/provenance.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from syncdiff.faces import OK, FaceTrack, track_faces
from syncdiff.geometry.crops import S, align, cut, mouth_mask
from syncdiff.media import Clip, Patch, open_clip
from syncdiff.progress import adapted, finished
from syncdiff.provenance import payload

STRENGTH = 1.8  # levels of Cb, root mean square over mask and time; luma changes by less than rounding does
RHYTHMS = (2.5, 3.75)  # Hz: both fit whole into PERIOD
PERIOD = 0.8  # s, after which the pattern repeats
PATTERNS = payload.CHIPS // (2 * len(RHYTHMS))
LONGEST = 80.0  # crop px: of longer waves the face itself holds too much
BOX = (slice(57, 125), slice(24, 104))  # the mask's rectangle in the crop
SHIFTS = 32  # alignments in time that are tried, PERIOD / SHIFTS s apart
BLOCK = 1.6  # s read together; a head holds still enough for that long
LEAST = 0.8  # s: shorter runs of frames are not read
WATCHED = 60.0  # s of the video's beginning that are looked at
TO_RGB = np.array([0.0, -0.25, 1.8], np.float32)  # one level of Cb, between the matrices of BT.601 and BT.709
TO_CB = np.array([-0.169, -0.331, 0.5], np.float32)


@dataclass(frozen=True)
class WatermarkReading:
    """What was read from a video's mouths."""

    found: bool
    number: int | None  # the job number, where it can be read for sure
    z: float  # strength of the payload that is judged, in standard deviations of chance; found from `needed` on
    needed: float
    agreement: float  # 0.5 (chance) .. 1: share of the 192 chips read rightly, if that payload is there
    seconds: float  # of face that were read


class Watermark:
    """Marks the redrawn mouths of one video: `mark` in their crops, or `onto` what was drawn in another way."""

    def __init__(self, number: int) -> None:
        """number: 16 bits that stand for the job, 0 to 65,535; nothing about the visitor. Raises ValueError."""
        chips = _spread(payload.encode(number))  # [4, PATTERNS]
        waves = np.tensordot(chips, _patterns(), 1) * mouth_mask()[BOX]  # [4, h, w]
        self._waves = waves * (STRENGTH / np.sqrt((waves**2).mean((1, 2)).sum() / 2)).astype(np.float32)

    def mark(self, crop: np.ndarray, time: float) -> np.ndarray:
        """A copy of the crop [S, S, 3] uint8 with the mark of that second (on the output's timeline) in it."""
        level = np.tensordot(_rhythms(np.array([time]))[0], self._waves, 1)
        marked = crop.copy()
        marked[BOX] = np.clip(np.rint(crop[BOX] + level[..., None] * TO_RGB), 0, 255)
        return marked

    def onto(self, patch: Patch, to_frame: np.ndarray, time: float, weight: float = 1.0) -> Patch:
        """The same for pixels of a frame that are no crop: laid where the face's crop lies, in the frame's own detail.

        Args:
            to_frame: [2, 3] crop px -> frame px (see `crops.align`).
            weight: 0..1 fades the mark.
        """
        level = np.zeros((S, S), np.float32)
        level[BOX] = np.tensordot(_rhythms(np.array([time]))[0], self._waves, 1)
        to_patch = to_frame - np.array([[0, 0, patch.x], [0, 0, patch.y]], np.float32)
        there = cv2.warpAffine(level, to_patch, patch.rgb.shape[1::-1])[..., None]
        return replace(patch, rgb=np.clip(np.rint(patch.rgb + weight * there * TO_RGB), 0, 255).astype(np.uint8))


def read_watermark(video: str | Path) -> WatermarkReading:
    """Look for our mark in the first WATCHED seconds of any video, in every face. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        return finished(reading(open_clip(video, Path(folder))))


def reading(clip: Clip) -> Generator[float, None, WatermarkReading]:
    """As read_watermark, of a clip that is open; yields how far it is, 0..1."""
    return best((yield from rhythms_of(clip)))


def rhythms_of(clip: Clip) -> Generator[float, None, list[tuple[np.ndarray, float]]]:
    """What accumulate() gives for every face of a clip that is open; yields how far it is, 0..1."""
    times = clip.times[clip.times < WATCHED]
    frames = np.arange(len(times))
    steps = track_faces(frame.rgb() for frame in clip.frames(frames))
    tracks: list[FaceTrack] = yield from adapted(steps, lambda done: 0.9 * done / len(times))
    placed = [align(track, times) for track in tracks]
    seen = np.zeros((len(tracks), len(times), PATTERNS), np.float32)
    for i, frame in enumerate(clip.frames(frames) if tracks else ()):
        image = frame.rgb()
        for rows, track, to_frame in zip(seen, tracks, placed, strict=True):
            if track.state[i] == OK:
                rows[i] = features(cut(image, to_frame[i]))
        yield 0.9 + 0.1 * (i + 1) / len(times)
    return [accumulate(rows, times, runs(track)) for rows, track in zip(seen, tracks, strict=True)]


def features(crop: np.ndarray) -> np.ndarray:
    """Crop [S, S, 3] uint8 -> [PATTERNS] float32: how much of each pattern its Cb holds."""
    level = crop[BOX].astype(np.float32) @ TO_CB
    return _readers() @ level.ravel()


def runs(track: FaceTrack) -> np.ndarray:
    """[T] int: frames of one unbroken run in which the face could be redrawn share a number; -1 elsewhere."""
    return np.where(track.state == OK, track.run, -1)


def accumulate(seen: np.ndarray, times: np.ndarray, run: np.ndarray) -> tuple[np.ndarray, float]:
    """Features [T, PATTERNS] -> their rhythm [4, PATTERNS], summed over all blocks of frames, and the seconds read.

    In each block, slow changes of the face (below the rhythms) are fitted beside the rhythms, so neither they nor the
    block's edges leak into them; a block in which the rest is noisy counts for less.
    """
    total, seconds = np.zeros((2 * len(RHYTHMS), seen.shape[1])), 0.0
    for block in _blocks(times, run):
        t = times[block]
        length = (t[-1] - t[0]) * len(t) / (len(t) - 1)
        slow = np.cos(np.pi / length * np.outer(t - t[0], np.arange(int(2 * length * 0.6 * RHYTHMS[0]) + 1)))
        base = np.concatenate([_rhythms(t), slow], axis=1)
        if len(t) < base.shape[1] + 4:
            continue
        fit, *_ = np.linalg.lstsq(base, seen[block], rcond=None)
        rest = seen[block] - base @ fit
        noise = (rest**2).sum(0) / (len(t) - base.shape[1])
        total += fit[: len(total)] * len(t) / (noise + noise.mean() + 1e-6)
        seconds += length
    return total, seconds


def best(faces: Sequence[tuple[np.ndarray, float]]) -> WatermarkReading:
    """The likeliest reading among what accumulate() gave for each face."""
    finding = payload.Finding.of(alignments(faces))
    said, needed = finding.judged()
    seconds = max((seconds for _, seconds in faces), default=0.0)
    return WatermarkReading(said.z >= needed, finding.number, said.z, needed, said.agreement, seconds)


def alignments(faces: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    """What accumulate() gave for each face -> soft chips [faces * SHIFTS, CHIPS], as each alignment in time reads."""
    read = [soft_chips(total) for total, seconds in faces if seconds]
    return np.concatenate(read) if read else np.zeros((0, payload.CHIPS))


def soft_chips(total: np.ndarray) -> np.ndarray:
    """A rhythm [4, PATTERNS] -> [SHIFTS, CHIPS], as it reads from every alignment in time; no few chips may decide."""
    chips = np.stack([_gather(_shifted(total, shift * PERIOD / SHIFTS)) for shift in range(SHIFTS)])
    usual = np.median(np.abs(chips), axis=1, keepdims=True) + 1e-12
    return chips / (np.abs(chips) + 2 * usual)


def _blocks(times: np.ndarray, run: np.ndarray) -> Iterator[np.ndarray]:
    """Frame numbers of stretches of about BLOCK seconds, none across a gap or a cut, none below LEAST."""
    for number in np.unique(run[run >= 0]):
        frames = np.flatnonzero(run == number)
        length = times[frames[-1]] - times[frames[0]]
        for part in np.array_split(frames, max(1, round(length / BLOCK))):
            if len(part) > 1 and (times[part[-1]] - times[part[0]]) * len(part) / (len(part) - 1) >= LEAST - 1e-6:
                yield part


def _rhythms(times: np.ndarray) -> np.ndarray:
    """[T, 4]: cosine and sine of each rhythm."""
    turns = 2 * np.pi * np.outer(times, RHYTHMS)
    return np.stack([np.cos(turns), np.sin(turns)], axis=2).reshape(len(times), -1).astype(np.float32)


def _shifted(total: np.ndarray, seconds: float) -> np.ndarray:
    """The rhythm [4, PATTERNS] as it would have been read had the video begun `seconds` later."""
    turns = 2 * np.pi * seconds * np.array(RHYTHMS)[:, None]
    cosine, sine = total[0::2], total[1::2]
    back = [cosine * np.cos(turns) - sine * np.sin(turns), cosine * np.sin(turns) + sine * np.cos(turns)]
    return np.stack(back, axis=1).reshape(total.shape)


@cache
def _place() -> tuple[np.ndarray, np.ndarray]:
    """Which rhythm [CHIPS] and which pattern [CHIPS] carry each chip: every word lies over all of both."""
    chip = np.arange(payload.CHIPS).reshape(payload.LENGTH, payload.WORDS).T.ravel()  # neighbours are of other words
    rhythm = chip // PATTERNS
    return rhythm, (chip + rhythm) % PATTERNS


def _spread(chips: np.ndarray) -> np.ndarray:
    grid = np.zeros((2 * len(RHYTHMS), PATTERNS), np.float32)
    grid[_place()] = chips
    return grid


def _gather(grid: np.ndarray) -> np.ndarray:
    return grid[_place()]


@cache
def _patterns() -> np.ndarray:
    """[PATTERNS, h, w] float32: the longest cosines of the two-dimensional DCT of BOX that are shorter than LONGEST."""
    h, w = (side.stop - side.start for side in BOX)
    u, v = (grid.ravel() for grid in np.meshgrid(np.arange(h), np.arange(w), indexing="ij"))
    frequency = np.hypot(u / (2 * h), v / (2 * w))
    order = np.argsort(np.where(frequency > 1 / LONGEST, frequency, np.inf), kind="stable")[:PATTERNS]
    down = np.cos(np.pi * np.outer(u[order], np.arange(h) + 0.5) / h)
    across = np.cos(np.pi * np.outer(v[order], np.arange(w) + 0.5) / w)
    return (down[:, :, None] * across[:, None, :]).astype(np.float32)


@cache
def _readers() -> np.ndarray:
    """[PATTERNS, h * w] float32 of unit length: the patterns inside the mask."""
    seen = (_patterns() * mouth_mask()[BOX]).reshape(PATTERNS, -1)
    return seen / np.linalg.norm(seen, axis=1, keepdims=True)
