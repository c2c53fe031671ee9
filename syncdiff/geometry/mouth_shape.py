"""The shape of a mouth in five numbers, read off landmarks, and what each talker makes of them.

Sound cannot tell how wide this person's mouth is, only how far from rest it is at this moment. So a shape is measured
in pixels of the face crop, and told to others in the talker's own units: 0 is the mouth at rest, 1 as far open as this
talker commonly goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# FaceMesh points whose distances make a shape: the gap between the lips, both lips' thickness, outer and inner width.
SPANS = ((13, 14), (0, 13), (14, 17), (61, 291), (78, 308))
SHAPE = len(SPANS)
# What a forecast is multiplied by, and the gap forecast at which lips meet, in a speaker's units.
GAINS, MET = (1.5, 0.25, 0.4, 1.1, 1.1), 0.22
COMMON_REACH, WIDEST_REACH = 7.0, 11.0  # px: the middle and the upper end of what filmed people reach when they talk


def calibrate_forecast(forecast: np.ndarray) -> np.ndarray:
    """A forecast [..., SHAPE] -> the shape it stands for, both in a speaker's units.

    Scales a forecast to the spread of real lips. The gap is GAINS[0] * (forecast - MET), never below 0, so that p, b
    and m close: fitted to the quantiles of 14 held-out people from the median up (0.45 stands for 0.3, 0.65 for 0.6,
    1.0 for 1.2). Widths get the standard deviation of theirs. Thicknesses are damped: they are forecast with r 0.3 and
    0.5 only.
    """
    shape = forecast * np.array(GAINS, np.float32)
    shape[..., 0] = GAINS[0] * np.maximum(forecast[..., 0] - MET, 0)
    return shape


def lip_shape(points: np.ndarray) -> np.ndarray:
    """FaceMesh points [..., 478, 2] -> [..., SHAPE] float32 distances in the unit of the points."""
    a, b = (points[..., [pair[i] for pair in SPANS], :] for i in (0, 1))
    return np.linalg.norm(a - b, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class SpeakerScale:
    """How one person's mouth moves, in crop pixels."""

    rest: np.ndarray  # [SHAPE] the closed mouth
    reach: float  # gap between the lips commonly reached, less that at rest

    @classmethod
    def of(cls, shapes: np.ndarray) -> SpeakerScale:
        """From what was seen of a person, [T, SHAPE]: rest is the mean of the tenth with the smallest gap."""
        gap = shapes[:, 0]
        rest = shapes[gap <= np.percentile(gap, 10)].mean(0)
        return cls(rest, float(np.percentile(gap, 95) - rest[0]))

    def speaking(self) -> SpeakerScale:
        """The same person talking: who was seen mumbling or silent reaches as far as people do, and lips close."""
        rest = self.rest.copy()
        rest[0] = min(rest[0], 0.5)
        return SpeakerScale(rest, float(np.clip(self.reach, COMMON_REACH, WIDEST_REACH)))

    def pixels(self, units: np.ndarray) -> np.ndarray:
        """The talker's own units [..., SHAPE] -> pixels; a gap is never less than none."""
        shapes = self.rest + self.reach * units
        shapes[..., 0] = np.maximum(shapes[..., 0], 0)
        return shapes.astype(np.float32)

    def units(self, shapes: np.ndarray) -> np.ndarray:
        """Pixels [..., SHAPE] -> the talker's own units."""
        return (shapes - self.rest) / max(self.reach, 1.0)


QUANTILES = (0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.82, 0.92, 0.98)
FEWEST_SPOKEN = 75  # frames of a person's own speech, to learn from them
UNRELATED, RELATED = 0.2, 0.5  # r of own lips and the forecast of the own sound, at which nothing and all is learnt
LAG = 4  # frames: films are that far out of step
MET_GAP = 0.6  # px: lips so near meet


@dataclass(frozen=True)
class Articulation:
    """Maps forecast lip shapes to this person's: fitted to the film's own sound and lips, else they stay as forecast.

    Gaps are mapped so that they are spread as this person's are (quantile by quantile, so closed stays closed); widths
    by gain and offset; thickness by the gain that its agreement justifies, and offset.
    """

    trust: float  # 0..1 in the person's own film
    gaps: tuple[np.ndarray, np.ndarray]  # quantiles of the forecast's and of the own gaps, px
    middle: np.ndarray  # [SHAPE] px that the gains are about
    gains: np.ndarray  # [SHAPE]
    offset: np.ndarray  # [SHAPE] px

    @classmethod
    def common(cls) -> Articulation:
        """As forecast."""
        return cls(0.0, (np.zeros(1), np.zeros(1)), np.zeros(SHAPE), np.ones(SHAPE), np.zeros(SHAPE))

    @classmethod
    def of(cls, forecast: np.ndarray, own: np.ndarray) -> Articulation:
        """From shapes [T, SHAPE] px forecast from a film's sound, and those seen in it at the same frames."""
        related = agreement(forecast[:, 0], own[:, 0])
        trust = float(np.clip((related - UNRELATED) / (RELATED - UNRELATED), 0, 1)) * (len(own) >= FEWEST_SPOKEN)
        if not trust:
            return cls.common()
        said, seen = (np.maximum.accumulate(np.quantile(x[:, 0], QUANTILES)) for x in (forecast, own))
        seen[0] = min(seen[0], 0.5)
        gains = own.std(0) / np.maximum(forecast.std(0), 1e-3)
        gains[1:3] *= [agreement(forecast[:, k], own[:, k]) for k in (1, 2)]
        middle = forecast.mean(0)
        return cls(
            trust,
            (said + 1e-3 * np.arange(len(said)), seen),
            middle,
            trust * np.clip(gains, 0, 2.4) + (1 - trust),
            trust * np.clip(own.mean(0) - middle, -4, 4),
        )

    def __call__(self, shapes: np.ndarray) -> np.ndarray:
        """Forecast shapes [..., SHAPE] px -> those wanted, px."""
        wanted = self.middle + self.offset + self.gains * (shapes - self.middle)
        gap = shapes[..., 0]
        if self.trust:
            said, seen = self.gaps
            slope = np.clip((seen[-1] - seen[-4]) / max(said[-1] - said[-4], 0.5), 0.3, 1.5)
            own = np.interp(shapes[..., 0], said, seen) + slope * np.maximum(shapes[..., 0] - said[-1], 0)
            gap = gap + self.trust * (own - gap)
        wanted[..., 0] = np.maximum(gap, 0)
        return np.maximum(wanted, 0).astype(np.float32)


def agreement(forecast: np.ndarray, own: np.ndarray) -> float:
    """r of forecast and own gaps [T] at the shift, of LAG frames at the most, where they agree best."""
    best = 0.0
    for lag in range(-LAG, LAG + 1):
        a, b = forecast[max(0, lag) :], own[max(0, -lag) :]
        a, b = a[: len(b)], b[: len(a)]
        if len(a) > 2 * LAG and min(a.std(), b.std()) > 1e-3:
            best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best


def steadied(shapes: np.ndarray) -> np.ndarray:
    """Shapes [T, SHAPE] px without chatter: a short mean over time, but lips that meet still meet."""
    padded = np.pad(shapes, ((1, 1), (0, 0)), mode="edge")
    mean = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    mean[:, 0] = np.where(shapes[:, 0] < MET_GAP, shapes[:, 0], mean[:, 0])
    return mean.astype(np.float32)
