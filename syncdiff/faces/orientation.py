"""Whether a film stands on its head or lies on its side, as where a camera did not say how it was held."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from threading import Thread

import numpy as np

from syncdiff.faces.mediapipe_backend import face_scorer
from syncdiff.late_imports import load_mediapipe
from syncdiff.media import Clip, read_clip

SAMPLES = 4  # frames that are looked at
# Measured on the shipped examples and seven held-out clips, 4 frames each: the detector's score of an upright face is
# .87 to .99 in the mean of a clip, of the same face on its side .68 to .87, on its head 0 to .77, and upright it is
# always surer by .09 or more.
UPRIGHT_SCORE, SURER = 0.9, 0.07


def read_upright(path: str | Path, folder: Path, until: float | None = None) -> Generator[float, None, Clip]:
    """As media.read_clip; a film whose faces do not stand upright is read again, turned."""
    Thread(target=load_mediapipe).start()  # meanwhile: the film is decoded in another process
    clip = yield from read_clip(path, folder, until=until)
    frames = np.unique(np.linspace(0, len(clip) - 1, SAMPLES).round().astype(int))
    with face_scorer() as score:
        turn = find_turn([frame.rgb() for frame in clip.frames(frames)], score)
    if not turn:
        return clip
    return (yield from read_clip(path, folder, until=until, clockwise=turn))


def find_turn(images: Sequence[np.ndarray], score: Callable[[np.ndarray], float]) -> int:
    """Degrees clockwise, 0, 90, 180 or 270, by which the frames [H, W, 3] have to be turned for faces to be upright.

    score: of the surest face in a picture, 0..1.
    """
    usual = np.mean([score(image) for image in images])
    if usual >= UPRIGHT_SCORE:
        return 0
    turned = {turn: np.mean([score(_turned(image, turn)) for image in images]) for turn in (180, 90, 270)}
    best = max(turned, key=turned.__getitem__)
    return best if turned[best] > max(usual + SURER, UPRIGHT_SCORE - 2 * SURER) else 0


def _turned(image: np.ndarray, clockwise: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, -clockwise // 90))
