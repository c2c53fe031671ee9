"""Tables of the evaluations, as Markdown and CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from syncdiff.training.sets import GROUPS


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells are written by str()."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def write_csv(path: Path | None, rows: Sequence[dict]) -> None:
    """Write rows under all columns that any of them has; without a path, nothing."""
    if path is None:
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)


def print_rows(rows: Iterable[dict]) -> list[dict]:
    """All rows, each printed to stderr as it comes: an evaluation takes minutes."""
    kept = []
    for row in rows:
        kept.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, file=sys.stderr, flush=True)
    return kept


def set_groups(sets: Iterable[str]) -> dict[str, Sequence[str]]:
    """The sets behind each row of a table: every set, every group with several of the sets, and all."""
    known = list(dict.fromkeys(sets))
    groups = {name: group for name, group in GROUPS.items() if sum(s in group for s in known) > 1}
    return {**{name: [name] for name in known}, **groups, "all": known}


def table(rows: list[dict]) -> str:
    """Markdown: the mean of every column, per method, per set, per group of several sets, and over all clips."""
    columns = [c for c in dict.fromkeys(c for r in rows for c in r) if c not in ("method", "set", "clip", "frames")]
    lines = []
    for method in dict.fromkeys(r["method"] for r in rows):
        for name, sets in set_groups(r["set"] for r in rows).items():
            chosen = [r for r in rows if r["method"] == method and r["set"] in sets]
            lines.append([method, name, len(chosen), *means(chosen, columns)])
    return markdown(["method", "set", "clips", *columns], lines)


def means(rows: list[dict], columns: Iterable[str]) -> list[str]:
    """Cells: the mean of every column over the rows that have it, "-" where none has."""
    known = ([r[column] for r in rows if r.get(column) is not None] for column in columns)
    return [f"{np.mean(values):.2f}" if values else "-" for values in known]
