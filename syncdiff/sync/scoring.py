"""Sync scores of crops and samples by SyncNet's protocol (Chung & Zisserman 2016), and lip measures of landmarks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Protocol

import numpy as np

from syncdiff.faces import COVERED, MISSING, OK, OTHER, OUTSIDE, SMALL, TURNED

FPS = 25  # the clock of every sync network here
FRAME_SAMPLES = 640  # at 16 kHz
WINDOW = 5  # frames an embedding covers: 0.2 s, as in SyncNet
MAX_SHIFT = 15  # shifts to either side: 31 in all
MIN_SECONDS = 2.0  # seconds of picture, of sound and of visible face
MIN_FRAMES = round(MIN_SECONDS * FPS)
CURVE_SPAN = 25  # windows averaged into one point of the curve
CURVE_STEP = 5  # windows from one point to the next
SILENCE_DB = -55.0  # louder moments than this must exist, in dB of full scale
SPEECH_SWING_DB = 3.0  # speech rises and falls; hum, tone and hiss do not
FACE_TROUBLES = {
    MISSING: "missing",
    SMALL: "too small",
    TURNED: "turned away",
    OUTSIDE: "half out of the picture",
    COVERED: "covered at the mouth",
    OTHER: "missing",
}
MIN_OFFSET_FRAMES = 2  # 80 ms: less is hardly seen (ITU-R BT.1359: 45 ms early, 125 ms late); the judge errs by one
MIN_POINTS = 8  # frames; of fewer no correlation is computed


@dataclass(frozen=True)
class Scores:
    """A judge's figures for one clip. Those of different judges are not comparable."""

    judge: str  # the judge's own name; "syncdiff-judge" is not SyncNet and its figures are not LSE-C / LSE-D
    confidence: float | None = None  # median - minimum of the mean distances over the shifts; higher is better
    distance: float | None = None  # the minimum of the mean distances; lower is better
    offset_frames: int | None = None  # in 25 fps frames, SyncNet's sign: positive when the sound runs ahead of the lips
    curve: tuple[tuple[float, float], ...] = ()  # (seconds, confidence about that moment), in time order
    reason: str | None = None  # "not scorable: ..." when confidence, distance and offset are None
    steady: bool = False  # whether the offset stays, within a frame, whichever fifth of the clip is left out

    @property
    def scorable(self) -> bool:
        """Whether there are figures at all; if not, `reason` says why."""
        return self.reason is None

    @property
    def out_of_step(self) -> int:
        """The offset in frames where it is sure and can be noticed, else 0."""
        offset = self.offset_frames or 0
        return offset if self.steady and abs(offset) >= MIN_OFFSET_FRAMES else 0


class Judge(Protocol):
    """Anything that turns 5-frame windows of picture and sound into vectors of one space, as `JudgeNet` does."""

    @property
    def name(self) -> str:
        """What its figures are called."""
        ...

    def crop_mouth(self, crop: np.ndarray, /) -> np.ndarray:
        """Face crop, uint8 [S,S,3] -> the mouth as this judge takes it."""
        ...

    def embed_video(self, mouths: Iterable[np.ndarray], /) -> np.ndarray:
        """T mouths at 25 fps, read one after another -> embeddings [T-4,D]; window v is frames v .. v+4."""
        ...

    def embed_audio(self, samples: np.ndarray, /) -> np.ndarray:
        """Samples [N] -> embeddings [N // 640 - 4, D]; window v is the sound of frames v .. v+4."""
        ...


def score(
    crops: Iterable[np.ndarray], samples: np.ndarray, judge: Judge, *, states: np.ndarray | None = None
) -> Scores:
    """Score one face against one voice by SyncNet's protocol.

    Differs from the original in one thing: a shift that reaches past either end is left out of the mean, where SyncNet
    compares with zeros.

    Args:
        crops: face crops at 25 fps, uint8 [S,S,3] each as `crops.cut` gives them; an array [T,S,S,3] or a generator,
            of which some seconds are held at a time.
        samples: [N] float32 mono at 16 kHz, beginning with the first crop.
        judge: embeds windows of picture and sound.
        states: [T] states of `FaceTrack` for the same frames; windows with a bad frame do not count.

    Returns:
        Scores; with a reason instead of figures where less than MIN_SECONDS can be judged, or where the sound is
        silent or no speech.

    Raises:
        ValueError: as many states as crops are needed.
    """
    stream = iter(crops)
    first = list(islice(stream, MIN_FRAMES))
    if reason := _unfit_length(len(first), len(samples)) or _unfit_sound(samples):
        return Scores(judge.name, reason=f"not scorable: {reason}")
    video = judge.embed_video(map(judge.crop_mouth, chain(first, stream)))
    frames = len(video) + WINDOW - 1
    if states is not None and len(states) != frames:
        raise ValueError(f"{len(states)} states for {frames} crops")
    T = min(frames, len(samples) // FRAME_SAMPLES)
    states = np.full(T, OK) if states is None else np.asarray(states)[:T]
    if reason := _unfit_face(states):
        return Scores(judge.name, reason=f"not scorable: {reason}")

    distances = shifted_distances(video[: T - WINDOW + 1], judge.embed_audio(samples[: T * FRAME_SAMPLES]))
    distances[~_good_windows(states)] = np.nan
    return replace(summary(judge.name, distances), steady=steady(distances))


def summary(judge: str, distances: np.ndarray) -> Scores:
    """The figures of a judge from its distances [W,31], NaN where there are none; all but `steady`."""
    mean = np.nanmean(distances, 0)
    best = int(mean.argmin())
    return Scores(
        judge,
        confidence=float(np.median(mean) - mean[best]),
        distance=float(mean[best]),
        offset_frames=MAX_SHIFT - best,
        curve=curve(distances, best),
    )


def steady(distances: np.ndarray) -> bool:
    """Distances [W,31] -> whether the best shift stays, within one, whichever of five stretches is left out.

    Where sound and lips have nothing to do with each other some shift is the best too, but not everywhere the same."""
    good = distances[np.isfinite(distances).any(1)]
    best = int(np.nanmean(distances, 0).argmin())
    rests = (np.nanmean(np.delete(good, part, 0), 0) for part in np.array_split(np.arange(len(good)), 5))
    return all(abs(int(np.nanargmin(rest)) - best) <= 1 for rest in rests)


def shifted_distances(video: np.ndarray, audio: np.ndarray, beyond: float = np.nan, added: float = 0.0) -> np.ndarray:
    """Video and audio [W,D] -> [W,31]: from each video window to the audio windows -15 .. +15 from it.

    Args:
        beyond: stands for audio before the first window and after the last; NaN makes those distances NaN.
        added: to every difference.
    """
    padded = np.pad(audio, ((MAX_SHIFT, MAX_SHIFT), (0, 0)), constant_values=beyond)
    shifts = (video - padded[k : k + len(video)] + np.float32(added) for k in range(2 * MAX_SHIFT + 1))
    return np.stack([np.linalg.norm(difference, axis=1) for difference in shifts], 1)


def curve(distances: np.ndarray, best: int) -> tuple[tuple[float, float], ...]:
    """Distances [W,31] -> (seconds, confidence) every 0.2 s, each from the second of windows around it.

    Confidence here is the median over the shifts minus the distance at the whole clip's own best shift, so a stretch
    that is out of step with the rest goes below zero."""
    points = []
    for first in range(0, max(1, len(distances) - CURVE_SPAN + 1), CURVE_STEP):
        span = distances[first : first + CURVE_SPAN]
        if np.isfinite(span[:, best]).mean() < 0.5:
            continue  # mostly a missing face, or past the sound's end
        with_sound = span[:, np.isfinite(span).any(0)]
        confidence = np.median(np.nanmean(with_sound, 0)) - np.nanmean(span[:, best])
        middle = (first + (len(span) + WINDOW - 1) / 2) / FPS
        points.append((round(middle, 3), float(confidence)))
    return tuple(points)


def _unfit_length(frames: int, samples: int) -> str | None:
    for what, seconds in (("picture", frames / FPS), ("sound", samples / FRAME_SAMPLES / FPS)):
        if seconds < MIN_SECONDS:
            return f"there are {seconds:.1f} s of {what}, and at least {MIN_SECONDS:g} s are needed"
    return None


def _good_windows(states: np.ndarray) -> np.ndarray:
    """States [T] of the face -> [T-4] whether all five frames of the window show it well."""
    return np.convolve(states == OK, np.ones(WINDOW), "valid") == WINDOW


def _unfit_face(states: np.ndarray) -> str | None:
    if _good_windows(states).sum() + WINDOW - 1 >= MIN_SECONDS * FPS:
        return None
    why = max(FACE_TROUBLES, key=lambda state: (states == state).sum())
    return (
        f"the face is {FACE_TROUBLES[why]} for {(states == why).sum() / FPS:.1f} s of {len(states) / FPS:.1f} s, "
        f"and at least {MIN_SECONDS:g} s of it must be seen well"
    )


def _unfit_sound(samples: np.ndarray) -> str | None:
    """Why there is no speech in samples [N], judged by level alone: silence, or a sound that never rises and falls."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    squares = np.einsum("tn,tn->t", frames, frames, dtype=np.float64) / FRAME_SAMPLES  # no copy of the whole sound
    level = 10 * np.log10(np.maximum(squares - np.square(frames.mean(1, dtype=np.float64)), 0) + 1e-12)
    quiet, loud = np.percentile(level, [10, 95])
    if loud < SILENCE_DB:
        return f"the voice is silent (its louder moments are at {loud:.0f} dB, and {SILENCE_DB:.0f} dB are needed)"
    if loud - quiet < SPEECH_SWING_DB:
        return f"there is no speech (the sound's level moves by only {loud - quiet:.1f} dB)"
    return None


# Lip measures by landmarks alone: no network of this project takes part. Indices of mediapipe's 478 points.

UPPER_INNER_LIP, LOWER_INNER_LIP = 13, 14
MOUTH_CORNERS = 61, 291
OUTER_EYE_CORNERS = 33, 263


def lip_opening(points: np.ndarray) -> np.ndarray:
    """Landmarks [T,478,2] -> [T] gap between the inner lips, in units of the distance between the outer eye corners."""
    return _apart(points, UPPER_INNER_LIP, LOWER_INNER_LIP) / _apart(points, *OUTER_EYE_CORNERS)


def lip_width(points: np.ndarray) -> np.ndarray:
    """Landmarks [T,478,2] -> [T] distance between the mouth's corners, in the same unit."""
    return _apart(points, *MOUTH_CORNERS) / _apart(points, *OUTER_EYE_CORNERS)


def _apart(points: np.ndarray, one: int, other: int) -> np.ndarray:
    return np.linalg.norm(points[:, one] - points[:, other], axis=1)


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson r of two series [T] over the moments where neither is NaN; None with fewer than 8 or no movement."""
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < MIN_POINTS:
        return None
    x, y = a[both] - a[both].mean(), b[both] - b[both].mean()
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / size) if size > 1e-9 else None


@dataclass(frozen=True)
class Lag:
    """The shift at which two series correlate best."""

    frames: int  # positive: the first series runs late, a[t + frames] goes with b[t]
    r: float


def best_lag(a: np.ndarray, b: np.ndarray, reach: int = 5) -> Lag | None:
    """The shift of -reach .. +reach frames at which series a [T] follows b [T] best; None if none can be judged."""
    lags = []
    for shift in range(-reach, reach + 1):
        late, early = (a[shift:], b[: len(b) - shift]) if shift >= 0 else (a[:shift], b[-shift:])
        n = min(len(late), len(early))
        if (r := correlation(late[:n], early[:n])) is not None:
            lags.append(Lag(shift, r))
    return max(lags, key=lambda lag: lag.r, default=None)
