"""Synthetic covers of a mouth: hands, microphones, masks, cups, hair, text and the like, painted over face crops."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from syncdiff.geometry.crops import S, mouth_mask

# Covered shares of the lips and of the mouth mask: from these on a sample is labelled covered ...
COVERED_LIPS, COVERED_REGION = 0.3, 0.2
CLEAR_LIPS, CLEAR_REGION = 0.03, 0.05  # ... and below these clear; between the two there are no samples
Rng = np.random.Generator
Paint = tuple[np.ndarray, np.ndarray]  # colours [S, S, 3] float32 and opacity [S, S] float32, 0..1
OPAQUE = (1.0,)


def covered(rng: Rng, crop: np.ndarray, lips: np.ndarray, others: np.ndarray, kind: str | None = None) -> np.ndarray:
    """The crop [S, S, 3] uint8 with a cover over at least COVERED_LIPS of the lips or COVERED_REGION of the mouth mask.

    Args:
        lips: [20, 2] crop px, the outer lips.
        others: [N, S, S, 3] uint8, crops of which parts serve as covers of any look.
    """
    return _painted(rng, crop, lips, others, kind, aside=False)


def clear(rng: Rng, crop: np.ndarray, lips: np.ndarray, others: np.ndarray, aside: float = 0.5) -> np.ndarray:
    """The crop [S, S, 3] uint8 as it is, or with probability `aside` with a cover beside the lips.

    The other arguments are those of `covered`.
    """
    return _painted(rng, crop, lips, others, None, aside=True) if rng.random() < aside else crop


def augmented(rng: Rng, crop: np.ndarray) -> np.ndarray:
    """The crop [S, S, 3] uint8 as another camera, codec and alignment would show it."""
    matrix = cv2.getRotationMatrix2D((64, 88), rng.normal(0, 3), rng.normal(1, 0.05))
    matrix[:, 2] += rng.normal(0, 1.5, 2)
    picture = cv2.warpAffine(crop, matrix, (S, S), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    if rng.random() < 0.3:
        side = int(rng.integers(40, S))
        picture = cv2.resize(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), (S, S))
    picture = picture.astype(np.float32)
    if rng.random() < 0.12:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    picture = 255 * (np.clip(picture, 0, 255) / 255) ** np.exp(rng.normal(0, 0.25))
    picture = picture * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.07, 3)) + rng.normal(0, 8)
    picture = np.clip(picture + rng.normal(0, rng.uniform(0, 5), picture.shape), 0, 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))])
    return cv2.imdecode(file, cv2.IMREAD_COLOR)


def _painted(
    rng: Rng, crop: np.ndarray, lips: np.ndarray, others: np.ndarray, kind: str | None, *, aside: bool
) -> np.ndarray:
    region = np.zeros((S, S), np.uint8)
    cv2.fillPoly(region, [np.rint(lips).astype(np.int32)], OPAQUE)
    for _ in range(30):
        draw = COVERS[kind or rng.choice(list(COVERS))]
        centre = lips.mean(0) + (rng.normal(0, 35, 2) if aside else rng.normal(0, 5, 2))
        colours, opacity = draw(rng, centre, crop, others)
        on_lips = float(opacity[region > 0].mean()) if region.any() else 0.0
        around = float(opacity[mouth_mask()].mean())
        if aside and on_lips < CLEAR_LIPS and around < CLEAR_REGION:
            break
        if not aside and (on_lips >= COVERED_LIPS or around >= COVERED_REGION):
            break
    else:
        return crop if aside else _painted(rng, crop, lips, others, "patch", aside=False)
    opacity = cv2.GaussianBlur(opacity, (0, 0), rng.uniform(0.4, 1.2))[..., None]
    shade = cv2.GaussianBlur(opacity, (0, 0), rng.uniform(2, 5))[..., None] * rng.uniform(0, 0.4)
    shade = np.roll(shade, rng.integers(-4, 5, 2), (0, 1))
    picture = crop * (1 - shade) * (1 - opacity) + colours * opacity
    return np.clip(picture, 0, 255).astype(np.uint8)


def _texture(rng: Rng, grain: float = 6.0, slow: float = 14.0) -> np.ndarray:
    """[S, S, 1] float32: uneven light and grain."""
    coarse = cv2.resize(rng.normal(0, slow, (5, 5)).astype(np.float32), (S, S), interpolation=cv2.INTER_CUBIC)
    return (coarse + rng.normal(0, rng.uniform(0, grain), (S, S)).astype(np.float32))[..., None]


def _skin(rng: Rng, crop: np.ndarray) -> np.ndarray:
    """[3], about the colour of this person's cheeks."""
    cheeks = crop[70:82, [*range(30, 42), *range(86, 98)]].reshape(-1, 3).astype(np.float32)
    return np.median(cheeks, 0) * np.exp(rng.normal(0, 0.18)) * np.exp(rng.normal(0, 0.04, 3))


def _place(point: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(point).astype(int).tolist()
    return x, y


def _blank() -> np.ndarray:
    return np.zeros((S, S), np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:S, :S].astype(np.float32)
    return x, y


def _hand(rng: Rng, centre: np.ndarray, crop: np.ndarray, *_: np.ndarray) -> Paint:
    """Fingers side by side, rounded by shading, with or without the back of the hand."""
    skin, opacity = _skin(rng, crop), _blank()
    colours = skin + _texture(rng)
    angle, count = rng.uniform(0, np.pi), int(rng.integers(1, 5))
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    half = rng.uniform(5, 10)
    x, y = _grid()
    for i in range(count):
        middle = centre + across * (i - (count - 1) / 2) * 2.1 * half + along * rng.normal(0, 5)
        u, v = x - middle[0], y - middle[1]
        far = np.clip(u * along[0] + v * along[1], -rng.uniform(15, 80), rng.uniform(10, 40))
        away = np.hypot(u - far * along[0], v - far * along[1]) / half
        finger = away < 1
        rounded = np.sqrt(np.clip(1 - away**2, 0, 1))
        colours[finger] *= (0.55 + 0.5 * rounded[finger])[:, None]
        opacity[finger] = 1
    if rng.random() < 0.5:
        back = centre - along * rng.uniform(25, 50)
        cv2.ellipse(opacity, _place(back), (30, int(2.4 * half)), np.degrees(angle), 0, 360, OPAQUE, -1)
    return colours.astype(np.float32), opacity


def _fist(rng: Rng, centre: np.ndarray, crop: np.ndarray, *_: np.ndarray) -> Paint:
    """A blob of skin with a few folds."""
    opacity = _blank()
    size = tuple(int(v) for v in rng.uniform(16, 40, 2))
    cv2.ellipse(opacity, _place(centre + rng.normal(0, 8, 2)), size, rng.uniform(0, 180), 0, 360, OPAQUE, -1)
    colours: np.ndarray = np.ascontiguousarray(_skin(rng, crop) + _texture(rng, 5, 22))
    for _fold in range(int(rng.integers(1, 5))):
        one, other = np.rint(centre + rng.normal(0, 22, (2, 2))).astype(int).tolist()
        cv2.line(colours, one, other, (0.6 * _skin(rng, crop)).tolist(), int(rng.integers(1, 3)), cv2.LINE_AA)
    return colours, opacity


def _microphone(rng: Rng, centre: np.ndarray, *_: np.ndarray) -> Paint:
    """A meshed or foam ball on a stick."""
    opacity, level = _blank(), rng.uniform(10, 140)
    tint = level * np.exp(rng.normal(0, 0.1 if rng.random() < 0.7 else 0.8, 3))
    colours = np.ascontiguousarray(tint + _texture(rng, 14, 10))
    x, y = _grid()
    if rng.random() < 0.5:
        step = rng.integers(2, 5)
        mesh = ((x + y).astype(int) % step == 0) | ((x - y).astype(int) % step == 0)
        colours += mesh[..., None] * rng.uniform(20, 60)
    radius, middle = rng.uniform(12, 26), centre + rng.normal(0, 5, 2)
    ball = np.hypot(x - middle[0], (y - middle[1]) * rng.uniform(0.75, 1.1)) < radius
    away = ((x - middle[0] + 6) ** 2 + (y - middle[1] + 8) ** 2) / (2 * (radius / 2) ** 2)
    colours *= (0.6 + 0.6 * np.exp(-away))[..., None]
    opacity[ball] = 1
    end = middle + np.array((rng.normal(0, 40), 100))
    cv2.line(opacity, _place(middle), _place(end), OPAQUE, int(radius * rng.uniform(0.5, 1.2)))
    return colours.astype(np.float32), opacity


def _mask(rng: Rng, centre: np.ndarray, *_: np.ndarray) -> Paint:
    """A surgical or cloth mask from the nose to below the chin."""
    opacity, (cx, cy) = _blank(), centre
    top, bottom, half = cy - rng.uniform(12, 30), cy + rng.uniform(20, 40), rng.uniform(30, 46)
    outline = [(cx - half, top + 8), (cx, top - 4), (cx + half, top + 8), (cx + 0.8 * half, bottom - 8), (cx, bottom),
               (cx - 0.8 * half, bottom - 8)]  # fmt: skip
    cv2.fillPoly(opacity, [np.rint(np.array(outline) + rng.normal(0, 2, (6, 2))).astype(np.int32)], OPAQUE)
    pale = rng.random() < 0.6
    tint = np.array((150, 190, 215)) * np.exp(rng.normal(0, 0.15, 3)) if pale else rng.uniform(5, 250, 3)
    colours: np.ndarray = np.ascontiguousarray(tint + _texture(rng, 6, 12))
    for fold in range(int(rng.integers(0, 5))):
        y = int(top + 12 + fold * rng.uniform(6, 12))
        points = np.array([[x, y + 4 * np.sin(x / 30)] for x in range(0, S, 8)], np.int32)
        cv2.polylines(colours, [points], False, (0.8 * tint).tolist(), 1, cv2.LINE_AA)
    if rng.random() < 0.2:
        colours += 40 * (rng.random((S // 8, S // 8)) > 0.5).repeat(8, 0).repeat(8, 1)[..., None]
    return colours.astype(np.float32), opacity


def _cup(rng: Rng, centre: np.ndarray, *_: np.ndarray) -> Paint:
    """A cup, glass or bottle at the lips."""
    opacity, (cx, cy) = _blank(), centre
    w, h, lean = rng.uniform(12, 34), rng.uniform(25, 70), rng.uniform(-10, 10)
    top = cy - rng.uniform(4, 14)
    outline = [(cx - w, top), (cx + w, top), (cx + 0.8 * w + lean, top + h), (cx - 0.8 * w + lean, top + h)]
    cv2.fillPoly(opacity, [np.rint(outline).astype(np.int32)], OPAQUE)
    tint = rng.uniform(10, 250, 3)
    x, _y = _grid()
    shine = 0.7 + 0.5 * np.exp(-(((x - cx + rng.uniform(-w, w)) / (0.4 * w)) ** 2))
    colours = (tint * shine[..., None] + _texture(rng, 3, 8)).astype(np.float32)
    cv2.ellipse(colours, (int(cx), int(top)), (int(w), 3), 0, 0, 360, (0.6 * tint).tolist(), -1)
    cv2.ellipse(opacity, (int(cx), int(top)), (int(w), 3), 0, 0, 360, OPAQUE, -1)
    return colours, opacity * rng.choice([1.0, rng.uniform(0.7, 1)])


def _hair(rng: Rng, centre: np.ndarray, *_: np.ndarray) -> Paint:
    """Strands that hang or blow across the lips."""
    opacity = _blank()
    tint = np.array((70, 50, 38)) * np.exp(rng.normal(0, 0.7)) * np.exp(rng.normal(0, 0.1, 3))
    colours = np.ascontiguousarray(tint + _texture(rng, 8, 16))
    side, slope = rng.normal(0, 14), rng.normal(0, 0.6)
    for _strand in range(int(rng.integers(25, 90))):
        offset, bow = side + rng.normal(0, 14), rng.normal(0, 10)
        t = np.linspace(-1, 1, 9)
        points = np.stack([centre[0] + offset + slope * 60 * t + bow * t**2, centre[1] + 70 * t], 1)
        cv2.polylines(opacity, [np.rint(points).astype(np.int32)], False, OPAQUE, int(rng.integers(1, 4)), cv2.LINE_AA)
        cv2.polylines(colours, [np.rint(points).astype(np.int32)], False, (tint * rng.uniform(0.6, 1.5)).tolist(), 1)
    return colours.astype(np.float32), opacity


def _text(rng: Rng, centre: np.ndarray, *_: np.ndarray) -> Paint:
    """Subtitles, with an outline or on a bar."""
    opacity, colours = _blank(), np.zeros((S, S, 3), np.float32)
    words = "".join(rng.choice(list("ABCDEHIKLMNOPRSTUWaceimnorstu  ,.")) for _ in range(24))
    scale, bold = rng.uniform(0.5, 1.3), int(rng.integers(2, 4))
    ink = rng.choice([(255, 255, 255), (255, 230, 60), (20, 20, 20)])
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX]))
    for line in range(int(rng.integers(1, 3))):
        origin = (int(centre[0] - rng.uniform(40, 140)), int(centre[1] + rng.uniform(-4, 14) + 26 * scale * line))
        if rng.random() < 0.35:
            top, bottom = origin[1] - int(24 * scale), origin[1] + int(9 * scale)
            cv2.rectangle(opacity, (0, top), (S, bottom), (rng.uniform(0.6, 1),), -1)
            cv2.rectangle(colours, (0, top), (S, bottom), (12, 12, 12), -1)
        for paint, value in ((opacity, OPAQUE), (colours, tuple(255.0 - float(c) for c in ink))):
            cv2.putText(paint, words, origin, font, scale, value, bold + 3, cv2.LINE_AA)
        cv2.putText(colours, words, origin, font, scale, tuple(map(float, ink)), bold, cv2.LINE_AA)
    return colours, opacity


def _caption(rng: Rng, centre: np.ndarray, *_: np.ndarray) -> Paint:
    """A line of small letters on a bar, over lips or chin."""
    opacity, half = _blank(), np.array((rng.uniform(16, 70), rng.uniform(3, 9)))
    middle = centre + np.array((rng.normal(0, 12), rng.uniform(-4, 26) if rng.random() < 0.5 else rng.normal(0, 4)))
    ground = rng.choice([(0, 0, 0), (250, 250, 250), tuple(rng.uniform(0, 255, 3))])
    colours = np.full((S, S, 3), ground, np.float32)
    low, high = _place(middle - half), _place(middle + half)
    cv2.rectangle(opacity, low, high, (rng.uniform(0.75, 1),), -1)
    words = "".join(rng.choice(list("ABCDEHIKLMNOPRSTUW acei mnorstu")) for _ in range(16))
    ink = (255.0, 235.0, 120.0) if sum(ground) < 380 else (10.0, 10.0, 10.0)
    origin = (low[0] + 3, int(middle[1] + 3))
    cv2.putText(colours, words, origin, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.15, 0.4), ink, 1, cv2.LINE_AA)
    return colours, opacity


def _bar(rng: Rng, centre: np.ndarray, *_: np.ndarray) -> Paint:
    """A plain shape: a bar, a sticker, a logo."""
    opacity, size = _blank(), rng.uniform(10, 45, 2)
    box = cv2.boxPoints((centre.tolist(), (2 * size).tolist(), rng.normal(0, 15)))
    if rng.random() < 0.5:
        cv2.fillPoly(opacity, [np.rint(box).astype(np.int32)], OPAQUE)
    else:
        cv2.ellipse(opacity, _place(centre), size.astype(int).tolist(), 0, 0, 360, OPAQUE, -1)
    return (rng.uniform(0, 255, 3) + _texture(rng, 6, 10)).astype(np.float32), opacity


def _mosaic(rng: Rng, centre: np.ndarray, crop: np.ndarray, *_: np.ndarray) -> Paint:
    """The mouth in blocks, as often of 4 to 8 px as of 8 to 16."""
    cells = round(S / np.exp(rng.uniform(*np.log((4, 16)))))
    small = cv2.resize(crop, (cells, cells), interpolation=cv2.INTER_AREA)
    return _within_box(rng, centre, cv2.resize(small, (S, S), interpolation=cv2.INTER_NEAREST))


def _blur(rng: Rng, centre: np.ndarray, crop: np.ndarray, *_: np.ndarray) -> Paint:
    """The mouth blurred beyond reading."""
    return _within_box(rng, centre, cv2.GaussianBlur(crop, (0, 0), rng.uniform(9, 14)))


def _within_box(rng: Rng, centre: np.ndarray, colours: np.ndarray) -> Paint:
    opacity, half = _blank(), rng.uniform(16, 40, 2)
    (x0, y0), (x1, y1) = np.rint(centre - half).astype(int).tolist(), np.rint(centre + half).astype(int).tolist()
    cv2.rectangle(opacity, (x0, y0), (x1, y1), OPAQUE, -1)
    return colours.astype(np.float32), opacity


def _patch(rng: Rng, centre: np.ndarray, _: np.ndarray, others: np.ndarray) -> Paint:
    """A part of another picture, of any shape: whatever else may lie in the way."""
    other = others[rng.integers(len(others))]
    turned = cv2.warpAffine(
        other, cv2.getRotationMatrix2D((64, 40), rng.uniform(0, 360), rng.uniform(0.7, 2.5)), (S, S),
        borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
    noise = cv2.resize(rng.normal(0, 1, (6, 6)).astype(np.float32), (S, S), interpolation=cv2.INTER_CUBIC)
    x, y = _grid()
    near = np.hypot(x - centre[0], y - centre[1]) / rng.uniform(15, 45)
    opacity = (near + 0.35 * noise < 1).astype(np.float32)
    shift = np.exp(rng.normal(0, 0.3, 3))
    return np.roll(turned, rng.integers(-60, 60, 2), (0, 1)).astype(np.float32) * shift, opacity


COVERS: dict[str, Callable[[Rng, np.ndarray, np.ndarray, np.ndarray], Paint]] = {
    "hand": _hand, "fist": _fist, "microphone": _microphone, "mask": _mask, "cup": _cup, "hair": _hair, "text": _text,
    "caption": _caption, "bar": _bar, "mosaic": _mosaic, "blur": _blur, "patch": _patch,
}  # fmt: skip
