"""What a job reports: progress of every stage, and the finished video with everything measured about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np

from syncdiff.faces import Gap
from syncdiff.options import SampleOptions
from syncdiff.sync.scoring import Scores

Stage = Literal["reading", "finding the face", "listening", "testing the offset", "drawing", "scoring"]


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
    source: Path | None  # the original on the same timeline, smaller, playable by browsers; None if not asked for
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
    source_offset: float | None = None  # 25ths of a s that the source's lips come after its own sound, where sure
    mouth: tuple[tuple[float, float, float, float], ...] = ()  # (s, x, y, width), parts of the size
    earlier_frames: int = 0  # of 25 a second, that the lips were drawn earlier than heard, to be in step
    source_lse: tuple[
        Scores, ...
    ] = ()  # LSE-C and LSE-D a face, where SyncNet's own weights are (`syncdiff.sync.syncnet_v2`)
    result_lse: tuple[Scores, ...] = ()
    lse_needs: str | None = None  # why there are none, in a sentence

    def report(self) -> dict:
        """Everything above as plain JSON types."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        row |= {"video": str(self.video), "source": self.source and str(self.source), "notes": list(self.notes)}
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
