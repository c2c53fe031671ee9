"""Films recorded upside down or sideways, without a rotation tag: finds and corrects the rotation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from threading import Thread

import numpy as np

from syncdiff.faces.mediapipe_backend import face_scorer
from syncdiff.late_imports import load_mediapipe
from syncdiff.media import Clip, read_clip

SAMPLES = 4  # frames that are scored
# Mean score of the face detector over a clip's 4 frames, on the shipped examples and seven held-out clips: .87 to .99
# for upright faces, .68 to .87 for the same faces on their side, 0 to .77 upside down; upright is .09 or more above.
UPRIGHT_SCORE, MIN_GAIN = 0.9, 0.07


def read_upright(path: str | Path, folder: Path, until: float | None = None) -> Generator[float, None, Clip]:
    """As media.read_clip; a film whose faces do not stand upright is read again, turned."""
    Thread(target=load_mediapipe).start()  # while another process decodes the film
    clip = yield from read_clip(path, folder, until=until)
    frames = np.unique(np.linspace(0, len(clip) - 1, SAMPLES).round().astype(int))
    with face_scorer() as score:
        turn = find_turn([frame.rgb() for frame in clip.frames(frames)], score)
    if not turn:
        return clip
    return (yield from read_clip(path, folder, until=until, clockwise=turn))


def find_turn(images: Sequence[np.ndarray], score: Callable[[np.ndarray], float]) -> int:
    """Degrees clockwise, 0, 90, 180 or 270, by which the frames [H, W, 3] have to be turned for faces to be upright.

    score: function of a picture, see `mediapipe_backend.face_scorer`.
    """

    def mean_score(clockwise: int) -> float:
        turned = (np.ascontiguousarray(np.rot90(image, -clockwise // 90)) for image in images)
        return float(np.mean([score(image) for image in turned]))

    as_read = mean_score(0)
    if as_read >= UPRIGHT_SCORE:
        return 0
    scores = {turn: mean_score(turn) for turn in (180, 90, 270)}
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] > max(as_read + MIN_GAIN, UPRIGHT_SCORE - 2 * MIN_GAIN) else 0
