"""Tables of the evaluations as Markdown and CSV; those of `evaluate`: a headline with the aims, and set by set."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from syncdiff.training.sets import GROUPS

# Methods, as the rows name them.
OURS, LEFT, FROZEN, NEAREST, WARPED, REGRESSOR = (
    "syncdiff", "left as it was", "frozen mouth", "nearest mouth", "warped mouth", "L1 regressor",
)  # fmt: skip


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table of cells that are written as they are."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def write_csv(path: Path | None, rows: Sequence[dict]) -> None:
    """Rows under all columns that any of them has; nothing where no path was given."""
    if path is None:
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)


def shown(rows: Iterable[dict]) -> list[dict]:
    """All rows, each printed to stderr as it comes: an evaluation takes minutes."""
    found = []
    for row in rows:
        found.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, file=sys.stderr, flush=True)
    return found


def places(sets: Iterable[str]) -> dict[str, Sequence[str]]:
    """What a table has a row for: every set, every group of which there are several sets, and all."""
    known = list(dict.fromkeys(sets))
    groups = {name: group for name, group in GROUPS.items() if sum(s in group for s in known) > 1}
    return {**{name: [name] for name in known}, **groups, "all": known}


def table(rows: list[dict]) -> str:
    """Markdown: the mean of every column, per method, per set, per group of several sets, and over all clips."""
    columns = [c for c in dict.fromkeys(c for r in rows for c in r) if c not in ("method", "set", "clip", "frames")]
    lines = []
    for method in dict.fromkeys(r["method"] for r in rows):
        for name, some in places(r["set"] for r in rows).items():
            here = [r for r in rows if r["method"] == method and r["set"] in some]
            lines.append([method, name, len(here), *means(here, columns)])
    return markdown(["method", "set", "clips", *columns], lines)


def means(rows: list[dict], columns: Iterable[str]) -> list[str]:
    """Cells: the mean of every column over the rows that have it, "-" where none has."""
    found = (_mean(rows, column) for column in columns)
    return ["-" if mean is None else f"{mean:.2f}" for mean in found]


def _mean(rows: list[dict], column: str) -> float | None:
    known = [r[column] for r in rows if r.get(column) is not None]
    return float(np.mean(known)) if known else None


# The headline table: title of a row, its cells ({method.column} is a mean over clips), and the aim.
HEADLINE = (
    ("own voice: r with the true lips (at the best lag)", "{ours.matched_r} ({ours.best_r})", "0.85 / 0.50 (0.65)"),
    ("the same without the network (the warped mouth alone); L1 regressor; nearest mouth; frozen mouth",
     "{warped.matched_r}; {regressor.matched_r}; {nearest.matched_r}; {frozen.matched_r}", "less than ours"),
    ("clips whose best lag is 0 or 1 frame", "{on_time}", "all"),
    ("another's voice: r with the lips that spoke it (the video left as it was)",
     "{ours.foreign_r} ({left.foreign_r})", "0.75 / -"),
    ("the same at the best lag", "{ours.foreign_best_r} ({left.foreign_best_r})", "- / 0.55"),
    ("silence: movement against the source's; r with the source's lips",
     "{ours.silence_move:%}; {ours.silence_r}", "25 %; 0.15"),
    ("how far the lips open against the truth", "{ours.opening_ratio:%}", "-"),
    ("sharpness of the mouth / jitter against the source (the warped mouth alone)",
     "{ours.sharpness} / {ours.jitter} ({warped.sharpness} / {warped.jitter})", "0.90 / 1.2"),
    ("PSNR / SSIM / LMD against the true mouth (the warped mouth alone)",
     "{ours.PSNR} dB / {ours.SSIM} / {ours.LMD} px ({warped.PSNR} / {warped.SSIM} / {warped.LMD})", "-"),
    ("confidence of our own judge: own voice (filmed); another's (the video left as it was)",
     "{ours.confidence} ({left.confidence}); {ours.foreign_confidence} ({left.foreign_confidence})", "-"),
)  # fmt: skip
ALIASES = {"ours": OURS, "left": LEFT, "frozen": FROZEN, "nearest": NEAREST, "warped": WARPED, "regressor": REGRESSOR}


@dataclass(frozen=True)
class _Means:
    """Means of one method's rows, as `str.format` asks for them: {x.column} in two places, {x.column:%} in percent."""

    rows: list[dict]

    def __getattr__(self, column: str) -> _Figure:
        return _Figure(_mean(self.rows, column))


@dataclass(frozen=True)
class _Figure:
    value: float | None

    def __format__(self, how: str) -> str:
        if self.value is None:
            return "-"
        return f"{100 * self.value:.0f} %" if how == "%" else f"{self.value:.2f}"


def headline(rows: list[dict]) -> str:
    """Markdown: our model over the groups of people, beside the aims and what it must beat."""
    groups = {name: [r for r in rows if r["set"] in sets] for name, sets in GROUPS.items()}
    ours = {name: [r for r in here if r["method"] == OURS] for name, here in groups.items()}
    head, lines = ["", *(f"{name} ({len(here)} clips)" for name, here in ours.items()), "aim GRID / ordinary"], []
    for title, cell, aim in HEADLINE:
        cells = []
        for name, here in groups.items():
            lags = [r["best_lag"] for r in ours[name] if r["best_lag"] is not None]
            values: dict[str, Any] = {k: _Means([r for r in here if r["method"] == v]) for k, v in ALIASES.items()}
            values["on_time"] = f"{sum(abs(lag) <= 1 for lag in lags)} of {len(lags)}" if lags else "-"
            cells.append(cell.format(**values))
        lines.append([title, *cells, aim])
    return markdown(head, lines)
