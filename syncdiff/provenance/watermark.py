"""The invisible watermark in the redrawn mouth: drawing it, and detecting it in any copy of the video.

It lies in Cb (blue against yellow), the channel to which eyes are least sensitive and that a mouth changes least. Each
of 48 cosine patterns, 19 to 80 crop pixels long, carries four chips (+1 or -1 from a fixed key): cosine and sine of two
slow rhythms of *time*, not of frame numbers. So the watermark adds up over frames, the face itself cancels, and a copy
with another frame rate or a later start still reads. Rhythms and patterns were chosen by what survives H.264:
docs/provenance.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import cv2
import numpy as np

from syncdiff.faces import OK, FaceTrack, track_faces
from syncdiff.geometry.crops import S, align, cut, mouth_mask
from syncdiff.media import Clip, Patch
from syncdiff.progress import adapted

STRENGTH = 1.8  # levels of Cb, root mean square over mask and time; luma changes by less than rounding does
RHYTHMS = (2.5, 3.75)  # Hz: both fit whole into PERIOD
PERIOD = 0.8  # s, after which the pattern repeats
PATTERNS = 48
CHIPS = 2 * len(RHYTHMS) * PATTERNS
LONGEST = 80.0  # crop px: the face itself varies too much over longer waves
BOX = (slice(57, 125), slice(24, 104))  # crop px: the mask's rectangle. Another one would read no older mark
SHIFTS = 32  # alignments in time that are tried, PERIOD / SHIFTS s apart
BLOCK = 1.6  # s that are fitted together; a head keeps still enough for that long
MIN_SECONDS = 0.8  # s: shorter runs of frames are not read
READ_SECONDS = 60.0  # s from the video's start that are read
FALSE_ALARMS = 1e-6  # share of videos without the watermark that may be taken for ours
RADEMACHER = 1 / (4 * (1 - NormalDist().cdf(2**0.5)))  # 3.178, the least such constant: Bentkus and Dzindzalieta 2015
TO_RGB = np.array([0.0, -0.25, 1.8], np.float32)  # one level of Cb, between the matrices of BT.601 and BT.709
TO_CB = np.array([-0.169, -0.331, 0.5], np.float32)


@dataclass(frozen=True)
class WatermarkReading:
    """What was read from a video's mouths."""

    found: bool
    z: float  # correlation with the key in standard deviations of chance; found from `needed` on
    needed: float
    agreement: float  # 0.5 (chance) .. 1: share of the 192 chips with the right sign
    seconds: float  # of face that were read


class Watermark:
    """Marks redrawn mouths: `mark` in a crop, or `onto` a patch that was not drawn as a crop."""

    def __init__(self) -> None:
        waves = np.tensordot(key().reshape(-1, PATTERNS), _patterns(), 1) * mouth_mask()[BOX]  # [4, h, w]
        self._waves = waves * (STRENGTH / np.sqrt((waves**2).mean((1, 2)).sum() / 2)).astype(np.float32)

    def mark(self, crop: np.ndarray, time: float) -> np.ndarray:
        """A copy of the crop [S, S, 3] uint8 with the watermark of that second of the output."""
        return _add(crop, self._level(time)[..., None])

    def onto(self, patch: Patch, to_frame: np.ndarray, time: float, weight: float = 1.0) -> Patch:
        """The patch with the watermark laid where the face's crop lies.

        Args:
            patch: redrawn pixels of a frame.
            to_frame: [2, 3] crop px -> frame px (see `crops.align`).
            time: s on the output's timeline.
            weight: 0..1 fades the watermark.
        """
        to_patch = to_frame - np.array([[0, 0, patch.x], [0, 0, patch.y]], np.float32)
        level = cv2.warpAffine(self._level(time), to_patch, patch.rgb.shape[1::-1])
        return replace(patch, rgb=_add(patch.rgb, weight * level[..., None]))

    def _level(self, time: float) -> np.ndarray:
        """[S, S] float32: levels of Cb to add at that second."""
        level = np.zeros((S, S), np.float32)
        level[BOX] = np.tensordot(_rhythms(np.array([time]))[0], self._waves, 1)
        return level


def reading(clip: Clip) -> Generator[float, None, WatermarkReading]:
    """Look for the watermark in the first READ_SECONDS of a clip, in every face; yields the fraction done, 0..1."""
    return judge((yield from soft_chips_of(clip)))


def soft_chips_of(clip: Clip) -> Generator[float, None, list[tuple[np.ndarray, float]]]:
    """Per face `soft_chips` and the seconds of face read; yields the fraction done, 0..1."""
    times = clip.times[clip.times < READ_SECONDS]
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
    runs = [np.where(track.state == OK, track.run, -1) for track in tracks]
    return [accumulate(rows, times, run) for rows, run in zip(seen, runs, strict=True)]


def features(crop: np.ndarray) -> np.ndarray:
    """Crop [S, S, 3] uint8 -> [PATTERNS] float32: how much of each pattern its Cb holds."""
    return _readers() @ (crop[BOX].astype(np.float32) @ TO_CB).ravel()


def accumulate(seen: np.ndarray, times: np.ndarray, run: np.ndarray) -> tuple[np.ndarray, float]:
    """Features of one face over time -> soft chips [SHIFTS, CHIPS], one row per alignment in time, and seconds read.

    In each block of frames, slow changes of the face (below the rhythms) are fitted beside the rhythms, so neither they
    nor the block's edges leak into them; a block with a noisy rest counts for less. The result is limited, so that no
    few chips decide.

    Args:
        seen: [T, PATTERNS], from `features`.
        times: [T] s.
        run: [T] int: frames of one unbroken run of the face share a number; -1 elsewhere.
    """
    total, seconds = np.zeros((2 * len(RHYTHMS), PATTERNS)), 0.0
    for block in _blocks(times, run):
        t = times[block]
        length = (t[-1] - t[0]) * len(t) / (len(t) - 1)
        slow = np.cos(np.pi / length * np.outer(t - t[0], np.arange(int(2 * length * 0.6 * RHYTHMS[0]) + 1)))
        base = np.concatenate([_rhythms(t), slow], axis=1)
        if len(t) < base.shape[1] + 4:
            continue
        fit, *_ = np.linalg.lstsq(base, seen[block], rcond=None)
        noise = ((seen[block] - base @ fit) ** 2).sum(0) / (len(t) - base.shape[1])
        total += fit[: len(total)] * len(t) / (noise + noise.mean() + 1e-6)
        seconds += length
    phase = np.exp(2j * np.pi * np.outer(np.arange(SHIFTS) * PERIOD / SHIFTS, RHYTHMS))  # had it begun so much later
    shifted = (total[0::2] + 1j * total[1::2]) * phase[..., None]  # [SHIFTS, rhythms, PATTERNS]
    chips = np.stack([shifted.real, shifted.imag], axis=2).reshape(SHIFTS, CHIPS)
    return chips / (np.abs(chips) + 2 * np.median(np.abs(chips), axis=1, keepdims=True) + 1e-12), seconds


def judge(faces: Sequence[tuple[np.ndarray, float]], chips: np.ndarray | None = None) -> WatermarkReading:
    """The best reading among what `accumulate` gave for each face.

    Were the key drawn anew for a given picture, the sign of each chip would be a fair coin, whatever the picture shows.
    A weighted sum of fair coins passes t at most RADEMACHER times as often as a normal variable does; the chances of
    all alignments and faces are added up. So `needed` holds for any picture.

    Args:
        faces: from `accumulate`.
        chips: [CHIPS] another key, to measure false alarms.
    """
    chips = key() if chips is None else chips
    soft = np.concatenate([np.zeros((1, CHIPS)), *(rows for rows, seconds in faces if seconds)])
    z = soft @ chips / np.maximum(np.linalg.norm(soft, axis=1), 1e-12)
    best = z.argmax()
    needed = -NormalDist().inv_cdf(FALSE_ALARMS / (RADEMACHER * max(1, len(soft) - 1)))
    agreement = float(np.mean(chips * soft[best] > 0)) if best else 0.5
    seconds = max((seconds for _, seconds in faces), default=0.0)
    return WatermarkReading(bool(z[best] >= needed), float(z[best]), needed, agreement, seconds)


@cache
def key() -> np.ndarray:
    """[CHIPS] float32 of +1 and -1: the same on every machine and in every version of numpy."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"syncdiff watermark 2").digest(CHIPS // 8), np.uint8))
    return 1 - 2 * bits.astype(np.float32)


def _add(image: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image + level * TO_RGB), 0, 255).astype(np.uint8)


def _blocks(times: np.ndarray, run: np.ndarray) -> Iterator[np.ndarray]:
    """Frame numbers of stretches of about BLOCK seconds, none across a gap or a cut, none below MIN_SECONDS."""
    for number in np.unique(run[run >= 0]):
        frames = np.flatnonzero(run == number)
        for part in np.array_split(frames, max(1, round((times[frames[-1]] - times[frames[0]]) / BLOCK))):
            if len(part) > 1 and (times[part[-1]] - times[part[0]]) * len(part) / (len(part) - 1) >= MIN_SECONDS - 1e-6:
                yield part


def _rhythms(times: np.ndarray) -> np.ndarray:
    """[T, 4]: cosine and sine of each rhythm."""
    turns = 2 * np.pi * np.outer(times, RHYTHMS)
    return np.stack([np.cos(turns), np.sin(turns)], axis=2).reshape(len(times), -1).astype(np.float32)


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
