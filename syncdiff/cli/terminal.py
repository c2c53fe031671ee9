"""Output of the commands: progress on standard error, and scores in words."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncdiff.results import Progress
    from syncdiff.sync.scoring import Scores

# Steps of Progress that one video frame takes, for the stages that go frame by frame; drawing depends on --steps.
STEPS_PER_FRAME = {"finding the face": 2, "testing the offset": 1}


def show_progress(
    updates: Iterable[Any], *, quiet: bool = False, steps_per_frame: Mapping[str, int] | None = None
) -> Any:
    """Print a job's Progress to standard error; returns the item after it.

    On a terminal it is a bar with stage, time left and frames a second, elsewhere one line a stage.

    Args:
        updates: Progress items, then the result.
        quiet: print nothing.
        steps_per_frame: steps of Progress that one frame takes, for the stages that go frame by frame.
    """
    from syncdiff.results import Progress

    steps_per_frame = steps_per_frame or {}
    terminal, stage, item, bar = sys.stderr.isatty(), None, None, None
    try:
        for item in updates:
            if not isinstance(item, Progress) or quiet:
                continue
            if item.stage != stage and not terminal:
                print(item.stage, file=sys.stderr, flush=True)
            elif item.stage != stage:
                if bar is not None:
                    bar.close()
                bar = stage_bar(item, steps_per_frame.get(item.stage))
            stage = item.stage
            if bar is not None:
                bar.update(item.done - bar.n)
    finally:
        if bar is not None:
            bar.close()
    return item


def stage_bar(first: Progress, steps_per_frame: int | None) -> Any:
    """A tqdm bar for one stage; it shows frames a second where the stage goes frame by frame."""
    from tqdm import tqdm

    size = shutil.get_terminal_size()  # 80 x 24 where the terminal says 0 x 0, as under `docker run -t`
    rate = ", {rate_noinv_fmt}" if steps_per_frame else ""
    return tqdm(
        total=first.total,
        desc=first.stage,
        unit=" frames",
        unit_scale=1 / (steps_per_frame or 1),
        bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left" + rate,
        leave=False,
        file=sys.stderr,
        ncols=size.columns,
        nrows=size.lines,
    )


def in_words(scores: Scores) -> str:
    """Scores and their judge in one line, or why there are none."""
    if not scores.scorable:
        return f"{scores.reason} ({scores.judge})"
    confidence, distance = ("LSE-C", "LSE-D") if "LSE" in scores.judge else ("confidence", "distance")
    return (
        f"{confidence} {scores.confidence:.2f}, {distance} {scores.distance:.2f}, "
        f"offset {scores.offset_frames:+d} frames at 25 fps ({scores.judge})"
    )
