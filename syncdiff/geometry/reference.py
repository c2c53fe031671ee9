"""The reference mouth: moments of this person, warped to a target shape and set into a frame.

It works at any scale: on crops for the network, on whole frames for the result. Every pixel is sampled once, from the
picture that it comes from, so what does not move stays the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from syncdiff.geometry.crops import WINDOW, bounding_box, mask_alpha
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
DETAIL_SIGMA_PX = 1.5  # crop px, standard deviation: detail finer than this is what a mean of pictures loses
FADE_LOG_RATIOS = (0.1, 0.25)  # log of the ratio of two brightnesses: below, light is added; above, the mouth is scaled
MIN_SKIN_STD = 4.0  # grey levels, over pixels and channels: the contrast of plainer skin is not compared
SAMPLES_PER_PX = 2.0  # samples per crop px, at least, from which fields and masks are enlarged
LIP_MARGIN_PX = 14.0, 4.0  # crop px beside the corners, and above and below, that a moment's lips are sampled from
MIN_SHARE = 0.02  # moments of a smaller share are left out


@dataclass(frozen=True)
class FaceView:
    """A face in a picture: a film's frame, a part of one, or a crop."""

    image: np.ndarray  # [H, W, 3] uint8
    to_image: np.ndarray  # [2, 3] crop px -> px of the image
    points: np.ndarray  # [478, 2] crop px; only `warp.READ_POINTS` are read
    yaw: float = 0.0  # degrees
    smoothed_pose: np.ndarray | None = None  # [4], where it was smoothed over time
    lips: tuple[np.ndarray, np.ndarray] | None = None  # its lips twice as large [h, w, 3], and crop px -> px of them

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
        rows, columns = WINDOW
        low, high = bounding_box(self.to_image, (columns.start, rows.start, columns.stop - 1, rows.stop - 1))
        sides = []
        for first, last, limit in zip(low[::-1], high[::-1], self.image.shape, strict=False):
            start = int(np.clip(np.floor(first + 1e-6), 0, limit - 1))
            sides.append(slice(start, int(np.clip(np.ceil(last - 1e-6) + 1, start + 1, limit))))
        return sides[0], sides[1]

    def part(self, margin: float) -> FaceView:
        """The same with a copy of the window and `margin` crop px around it as its image."""
        rows, columns = (
            slice(max(0, int(s.start - margin * self.scale)), int(s.stop + margin * self.scale) + 1) for s in self.box
        )
        to_part = self.to_image - np.array([[0, 0, columns.start], [0, 0, rows.start]])
        return replace(self, image=self.image[rows, columns].copy(), to_image=to_part)

    def with_lips(self) -> FaceView:
        """The same with its `lips`, enlarged once by Lanczos's kernel for all frames that they are warped into."""
        points, margin = self.points[list(READ_POINTS)], np.array(LIP_MARGIN_PX, np.float32)
        low, high = bounding_box(self.to_image, (*(points.min(0) - margin), *(points.max(0) + margin)))
        x0, y0 = np.maximum(0, np.floor(low).astype(int))
        x1, y1 = np.maximum(0, np.ceil(high).astype(int) + 1)
        part = self.image[y0:y1, x0:x1]
        if not part.size:  # they lie outside the picture
            return self
        to_lips = 2 * (self.to_image - np.array([[0, 0, x0], [0, 0, y0]])) + np.array([[0, 0, 0.5], [0, 0, 0.5]])
        return replace(self, lips=(cv2.resize(part, None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4), to_lips))


@dataclass(frozen=True)
class MouthWarps:
    """Warp fields of a frame and its moments to one target shape, in crop px: the same at every scale."""

    contours: LipContours  # the target contours
    mask: np.ndarray  # [80, 96] float32: 1 on the lips (`lip_mask`)
    around: np.ndarray  # [80, 96, 2] field of the frame
    lips: tuple[np.ndarray, ...]  # [80, 96, 2] field of each moment

    @classmethod
    def of(cls, frame: FaceView, mouths: Sequence[tuple[FaceView, float]], target: np.ndarray) -> MouthWarps:
        """From moments with their shares, and the target shape [SHAPE] px."""
        views, shares = zip(*mouths, strict=True)
        contours = mixed_contours([shaped_contours(v.points, target, frame.pose) for v in views], shares)
        lips = tuple(warp_field(view.points, contours, whole=False) for view in views)
        return cls(contours, lip_mask(contours), warp_field(frame.points, contours, whole=True), lips)


@dataclass(frozen=True)
class Reference:
    """A reference mouth in the box of its frame."""

    pixels: np.ndarray  # [h, w, 3] uint8
    warps: MouthWarps
    gain: float = 1.0  # contrast of its surroundings over that of the moments (see `_gain_and_light`)


class _Box:
    """A view's box: pixel coordinates in it, and values of the window resampled to it."""

    def __init__(self, view: FaceView) -> None:
        self.shape = tuple(s.stop - s.start for s in view.box)
        self.start = np.array([view.box[1].start, view.box[0].start], np.float64)
        to_part = view.to_image.astype(np.float64) - np.array([[0, 0, self.start[0]], [0, 0, self.start[1]]])
        to_part[:, 2] += to_part[:, :2] @ WINDOW_ORIGIN
        self._to_part, self._from_part = to_part, cv2.invertAffineTransform(to_part)
        self._same = self.shape == WINDOW_SIZE[::-1] and np.allclose(self._from_part, UPRIGHT, atol=1e-6)
        self._step = max(1, int(view.scale / SAMPLES_PER_PX))

    def part(self, values: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns of the box around all that is not 0 in the window [80, 96]; None where all is 0."""
        rows, columns = (np.flatnonzero(values.any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        margin = 0 if self._same else 1  # px, over which enlarged values fade to 0
        region = columns[0] - margin, rows[0] - margin, columns[-1] + margin, rows[-1] + margin
        low, high = bounding_box(self._to_part, region)
        low, high = np.floor(low).astype(int), np.ceil(high).astype(int) + 1
        y, x = (slice(max(0, a), min(n, b)) for a, b, n in zip(low[::-1], high[::-1], self.shape, strict=True))
        return (y, x) if y.start < y.stop and x.start < x.stop else None

    def grid(self, part: tuple[slice, slice]) -> np.ndarray:
        """[h, w, 2] float32 x and y in the picture, for a part of the box."""
        rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) for s in part)
        grid = np.empty((len(rows), len(columns), 2), np.float32)
        grid[..., 0], grid[..., 1] = columns + np.float32(self.start[0]), rows[:, None] + np.float32(self.start[1])
        return grid

    def enlarged(
        self, values: np.ndarray, part: tuple[slice, slice], interpolation: int = cv2.INTER_LINEAR
    ) -> np.ndarray:
        """Values of the window [80, 96, ...] -> [h, w, ...] for a part of the box; 0 beyond the window."""
        if self._same:
            return values[part]
        # Sampled every `step` px and resized from there: a tenth of the time of sampling every pixel.
        step, (rows, columns) = self._step, part
        height, width = (s.stop - s.start for s in part)
        first = np.array([columns.start, rows.start]) + (step - 1) / 2
        linear = self._from_part[:, :2]
        matrix = np.column_stack([step * linear, linear @ first + self._from_part[:, 2]])
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
        interior: the inside drawn between the lips, and its opacity 0..1 over what the moments show there.
        warps: those of the same reference at another scale, where it was made before.
    """
    mouths = [(view, share) for view, share in mouths if share >= MIN_SHARE]
    total = sum(share for _, share in mouths)
    mouths = [(view, share / total) for view, share in mouths]
    if warps is None:
        warps = MouthWarps.of(frame, mouths, target)
    box, around = _Box(frame), frame.image[frame.box].copy()
    if part := box.part(warps.around.any(-1)):
        at = box.grid(part) + box.enlarged(warps.around @ frame.to_image[:, :2].T.astype(np.float32), part)
        around[part] = cv2.remap(frame.image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType] -- None is allowed

    part = box.part(warps.mask)
    if part is None:  # the mouth lies outside the picture
        return Reference(around, warps)
    alpha, skin, grid = box.enlarged(warps.mask, part), around[part], box.grid(part)
    ring = _three_channels((alpha > 0.02) & (alpha < 0.7))
    mouth, mean_gain, mean_white = np.zeros(skin.shape, np.float32), 0.0, 0.0
    for (view, share), field in zip(mouths, warps.lips, strict=True):
        picture = _sampled(view, field, frame, box, grid, part)
        gain, white, light = _gain_and_light(skin, picture, ring)
        mouth += cv2.addWeighted(picture, share * gain, light, share, 0, dtype=cv2.CV_32F)
        mean_gain, mean_white = mean_gain + share * gain, mean_white + share * white
    if len(mouths) > 1:
        mouth = _with_detail(mouth, [share for _, share in mouths], frame.scale)
    if interior is not None and interior[1] > 0:
        inverse = np.linalg.inv(frame.to_image[:, :2].astype(np.float64))
        crop = ((grid - frame.to_image[:, 2]) @ inverse.T).astype(np.float32)
        inside, opening = interior[0].draw(warps.contours, frame.yaw, crop, frame.to_image, grid[0, 0])
        mouth += (mean_gain * inside + mean_white - mouth) * (opening * interior[1])[..., None]
    change = cv2.multiply(cv2.subtract(mouth, skin, dtype=cv2.CV_32F), _three_channels(alpha))
    around[part] = cv2.add(skin, change, dtype=cv2.CV_8U)
    return Reference(around, warps, mean_gain)


def with_difference(frame: FaceView, pixels: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """A reference plus the network's difference to it, enlarged to the frame's scale: [h, w, 3] uint8.

    Args:
        pixels: [h, w, 3] uint8, the reference in the frame's `box`.
        difference: [80, 96, 3] grey levels, drawn window less reference window; faded to 0 at the mask's edge.
    """
    if not difference.any():
        return pixels
    faded = difference.astype(np.float32) * mask_alpha()[WINDOW][..., None]
    whole = slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
    return cv2.add(pixels, _Box(frame).enlarged(faded, whole, cv2.INTER_CUBIC), dtype=cv2.CV_8U)


def _three_channels(values: np.ndarray) -> np.ndarray:
    """[h, w] -> [h, w, 3] float32; numpy's broadcasting over the channels would take five times as long."""
    return cv2.merge([values.astype(np.float32)] * 3)


def _sampled(
    view: FaceView, field: np.ndarray, frame: FaceView, box: _Box, grid: np.ndarray, part: tuple[slice, slice]
) -> np.ndarray:
    """A moment warped into a part of the frame's box: [h, w, 3] uint8. `grid` [h, w, 2]: the part's frame pixels.

    By Lanczos's kernel: cubic loses a twentieth of the teeth's sharpness. From lips that this kernel has enlarged cubic
    loses nothing, in a third of the time.
    """
    image, to_image = (view.image, view.to_image) if view.lips is None else view.lips
    linear = to_image[:, :2].astype(np.float64) @ np.linalg.inv(frame.to_image[:, :2].astype(np.float64))
    offset = to_image[:, 2] - linear @ frame.to_image[:, 2]
    displacement = box.enlarged(field @ to_image[:, :2].T.astype(np.float32), part)
    at = cv2.transform(grid, np.column_stack([linear, offset])) + displacement
    kernel = cv2.INTER_LANCZOS4 if view.lips is None else cv2.INTER_CUBIC
    return cv2.remap(image, at, None, kernel, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _gain_and_light(around: np.ndarray, mouth: np.ndarray, ring: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Match a mouth's light to its surroundings, as compared in a ring where both show the same skin.

    The matched mouth is gain * mouth + light. Where the two differ much in brightness, as in a fade, contrast is scaled
    too: adding light alone would leave it too strong.

    Args:
        around, mouth: [h, w, 3] uint8.
        ring: [h, w, 3] float32, 0 or 1.

    Returns:
        The gain; the white that lies over all, grey levels, as in a fade to white; and the light to add [h, w, 3]
        float32, grey levels, smooth, which includes the white.
    """
    height, width = ring.shape[:2]
    small = (LIGHT_WIDTH_PX, max(4, round(LIGHT_WIDTH_PX * height / width)))
    rings = [cv2.multiply(picture, ring, dtype=cv2.CV_32F) for picture in (around, mouth)]
    count = max(1.0, 3 * float(ring[..., 0].sum()))
    around_mean, mouth_mean = (sum(cv2.sumElems(pixels)) / count + 1e-3 for pixels in rings)
    log_contrast = log_ratio = np.log(around_mean / mouth_mean)
    if log_ratio > 0:  # by more light, which spreads the skin's levels and colours, or by white, which narrows them
        around_std, mouth_std = (
            max(cv2.norm(pixels) ** 2 / count - mean**2, 0.0) ** 0.5
            for pixels, mean in zip(rings, (around_mean, mouth_mean), strict=True)
        )
        if mouth_std > MIN_SKIN_STD:
            fade_to_white = np.log((256 - around_mean) / (256 - mouth_mean))
            log_contrast = np.clip(np.log(max(around_std, 0.1) / mouth_std), fade_to_white, log_ratio)
    low, high = FADE_LOG_RATIOS
    faded = float(np.clip((abs(log_ratio) - low) / (high - low), 0, 1))
    gain = float(np.exp(log_contrast * faded))
    light = cv2.addWeighted(rings[0], 1.0, rings[1], -gain, 0)
    light, weight = (cv2.resize(pixels, small, interpolation=cv2.INTER_AREA) for pixels in (light, ring))
    light, weight = (
        cv2.GaussianBlur(pixels, (0, 0), LIGHT_WIDTH_PX / 6, borderType=cv2.BORDER_CONSTANT)
        for pixels in (light, weight)
    )
    light = cv2.resize(light / (weight + 1e-3), (width, height), interpolation=cv2.INTER_LINEAR)
    return gain, faded * max(0.0, around_mean - gain * mouth_mean), light


def _with_detail(mean: np.ndarray, shares: Sequence[float], scale: float) -> np.ndarray:
    """A mean of pictures with its detail as strong as in each (variance-preserving: Heitz and Neyret 2018)."""
    coarse = cv2.GaussianBlur(mean, (0, 0), DETAIL_SIGMA_PX * scale)
    gain = float(1 / np.sqrt(np.square(shares).sum()))
    return cv2.addWeighted(mean, gain, coarse, 1 - gain, 0)


def tones(view: FaceView) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB [3] of the skin around a mouth, and of its lips: medians."""
    contours = shaped_contours(view.points, lip_shape(view.points), view.pose)
    to_image = view.to_image.astype(np.float64).copy()
    to_image[:, 2] += to_image[:, :2] @ WINDOW_ORIGIN
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    window = cv2.warpAffine(view.image, to_image, WINDOW_SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    near, far = (lip_mask(contours, grown, 0.1) > 0.5 for grown in (3.0, 10.0))
    y, (a, b, c, d) = WINDOW_GRID[..., 1], contours.lines
    on_lips = ((y > a) & (y < b)) | ((y > c) & (y < d))
    skin = window[far & ~near]
    lips = window[on_lips] if on_lips.any() else skin
    return srgb_to_linear(np.median(skin, axis=0) / 255), srgb_to_linear(np.median(lips, axis=0) / 255)


def softness(view: FaceView) -> float:
    """Standard deviation, image px, of the blur of edges around a mouth, 0.5 to 4.

    Of an edge that a Gaussian has blurred, squared first and second derivatives sum up as 2 sigma**2 to 1.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(view.image[view.box]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    first, second = (sum((np.diff(grey, n, axis=axis) ** 2).mean() for axis in (0, 1)) for n in (1, 2))
    return float(np.clip(np.sqrt(first / max(2 * second, 1e-6)), 0.5, 4.0))


def interior_of(view: FaceView, rest: np.ndarray) -> Interior:
    """The inside of a person's mouth, from a view with the mouth closed and the person's resting shape [SHAPE] px."""
    skin, lips = tones(view)
    eyes = np.linalg.norm(view.points[33] - view.points[263]) / np.cos(np.radians(np.clip(view.yaw, -60, 60)))
    return Interior.of(float(eyes), lip_line(rest), view.yaw, skin, lips, softness(view) / view.scale)
