"""The reference mouth: moments of this person, warped to a wanted shape and set into the frame at hand.

At whatever scale the pictures have: of crops for the network, of the film for the result. Every pixel is sampled once,
from the picture that it comes from, so what does not move stays bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from syncdiff.geometry.crops import WINDOW, mask_alpha
from syncdiff.geometry.interior import Interior, srgb_to_linear
from syncdiff.geometry.mouth_shape import lip_shape
from syncdiff.geometry.warp import (
    WINDOW_GRID,
    WINDOW_ORIGIN,
    WINDOW_SIZE,
    LipContours,
    anchor_of,
    lip_line,
    lip_mask,
    mixed_contours,
    shaped_contours,
    warp_field,
)

UPRIGHT = np.eye(2, 3)
LIGHT = 24  # px that the mask's width is reduced to where light is compared
FINE = 1.5  # crop px, standard deviation: detail finer than this is what a mixture of pictures loses
FADED = (0.1, 0.25)  # log of the ratio of two brightnesses: below, light is added; above, the mouth is scaled
LEAST_SHARE = 0.02  # a moment that takes less part is left out


@dataclass(frozen=True)
class FaceView:
    """A face in a picture: a film's frame, a part of one, or a crop."""

    image: np.ndarray  # [H, W, 3] uint8
    to_image: np.ndarray  # [2, 3] crop px -> px of the image
    points: np.ndarray  # [478, 2] crop px; only `warp.READ_POINTS` are read
    yaw: float = 0.0  # degrees
    anchor: np.ndarray | None = None  # [4]: how its mouth is hung, if not as `anchor_of` finds it

    @cached_property
    def scale(self) -> float:
        """Image px per crop px."""
        return float(np.hypot(*self.to_image[:, 0]))

    @cached_property
    def hook(self) -> np.ndarray:
        """The anchor [4]."""
        return anchor_of(self.points) if self.anchor is None else self.anchor

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the image around the window, within the image, never empty."""
        (y0, y1), (x0, x1) = ((s.start, s.stop - 1) for s in WINDOW)
        corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]) @ self.to_image.T
        sides = []
        for low, high, limit in zip(corners.min(0)[::-1], corners.max(0)[::-1], self.image.shape, strict=False):
            start = int(np.clip(np.floor(low + 1e-6), 0, limit - 1))
            sides.append(slice(start, int(np.clip(np.ceil(high - 1e-6) + 1, start + 1, limit))))
        return sides[0], sides[1]

    def part(self, margin: float) -> FaceView:
        """The same with no more of the image than the window and `margin` crop px around it: a copy."""
        rows, columns = (
            slice(max(0, int(s.start - margin * self.scale)), int(s.stop + margin * self.scale) + 1) for s in self.box
        )
        moved = self.to_image - np.array([[0, 0, columns.start], [0, 0, rows.start]])
        return FaceView(self.image[rows, columns].copy(), moved, self.points, self.yaw, self.anchor)


@dataclass(frozen=True)
class Reference:
    """A reference mouth in the rectangle of its frame."""

    pixels: np.ndarray  # [h, w, 3] uint8
    contours: LipContours  # where its lips are
    gain: float = 1.0  # how much brighter its surroundings are than those of the moments (see `_gain`)


class _Place:
    """The pixels of a rectangle of a picture, and values of the window there."""

    def __init__(self, view: FaceView, box: tuple[slice, slice]) -> None:
        self.shape = tuple(s.stop - s.start for s in box)
        self.start = np.array([box[1].start, box[0].start], np.float64)
        to_part = view.to_image.astype(np.float64) - np.array([[0, 0, self.start[0]], [0, 0, self.start[1]]])
        to_part[:, 2] += to_part[:, :2] @ WINDOW_ORIGIN
        self._from_part = cv2.invertAffineTransform(to_part)
        self._same = self.shape == WINDOW_SIZE[::-1] and np.allclose(self._from_part, UPRIGHT, atol=1e-6)

    def grid(self, part: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """[h, w, 2] float32 x and y in the picture."""
        rows, columns = (np.arange(n, dtype=np.float32)[s] for n, s in zip(self.shape, part, strict=True))
        x, y = np.meshgrid(columns + np.float32(self.start[0]), rows + np.float32(self.start[1]))
        return np.stack([x, y], axis=-1)

    def enlarged(self, values: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
        """Values of the window [80, 96, ...] -> [h, w, ...]; 0 beyond the window."""
        if self._same:
            return values
        return cv2.warpAffine(values, self._from_part, self.shape[::-1], flags=interpolation | cv2.WARP_INVERSE_MAP)


def reference_mouth(
    frame: FaceView,
    mouths: Sequence[tuple[FaceView, float]],
    wanted: np.ndarray,
    interior: tuple[Interior, float] | None = None,
) -> Reference:
    """The frame's `box` with a mouth of the wanted shape.

    Args:
        frame: all but the lips comes from it.
        mouths: moments that the lips come from, and their shares, which sum to 1.
        wanted: [SHAPE] px.
        interior: what is drawn between the lips, and how much of it, 0..1, over what the moments show there.
    """
    mouths = [(view, share) for view, share in mouths if share >= LEAST_SHARE]
    total = sum(share for _, share in mouths)
    shares = [share / total for _, share in mouths]
    contours = mixed_contours([shaped_contours(v.points, wanted, frame.hook) for v, _ in mouths], shares)
    place = _Place(frame, frame.box)
    turn = frame.to_image[:, :2].T.astype(np.float32)
    shift = place.enlarged(warp_field(frame.points, contours, whole=True) @ turn)
    here = place.grid()
    around = cv2.remap(frame.image, here + shift, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType] -- None is allowed

    share = place.enlarged(lip_mask(contours))
    rows, columns = (np.flatnonzero(share.any(axis)) for axis in (1, 0))
    if not len(rows):  # the mouth lies outside the picture
        return Reference(around, contours)
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    share, skin = share[part], around[part]
    ring = ((share > 0.02) & (share < 0.7)).astype(np.float32)
    mouth, dimmed = np.zeros((*share.shape, 3), np.float32), 0.0
    for (view, _), own in zip(mouths, shares, strict=True):
        picture = _sampled(view, warp_field(view.points, contours, whole=False), frame, place, here[part], part)
        gain = _gain(skin, picture, ring)
        mouth += own * (gain * picture + _light(skin, gain * picture, ring))
        dimmed += own * gain
    if len(shares) > 1:
        mouth = _with_detail(mouth, shares, frame.scale)
    if interior is not None and interior[1] > 0:
        inverse = np.linalg.inv(frame.to_image[:, :2].astype(np.float64))
        crop = ((here[part] - frame.to_image[:, 2]) @ inverse.T).astype(np.float32)
        drawn, alpha = interior[0].draw(contours, frame.yaw, crop, frame.to_image, here[part][0, 0])
        mouth += (dimmed * drawn - mouth) * (alpha * interior[1])[..., None]
    share = share[..., None]
    around[part] = np.clip(np.rint(skin * (1 - share) + mouth * share), 0, 255)
    return Reference(around, contours, dimmed)


def with_difference(frame: FaceView, pixels: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """A reference's pixels [h, w, 3] uint8 with what a network draws otherwise, enlarged to the frame's scale.

    Args:
        pixels: of the frame's `box`.
        difference: [80, 96, 3] levels, what was drawn less the reference at the crop's scale; it fades to the mask.
    """
    if not difference.any():
        return pixels
    faded = difference.astype(np.float32) * mask_alpha()[WINDOW][..., None]
    enlarged = _Place(frame, frame.box).enlarged(faded, cv2.INTER_CUBIC)
    return np.clip(np.rint(pixels + enlarged), 0, 255).astype(np.uint8)


def _sampled(
    view: FaceView, field: np.ndarray, frame: FaceView, place: _Place, here: np.ndarray, part: tuple[slice, slice]
) -> np.ndarray:
    """A moment's pixels [h, w, 3] float32 where the frame's pixels `here` [h, w, 2] have them by a field of the window.

    By Lanczos's kernel: cubic loses a twentieth of the teeth's sharpness.
    """
    across = view.to_image[:, :2].astype(np.float64) @ np.linalg.inv(frame.to_image[:, :2].astype(np.float64))
    start = view.to_image[:, 2] - across @ frame.to_image[:, 2]
    shift = place.enlarged(field @ view.to_image[:, :2].T.astype(np.float32))[part]
    at = here @ across.T.astype(np.float32) + start.astype(np.float32) + shift
    return cv2.remap(view.image, at, None, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _gain(around: np.ndarray, mouth: np.ndarray, ring: np.ndarray) -> float:
    """What a mouth is multiplied by to be as bright as its surroundings in the ring, where they differ much.

    A fade scales contrast too, which adding light alone would leave too strong in a dark frame."""
    here, there = (float((picture * ring[..., None]).sum()) + 1.0 for picture in (around, mouth))
    apart = np.log(here / there)
    low, high = FADED
    return float(np.exp(apart * np.clip((abs(apart) - low) / (high - low), 0, 1)))


def _light(around: np.ndarray, mouth: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """What gives a mouth the light that its surroundings have in the ring [h, w]: levels [h, w, 3], smooth."""
    height, width = ring.shape
    small = (LIGHT, max(4, round(LIGHT * height / width)))
    weight = cv2.resize(ring, small, interpolation=cv2.INTER_AREA)
    apart = cv2.resize((around - mouth) * ring[..., None], small, interpolation=cv2.INTER_AREA)
    total, share = (cv2.GaussianBlur(x, (0, 0), LIGHT / 6, borderType=cv2.BORDER_CONSTANT) for x in (apart, weight))
    return cv2.resize(total / (share[..., None] + 1e-3), (width, height), interpolation=cv2.INTER_LINEAR)


def _with_detail(mixture: np.ndarray, shares: Sequence[float], scale: float) -> np.ndarray:
    """A mixture of pictures with its detail as strong as that of each (variance-preserving: Heitz and Neyret 2018)."""
    coarse = cv2.GaussianBlur(mixture, (0, 0), FINE * scale)
    return coarse + (mixture - coarse) / np.sqrt(np.square(shares).sum())


def tones(view: FaceView) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB [3] of the skin around a mouth, and of its lips: medians."""
    contours = shaped_contours(view.points, lip_shape(view.points), view.hook)
    to_image = view.to_image.astype(np.float64).copy()
    to_image[:, 2] += to_image[:, :2] @ WINDOW_ORIGIN
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    window = cv2.warpAffine(view.image, to_image, WINDOW_SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    near, far = (lip_mask(contours, grown, 0.1) > 0.5 for grown in (3.0, 10.0))
    y, (a, b, c, d) = WINDOW_GRID[..., 1], contours.lines
    lips = ((y > a) & (y < b)) | ((y > c) & (y < d))
    skin = window[far & ~near]
    usual, lip = (srgb_to_linear(np.median(x, axis=0) / 255) for x in (skin, window[lips] if lips.any() else skin))
    return usual, lip


def softness(view: FaceView) -> float:
    """Standard deviation, image px, of the blur that edges around a mouth have, 0.5 to 4.

    An edge blurred by a Gaussian has squared first and second derivatives whose sums are as 2 sigma**2 to 1.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(view.image[view.box]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    first, second = (sum((np.diff(grey, n, axis=axis) ** 2).mean() for axis in (0, 1)) for n in (1, 2))
    return float(np.clip(np.sqrt(first / max(2 * second, 1e-6)), 0.5, 4.0))


def interior_of(view: FaceView, rest: np.ndarray) -> Interior:
    """The inside of a person's mouth, from one view of it closed and that person's resting shape [SHAPE] px."""
    skin, lips = tones(view)
    eyes = np.linalg.norm(view.points[33] - view.points[263]) / np.cos(np.radians(np.clip(view.yaw, -60, 60)))
    return Interior.of(float(eyes), lip_line(rest), view.yaw, skin, lips, softness(view) / view.scale)
