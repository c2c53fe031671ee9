"""Where the shipped weights lie, and how a trained model is put there. Knows no training and no sampling."""

from __future__ import annotations

from pathlib import Path

COMPACT = Path(__file__).resolve().parent.parent / "assets" / "weights"
SHARD = "9MB"  # a Space refuses plain files over 10 MB
