"""Moments of a film that lend their mouths: which frames they are, and which of them serves every frame of the output.

Mouths that already stand as they are wanted need the shortest warp, and show the person's own teeth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MOMENTS = 12  # 8, 12, 16 moments: 28.1, 28.3, 28.4 dB in the mouth box with the true shapes, five people
CANDIDATES = 6  # frames nearest to a centre, of which the sharpest is taken
CHANGE_COST = 16.0  # px2, cost of changing to another moment; the distances of all frames that it serves must repay it
STAY_CLOSED = 4.0  # the same while lips are closed: nobody sees the teeth change
PARTED_PX = (1.0, 3.0)  # px of gap: up to the first lips count as closed, moments change at once; from the second not
HAND_OVER = (0.25, 0.5, 0.25)  # a change of moments, frame by frame: longer is softer, none jumps
_WEIGHT = np.array([2, 1, 1, 0.35, 0.35], np.float32)  # of a shape's differences: teeth are in the gap, widths warp
_CLOSING = 2.0  # more weight of a gap that must be closed: teeth pressed to a line are seen
_CLOSED, _TURN = 2.0, 6.0  # px of gap below which that holds; degrees of yaw that count as much as one px


def choose_moments(
    shapes: np.ndarray, yaw: np.ndarray, usable: np.ndarray, sharpness: Callable[[int], float], count: int = MOMENTS
) -> np.ndarray:
    """Frames whose mouths differ: k-means over lip shapes, of those nearest to each centre the sharpest; sorted.

    Args:
        shapes: [T, SHAPE] px.
        yaw: [T] degrees.
        usable: [T] bool; at least one.
        sharpness: of a frame, asked for a few candidates only; -inf where the frame must not be taken.
        count: how many at the most, beside one with the mouth as wide open as it ever is.
    """
    seen = np.flatnonzero(usable)
    turned = np.abs(yaw[seen] - np.median(yaw[seen]))
    usual = seen[turned <= max(np.percentile(turned, 60), 3.0)]
    rows = shapes[usual]
    widest = rows[np.abs(rows[:, 0] - np.percentile(rows[:, 0], 98)).argmin()]
    taken: dict[int, float] = {}
    for centre in (*_means(rows, count), widest):
        near = usual[((rows - centre) ** 2).sum(1).argsort(kind="stable")[:CANDIDATES]]
        marks = {int(i): sharpness(int(i)) for i in near if int(i) not in taken}
        best = max(marks, key=marks.__getitem__, default=None)
        if best is not None and marks[best] > -np.inf:
            taken[best] = marks[best]
    return np.array(sorted(taken or {int(usual[len(usual) // 2]): 0.0}))


def moment_costs(
    wanted: np.ndarray, yaw: np.ndarray, moment_shapes: np.ndarray, moment_yaw: np.ndarray
) -> np.ndarray:
    """How ill every moment serves every frame: wanted [T, SHAPE] px and yaw [T] -> [T, M] px2."""
    apart = wanted[:, None] - moment_shapes
    closing = np.maximum(-apart[..., 0], 0) ** 2 * (wanted[:, None, 0] < _CLOSED)
    turn = (yaw[:, None] - moment_yaw) / _TURN
    return (apart**2 * _WEIGHT).sum(-1) + _CLOSING * closing + turn**2


def plan_moments(costs: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Costs [T, M] and gaps wanted [T] px -> shares [T, M] that sum to 1.

    The best moment serves; changes are few, between closed lips where they can be, and else short and smooth: the
    cheapest way through all frames where every change has its price (Viterbi 1967).
    """
    parted = np.clip((gap - PARTED_PX[0]) / (PARTED_PX[1] - PARTED_PX[0]), 0, 1)
    best, came = costs[0], []
    for row, price in zip(costs[1:], STAY_CLOSED + (CHANGE_COST - STAY_CLOSED) * parted[1:], strict=True):
        change = best.min() + price
        came.append(np.where(best <= change, np.arange(len(best)), best.argmin()))
        best = np.minimum(best, change) + row
    at = [int(best.argmin())]
    for back in reversed(came):
        at.append(int(back[at[-1]]))
    serves = np.eye(costs.shape[1], dtype=np.float32)[at[::-1]]
    padded = np.pad(serves, ((1, 1), (0, 0)), mode="edge")
    smooth = sum(share * padded[k : k + len(serves)] for k, share in enumerate(HAND_OVER))
    return (serves + parted[:, None] * (smooth - serves)).astype(np.float32)


def _means(rows: np.ndarray, count: int) -> np.ndarray:
    """k-means of rows [N, D] -> [k, D], k <= count; begun with rows far from each other, without chance."""
    found = [rows[((rows - rows.mean(0)) ** 2).sum(1).argmin()]]
    while len(found) < count:
        away = np.min([((rows - centre) ** 2).sum(1) for centre in found], axis=0)
        if away.max() < 1e-6:
            break
        found.append(rows[away.argmax()])
    centres = np.stack(found)
    for _ in range(20):
        nearest = ((rows[:, None] - centres) ** 2).sum(-1).argmin(1)
        moved = np.stack([rows[nearest == k].mean(0) if (nearest == k).any() else c for k, c in enumerate(centres)])
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres
