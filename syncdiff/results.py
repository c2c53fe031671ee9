"""What a job yields: Progress of every stage, and the Result with everything measured about the finished video."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np

from syncdiff.faces import Gap
from syncdiff.geometry.crops import LIP_BOX
from syncdiff.options import SampleOptions
from syncdiff.sync.scoring import FPS, Scores

NOTICED_OFFSET = 1.0  # 25ths of a s between a film's lips and its sound, from which on a note is made
MOUTH_SECONDS = 0.2  # from one row of `Result.mouth` to the next

Stage = Literal["reading", "finding the face", "listening", "testing the offset", "drawing", "scoring"]


@dataclass(frozen=True)
class Progress:
    """How far one stage of a job is: `done` of `total` steps."""

    stage: Stage
    done: int
    total: int
    preview: np.ndarray | None = field(default=None, repr=False)  # [H, W, 3] uint8 RGB, a crop while it is drawn


@dataclass(frozen=True)
class Result:
    """The finished video, and what was measured on the way."""

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
    mouth: tuple[tuple[float, float, float, float], ...] = ()  # (s, x, y, width), see `mouth_path`
    earlier_frames: int = 0  # 25ths of a s by which the lips were drawn earlier, to correct the offset
    source_lse: tuple[Scores, ...] = ()  # LSE-C and LSE-D of each face, where SyncNet's own weights are installed
    result_lse: tuple[Scores, ...] = ()
    lse_needs: str | None = None  # why there are none, in a sentence

    def report(self) -> dict:
        """All fields as plain JSON types."""
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
        """Inside, time counts for that stage, also where it ends with an error."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def mouth_path(
    to_frame: np.ndarray, times: np.ndarray, width: int, height: int
) -> tuple[tuple[float, float, float, float], ...]:
    """Path of the mouth: a row (s, x, y, width) every MOUTH_SECONDS, in fractions of the frame's size.

    Args:
        to_frame: [T, 2, 3] upright crop px -> px of the frames shown at `times`; NaN where the face is missing.
        times: [T] s, rising.
        width: of the frames, px.
        height: of the frames, px.
    """
    down, right = LIP_BOX
    middle = np.array([(right.start + right.stop) / 2, (down.start + down.stop) / 2, 1])
    path: list[tuple[float, float, float, float]] = []
    for second, matrix in zip(times.tolist(), to_frame, strict=True):
        if np.isfinite(matrix).all() and (not path or second - path[-1][0] >= MOUTH_SECONDS):
            x, y = (matrix @ middle / (width, height)).tolist()
            across = (right.stop - right.start) * float(np.hypot(*matrix[:, 0])) / width
            path.append((round(second, 3), round(x, 4), round(y, 4), round(across, 4)))
    return tuple(path)


def offset_notes(offset: float | None) -> tuple[str, ...]:
    """A note on the source's own offset, where it is at least NOTICED_OFFSET; else none.

    Args:
        offset: 25ths of a second that the lips come after the sound; None where it is not sure.
    """
    if offset is None or abs(offset) < NOTICED_OFFSET:
        return ()
    where = "after" if offset > 0 else "before"
    return (f"In the face video the lips come {abs(offset) * 1000 / FPS:.0f} ms {where} its own sound.",)


def correction_note(scores: Scores) -> str:
    """A note on how the offset was corrected, by the scores of the test pass."""
    if not scores.scorable:
        return f"The offset could not be found: {scores.reason}."
    if not scores.out_of_step:
        return "A test pass found the lips in sync: nothing was corrected."
    ms = abs(scores.out_of_step) * 1000 // FPS
    early, late = ("earlier", "late") if scores.out_of_step > 0 else ("later", "early")
    return f"The lips were drawn {ms} ms {early}: a test pass had found them {late}."
