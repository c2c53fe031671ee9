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
GAIN, MET, KNEE = 1.3, 0.05, 0.8  # see calibrate_forecast()
COMMON_REACH, WIDEST_REACH = 7.0, 11.0  # px: the middle and the upper end of what filmed people reach when they talk


def calibrate_forecast(forecast: np.ndarray) -> np.ndarray:
    """A forecast [..., SHAPE] -> the shape it stands for, both in a talker's units.

    A forecast is a mean over all that lips do with such a sound, so it moves less far than they: GAIN. The gap is never
    less than none, which bends that mean: small forecasts fall shortest of what filmed people do, so small gaps are
    raised most, by KNEE; below MET the lips meet, or p, b and m would no more be seen (docs/training-log.md).
    """
    shape = GAIN * forecast
    gap = np.maximum(forecast[..., 0] - MET, 0) / (1 - MET)
    shape[..., 0] = 2 * gap / (gap + KNEE)
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
