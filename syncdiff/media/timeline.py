"""Clip + Speech -> which source frame is shown when, by time, not by frame number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np

from syncdiff.media.clip import Clip, Speech

MIN_TAIL_SECONDS = 1e-3  # a shorter rest of the voice is not worth another frame
LIP_RATE = 25  # frames a second at the least in which a mouth is redrawn
MAX_FRAME_SECONDS = 2 / LIP_RATE  # longer frames are repeated; 12.5 fps and more keep their rate


@dataclass(frozen=True)
class Timeline:
    """Which source frame is shown when, in the finished video."""

    indices: np.ndarray = field(repr=False)  # [T'] int64, source frame of each output frame
    times: np.ndarray = field(repr=False)  # [T'] float64, seconds, times[0] == 0
    seconds: float  # end of the last output frame
    rate: Fraction  # frames per second; the average where the rate varies
    steady: bool  # times are exactly i / rate
    spoken_until: float  # seconds: frames from here on pass through as they are
    note: str  # what happened, in words

    def __len__(self) -> int:
        return len(self.indices)


def timeline(clip: Clip, speech: Speech, tail: Literal["keep", "trim"] = "keep") -> Timeline:
    """Fit the video to the voice.

    A longer voice: the video runs forward and back. A shorter one: the rest of the video is kept as it is ("keep") or
    cut off ("trim"). A photo is held."""
    if tail not in {"keep", "trim"}:
        raise ValueError(f"tail must be 'keep' or 'trim', not {tail!r}")
    voice, video, frame = speech.seconds, clip.seconds, min(1 / float(clip.rate), MAX_FRAME_SECONDS)
    lengths = f"The voice lasts {voice:.2f} s, the video {video:.2f} s"
    if clip.photo:
        return _until(clip, voice, voice, f"The photo is held for the {voice:.2f} s of the voice.")
    if abs(voice - video) <= frame:
        return _until(clip, max(voice, video), voice, f"{lengths}: they fit.")
    if voice > video:
        return _until(clip, voice, voice, f"{lengths}: the video runs forward and back until the voice ends.")
    if tail == "trim":
        return _until(clip, voice, voice, f"{lengths}: the rest of the video is cut off.")
    return _until(clip, video, voice, f"{lengths}: the rest of the video passes through unchanged.")


def _until(clip: Clip, end: float, spoken: float, note: str) -> Timeline:
    """The clip forward and back, each frame as long as it was, until `end` seconds are covered.

    A frame longer than MAX_FRAME_SECONDS is repeated in equal parts."""
    T = len(clip)
    there_and_back = np.r_[0:T, T - 2 : 0 : -1]  # neither turning point is shown twice
    lasts = np.diff(clip.times, append=clip.seconds)
    parts = np.where(lasts > MAX_FRAME_SECONDS + 1e-6, np.ceil(lasts * LIP_RATE - 1e-6), 1).astype(np.int64)
    if parts.max() > 1:
        note += f" Pictures that stand still for long are drawn {LIP_RATE} times a second."
    lap = np.repeat(there_and_back, parts[there_and_back])
    lasts = (lasts / parts)[lap]
    laps = math.ceil(end / lasts.sum())
    indices = np.tile(lap, laps)
    starts = np.r_[0.0, np.cumsum(np.tile(lasts, laps))]
    steady, rate = clip.steady, clip.rate * int(parts[0])
    if steady:  # no rounding may add up over ten minutes
        starts = np.arange(len(starts)) / float(rate)
    count = max(1, int(np.searchsorted(starts[:-1], end - MIN_TAIL_SECONDS)))
    seconds = float(starts[count])
    if not steady:
        seconds = max(min(seconds, end), float(starts[count - 1]) + MIN_TAIL_SECONDS)
        rate = Fraction(count / seconds).limit_denominator(1001)
    return Timeline(indices[:count], starts[:count], seconds, rate, steady, min(spoken, seconds), note)
