"""Moments of a film: planted kinds of mouths are all found, and they serve without flicker."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.geometry.moments import CHANGE_COST, choose_moments, moment_costs, plan_moments

KINDS = np.array([[0, 5, 7, 34, 30], [4, 4, 6, 36, 32], [10, 4, 6, 34, 30], [5, 6, 7, 26, 18.0]])


def planted(per: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Shapes [T, 5] in four kinds one after the other, and the kind of each."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(len(KINDS)), per)
    return (KINDS[kind] + rng.normal(0, 0.2, (len(kind), 5))).astype(np.float32), kind


def test_every_planted_kind_lends_a_moment() -> None:
    shapes, kind = planted()
    chosen = choose_moments(shapes, np.zeros(len(kind)), np.ones(len(kind), bool), lambda i: 0.0, count=4)
    assert set(kind[chosen]) == {0, 1, 2, 3}
    assert len(chosen) <= 5


def test_the_sharpest_of_its_like_is_taken_and_the_covered_never() -> None:
    shapes, kind = planted()
    chosen = choose_moments(shapes, np.zeros(160), np.ones(160, bool), lambda i: float(i % 7 == 3), count=8)
    assert (chosen % 7 == 3).mean() > 0.6
    covered = choose_moments(shapes, np.zeros(160), np.ones(160, bool), lambda i: -np.inf if kind[i] == 2 else 1.0)
    assert 2 not in kind[covered]


def test_unusable_and_turned_frames_are_left_out() -> None:
    shapes, kind = planted()
    usable, yaw = kind != 1, np.where(kind == 3, 40.0, 0.0)
    chosen = choose_moments(shapes, yaw, usable, lambda i: 1.0)
    assert set(kind[chosen]) == {0, 2}


def test_one_usable_frame_is_the_moment() -> None:
    usable = np.arange(5) == 3
    assert choose_moments(np.ones((5, 5)), np.zeros(5), usable, lambda i: -np.inf).tolist() == [3]


def test_the_nearest_serves_and_changes_are_smooth() -> None:
    shapes, kind = planted(25)
    shares = plan_moments(moment_costs(shapes, np.zeros(100), KINDS, np.zeros(4)), np.full(100, 5.0))
    assert shares.sum(1) == pytest.approx(np.ones(100))
    assert (shares.argmax(1) == kind).mean() > 0.97
    assert np.abs(np.diff(shares, axis=0)).max() <= 0.5
    assert 0 < (shares.max(1) < 1).sum() <= 3 * 3  # three changes of three frames


def test_between_closed_lips_moments_change_at_once() -> None:
    costs = np.tile([0.0, 20.0], (40, 1))
    costs[20:] = costs[20:, ::-1]
    assert (plan_moments(costs, np.zeros(40)).max(1) == 1).all()
    assert (plan_moments(costs, np.full(40, 6.0)).max(1) < 1).any()
    costs = np.zeros((40, 2))
    costs[:20, 1] = costs[25:, 0] = 9.0  # in the five frames between either will do
    gap = np.full(40, 6.0)
    gap[22] = 0.0  # and the lips meet in one of them
    assert np.flatnonzero(np.diff(plan_moments(costs, gap).argmax(1))).tolist() == [21]


def test_a_passing_advantage_changes_nothing() -> None:
    costs = np.zeros((40, 2))
    costs[:, 1] = 1.0
    costs[20, 0] = 1.0 + CHANGE_COST  # a frame in which the other would do better, by less than there and back costs
    parted = np.full(40, 5.0)
    assert plan_moments(costs, parted)[:, 0].min() == 1
    costs[20:26, 0] = 1.0 + CHANGE_COST
    assert plan_moments(costs, parted)[22, 1] == 1


def test_a_turned_head_is_served_by_a_moment_turned_alike() -> None:
    shapes = np.tile(KINDS[:1], (2, 1)).astype(np.float32)
    costs = moment_costs(shapes[:1], np.array([20.0]), shapes, np.array([0.0, 18.0]))
    assert costs[0].argmin() == 1
