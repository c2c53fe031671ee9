"""The short version of tools/attack.py: a sample of each kind, on the real server."""

import pytest

from syncdiff.weights.folders import COMPACT
from tools.attack import attack


@pytest.mark.weights
@pytest.mark.skipif(not (COMPACT / "model_index.json").exists(), reason="no shipped weights: NOTHING was attacked")
def test_whatever_strangers_try_is_answered_and_does_no_harm(server, tmp_path) -> None:
    report = attack(server, tmp_path, short=True)
    assert report.wrong == [], report
    assert sum(seen.total() for seen in report.answers.values()) > 100
