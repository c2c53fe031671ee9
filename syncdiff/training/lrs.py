"""LRS2 and LRS3 as they lie on disk, and the films in them as the paper's model sees them.

LRS2 is `main/SPEAKER/CLIP.mp4` (and `pretrain/`) with a list of names for each split; LRS3 is `test/SPEAKER/CLIP.mp4`,
`trainval/`, `pretrain/`, a folder a split. Beside every film lies a `.txt` whose first line is `Text:  WHAT IS SAID`.
Any other folder of films of one face each is read as well. The folders are trusted, as in `prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.faces import choose, track_faces
from syncdiff.paper import cut_frame, face_boxes, place_frames, to_square
from syncdiff.progress import finished
from syncdiff.training.prepare import FPS, VIDEOS, read_frames, read_sound

WITHIN = ("", "main", "pretrain", "trainval", "test")  # where a list's names may begin
Finder = Literal["face-alignment", "mediapipe"]


@dataclass(frozen=True)
class Utterance:
    """One film of a corpus."""

    name: str  # SPEAKER/CLIP
    video: Path

    @property
    def text(self) -> str | None:
        """What is said, in the corpus's capitals; None where no transcript lies beside the film."""
        path = self.video.with_suffix(".txt")
        if not path.is_file():
            return None
        first = path.read_text(errors="replace").partition("\n")[0]
        return first.removeprefix("Text:").strip()


def utterances(root: Path, listed: Path | None = None) -> list[Utterance]:
    """The films that a list names, or all below `root`, sorted by name.

    Args:
        listed: a text file, one name a line; what stands behind it on its line (LRS2 has marks there) is left out.

    Raises InputError where a listed film is not there, or no film at all.
    """
    if listed is None:
        videos = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS)
        found = [Utterance(path.relative_to(root).with_suffix("").as_posix(), path) for path in videos]
    else:
        names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
        found = [Utterance(name.removesuffix(".mp4"), _film(root, name.removesuffix(".mp4"))) for name in names]
    if not found:
        raise InputError(
            f"{listed or root} names no film: give a folder as LRS2 or LRS3 have it, and one of its lists."
        )
    return found


def _film(root: Path, name: str) -> Path:
    for folder in WITHIN:
        path = root / folder / f"{name}.mp4"
        if path.is_file():
            return path
    raise InputError(f"{name}.mp4 is in the list, but not in {root} or its folders {', '.join(WITHIN[1:])}.")


@dataclass(frozen=True)
class Film:
    """A film as the paper's model sees it: squares at 25 fps, where the face box is in them, and the sound."""

    frames: np.ndarray  # [T, 256, 256, 3] uint8
    boxes: np.ndarray  # [T, 4] float32 px of the square, NaN rows where the face is missing
    sound: np.ndarray  # [N] float32 at 16 kHz, T / 25 s or longer


def read_film(video: Path, finder: Finder, boxes: np.ndarray | None = None) -> Film:
    """Decode a film; `boxes` of an earlier reading save the search. Raises InputError."""
    images = read_frames(video)
    sound = read_sound(video)
    if sound is None:
        raise InputError(f"{video} has no sound.")
    if boxes is None:
        boxes = _boxes(images, finder)
    to_frame = place_frames(boxes, np.arange(len(images)) / FPS, images[0].shape[1], images[0].shape[0])
    squares = np.stack([cut_frame(image, matrix) for image, matrix in zip(images, to_frame, strict=True)])
    short = len(images) * SAMPLE_RATE // FPS - len(sound)
    return Film(squares, to_square(boxes, to_frame), np.pad(sound, (0, max(0, short))))


def find_boxes(video: Path, finder: Finder) -> np.ndarray:
    """Face boxes [T, 4] of the largest face, px of the film, NaN rows. Raises InputError where there is none."""
    return _boxes(read_frames(video), finder)


def _boxes(images: Sequence[np.ndarray], finder: Finder) -> np.ndarray:
    return face_boxes(choose(finished(track_faces(iter(images), finder))))
