"""The tables of `evaluate`: the README's, with the aims beside, and everything, set by set. Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from syncdiff.evaluation.metrics import GROUPS

# Makers, as the rows name them.
OURS, LEFT, FROZEN, NEAREST, BENT, REGRESSOR = (
    "syncdiff", "left as it was", "frozen mouth", "nearest mouth", "bent mouth", "L1 regressor",
)  # fmt: skip


def table(rows: list[dict]) -> str:
    """Markdown: the mean of every column, per maker, per set, per group of several sets, and over all clips."""
    columns = [c for c in dict.fromkeys(c for r in rows for c in r) if c not in ("maker", "set", "clip", "frames")]
    lines = ["| maker | set | clips | " + " | ".join(columns) + " |", "|---" * (len(columns) + 3) + "|"]
    sets = list(dict.fromkeys(r["set"] for r in rows))
    places = {name: [name] for name in sets}
    places |= {name: group for name, group in GROUPS.items() if sum(s in group for s in sets) > 1}
    places["all"] = sets
    for maker in dict.fromkeys(r["maker"] for r in rows):
        for name, some in places.items():
            here = [r for r in rows if r["maker"] == maker and r["set"] in some]
            means = (_mean(here, c) for c in columns)
            cells = " | ".join("-" if m is None else f"{m:.2f}" for m in means)
            lines.append(f"| {maker} | {name} | {len(here)} | {cells} |")
    return "\n".join(lines)


def _mean(rows: list[dict], column: str) -> float | None:
    known = [r[column] for r in rows if r.get(column) is not None]
    return float(np.mean(known)) if known else None


# The README's table: what stands in a row, how its cells are written - {maker.column}, a mean over clips - and the aim.
HEADLINE = (
    ("own voice: r with the true lips (at the best lag)", "{ours.matched_r} ({ours.best_r})", "0.85 / 0.50 (0.65)"),
    ("the same without the network (the bent mouth alone); L1 regressor; nearest mouth; frozen mouth",
     "{bent.matched_r}; {regressor.matched_r}; {nearest.matched_r}; {frozen.matched_r}", "less than ours"),
    ("clips whose best lag is 0 or 1 frame", "{on_time}", "all"),
    ("another's voice: r with the lips that spoke it (the video left as it was)",
     "{ours.foreign_r} ({left.foreign_r})", "0.75 / -"),
    ("the same at the best lag", "{ours.foreign_best_r} ({left.foreign_best_r})", "- / 0.55"),
    ("silence: movement against the source's; r with the source's lips",
     "{ours.silence_move:%}; {ours.silence_r}", "25 %; 0.15"),
    ("how far the lips open against the truth", "{ours.opening_ratio:%}", "-"),
    ("sharpness of the mouth / jitter against the source (the bent mouth alone)",
     "{ours.sharpness} / {ours.jitter} ({bent.sharpness} / {bent.jitter})", "0.90 / 1.2"),
    ("PSNR / SSIM / LMD against the true mouth (the bent mouth alone)",
     "{ours.PSNR} dB / {ours.SSIM} / {ours.LMD} px ({bent.PSNR} / {bent.SSIM} / {bent.LMD})", "-"),
    ("confidence of our own judge: own voice (filmed); another's (the video left as it was)",
     "{ours.confidence} ({left.confidence}); {ours.foreign_confidence} ({left.foreign_confidence})", "-"),
)  # fmt: skip
ALIASES = {"ours": OURS, "left": LEFT, "frozen": FROZEN, "nearest": NEAREST, "bent": BENT, "regressor": REGRESSOR}


@dataclass(frozen=True)
class _Means:
    """Means of one maker's rows, as `str.format` asks for them: {x.column} in two places, {x.column:%} in percent."""

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
    ours = {name: [r for r in here if r["maker"] == OURS] for name, here in groups.items()}
    lines = [
        "| | " + " | ".join(f"{name} ({len(here)} clips)" for name, here in ours.items()) + " | aim GRID / ordinary |",
        "|---" * (len(groups) + 2) + "|",
    ]
    for title, cell, aim in HEADLINE:
        cells = []
        for name, here in groups.items():
            lags = [r["best_lag"] for r in ours[name] if r["best_lag"] is not None]
            values: dict[str, Any] = {k: _Means([r for r in here if r["maker"] == v]) for k, v in ALIASES.items()}
            values["on_time"] = f"{sum(abs(lag) <= 1 for lag in lags)} of {len(lags)}" if lags else "-"
            cells.append(cell.format(**values))
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {aim} |")
    return "\n".join(lines)
