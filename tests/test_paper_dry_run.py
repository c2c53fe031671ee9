"""The paper's line on a made-up LRS2 of a few short films, by the commands that the real one gets."""

from __future__ import annotations

from dataclasses import replace

from accelerate.state import AcceleratorState

from syncdiff.training.train_paper import PAPER_PRESETS
from tools.paper_dry_run import dry_run


def test_from_prepare_to_the_table_without_a_hand(tmp_path, monkeypatch, capfd):
    """Nine films: a broken, a faceless, a turned, a silent and a mute one among them."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for preset in ("paper-tiny", "paper-tiny-few"):
        monkeypatch.setitem(PAPER_PRESETS, preset, replace(PAPER_PRESETS[preset], updates=2, batch=2))
    told = dry_run(tmp_path, films=9, processes=1, steps=1)
    AcceleratorState._reset_state(reset_partial_state=True)
    report = (tmp_path / "prepared" / "report.tsv").read_text().splitlines()[1:]
    states = {line.split("\t")[0][-5:]: line.split("\t")[1] for line in report}
    assert {name for name, state in states.items() if state == "refused"} == {"00002", "00004", "00008"}
    turned = next(line for line in report if "00005" in line).split("\t")
    assert turned[2:4] == ["14", "7"]
    assert "7 of 14 frames were not drawn, in 1 of 1 films." in told
    rows = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("|")]
    assert rows[2:5] == ["GT", "GT-Rec", "ours"]
    assert "0002/00002 is left out" in told
    assert (tmp_path / "synced.mp4").exists()
    assert (tmp_path / "few" / "pipeline" / "model_index.json").exists()
    assert (tmp_path / "evaluation" / "table-4.md").exists()
