"""Clip + Speech -> which source frame is shown when. Time decides, not frame numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from syncdiff.media.clip import Clip, Speech

CRUMB = 1e-3  # seconds: a shorter rest of the voice is not worth another frame


@dataclass(frozen=True)
class Timeline:
    """Which source frame is shown when, in the finished video."""

    indices: np.ndarray = field(repr=False)  # [T'] int64, source frame of each output frame
    times: np.ndarray = field(repr=False)  # [T'] float64, seconds, times[0] == 0
    seconds: float  # end of the last output frame
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
    voice, video, frame = speech.seconds, clip.seconds, 1 / float(clip.rate)
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
    """The clip forward and back, each frame as long as it was, until `end` seconds are covered."""
    T = len(clip)
    there_and_back = np.r_[0:T, T - 2 : 0 : -1]  # neither turning point is shown twice
    lasts = np.diff(clip.times, append=clip.seconds)[there_and_back]
    laps = math.ceil(end / lasts.sum())
    indices = np.tile(there_and_back, laps)
    starts = np.r_[0.0, np.cumsum(np.tile(lasts, laps))]
    if clip.steady:  # no rounding may add up over ten minutes
        starts = np.arange(len(starts)) / float(clip.rate)
    count = max(1, int(np.searchsorted(starts[:-1], end - CRUMB)))
    return Timeline(indices[:count], starts[:count], float(starts[count]), min(spoken, float(starts[count])), note)
