"""Estimates how long a job takes, before it begins and while it runs, from its frames and from past jobs."""

import threading
import time
from collections import deque
from collections.abc import Callable

from syncdiff.options import TEST_PASS_SECONDS, SampleOptions
from syncdiff.results import Progress, Result

DEFAULT_FPS = 25.0  # frames a second, where the rate is unknown
DEFAULT_SECONDS = 4.0  # seconds of a file whose length is unknown
# Seconds a frame of each stage, measured by `make bench ARGS=--short` (1280x720, two cores, 1 step). In "drawing", one
# evaluation of the network takes 6 ms, measured alone, and 2 of 18 frames are warm-up. These are start values: every
# run's own seconds count half from then on.
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


class DurationModel:
    """Durations of jobs on this machine, learned from finished ones. Thread-safe.

    Reading and face detection take time in proportion to the frames of the source, the rest to those of the result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._factor = dict.fromkeys(SECONDS_PER_FRAME, 1.0)  # seconds on this machine over SECONDS_PER_FRAME
        self._recent: deque[float] = deque(maxlen=5)

    def stages(self, source: float, frames: float, options: SampleOptions) -> dict[str, float]:
        """Estimated seconds of each stage, in order. source, frames: number of frames of source and result."""
        with self._lock:
            start_values = _start_values(source, frames, options.steps)
            estimate = {stage: self._factor[stage] * seconds for stage, seconds in start_values.items()}
            short = min(frames, DEFAULT_FPS * TEST_PASS_SECONDS)
            drawing = self._factor["drawing"] * _start_values(short, short, 1)["drawing"]
        before = {stage: estimate.pop(stage) for stage in ("reading", "finding the face", "listening")}
        before |= {"testing the offset": drawing} if options.correct_offset else {}  # an upper bound: nothing is pasted
        return before | estimate

    def seconds(self, source: float, frames: float, options: SampleOptions) -> float:
        """Estimated seconds of a whole run."""
        return sum(self.stages(source, frames, options).values())

    def usual(self) -> float | None:
        """Mean seconds of the last few runs; None before the first."""
        with self._lock:
            return sum(self._recent) / len(self._recent) if self._recent else None

    def learn(self, result: Result, source: float) -> None:
        """Learn from a finished run. source: number of source frames."""
        start_values = _start_values(source, result.frames, result.options.steps)
        with self._lock:
            for stage, factor in self._factor.items():
                measured = result.seconds.get(stage, 0.0) / start_values[stage]
                self._factor[stage] = (1 - NEWEST_WEIGHT) * factor + NEWEST_WEIGHT * measured
            self._recent.append(sum(result.seconds.values()))


def _start_values(source: float, frames: float, steps: int) -> dict[str, float]:
    """Seconds of each stage by SECONDS_PER_FRAME alone."""
    each = SECONDS_PER_FRAME | {"drawing": SECONDS_PER_FRAME["drawing"] + steps * SECONDS_PER_EVALUATION}
    frames_of = dict.fromkeys(each, frames) | dict.fromkeys(("reading", "finding the face"), source)
    return {stage: START_SECONDS / len(each) + frames_of[stage] * seconds for stage, seconds in each.items()}


class TimeLeft:
    """Estimates the progress of one run, and the seconds left, from its Progress.

    Numbers of frames are assumed until a stage reports them. Within a stage, the estimate moves from the model's to one
    from the stage's own speed."""

    def __init__(
        self,
        durations: DurationModel,
        options: SampleOptions,
        video: float | None = None,
        voice: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """video, voice: seconds, None where unknown; a photo is 0. now: a clock, s."""
        self._durations, self._options, self._now = durations, options, now
        self.source = DEFAULT_FPS * (DEFAULT_SECONDS if video is None else video)  # frames of the source
        self._frames = max(self.source, DEFAULT_FPS * (DEFAULT_SECONDS if voice is None else voice))
        self._start = self._stage_start = now()
        self._stage, self._fraction = "", 0.0

    def __call__(self, progress: Progress) -> tuple[float, float]:
        """(fraction done 0..1, never falling; seconds left)."""
        now, share = self._now(), min(1.0, progress.done / max(1, progress.total))
        if progress.stage != self._stage:
            self._stage, self._stage_start = progress.stage, now
        if progress.stage == "finding the face":
            self.source = progress.total / 2  # two passes over the frames
            self._frames = max(self._frames, self.source)
        elif progress.stage == "drawing":
            self._frames = progress.total / (self._options.steps + 1)
        stages = self._durations.stages(self.source, self._frames, self._options)
        order = [*stages]
        current = order.index(progress.stage) if progress.stage in stages else len(order)
        spent, estimated = now - self._stage_start, stages.get(progress.stage, 0.0)
        measured = spent / share if share else estimated
        left = (1 - share) * ((1 - share) * estimated + share * measured)
        left += sum(stages[stage] for stage in order[current + 1 :])
        whole = now - self._start + left
        self._fraction = max(self._fraction, min(1.0, 1 - left / whole) if whole else 0.0)
        return self._fraction, left


def in_words(seconds: float) -> str:
    """A duration, rounded as an estimate: "a few seconds", "about 30 s", "about 3 min"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 55:
        return f"about {5 * round(seconds / 5)} s"
    if seconds < 3300:
        return f"about {max(1, round(seconds / 60))} min"
    return f"about {seconds / 3600:.1f} h"
