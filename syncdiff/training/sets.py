"""The data sets and what each is used for, read from sets.toml beside this file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_SETS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def _column(key: str) -> dict[str, Any]:
    return {name: uses[key] for name, uses in _SETS.items() if key in uses}


DENOISER_SHARE, SPEECH_SHARE = _column("denoiser"), _column("speech")  # of a batch, by set; each sums to 1
PERSON_WEIGHT = _column("person")  # sets of filmed people
JUDGE, ABLATION = tuple(_column("judge")), tuple(_column("ablation"))
HELD_OUT = tuple(name for name, uses in _SETS.items() if uses["role"] == "held out")
_NAMED = _column("group")
GROUPS = {group: tuple(n for n, g in _NAMED.items() if g == group) for group in sorted(set(_NAMED.values()))}


def without(name: str) -> dict[str, float]:
    """The denoiser's shares of all sets but one."""
    rest = {other: share for other, share in DENOISER_SHARE.items() if other != name}
    return {other: share / sum(rest.values()) for other, share in rest.items()}
