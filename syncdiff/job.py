"""What is asked of a job, and what it tells: the options, the progress of every stage, the finished video's report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np

from syncdiff.faces import Gap, Spot
from syncdiff.media import InputError
from syncdiff.paper import STEPS
from syncdiff.scores import Scores
from syncdiff.weights import Profile

Stage = Literal["reading", "finding the face", "listening", "fitting", "rehearsing", "drawing", "scoring"]


@dataclass(frozen=True)
class SampleOptions:
    """What a person may turn; these defaults are the only ones. Raises InputError for a value out of range."""

    steps: int = 2  # denoising steps per frame
    seed: int = 0
    face: int | Spot | None = None  # index by size over time, or where to find it; None is the largest
    tail: Literal["keep", "trim"] = "keep"  # what becomes of the video's end when the voice is shorter
    fit: bool = False  # practise on this face first, by the clock: no two runs are quite alike (see `syncdiff.fit`)
    correct_offset: bool = False  # where the lips would come early or late, draw them as much later or earlier
    label: bool = True  # small words in the corner of every frame: the lips were redrawn by AI
    job: int = 0  # number that the invisible mark carries: a host's own, nothing about the visitor

    MAX_STEPS = 50
    MAX_SEED = 2**31 - 1
    MAX_JOB = 2**16 - 1

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.MAX_STEPS:
            raise InputError(f"{self.steps} steps were asked for: choose 1 to {self.MAX_STEPS}.")
        if not 0 <= self.seed <= self.MAX_SEED:
            raise InputError(f"The seed is {self.seed}: choose 0 to {self.MAX_SEED}.")
        if not 0 <= self.job <= self.MAX_JOB:
            raise InputError(f"The job number is {self.job}: choose 0 to {self.MAX_JOB}.")
        if self.tail not in ("keep", "trim"):
            raise InputError(f"The tail option is {self.tail!r:.40}: choose keep or trim.")


@dataclass(frozen=True)
class PaperOptions(SampleOptions):
    """The same for the paper profile."""

    steps: int = STEPS

    MAX_STEPS = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if 1000 % self.steps or self.steps == 1000:  # evenly spaced from the last: others would begin far below noise
            raise InputError(
                f"{self.steps} steps were asked for: the paper's sampler takes a divisor of 1000 up to 500."
            )


OPTIONS: dict[Profile, type[SampleOptions]] = {"compact": SampleOptions, "paper": PaperOptions}


@dataclass(frozen=True)
class Progress:
    stage: Stage
    done: int
    total: int
    preview: np.ndarray | None = field(default=None, repr=False)  # [H, W, 3] uint8


@dataclass(frozen=True)
class Result:
    """The finished video and everything that is known about it."""

    video: Path
    source: Path  # the original on the same timeline, smaller, playable by browsers
    frames: int
    redrawn: int
    seconds: dict[str, float]  # per stage
    passed_through: tuple[Gap, ...]
    silent: tuple[tuple[float, float], ...]  # s, from and to: where the voice pauses
    notes: tuple[str, ...]
    source_scores: Scores
    result_scores: Scores
    peak_memory_mib: float  # of this process since it started
    options: SampleOptions
    running: dict[str, str]  # profile, device, precision, attention
    earlier_frames: int = 0  # of 25 a second, that the lips were drawn earlier than heard, to be in step
    source_lse: tuple[Scores, ...] = ()  # LSE-C and LSE-D a face, where SyncNet's own weights are (`syncdiff.lse`)
    result_lse: tuple[Scores, ...] = ()
    lse_needs: str | None = None  # why there are none, in a sentence

    def report(self) -> dict:
        """Everything above as plain JSON types."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        row |= {"video": str(self.video), "source": str(self.source), "notes": list(self.notes)}
        row |= {key: asdict(row[key]) for key in ("source_scores", "result_scores", "options")}
        row |= {key: [asdict(face) for face in row[key]] for key in ("source_lse", "result_lse")}
        row["passed_through"] = [asdict(gap) for gap in self.passed_through]
        row["seconds"] = {stage: round(value, 3) for stage, value in self.seconds.items()}
        return row | row.pop("running")


class Stopwatch:
    """Seconds per stage, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
