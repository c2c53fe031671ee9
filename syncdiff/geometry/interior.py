"""The inside of a mouth for films that never show it: cavity, tongue and teeth from rendered layers.

The layers in `assets/interiors` are at 512 px a unit; a unit is the distance of the outer eye corners. The numbers for
geometry and light were measured on real mouths, or on the mean head that the layers were rendered from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from syncdiff.geometry.warp import LipContours

LAYERS = Path(__file__).resolve().parents[2] / "assets" / "interiors"
PX_PER_UNIT = 512
TURNED = 18.0  # degrees of yaw from which on the layers rendered at 25 are taken

UPPER_EDGE = 0.018  # units below the resting lip line: the upper incisal edge
OVERBITE, HINGE, SHUT = 0.006, 0.75, 0.10  # the teeth part by max(0.006, 0.75 (lip gap - 0.10)) units
DEPTHS = {"tongue_rest": -0.12, "lower_00": -0.01, "upper_00": 0.05}  # units in front of the mouth's corners
PARALLAX = 0.6  # share of the geometric shift that is used: the anchor lies forward of the corners itself
LIP_INSIDE = (0.25, 0.45)  # crop px by which FaceMesh's inner contours lie on the upper and on the lower lip
EDGE = 0.4  # crop px, at least, over which the inside fades into the lips

ENAMEL, TONGUE = (np.array(c) / 255 for c in ((228, 214, 196), (116, 64, 62)))  # sRGB of the layers
LUMA = np.array([0.2126, 0.7152, 0.0722])


def srgb_to_linear(x: np.ndarray) -> np.ndarray:
    """sRGB 0..1 -> linear light 0..1, by the power 2.2."""
    return np.power(np.clip(x, 0, 1), 2.2).astype(np.float32)


@lru_cache(maxsize=32)
def _layer(kind: str, view: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A layer at about `width` px a unit: premultiplied linear RGBA float32, its anchor [2] px, px per unit [2]."""
    name = f"{kind}_y{view:+03d}p00.png" if view else f"{kind}_y00p00.png"
    anchor = json.loads((LAYERS / "anchors.json").read_text())[name]
    image = cv2.cvtColor(cv2.imread(str(LAYERS / name), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA) / np.float32(255)
    image[..., :3] = srgb_to_linear(image[..., :3]) * image[..., 3:]
    ratio = min(1.0, width / PX_PER_UNIT)
    small = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    ratios = np.array(small.shape[1::-1]) / image.shape[1::-1]
    return small, (np.array(anchor) + 0.5) * ratios - 0.5, ratios * PX_PER_UNIT


@dataclass(frozen=True)
class Interior:
    """The inside of one person's mouth, the same for a whole shot: teeth that change are seen at once."""

    unit: float  # crop px between the outer eye corners of this face seen from the front
    rest_line: float  # crop px from the y of a mouth's pose down to its resting lip line
    view: int  # yaw at which the layers were rendered, degrees: -25, 0 or 25
    teeth: np.ndarray  # [3] gains of the layers' linear RGB
    tongue: np.ndarray  # [3] the same
    cavity: float  # gain of the cavity's linear RGB
    blur: float  # crop px, standard deviation of the film's blur

    @classmethod
    def of(
        cls, unit: float, rest_line: float, yaw: float, skin: np.ndarray, lips: np.ndarray, blur: float
    ) -> Interior:
        """Gains from the linear RGB [3] of skin and lips; yaw in degrees.

        Teeth get darker more slowly than skin does, and take on a part of its cast; the exponents are milder than
        measured (0.38 and 0.75), since those left teeth brown on the darkest skins.
        """
        skin_luma, lip_luma = (max(float(colour @ LUMA), 1e-3) for colour in (skin, lips))
        cast = np.array([1.05, 0.97, 1.10]) * (np.maximum(skin, 1e-4) / skin_luma) ** np.array([0.45, 0.4, 0.6])
        teeth = min(0.52 * skin_luma**0.28, 0.75) * cast / (cast @ LUMA)
        tongue = 0.4 * lip_luma * (0.6 + 0.4 * (lips / lip_luma) ** 0.5) / (srgb_to_linear(TONGUE) @ LUMA)
        view = 0 if abs(yaw) < TURNED else int(np.sign(yaw)) * 25
        return cls(unit, rest_line, view, teeth / srgb_to_linear(ENAMEL), tongue, 3.1 * lip_luma, blur)

    def edges(self, contours: LipContours) -> tuple[float, float]:
        """y of the upper and of the lower incisal edge in the middle, crop px."""
        upper = float(contours.pose[1]) + self.rest_line + UPPER_EDGE * self.unit
        return upper, upper + max(OVERBITE * self.unit, HINGE * (float(contours.shape[0]) - SHUT * self.unit))

    def draw(
        self, contours: LipContours, yaw: float, crop: np.ndarray, to_image: np.ndarray, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The inside between the lips in a rectangle of a picture.

        Args:
            contours: of the lips.
            yaw: degrees, of the head in this frame.
            crop: [h, w, 2] crop px of the rectangle's pixels.
            to_image: [2, 3] crop px -> px of the picture.
            start: [2] x and y of the rectangle's first pixel in the picture.

        Returns:
            RGB [h, w, 3] float32 0..255, and the share [h, w] float32 of each pixel that lies between the lips.
        """
        scale, (x, y) = float(np.hypot(*to_image[:, 0])), (crop[..., 0], crop[..., 1])
        below, above = y - contours.at(x, 1) - LIP_INSIDE[0], contours.at(x, 2) - LIP_INSIDE[1] - y  # px from the lips
        soft = max(1 / scale, EDGE)
        alpha = np.clip(below / soft + 0.5, 0, 1) * np.clip(above / soft + 0.5, 0, 1)
        narrowing = np.cos(np.radians(yaw)) / np.cos(np.radians(self.view))
        aside = PARALLAX * np.sin(np.radians(yaw)) * self.unit

        def layer(kind: str, row: float, gain: np.ndarray | float, depth: float = 0.0) -> np.ndarray:
            """The layer in the rectangle, with its anchor at y = `row` crop px: premultiplied linear RGBA [h, w, 4]."""
            image, anchor, per_unit = _layer(kind, self.view, max(8, 8 * round(self.unit * scale / 8)))
            to_crop = np.diag(self.unit / per_unit * (narrowing, 1.0))
            place = np.array([float(contours.pose[0]) + aside * depth, row])
            shift = to_image[:, :2] @ (place - to_crop @ anchor) + to_image[:, 2] - start
            matrix = np.column_stack([to_image[:, :2] @ to_crop, shift])
            drawn = cv2.warpAffine(image, matrix, x.shape[::-1], flags=cv2.INTER_LINEAR)
            drawn[..., :3] *= np.asarray(gain, np.float32)
            return drawn

        middle = float(contours.lines[1:3].mean(0)[np.abs(contours.lines[2] - contours.lines[1]).argmax()])
        inside = layer("cavity", middle, self.cavity)[..., :3]
        upper, lower = self.edges(contours)
        for kind, row, gain in (
            ("tongue_rest", lower, self.tongue),
            ("lower_00", lower, self.teeth),
            ("upper_00", upper, self.teeth),
        ):
            drawn = layer(kind, row, gain, DEPTHS[kind])
            if kind != "tongue_rest":  # teeth drop a soft shadow on what lies behind them
                shadow = cv2.GaussianBlur(drawn[..., 3], (0, 0), max(0.5, 0.012 * self.unit * scale))
                inside = inside * (1 - 0.5 * np.roll(shadow, round(0.02 * self.unit * scale), axis=0)[..., None])
            inside = inside * (1 - drawn[..., 3:]) + drawn[..., :3]
        inside = inside * self._shade(contours, x, below, above) ** np.array([0.85, 1.0, 1.05], np.float32)
        colour = np.power(np.clip(inside, 0, 1), 1 / 2.2).astype(np.float32) * 255  # back to sRGB
        if self.blur * scale > 0.6:  # the layers' own edges are about half a pixel wide
            colour = cv2.GaussianBlur(colour, (0, 0), float(np.sqrt((self.blur * scale) ** 2 - 0.3)))
        return colour, alpha.astype(np.float32)

    def _shade(self, contours: LipContours, x: np.ndarray, below: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Light that falls into the mouth [h, w, 1]: less near the lips and the corners, more through a wide gap.

        Args:
            x: crop px of the pixels.
            below, above: crop px from the upper lip down and from the lower lip up to each pixel.
        """
        shade = (0.42 + 0.58 * np.clip(below / (0.055 * self.unit), 0, 1)) * (
            0.5 + 0.5 * np.clip(above / (0.04 * self.unit), 0, 1)
        )
        across = np.clip(np.abs(x - contours.pose[0]) / contours.half, 0, 1)
        gap = float(contours.shape[0]) / self.unit
        shade *= (1 - 0.85 * across**2.3) * (0.75 + 0.41 * min(gap / 0.2, 1))
        return shade[..., None]
