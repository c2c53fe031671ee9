"""A contact sheet of still photos that open their mouths: `python tools/mouths.py docs/mouths.jpg`.

From each of the films in `assets/examples` the frame with the most closed lips is taken as a photo. The row shows it,
and its reference alone (no network) with growing gaps: what lies between the lips is drawn (`geometry.interior`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from syncdiff.conditioning import FaceClip, MouthPlan
from syncdiff.evaluation.film_scale import square
from syncdiff.faces import OK, choose, track_faces
from syncdiff.geometry.crops import align, cut
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.progress import finished
from syncdiff.training.prepare import FPS, read_frames

NAMES = ("speaker-1", "speaker-2", "speaker-3", "ines", "malik", "tomas")
GAPS = (1.5, 3.0, 5.0, 7.0, 9.0, 11.0)  # crop px: a gap of 11 is that of an "ah"
SIDE, REGION = 180, (40.0, 50.0, 48.0)  # px of a tile, and the crop px that it shows


def row(path: Path) -> np.ndarray:
    """One person's tiles."""
    frames = read_frames(path)[: 2 * FPS]
    track = choose(finished(track_faces(iter(frames))))
    to_frame = align(track, np.arange(len(frames)) / FPS)
    seen = np.flatnonzero(track.state == OK)
    gaps = np.linalg.norm(track.points[seen, 13] - track.points[seen, 14], axis=-1)
    i = int(seen[gaps.argmin()])
    one = slice(i, i + 1)
    crop = cut(frames[i], to_frame[i])[None]
    usable, shots = np.ones(1, bool), np.zeros(1, int)
    film = lambda _indices: [frames[i]]  # noqa: E731
    face = FaceClip(crop, to_frame[one], track.points[one], track.yaw[one], usable, shots, film)
    shape = face.shapes[0]
    tiles = [square(frames[i], to_frame[i], REGION, SIDE)]
    for gap in GAPS:
        target = shape * np.float32([0, 1, 1, 1, 1]) * (1 - 0.004 * gap)
        target[0] = gap
        inside = np.float32([np.clip((gap - max(shape[0], 0.5)) / 1.5, 0, 1)])
        zeros = np.zeros((1, 3), int)
        mouths = MouthPlan(target[None], zeros, np.float32([[1, 0, 0]]), np.zeros((1, SHAPE), np.float32), inside)
        view, opened = face.in_film(0, frames[i]), frames[i].copy()
        opened[view.box] = face.reference(view, 0, mouths, 0).pixels
        tiles.append(square(opened, to_frame[i], REGION, SIDE))
    return np.concatenate(tiles, axis=1)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    examples = Path(__file__).resolve().parents[1] / "assets" / "examples"
    sheet = np.concatenate([row(examples / f"{name}.mp4") for name in NAMES])
    cv2.imwrite(sys.argv[1], cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
