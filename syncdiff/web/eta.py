"""How long a run takes: before it begins, and while it goes on. Seconds and frames; knows no files and no page."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from syncdiff.job import TEST_PASS_SECONDS
from syncdiff.options import SampleOptions
from syncdiff.results import Progress, Result

RATE = 25.0  # frames a second, where nobody knows better
# Seconds a frame that `make bench ARGS=--short` measured for each stage (1280x720, two cores, 2 steps). Of the drawing
# an evaluation takes 15 ms, as the network was measured alone, and 2 of 18 frames are warm-up. Only where the page
# begins: after every run, its own seconds count more.
SECONDS = {"reading": 0.011, "finding the face": 0.023, "listening": 0.001, "drawing": 0.039, "scoring": 0.001}
EVALUATION = 0.017
START = 1.0  # seconds that every run takes, however short
TRUST = 0.5  # weight of the newest run


class Pace:
    """What a run on this machine takes, learned from the runs it made. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._factor = dict.fromkeys(SECONDS, 1.0)  # this machine's seconds over those above
        self._recent: deque[float] = deque(maxlen=5)

    def stages(self, frames: float, options: SampleOptions) -> dict[str, float]:
        """Seconds that each stage should take for a result of so many frames, in the order they come."""
        with self._lock:
            guess = {stage: self._factor[stage] * took for stage, took in _first_guess(frames, options.steps).items()}
            drawing = self._factor["drawing"] * _first_guess(min(frames, RATE * TEST_PASS_SECONDS), 1)["drawing"]
        before = {stage: guess.pop(stage) for stage in ("reading", "finding the face", "listening")}
        before |= {"testing the offset": drawing} if options.correct_offset else {}  # at the most: nothing is pasted
        return before | guess

    def seconds(self, frames: float, options: SampleOptions) -> float:
        """Seconds that a whole run should take."""
        return sum(self.stages(frames, options).values())

    def usual(self) -> float | None:
        """Seconds that the last few runs took on average; None before the first."""
        with self._lock:
            return sum(self._recent) / len(self._recent) if self._recent else None

    def learn(self, result: Result) -> None:
        """Take in what a finished run took."""
        guess = _first_guess(result.frames, result.options.steps)
        with self._lock:
            for stage, factor in self._factor.items():
                seen = result.seconds.get(stage, 0.0) / guess[stage]
                self._factor[stage] = (1 - TRUST) * factor + TRUST * seen
            self._recent.append(sum(result.seconds.values()))


def _first_guess(frames: float, steps: int) -> dict[str, float]:
    each = SECONDS | {"drawing": SECONDS["drawing"] + steps * EVALUATION}
    return {stage: START / len(each) + frames * seconds for stage, seconds in each.items()}


class Clock:
    """How far a run is, and how long it still takes. Time comes in seconds from `now`."""

    def __init__(self, stages: Mapping[str, float], now: Callable[[], float] = time.monotonic) -> None:
        whole = sum(stages.values())
        self._shares = {stage: seconds / whole for stage, seconds in stages.items()}
        self._now, self._start, self._fraction = now, now(), 0.0

    def __call__(self, progress: Progress) -> tuple[float, float | None]:
        """(fraction of the whole 0..1, never falling; seconds left, None while it is too early to tell)."""
        if progress.stage in self._shares:
            stages = [*self._shares]
            before = sum(self._shares[stage] for stage in stages[: stages.index(progress.stage)])
            before += self._shares[progress.stage] * min(1.0, progress.done / max(1, progress.total))
            self._fraction = max(self._fraction, min(before, 1.0))
        spent = self._now() - self._start
        left = spent / self._fraction - spent if self._fraction > 0.05 and spent > 2 else None
        return self._fraction, left


def in_words(seconds: float) -> str:
    """A stretch of time, as roughly as it is known: "a few seconds", "about 30 s", "about 3 min"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 55:
        return f"about {5 * round(seconds / 5)} s"
    if seconds < 3300:
        return f"about {max(1, round(seconds / 60))} min"
    return f"about {seconds / 3600:.1f} h"


def estimate(pace: Pace, video: float | None, voice: float | None, options: SampleOptions) -> str:
    """What a run should take, in a sentence. video, voice: seconds; None where nobody can tell; 0 is a photo."""
    if voice is None:
        each = pace.seconds(RATE, SampleOptions(steps=options.steps)) - START
        return f"Each second of voice takes {in_words(each)}."
    shown = max(voice, video or 0.0)
    return f"{shown:.0f} s of video should take {in_words(pace.seconds(RATE * shown, options))}."
