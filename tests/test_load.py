"""The short version of tools/load.py: a few visitors at once, and a power cut."""

import pytest

from syncdiff.weights.folders import COMPACT
from tools.load import Table, crowd, farewell, power_cut

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(not (COMPACT / "model_index.json").exists(), reason="no shipped weights: NO load was tried"),
]


def test_everyone_gets_their_own_and_leaving_frees_a_place(server, tmp_path) -> None:
    table = Table()
    crowd(server, 3, tmp_path, table)
    assert table.wrong == [], table
    print(table)


def test_a_power_cut_leaves_nothing_behind_and_neither_does_the_end(server, tmp_path) -> None:
    table = Table()
    power_cut(server, tmp_path, table)
    farewell(server, table)
    assert table.wrong == [], table
