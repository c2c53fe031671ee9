"""Time stamps -> seconds, and the frame rate when there is one. Runs inside the intake process."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from syncdiff.media.clip import PHOTO_RATE

BROADCAST_RATES = tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120))
USUAL_RATES = BROADCAST_RATES + tuple(Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60))
ROUNDING = 1.1e-3  # seconds: matroska keeps whole milliseconds


def clock(
    ticks: list[int], unit: Fraction, last: int, average: Fraction | None
) -> tuple[np.ndarray, float, Fraction, bool]:
    """(times [T] float64 from 0 on, end of the last frame, frame rate, whether the times are exactly i / rate).

    ticks: when each frame is shown, in `unit` seconds; last: how long the last one stays (0: not said); average: the
    rate the container names. A container that rounds time stamps gets its steady rate back; real variation is kept."""
    times = (np.array(ticks, np.int64) - ticks[0]) * float(unit)
    T = len(times)
    if T == 1:
        return np.zeros(1), float(1 / PHOTO_RATE), PHOTO_RATE, True
    measured = Fraction((T - 1) / times[-1]).limit_denominator(1001)
    candidates = [rate for rate in (average, *USUAL_RATES, measured) if rate]
    grid = np.arange(T)
    error, place = min((float(np.abs(times - grid / float(rate)).max()), i) for i, rate in enumerate(candidates))
    if error <= max(ROUNDING, 1.01 * float(unit)) and error < 0.25 / float(candidates[place]):
        rate = candidates[place]
        return grid / float(rate), T / float(rate), rate, True
    usual = float(np.median(np.diff(times)))
    stays = last * float(unit)
    seconds = float(times[-1]) + (stays if 0 < stays <= 4 * usual else usual)
    return times, seconds, Fraction(T / seconds).limit_denominator(1001), False
