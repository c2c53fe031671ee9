"""The moving average against one by hand, a run that is cut off and goes on, and the shares of a batch."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from syncdiff.training.loop import Average, Run
from syncdiff.training.sets import DENOISER_SHARE, GROUPS, HELD_OUT, SPEECH_SHARE, without


def test_the_average_is_young_at_first_and_leaves_what_is_frozen():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1), nn.Linear(1, 1))
    net[2].requires_grad_(False)
    average, by_hand = Average(net, 0.3), net[0].weight.item()
    assert average.module[2].weight is net[2].weight
    for update in range(1, 8):
        with torch.no_grad():
            net[0].weight.fill_(update)
            net[1].running_mean.fill_(update)
        average.step(net, update)
        old = min(0.3, update / (update + 10))
        by_hand = old * by_hand + (1 - old) * update
        assert average.module[0].weight.item() == pytest.approx(by_hand)
    assert average.module[1].running_mean.item() == pytest.approx(by_hand, abs=1e-2)  # it began at 0
    assert not average.module.training
    again = Average(net, 0.3)
    again.load_state_dict(average.state_dict())
    assert again.module[0].weight.item() == average.module[0].weight.item() != net[0].weight.item()


def test_a_run_counts_logs_means_and_goes_on(tmp_path):
    part = nn.Linear(2, 2)
    run = Run(tmp_path / "run", {"part": part}, every=2)
    assert run.resume() == {}
    assert [run.step(4, {"loss": loss}) is not None for loss in (1.0, 3.0, 5.0)] == [False, True, False]
    run.began -= 100
    run.save(more=torch.ones(1))
    other = Run(tmp_path / "run", {"part": nn.Linear(2, 2)}, every=2)
    assert other.resume()["more"].item() == 1
    assert torch.equal(other.parts["part"].weight, part.weight)
    assert (other.update, other.samples) == (3, 12)
    assert other.seconds >= 100
    other.step(4, {"loss": 8.0})
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["update"], row["samples"], float(row["loss"])) for row in rows] == [("2", "8", 2), ("4", "16", 8)]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"state.pt", "log.csv"}


def test_the_shares_of_a_batch_make_a_whole_and_nobody_held_out_is_in_it():
    for share in (DENOISER_SHARE, SPEECH_SHARE, without("puppets")):
        assert sum(share.values()) == pytest.approx(1)
        assert not set(share) & set(HELD_OUT)
    assert without("puppets")["rendered"] == pytest.approx(0.1 / 0.7)
    assert GROUPS["ordinary"] == ("val-voxceleb2", "val-hdtf", "val-retalking")
