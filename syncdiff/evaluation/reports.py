"""Tables of the evaluations, as Markdown and CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from syncdiff.training.sets import GROUPS


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
    known = ([r[column] for r in rows if r.get(column) is not None] for column in columns)
    return [f"{np.mean(values):.2f}" if values else "-" for values in known]
