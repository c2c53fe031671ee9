"""Lip shapes: five distances between landmarks of the mouth, in pixels of the crop or in the speaker's own units.

Sound cannot tell how wide a person's mouth is, only how far from rest it is at a moment. So networks forecast shapes in
the speaker's own units: 0 is the mouth at rest, 1 as far open as this speaker commonly goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# FaceMesh points whose distances make a shape: the gap between the lips, thickness of the upper and the lower lip,
# outer and inner width.
SPANS = ((13, 14), (0, 13), (14, 17), (61, 291), (78, 308))
SHAPE = len(SPANS)
FORECAST_GAINS = (1.5, 0.25, 0.4, 1.1, 1.1)
CLOSED_FORECAST = 0.22  # speaker's units: lips whose forecast gap is no larger are closed
CLOSED_PX = 0.6  # px: lips whose gap is smaller are closed
MIN_REACH, MAX_REACH = 7.0, 11.0  # px: the middle and the upper end of what filmed people reach when they talk

MIN_SPEECH_FRAMES = 75  # of a person's own speech, to fit an Articulation to
UNRELATED, RELATED = 0.2, 0.5  # r of measured and forecast gaps: up to the first nothing is fitted, from the second all
MAX_LAG = 4  # frames by which films are out of sync
QUANTILES = (0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.82, 0.92, 0.98)


def calibrate_forecast(forecast: np.ndarray) -> np.ndarray:
    """Scale a forecast [..., SHAPE], which is a mean and so too small, to the spread of real lips; speaker's units.

    The gap is FORECAST_GAINS[0] * (forecast - CLOSED_FORECAST), never below 0, so that p, b and m close. It is fitted
    to the quantiles of 14 held-out people from the median up: 0.45 becomes 0.3, 0.65 becomes 0.6, 1.0 becomes 1.2.
    Widths get the standard deviation of theirs. Thicknesses are damped: they are forecast with r 0.3 and 0.5 only.
    """
    shape = forecast * np.array(FORECAST_GAINS, np.float32)
    shape[..., 0] = FORECAST_GAINS[0] * np.maximum(forecast[..., 0] - CLOSED_FORECAST, 0)
    return shape


def lip_shape(points: np.ndarray) -> np.ndarray:
    """FaceMesh points [..., 478, 2] -> [..., SHAPE] float32 distances in the unit of the points."""
    a, b = (points[..., [pair[i] for pair in SPANS], :] for i in (0, 1))
    return np.linalg.norm(a - b, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class SpeakerScale:
    """How one person's mouth moves, in crop pixels."""

    rest: np.ndarray  # [SHAPE] px, the closed mouth
    reach: float  # px, gap between the lips commonly reached, less that at rest

    @classmethod
    def of(cls, shapes: np.ndarray) -> SpeakerScale:
        """From shapes [T, SHAPE] px measured in a film: rest is the mean of the tenth with the smallest gap."""
        gap = shapes[:, 0]
        rest = shapes[gap <= np.percentile(gap, 10)].mean(0)
        return cls(rest, float(np.percentile(gap, 95) - rest[0]))

    def speaking(self) -> SpeakerScale:
        """The scale of this person talking, also where the film shows them silent: lips close, and reach is usual."""
        rest = self.rest.copy()
        rest[0] = min(rest[0], 0.5)
        return SpeakerScale(rest, float(np.clip(self.reach, MIN_REACH, MAX_REACH)))

    def pixels(self, units: np.ndarray) -> np.ndarray:
        """Speaker's units [..., SHAPE] -> px, with gaps of at least 0."""
        shapes = self.rest + self.reach * units
        shapes[..., 0] = np.maximum(shapes[..., 0], 0)
        return shapes.astype(np.float32)

    def units(self, shapes: np.ndarray) -> np.ndarray:
        """px [..., SHAPE] -> speaker's units."""
        return (shapes - self.rest) / max(self.reach, 1.0)


@dataclass(frozen=True)
class Articulation:
    """Maps forecast lip shapes to this person's, as fitted to the film's own sound and lips.

    Gaps are mapped quantile by quantile to this person's, so closed stays closed; widths by gain and offset;
    thicknesses by offset and a gain that is damped by how well they are forecast.
    """

    trust: float  # 0..1: share of the fitted map; 0 leaves shapes as forecast
    gaps: tuple[np.ndarray, np.ndarray]  # [Q] px each: quantiles of the forecast gaps and of the measured ones
    middle: np.ndarray  # [SHAPE] px that the gains are about
    gains: np.ndarray  # [SHAPE]
    offset: np.ndarray  # [SHAPE] px

    @classmethod
    def identity(cls) -> Articulation:
        """Leaves shapes as forecast."""
        return cls(0.0, (np.zeros(1), np.zeros(1)), np.zeros(SHAPE), np.ones(SHAPE), np.zeros(SHAPE))

    @classmethod
    def of(cls, forecast: np.ndarray, measured: np.ndarray) -> Articulation:
        """From shapes [T, SHAPE] px forecast from a film's sound, and those measured in the same frames."""
        r = best_correlation(forecast[:, 0], measured[:, 0])
        trust = float(np.clip((r - UNRELATED) / (RELATED - UNRELATED), 0, 1)) * (len(measured) >= MIN_SPEECH_FRAMES)
        if not trust:
            return cls.identity()
        forecast_gaps, measured_gaps = (
            np.maximum.accumulate(np.quantile(shapes[:, 0], QUANTILES)) for shapes in (forecast, measured)
        )
        measured_gaps[0] = min(measured_gaps[0], 0.5)
        gains = measured.std(0) / np.maximum(forecast.std(0), 1e-3)
        gains[1:3] *= [best_correlation(forecast[:, k], measured[:, k]) for k in (1, 2)]
        middle = forecast.mean(0)
        return cls(
            trust,
            (forecast_gaps + 1e-3 * np.arange(len(forecast_gaps)), measured_gaps),  # np.interp needs them to rise
            middle,
            trust * np.clip(gains, 0, 2.4) + (1 - trust),
            trust * np.clip(measured.mean(0) - middle, -4, 4),
        )

    def __call__(self, shapes: np.ndarray) -> np.ndarray:
        """Forecast shapes [..., SHAPE] px -> target shapes px."""
        target = self.middle + self.offset + self.gains * (shapes - self.middle)
        gap = shapes[..., 0]
        if self.trust:
            forecast, measured = self.gaps
            slope = np.clip((measured[-1] - measured[-4]) / max(forecast[-1] - forecast[-4], 0.5), 0.3, 1.5)
            mapped = np.interp(gap, forecast, measured) + slope * np.maximum(gap - forecast[-1], 0)
            gap = gap + self.trust * (mapped - gap)
        target[..., 0] = np.maximum(gap, 0)
        return np.maximum(target, 0).astype(np.float32)


def best_correlation(forecast: np.ndarray, measured: np.ndarray) -> float:
    """Highest Pearson r of two series [T] over lags of up to MAX_LAG frames; at least 0."""
    best = 0.0
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        a, b = forecast[max(0, lag) :], measured[max(0, -lag) :]
        a, b = a[: len(b)], b[: len(a)]
        if len(a) > 2 * MAX_LAG and min(a.std(), b.std()) > 1e-3:
            best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best


def steadied(shapes: np.ndarray) -> np.ndarray:
    """Shapes [T, SHAPE] px smoothed over three frames; gaps of closed lips stay as they are."""
    padded = np.pad(shapes, ((1, 1), (0, 0)), mode="edge")
    mean = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    mean[:, 0] = np.where(shapes[:, 0] < CLOSED_PX, shapes[:, 0], mean[:, 0])
    return mean.astype(np.float32)
