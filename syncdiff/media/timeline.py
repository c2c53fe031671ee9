"""Fits the video to the length of the voice: which source frame every output frame shows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np

from syncdiff.media.clip import Clip, Speech

MIN_TAIL_SECONDS = 1e-3  # a shorter rest of the voice gets no further frame
LIP_RATE = 25  # frames a second that frames which are shown for long are split into
MAX_FRAME_SECONDS = 2 / LIP_RATE  # longer frames are split; 12.5 fps and more keep their rate


@dataclass(frozen=True)
class Timeline:
    """The source frame and time of every output frame."""

    indices: np.ndarray = field(repr=False)  # [T'] int64, source frame of each output frame
    times: np.ndarray = field(repr=False)  # [T'] float64, seconds, times[0] == 0
    seconds: float  # end of the last output frame
    rate: Fraction  # frames per second; the average where the rate varies
    steady: bool  # times are exactly i / rate
    spoken_until: float  # seconds: frames from here on pass through as they are
    note: str  # a sentence on how the lengths were fitted

    def __len__(self) -> int:
        return len(self.indices)


def timeline(clip: Clip, speech: Speech, tail: Literal["keep", "trim"] = "keep") -> Timeline:
    """Fit the video to the voice.

    For a longer voice the video runs forward and back. For a shorter one, the rest of the video is kept as it is
    ("keep") or cut off ("trim"). A photo is held."""
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
    """The clip forward and back, each frame for its own duration, until `end` seconds are covered.

    A frame longer than MAX_FRAME_SECONDS is split into equal parts."""
    T = len(clip)
    there_and_back = np.r_[0:T, T - 2 : 0 : -1]  # neither turning point is shown twice
    durations = np.diff(clip.times, append=clip.seconds)
    parts = np.where(durations > MAX_FRAME_SECONDS + 1e-6, np.ceil(durations * LIP_RATE - 1e-6), 1).astype(np.int64)
    if parts.max() > 1:
        note += f" Pictures that stand still for long are drawn {LIP_RATE} times a second."
    lap = np.repeat(there_and_back, parts[there_and_back])
    durations = (durations / parts)[lap]
    laps = math.ceil(end / durations.sum())
    indices = np.tile(lap, laps)
    starts = np.r_[0.0, np.cumsum(np.tile(durations, laps))]
    steady, rate = clip.steady, clip.rate * int(parts[0])
    if steady:  # exactly: rounding errors would add up over ten minutes
        starts = np.arange(len(starts)) / float(rate)
    count = max(1, int(np.searchsorted(starts[:-1], end - MIN_TAIL_SECONDS)))
    seconds = float(starts[count])
    if not steady:
        seconds = max(min(seconds, end), float(starts[count - 1]) + MIN_TAIL_SECONDS)
        rate = Fraction(count / seconds).limit_denominator(1001)
    return Timeline(indices[:count], starts[:count], seconds, rate, steady, min(spoken, seconds), note)
