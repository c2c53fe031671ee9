"""The reference mouth: moments of this person, warped to a target shape and set into the frame at hand.

At whatever scale the pictures have: of crops for the network, of the film for the result. Every pixel is sampled once,
from the picture that it comes from, so what does not move stays bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from syncdiff.geometry.crops import WINDOW, mask_alpha
from syncdiff.geometry.interior import Interior, srgb_to_linear
from syncdiff.geometry.mouth_shape import lip_shape
from syncdiff.geometry.warp import (
    READ_POINTS,
    WINDOW_GRID,
    WINDOW_ORIGIN,
    WINDOW_SIZE,
    LipContours,
    lip_line,
    lip_mask,
    mixed_contours,
    mouth_pose,
    shaped_contours,
    warp_field,
)

UPRIGHT = np.eye(2, 3)
LIGHT_WIDTH_PX = 24  # px that the mask's width is reduced to where light is compared
DETAIL_SIGMA_PX = 1.5  # crop px, standard deviation: detail finer than this is what a mixture of pictures loses
FADE_LOG_RATIOS = (0.1, 0.25)  # log of the ratio of two brightnesses: below, light is added; above, the mouth is scaled
LEAST_SPREAD = 4.0  # levels, standard deviation of skin over pixels and channels: plainer skin does not tell a fade
SAMPLES_PER_PX = 2.0  # samples per crop px, at least, from which fields and masks are enlarged

BESIDE_PX = 14.0  # crop px beside the corners of a mouth that it is sampled from, at the most
LEAST_SHARE = 0.02  # a moment that takes less part is left out


@dataclass(frozen=True)
class FaceView:
    """A face in a picture: a film's frame, a part of one, or a crop."""

    image: np.ndarray  # [H, W, 3] uint8
    to_image: np.ndarray  # [2, 3] crop px -> px of the image
    points: np.ndarray  # [478, 2] crop px; only `warp.READ_POINTS` are read
    yaw: float = 0.0  # degrees
    smoothed_pose: np.ndarray | None = None  # [4], where it was smoothed over time
    lips: tuple[np.ndarray, np.ndarray] | None = None  # a picture of its lips alone, and crop px -> px of it

    @cached_property
    def scale(self) -> float:
        """Image px per crop px."""
        return float(np.hypot(*self.to_image[:, 0]))

    @cached_property
    def pose(self) -> np.ndarray:
        """Of its mouth, [4] (see `warp.mouth_pose`)."""
        return mouth_pose(self.points) if self.smoothed_pose is None else self.smoothed_pose

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
        return replace(self, image=self.image[rows, columns].copy(), to_image=moved)

    def with_lips(self) -> FaceView:
        """The same with its lips twice as large, by Lanczos's kernel: for a moment that lends them to many frames."""
        (x0, y0), (x1, y1) = (edge(self.points[list(READ_POINTS)], axis=0) for edge in (np.min, np.max))
        corners = [[x, y, 1] for x in (x0 - BESIDE_PX, x1 + BESIDE_PX) for y in (y0 - 4, y1 + 4)] @ self.to_image.T
        (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
        x0, y0 = max(0, x0), max(0, y0)
        part = self.image[y0 : max(0, y1), x0 : max(0, x1)]
        if not part.size:  # they lie outside the picture
            return self
        moved = 2 * (self.to_image - np.array([[0, 0, x0], [0, 0, y0]])) + np.array([[0, 0, 0.5], [0, 0, 0.5]])
        return replace(self, lips=(cv2.resize(part, None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4), moved))


@dataclass(frozen=True)
class MouthWarps:
    """How a frame and its moments are warped to one target shape, in crop px: the same at every scale."""

    contours: LipContours  # where the lips are to stand
    mask: np.ndarray  # [80, 96] float32: where they lie
    around: np.ndarray  # [80, 96, 2] field of the frame
    lips: tuple[np.ndarray, ...]  # [80, 96, 2] fields of the moments

    @classmethod
    def of(cls, frame: FaceView, mouths: Sequence[tuple[FaceView, float]], target: np.ndarray) -> MouthWarps:
        """Of moments that take part, with their shares; target [SHAPE] px."""
        views, shares = zip(*mouths, strict=True)
        contours = mixed_contours([shaped_contours(v.points, target, frame.pose) for v in views], shares)
        lips = tuple(warp_field(view.points, contours, whole=False) for view in views)
        return cls(contours, lip_mask(contours), warp_field(frame.points, contours, whole=True), lips)


@dataclass(frozen=True)
class Reference:
    """A reference mouth in the rectangle of its frame."""

    pixels: np.ndarray  # [h, w, 3] uint8
    warps: MouthWarps
    gain: float = 1.0  # contrast of its surroundings over that of the moments (see `_gain_and_light`)

    @property
    def contours(self) -> LipContours:
        """Where its lips are."""
        return self.warps.contours


class _Place:
    """The pixels of a view's box, and values of the window there."""

    def __init__(self, view: FaceView) -> None:
        self.shape = tuple(s.stop - s.start for s in view.box)
        self.start = np.array([view.box[1].start, view.box[0].start], np.float64)
        to_part = view.to_image.astype(np.float64) - np.array([[0, 0, self.start[0]], [0, 0, self.start[1]]])
        to_part[:, 2] += to_part[:, :2] @ WINDOW_ORIGIN
        self._to_part, self._from_part = to_part, cv2.invertAffineTransform(to_part)
        self._same = self.shape == WINDOW_SIZE[::-1] and np.allclose(self._from_part, UPRIGHT, atol=1e-6)
        self._step = max(1, int(view.scale / SAMPLES_PER_PX))

    def part(self, values: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns of the box around all that is not 0 in the window [80, 96]; None where nothing is."""
        rows, columns = (np.flatnonzero(values.any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        beside = 0 if self._same else 1  # px, at which what is enlarged is not 0 either
        (y0, y1), (x0, x1) = ((at[0] - beside, at[-1] + beside) for at in (rows, columns))
        corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]) @ self._to_part.T
        low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
        y, x = (slice(max(0, a), min(n, b)) for a, b, n in zip(low[::-1], high[::-1], self.shape, strict=True))
        return (y, x) if y.start < y.stop and x.start < x.stop else None

    def grid(self, part: tuple[slice, slice]) -> np.ndarray:
        """[h, w, 2] float32 x and y in the picture, of a part of the box."""
        rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) for s in part)
        grid = np.empty((len(rows), len(columns), 2), np.float32)
        grid[..., 0], grid[..., 1] = columns + np.float32(self.start[0]), rows[:, None] + np.float32(self.start[1])
        return grid

    def enlarged(
        self, values: np.ndarray, part: tuple[slice, slice], interpolation: int = cv2.INTER_LINEAR
    ) -> np.ndarray:
        """Values of the window [80, 96, ...] -> [h, w, ...] of a part of the box; 0 beyond the window."""
        if self._same:
            return values[part]
        # Sampled every `step` px and resized from there: a tenth of the time of sampling every pixel.
        step, (rows, columns) = self._step, part
        height, width = (s.stop - s.start for s in part)
        first = np.array([columns.start, rows.start]) + (step - 1) / 2
        turn = self._from_part[:, :2]
        matrix = np.column_stack([step * turn, turn @ first + self._from_part[:, 2]])
        size = -(-width // step), -(-height // step)
        sampled = cv2.warpAffine(values, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP)
        if step == 1:
            return sampled
        return cv2.resize(sampled, (size[0] * step, size[1] * step), interpolation=interpolation)[:height, :width]


def reference_mouth(
    frame: FaceView,
    mouths: Sequence[tuple[FaceView, float]],
    target: np.ndarray,
    interior: tuple[Interior, float] | None = None,
    warps: MouthWarps | None = None,
) -> Reference:
    """The frame's `box` with a mouth of the target shape.

    Args:
        frame: all but the lips comes from it.
        mouths: moments that the lips come from, and their shares, which sum to 1.
        target: [SHAPE] px.
        interior: what is drawn between the lips, and how much of it, 0..1, over what the moments show there.
        warps: those of the same reference at another scale, where it was made before.
    """
    mouths = [(view, share) for view, share in mouths if share >= LEAST_SHARE]
    total = sum(share for _, share in mouths)
    mouths = [(view, share / total) for view, share in mouths]
    if warps is None:
        warps = MouthWarps.of(frame, mouths, target)
    place, around = _Place(frame), frame.image[frame.box].copy()
    if part := place.part(warps.around.any(-1)):
        at = place.grid(part) + place.enlarged(warps.around @ frame.to_image[:, :2].T.astype(np.float32), part)
        around[part] = cv2.remap(frame.image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType] -- None is allowed

    part = place.part(warps.mask)
    if part is None:  # the mouth lies outside the picture
        return Reference(around, warps)
    share, skin, here = place.enlarged(warps.mask, part), around[part], place.grid(part)
    ring = _three((share > 0.02) & (share < 0.7))
    mouth, dimmed, veil = np.zeros(skin.shape, np.float32), 0.0, 0.0
    for (view, own), field in zip(mouths, warps.lips, strict=True):
        picture = _sampled(view, field, frame, place, here, part)
        gain, white, light = _gain_and_light(skin, picture, ring)
        mouth += cv2.addWeighted(picture, own * gain, light, own, 0, dtype=cv2.CV_32F)
        dimmed, veil = dimmed + own * gain, veil + own * white
    if len(mouths) > 1:
        mouth = _with_detail(mouth, [own for _, own in mouths], frame.scale)
    if interior is not None and interior[1] > 0:
        inverse = np.linalg.inv(frame.to_image[:, :2].astype(np.float64))
        crop = ((here - frame.to_image[:, 2]) @ inverse.T).astype(np.float32)
        drawn, alpha = interior[0].draw(warps.contours, frame.yaw, crop, frame.to_image, here[0, 0])
        mouth += (dimmed * drawn + veil - mouth) * (alpha * interior[1])[..., None]
    change = cv2.multiply(cv2.subtract(mouth, skin, dtype=cv2.CV_32F), _three(share))
    around[part] = cv2.add(skin, change, dtype=cv2.CV_8U)
    return Reference(around, warps, dimmed)


def with_difference(frame: FaceView, pixels: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """A reference's pixels [h, w, 3] uint8 with what a network draws otherwise, enlarged to the frame's scale.

    Args:
        pixels: of the frame's `box`.
        difference: [80, 96, 3] levels, what was drawn less the reference at the crop's scale;
            faded to 0 at the mask's edge.
    """
    if not difference.any():
        return pixels
    faded = difference.astype(np.float32) * mask_alpha()[WINDOW][..., None]
    whole = slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
    return cv2.add(pixels, _Place(frame).enlarged(faded, whole, cv2.INTER_CUBIC), dtype=cv2.CV_8U)


def _three(values: np.ndarray) -> np.ndarray:
    """[h, w] -> [h, w, 3] float32: numpy's own spreading over the channels takes five times as long."""
    return cv2.merge([values.astype(np.float32)] * 3)


def _sampled(
    view: FaceView, field: np.ndarray, frame: FaceView, place: _Place, here: np.ndarray, part: tuple[slice, slice]
) -> np.ndarray:
    """A moment's pixels [h, w, 3] uint8 where the frame's pixels `here` [h, w, 2] have them by a field of the window.

    By Lanczos's kernel: cubic loses a twentieth of the teeth's sharpness. From lips that this kernel has enlarged cubic
    loses nothing, in a third of the time.
    """
    image, to_image = (view.image, view.to_image) if view.lips is None else view.lips
    across = to_image[:, :2].astype(np.float64) @ np.linalg.inv(frame.to_image[:, :2].astype(np.float64))
    start = to_image[:, 2] - across @ frame.to_image[:, 2]
    shift = place.enlarged(field @ to_image[:, :2].T.astype(np.float32), part)
    at = cv2.transform(here, np.column_stack([across, start])) + shift
    kernel = cv2.INTER_LANCZOS4 if view.lips is None else cv2.INTER_CUBIC
    return cv2.remap(image, at, None, kernel, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _gain_and_light(around: np.ndarray, mouth: np.ndarray, ring: np.ndarray) -> tuple[float, float, np.ndarray]:
    """What gives a mouth the light that its surroundings have in the ring, where both show the same skin.

    Args:
        around, mouth: [h, w, 3] uint8.
        ring: [h, w, 3] float32, 0 or 1.

    Returns:
        What to multiply the mouth by, where the two differ much in brightness: a fade scales contrast too, which adding
        light alone would leave too strong. How much white then lies over all, levels, as in a fade to white. And what
        to add: levels [h, w, 3], smooth, the white among it.
    """
    height, width = ring.shape[:2]
    small = (LIGHT_WIDTH_PX, max(4, round(LIGHT_WIDTH_PX * height / width)))
    seen = [cv2.multiply(picture, ring, dtype=cv2.CV_32F) for picture in (around, mouth)]
    count = max(1.0, 3 * float(ring[..., 0].sum()))
    here, there = (sum(cv2.sumElems(picture)) / count + 1e-3 for picture in seen)
    contrast = apart = np.log(here / there)
    if apart > 0:  # by more light, which spreads the skin's levels and colours, or by white, which narrows them
        own, other = (
            max(cv2.norm(picture) ** 2 / count - level**2, 0.0) ** 0.5
            for picture, level in zip(seen, (here, there), strict=True)
        )
        if other > LEAST_SPREAD:
            contrast = np.clip(np.log(max(own, 0.1) / other), np.log((256 - here) / (256 - there)), apart)
    low, high = FADE_LOG_RATIOS
    change = float(np.clip((abs(apart) - low) / (high - low), 0, 1))
    gain = float(np.exp(contrast * change))
    light = cv2.addWeighted(seen[0], 1.0, seen[1], -gain, 0)
    total, share = (
        cv2.GaussianBlur(
            cv2.resize(x, small, interpolation=cv2.INTER_AREA),
            (0, 0),
            LIGHT_WIDTH_PX / 6,
            borderType=cv2.BORDER_CONSTANT,
        )
        for x in (light, ring)
    )
    smooth = cv2.resize(total / (share + 1e-3), (width, height), interpolation=cv2.INTER_LINEAR)
    return gain, change * max(0.0, here - gain * there), smooth


def _with_detail(mixture: np.ndarray, shares: Sequence[float], scale: float) -> np.ndarray:
    """A mixture of pictures with its detail as strong as that of each (variance-preserving: Heitz and Neyret 2018)."""
    coarse = cv2.GaussianBlur(mixture, (0, 0), DETAIL_SIGMA_PX * scale)
    stronger = float(1 / np.sqrt(np.square(shares).sum()))
    return cv2.addWeighted(mixture, stronger, coarse, 1 - stronger, 0)


def tones(view: FaceView) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB [3] of the skin around a mouth, and of its lips: medians."""
    contours = shaped_contours(view.points, lip_shape(view.points), view.pose)
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
