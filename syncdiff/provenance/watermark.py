"""The invisible watermark in the redrawn mouth: drawing it, and detecting it in any copy of the video.

A spread-spectrum watermark in Cb (blue against yellow), the channel to which eyes are least sensitive and that a moving
mouth changes least. Each of 48 two-dimensional cosine patterns, with wavelengths of 19 to 80 crop pixels, carries four
chips (+1 or -1 from a fixed key): the signs of a cosine and a sine in time at two slow frequencies. They depend on
seconds, not on frame numbers. So the watermark adds up over the frames while the face averages out, and it can be read
from a copy with another frame rate or a later start. Frequencies and patterns were chosen by what survives H.264:
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

STRENGTH = 1.8  # levels of Cb, root mean square over mask and time; luma changes by less than rounding
FREQUENCIES = (2.5, 3.75)  # Hz in time; whole numbers of cycles fit into PERIOD
PERIOD = 0.8  # s, after which the watermark repeats
PATTERNS = 48
CHIPS = 2 * len(FREQUENCIES) * PATTERNS
MAX_WAVELENGTH = 80.0  # crop px: the face itself varies too much over longer waves
BOX = (slice(57, 125), slice(24, 104))  # crop px: the mask's rectangle; with another, older videos could not be read
SHIFTS = 32  # alignments in time that are tried, PERIOD / SHIFTS s apart
BLOCK = 1.6  # s that are fitted together; a head hardly moves for so long
MIN_SECONDS = 0.8  # s: shorter runs of frames are not read
READ_SECONDS = 60.0  # s from the video's start that are read
FALSE_ALARMS = 1e-6  # share of videos without the watermark in which it may be found
# 3.178: the least c with P(weighted sum of random signs > t) <= c P(normal > t). Bentkus and Dzindzalieta 2015
RADEMACHER = 1 / (4 * (1 - NormalDist().cdf(2**0.5)))
TO_RGB = np.array([0.0, -0.25, 1.8], np.float32)  # one level of Cb, between the matrices of BT.601 and BT.709
TO_CB = np.array([-0.169, -0.331, 0.5], np.float32)


@dataclass(frozen=True)
class WatermarkReading:
    """Outcome of the detection in one video."""

    found: bool
    z: float  # correlation with the key, in standard deviations of chance; found from `needed` on
    needed: float
    agreement: float  # share of the 192 chips with the right sign: 0.5 by chance, at most 1
    seconds: float  # length of the face track that was read


class Watermark:
    """Adds the watermark to redrawn mouths: `mark` to an aligned crop, `onto` to a patch of a frame."""

    def __init__(self) -> None:
        waves = np.tensordot(key().reshape(-1, PATTERNS), _patterns(), 1) * mouth_mask()[BOX]  # [4, h, w]
        self._waves = waves * (STRENGTH / np.sqrt((waves**2).mean((1, 2)).sum() / 2)).astype(np.float32)

    def mark(self, crop: np.ndarray, time: float) -> np.ndarray:
        """A copy of the crop [S, S, 3] uint8 with the watermark of time `time`, s on the output's timeline."""
        return _add(crop, self._level(time)[..., None])

    def onto(self, patch: Patch, to_frame: np.ndarray, time: float, weight: float = 1.0) -> Patch:
        """A copy of the patch with the watermark, placed by the position of the face's crop.

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
        """[S, S] float32: levels of Cb to add at time `time`, s."""
        level = np.zeros((S, S), np.float32)
        level[BOX] = np.tensordot(_time_waves(np.array([time]))[0], self._waves, 1)
        return level


def read_watermark(clip: Clip) -> Generator[float, None, WatermarkReading]:
    """Detect the watermark in the faces of a clip's first READ_SECONDS; yields the fraction done, 0..1."""
    return detect((yield from soft_chips_of(clip)))


def soft_chips_of(clip: Clip) -> Generator[float, None, list[tuple[np.ndarray, float]]]:
    """What `soft_chips` returns for each face of a clip; yields the fraction done, 0..1."""
    times = clip.times[clip.times < READ_SECONDS]
    frames = np.arange(len(times))
    steps = track_faces(frame.rgb() for frame in clip.frames(frames))
    tracks: list[FaceTrack] = yield from adapted(steps, lambda done: 0.9 * done / len(times))
    alignments = [align(track, times) for track in tracks]
    features = np.zeros((len(tracks), len(times), PATTERNS), np.float32)
    for i, frame in enumerate(clip.frames(frames) if tracks else ()):
        image = frame.rgb()
        for of_face, track, to_frame in zip(features, tracks, alignments, strict=True):
            if track.state[i] == OK:
                of_face[i] = crop_features(cut(image, to_frame[i]))
        yield 0.9 + 0.1 * (i + 1) / len(times)
    runs = [np.where(track.state == OK, track.run, -1) for track in tracks]
    return [soft_chips(of_face, times, run) for of_face, run in zip(features, runs, strict=True)]


def crop_features(crop: np.ndarray) -> np.ndarray:
    """Crop [S, S, 3] uint8 -> [PATTERNS] float32: projection of its Cb onto every pattern."""
    return _unit_patterns() @ (crop[BOX].astype(np.float32) @ TO_CB).ravel()


def soft_chips(features: np.ndarray, times: np.ndarray, run: np.ndarray) -> tuple[np.ndarray, float]:
    """Features of one face over time -> soft chips [SHIFTS, CHIPS], one row per alignment in time, and seconds read.

    In each block of frames, the waves are fitted together with slow cosines, so that slow changes of the face and the
    edges of the block do not leak into them. A block is weighted by the inverse of its residual noise. The result is
    limited in size, so that a few large chips cannot decide alone.

    Args:
        features: [T, PATTERNS], from `crop_features`.
        times: [T] s.
        run: [T] int: frames of one unbroken run of the face share a number; -1 elsewhere.
    """
    total, seconds = np.zeros((2 * len(FREQUENCIES), PATTERNS)), 0.0
    for block in _blocks(times, run):
        t = times[block]
        length = (t[-1] - t[0]) * len(t) / (len(t) - 1)
        slow = np.cos(np.pi / length * np.outer(t - t[0], np.arange(int(2 * length * 0.6 * FREQUENCIES[0]) + 1)))
        base = np.concatenate([_time_waves(t), slow], axis=1)
        if len(t) < base.shape[1] + 4:
            continue
        fit, *_ = np.linalg.lstsq(base, features[block], rcond=None)
        noise = ((features[block] - base @ fit) ** 2).sum(0) / (len(t) - base.shape[1])
        total += fit[: len(total)] * len(t) / (noise + noise.mean() + 1e-6)
        seconds += length
    phase = np.exp(2j * np.pi * np.outer(np.arange(SHIFTS) * PERIOD / SHIFTS, FREQUENCIES))  # for later starts
    shifted = (total[0::2] + 1j * total[1::2]) * phase[..., None]  # [SHIFTS, frequencies, PATTERNS]
    chips = np.stack([shifted.real, shifted.imag], axis=2).reshape(SHIFTS, CHIPS)
    return chips / (np.abs(chips) + 2 * np.median(np.abs(chips), axis=1, keepdims=True) + 1e-12), seconds


def detect(faces: Sequence[tuple[np.ndarray, float]], chips: np.ndarray | None = None) -> WatermarkReading:
    """The reading of the best face and alignment in time.

    The threshold `needed` holds for any video. For a random key, z is a weighted sum of independent random signs,
    whatever the video shows, and such a sum exceeds t at most RADEMACHER times as often as a normal variable. The
    probabilities of all faces and alignments are added up.

    Args:
        faces: from `soft_chips`.
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
    """[CHIPS] float32 of +1 and -1, from a hash: the same in every version of numpy."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"syncdiff watermark 2").digest(CHIPS // 8), np.uint8))
    return 1 - 2 * bits.astype(np.float32)


def _add(image: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image + level * TO_RGB), 0, 255).astype(np.uint8)


def _blocks(times: np.ndarray, run: np.ndarray) -> Iterator[np.ndarray]:
    """Frame numbers of blocks of about BLOCK seconds within one run, at least MIN_SECONDS long."""
    for number in np.unique(run[run >= 0]):
        frames = np.flatnonzero(run == number)
        for part in np.array_split(frames, max(1, round((times[frames[-1]] - times[frames[0]]) / BLOCK))):
            if len(part) > 1 and (times[part[-1]] - times[part[0]]) * len(part) / (len(part) - 1) >= MIN_SECONDS - 1e-6:
                yield part


def _time_waves(times: np.ndarray) -> np.ndarray:
    """[T, 4]: cosine and sine of each frequency at `times`, s."""
    phase = 2 * np.pi * np.outer(times, FREQUENCIES)
    return np.stack([np.cos(phase), np.sin(phase)], axis=2).reshape(len(times), -1).astype(np.float32)


@cache
def _patterns() -> np.ndarray:
    """[PATTERNS, h, w] float32: the longest waves of the two-dimensional DCT of BOX below MAX_WAVELENGTH."""
    h, w = (side.stop - side.start for side in BOX)
    u, v = (grid.ravel() for grid in np.meshgrid(np.arange(h), np.arange(w), indexing="ij"))
    frequency = np.hypot(u / (2 * h), v / (2 * w))
    order = np.argsort(np.where(frequency > 1 / MAX_WAVELENGTH, frequency, np.inf), kind="stable")[:PATTERNS]
    down = np.cos(np.pi * np.outer(u[order], np.arange(h) + 0.5) / h)
    across = np.cos(np.pi * np.outer(v[order], np.arange(w) + 0.5) / w)
    return (down[:, :, None] * across[:, None, :]).astype(np.float32)


@cache
def _unit_patterns() -> np.ndarray:
    """[PATTERNS, h * w] float32: the patterns inside the mask, normalised to length 1."""
    masked = (_patterns() * mouth_mask()[BOX]).reshape(PATTERNS, -1)
    return masked / np.linalg.norm(masked, axis=1, keepdims=True)
