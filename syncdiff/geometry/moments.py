"""Moments: frames of the film whose mouths are warped into other frames. Which they are, and which serves where.

A mouth that already has nearly the target shape needs the smallest warp, and shows the person's own teeth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MOMENTS = 12  # 8, 12, 16 moments: 28.1, 28.3, 28.4 dB in the mouth box with the true shapes, five people
CANDIDATES = 6  # frames nearest to a centre, of which the sharpest is taken
CHANGE_COST = 16.0  # px2, cost of changing to another moment, on the scale of `moment_costs`
CLOSED_CHANGE_COST = 4.0  # the same while lips are closed: nobody sees the teeth change
# px of gap: up to the first, lips count as closed and moments change at once; from the second on they cross-fade
PARTED_PX = (1.0, 3.0)
HAND_OVER = (0.25, 0.5, 0.25)  # the cross-fade's kernel over frames: a longer one is softer
_WEIGHT = np.array([2, 1, 1, 0.35, 0.35], np.float32)  # of a shape's differences: a gap shows teeth, widths warp well
_CLOSING = 2.0  # added weight where a warp must close a gap to less than _CLOSED px: teeth pressed to a line are seen
_CLOSED, _TURN = 2.0, 6.0  # px of gap; degrees of yaw that count as much as one px


def choose_moments(
    shapes: np.ndarray, yaw: np.ndarray, usable: np.ndarray, sharpness: Callable[[int], float], count: int = MOMENTS
) -> np.ndarray:
    """Frames whose mouths differ: k-means over lip shapes, and of the frames nearest to each centre the sharpest.

    Args:
        shapes: [T, SHAPE] px.
        yaw: [T] degrees.
        usable: [T] bool; at least one.
        sharpness: of a frame, asked for a few candidates only; -inf where the frame must not be taken.
        count: how many at the most, beside one with the mouth as wide open as it ever is.

    Returns:
        Frame numbers, sorted; at least one.
    """
    frames = np.flatnonzero(usable)
    turn = np.abs(yaw[frames] - np.median(yaw[frames]))
    frames = frames[turn <= max(np.percentile(turn, 60), 3.0)]
    shapes = shapes[frames]
    widest = shapes[np.abs(shapes[:, 0] - np.percentile(shapes[:, 0], 98)).argmin()]
    chosen: set[int] = set()
    for centre in (*_k_means(shapes, count), widest):
        nearest = frames[((shapes - centre) ** 2).sum(1).argsort(kind="stable")[:CANDIDATES]].tolist()
        scores = {i: sharpness(i) for i in nearest if i not in chosen}
        best = max(scores, key=scores.__getitem__, default=None)
        if best is not None and scores[best] > -np.inf:
            chosen.add(best)
    return np.array(sorted(chosen or {int(frames[len(frames) // 2])}))


def moment_costs(
    target: np.ndarray, yaw: np.ndarray, moment_shapes: np.ndarray, moment_yaw: np.ndarray
) -> np.ndarray:
    """Cost [T, M] px2 of showing each of M moments in each of T frames.

    Args:
        target: [T, SHAPE] px.
        yaw: [T] degrees.
        moment_shapes: [M, SHAPE] px.
        moment_yaw: [M] degrees.
    """
    difference = target[:, None] - moment_shapes
    closing = np.maximum(-difference[..., 0], 0) ** 2 * (target[:, None, 0] < _CLOSED)
    turn = (yaw[:, None] - moment_yaw) / _TURN
    return (difference**2 * _WEIGHT).sum(-1) + _CLOSING * closing + turn**2


def plan_moments(costs: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Costs [T, M] and target gaps [T] px -> shares [T, M] of the moments, which sum to 1.

    The cheapest path through all frames, where every change of moments has its cost too (Viterbi 1967). Changes are
    few, between closed lips where they can be, and else short and smooth.
    """
    parted = np.clip((gap - PARTED_PX[0]) / (PARTED_PX[1] - PARTED_PX[0]), 0, 1)
    change_costs = CLOSED_CHANGE_COST + (CHANGE_COST - CLOSED_CHANGE_COST) * parted[1:]
    total, came_from = costs[0], []
    for frame_costs, change_cost in zip(costs[1:], change_costs, strict=True):
        change = total.min() + change_cost
        came_from.append(np.where(total <= change, np.arange(len(total)), total.argmin()))
        total = np.minimum(total, change) + frame_costs
    path = [int(total.argmin())]
    for previous in reversed(came_from):
        path.append(int(previous[path[-1]]))
    shares = np.eye(costs.shape[1], dtype=np.float32)[path[::-1]]
    padded = np.pad(shares, ((1, 1), (0, 0)), mode="edge")
    smooth = sum(share * padded[k : k + len(shares)] for k, share in enumerate(HAND_OVER))
    return (shares + parted[:, None] * (smooth - shares)).astype(np.float32)


def _k_means(rows: np.ndarray, count: int) -> np.ndarray:
    """k-means of rows [N, D] -> [k, D], k <= count. Starts from rows far from each other, so it is deterministic."""
    starts = [rows[((rows - rows.mean(0)) ** 2).sum(1).argmin()]]
    while len(starts) < count:
        distance = np.min([((rows - centre) ** 2).sum(1) for centre in starts], axis=0)
        if distance.max() < 1e-6:
            break
        starts.append(rows[distance.argmax()])
    centres = np.stack(starts)
    for _ in range(20):
        nearest = ((rows[:, None] - centres) ** 2).sum(-1).argmin(1)
        moved = np.stack([rows[nearest == k].mean(0) if (nearest == k).any() else c for k, c in enumerate(centres)])
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres
