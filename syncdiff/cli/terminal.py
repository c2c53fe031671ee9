"""What a command prints: progress on standard error, and scores in words."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncdiff.results import Progress
    from syncdiff.sync.scoring import Scores

# Steps of Progress that one video frame counts in each stage that goes frame by frame; drawing depends on --steps.
STEPS_PER_FRAME = {"finding the face": 2, "testing the offset": 1}


def last(items: Iterable[Any], *, quiet: bool = False, steps_per_frame: Mapping[str, int] | None = None) -> Any:
    """The item that comes after all progress.

    Progress goes to standard error: on a terminal a bar with stage, time left and frames a second, else one line a
    stage; with `quiet` nothing.

    Args:
        steps_per_frame: how many steps of Progress one frame counts, for the stages that go frame by frame.
    """
    from syncdiff.results import Progress

    steps_per_frame = steps_per_frame or {}
    moving, stage, item, bar = sys.stderr.isatty(), None, None, None
    try:
        for item in items:
            if not isinstance(item, Progress) or quiet:
                continue
            if item.stage != stage and not moving:
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
    """tqdm's bar for one stage; its rate is in frames where the stage goes frame by frame."""
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
    """One line: the figures and whose they are, or why there are none."""
    if not scores.scorable:
        return f"{scores.reason} ({scores.judge})"
    confidence, distance = ("LSE-C", "LSE-D") if "LSE" in scores.judge else ("confidence", "distance")
    return (
        f"{confidence} {scores.confidence:.2f}, {distance} {scores.distance:.2f}, "
        f"offset {scores.offset_frames:+d} frames at 25 fps ({scores.judge})"
    )
