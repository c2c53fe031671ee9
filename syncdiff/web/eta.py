"""Estimates of how long a job takes, before it begins and while it runs, from frames and past jobs."""

import threading
import time
from collections import deque
from collections.abc import Callable

from syncdiff.options import TEST_PASS_SECONDS, SampleOptions
from syncdiff.results import Progress, Result

DEFAULT_FPS = 25.0  # frames a second, where nothing better is known
DEFAULT_SECONDS = 4.0  # seconds of a file whose length is unknown
# Seconds a frame that `make bench ARGS=--short` measured for each stage (1280x720, two cores, 1 step). Of the drawing
# an evaluation takes 6 ms, as the network was measured alone, and 2 of 18 frames are warm-up. Only where the page
# begins: after every run, its own seconds count more.
SECONDS_PER_FRAME = {
    "reading": 0.012,
    "finding the face": 0.013,
    "listening": 0.001,
    "drawing": 0.049,
    "scoring": 0.001,
}
SECONDS_PER_EVALUATION = 0.007
START_SECONDS = 1.0  # seconds that every run takes, however short
NEWEST_WEIGHT = 0.5  # weight of the newest run


class Pace:
    """What a run on this machine takes, learned from the runs it made. Safe to share between threads.

    Reading and the search for faces take time by the frames of the source, the rest by the frames of the result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._factor = dict.fromkeys(SECONDS_PER_FRAME, 1.0)  # this machine's seconds over those above
        self._recent: deque[float] = deque(maxlen=5)

    def stages(self, source: float, frames: float, options: SampleOptions) -> dict[str, float]:
        """Seconds that each stage should take for so many frames of source and result, in the order they come."""
        with self._lock:
            guess = {
                stage: self._factor[stage] * took for stage, took in _first_guess(source, frames, options.steps).items()
            }
            short = min(frames, DEFAULT_FPS * TEST_PASS_SECONDS)
            drawing = self._factor["drawing"] * _first_guess(short, short, 1)["drawing"]
        before = {stage: guess.pop(stage) for stage in ("reading", "finding the face", "listening")}
        before |= {"testing the offset": drawing} if options.correct_offset else {}  # at the most: nothing is pasted
        return before | guess

    def seconds(self, source: float, frames: float, options: SampleOptions) -> float:
        """Seconds that a whole run should take."""
        return sum(self.stages(source, frames, options).values())

    def usual(self) -> float | None:
        """Seconds that the last few runs took on average; None before the first."""
        with self._lock:
            return sum(self._recent) / len(self._recent) if self._recent else None

    def learn(self, result: Result, source: float) -> None:
        """Take in what a finished run of so many source frames took."""
        guess = _first_guess(source, result.frames, result.options.steps)
        with self._lock:
            for stage, factor in self._factor.items():
                seen = result.seconds.get(stage, 0.0) / guess[stage]
                self._factor[stage] = (1 - NEWEST_WEIGHT) * factor + NEWEST_WEIGHT * seen
            self._recent.append(sum(result.seconds.values()))


def _first_guess(source: float, frames: float, steps: int) -> dict[str, float]:
    each = SECONDS_PER_FRAME | {"drawing": SECONDS_PER_FRAME["drawing"] + steps * SECONDS_PER_EVALUATION}
    frames_of = dict.fromkeys(each, frames) | dict.fromkeys(("reading", "finding the face"), source)
    return {stage: START_SECONDS / len(each) + frames_of[stage] * seconds for stage, seconds in each.items()}


class Clock:
    """How far a run is, and how long it still takes.

    The lengths are guesses until the stages themselves count frames; within a stage its own speed takes over from the
    guess as more of it is done. Time comes in seconds from `now`."""

    def __init__(
        self,
        pace: Pace,
        options: SampleOptions,
        video: float | None = None,
        voice: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """video, voice: seconds as far as known; a photo is 0."""
        self._pace, self._options, self._now = pace, options, now
        self.source = DEFAULT_FPS * (DEFAULT_SECONDS if video is None else video)  # frames
        self._frames = max(self.source, DEFAULT_FPS * (DEFAULT_SECONDS if voice is None else voice))
        self._start = self._stage_start = now()
        self._stage, self._fraction = "", 0.0

    def __call__(self, progress: Progress) -> tuple[float, float]:
        """(fraction of the whole 0..1, never falling; seconds left)."""
        now, share = self._now(), min(1.0, progress.done / max(1, progress.total))
        if progress.stage != self._stage:
            self._stage, self._stage_start = progress.stage, now
        if progress.stage == "finding the face":
            self.source = progress.total / 2  # it goes through the frames twice
            self._frames = max(self._frames, self.source)
        elif progress.stage == "drawing":
            self._frames = progress.total / (self._options.steps + 1)
        stages = self._pace.stages(self.source, self._frames, self._options)
        order = [*stages]
        here = order.index(progress.stage) if progress.stage in stages else len(order)
        spent, guess = now - self._stage_start, stages.get(progress.stage, 0.0)
        own = spent / share if share else guess
        left = (1 - share) * ((1 - share) * guess + share * own) + sum(stages[stage] for stage in order[here + 1 :])
        whole = now - self._start + left
        self._fraction = max(self._fraction, min(1.0, 1 - left / whole) if whole else 0.0)
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
