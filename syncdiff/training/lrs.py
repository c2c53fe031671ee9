"""LRS2 and LRS3 on disk, their films as inputs of the paper's model, and the records that `prepare_lrs` makes.

LRS2 is `main/SPEAKER/CLIP.mp4` (and `pretrain/`) with a list of names for each split; LRS3 is `test/SPEAKER/CLIP.mp4`,
`trainval/`, `pretrain/`, a folder a split. Beside every film lies a `.txt` whose first line is `Text:  WHAT IS SAID`.
Any other folder of films of one face each is read as well. The folders are trusted, as in `prepare`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import av
import numpy as np
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.paper.frames import cut as cut_frame
from syncdiff.paper.frames import place_frames, to_square
from syncdiff.training.prepare import FPS, VIDEOS, read_frames, read_sound

WITHIN = ("", "main", "pretrain", "trainval", "test")  # where a list's names may begin
UNREADABLE = (av.FFmpegError, OSError, EOFError, IndexError, ValueError)  # what PyAV, numpy and empty streams raise


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
        listed: a text file, one name a line; the rest of a line (LRS2 has marks there) is ignored.

    Raises InputError where a listed film is not there, or no film at all.
    """
    if listed is None:
        videos = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS)
        found = [Utterance(path.relative_to(root).with_suffix("").as_posix(), path) for path in videos]
    else:
        found = []
        for name in names_in(listed):
            if (video := _within(root, f"{name}.mp4")) is None:
                folders = ", ".join(WITHIN[1:])
                raise InputError(f"{name}.mp4 is in the list, but not in {root} or its folders {folders}.")
            found.append(Utterance(name, video))
    if not found:
        where = listed or root
        raise InputError(f"{where} names no film: give a folder as LRS2 or LRS3 have it, and one of its lists.")
    return found


def names_in(listed: Path) -> list[str]:
    """The names in a list, SPEAKER/CLIP. Raises InputError where it cannot be read."""
    try:
        lines = listed.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list {listed} cannot be read ({error}): give a text file, one name a line.") from error
    return [line.split()[0].removesuffix(".mp4") for line in lines if line.strip()]


def _within(root: Path, name: str) -> Path | None:
    return next((path for folder in WITHIN if (path := root / folder / name).is_file()), None)


@dataclass(frozen=True)
class Film:
    """A film as input of the paper's model: squares at 25 fps, the face box in them, and the sound."""

    frames: np.ndarray  # [T, 256, 256, 3] uint8
    boxes: np.ndarray  # [T, 4] float32 px of the square, NaN rows where the face is missing
    sound: np.ndarray  # [N] float32 at 16 kHz, T / 25 s or longer
    to_frame: np.ndarray  # [T, 2, 3] float32, px of the square -> px of the film
    images: Sequence[np.ndarray]  # [T] of [H, W, 3] uint8, as decoded


def decode(video: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """RGB frames at 25 fps, and sound [N] at 16 kHz for all of them. Raises InputError, whatever is wrong with it."""
    try:
        images, sound = read_frames(video), read_sound(video)
    except UNREADABLE as error:
        raise InputError(f"{video} cannot be decoded ({type(error).__name__}: {error}).") from error
    if sound is None:
        raise InputError(f"{video} has no sound.")
    return images, np.pad(sound, (0, max(0, len(images) * SAMPLE_RATE // FPS - len(sound))))


def squares_of(images: Sequence[np.ndarray], sound: np.ndarray, boxes: np.ndarray) -> Film:
    """A decoded film cut to the model's squares. Args: boxes [T, 4], px of the film, NaN rows where none."""
    to_frame = place_frames(boxes, np.arange(len(images)) / FPS, images[0].shape[1], images[0].shape[0])
    squares = np.stack([cut_frame(image, matrix) for image, matrix in zip(images, to_frame, strict=True)])
    return Film(squares, to_square(boxes, to_frame), sound, to_frame, images)


# --- what `prepare_lrs` makes of a film


@dataclass(frozen=True)
class Record:
    """What training and evaluation need of a film besides its pictures."""

    utterance: Utterance
    boxes: np.ndarray  # [T, 4] float32 px of the film, NaN rows where no face was found
    speech: np.ndarray  # [T25, 104] float32, AV-HuBERT's input (`avhubert.stacked`)

    def film(self) -> Film:
        """Decoded and cut to squares. Raises InputError, also where the film is not the one that was prepared."""
        images, sound = decode(self.utterance.video)
        if len(images) != len(self.boxes):
            raise InputError(f"{self.utterance.video} has {len(images)} frames, and {len(self.boxes)} were prepared.")
        return squares_of(images, sound, self.boxes)


@dataclass(frozen=True)
class PreparedFilm:
    """A film whose record lies in a prepared folder; `prepared` finds them."""

    name: str
    path: Path  # the record, NAME.npz

    def read(self) -> Record:
        """Raises InputError where the record is damaged."""
        try:
            with np.load(self.path) as file:
                return Record(Utterance(self.name, Path(str(file["video"]))), file["boxes"], file["speech"])
        except (*UNREADABLE, KeyError, BadZipFile) as error:
            raise InputError(f"{self.path} cannot be read ({error}): delete it and prepare it again.") from error

    def latents(self) -> np.ndarray | None:
        """[T, 2, 3, 64, 64] float16 of every frame and of it masked, memory-mapped; None where not prepared."""
        path = latents_path(self.path)
        return np.load(path, mmap_mode="r") if path.exists() else None


def latents_path(record: Path) -> Path:
    """Where the latents of a film lie, beside its record."""
    return record.with_name(f"{record.stem}.latents.npy")


def refusal_path(record: Path) -> Path:
    """Where the reason lies why a film has no record."""
    return record.with_name(f"{record.stem}.refused.txt")


@dataclass(frozen=True)
class Prepared:
    """The films of a prepared folder, and those that `prepare_lrs` refused: name -> why."""

    films: list[PreparedFilm]
    refused: dict[str, str]


def prepared(folder: Path, listed: Path | None = None) -> Prepared:
    """The records of a list's films, or all. Raises InputError where some are not prepared, or none can be used."""
    if listed is None:
        records = {p.relative_to(folder).as_posix().removesuffix(".npz"): p for p in sorted(folder.rglob("*.npz"))}
        texts = sorted(folder.rglob("*.refused.txt"))
        refused = {p.relative_to(folder).as_posix().removesuffix(".refused.txt"): p.read_text().strip() for p in texts}
    else:
        records, refused, missing = {}, {}, []
        for name in names_in(listed):
            if path := _within(folder, f"{name}.npz"):
                records[name] = path
            elif path := _within(folder, f"{name}.refused.txt"):
                refused[name] = path.read_text().strip()
            else:
                missing.append(name)
        if missing:
            raise InputError(
                f"{len(missing)} films of {listed} are not prepared in {folder}, the first is {missing[0]}: run "
                f"`python -m syncdiff.training.prepare_lrs CORPUS {folder} --list {listed}` first, to its end."
            )
    if not records:
        raise InputError(
            f"{folder} holds no prepared film{' of the list' if listed else ''} ({len(refused)} refused): run "
            "`python -m syncdiff.training.prepare_lrs CORPUS FOLDER` first."
        )
    return Prepared([PreparedFilm(name, path) for name, path in records.items()], refused)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it: a file that exists is whole, whichever process wrote it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{time.monotonic_ns()}-{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# --- shares of the work


def share() -> tuple[int, int]:
    """(rank, processes) as `torchrun` and `accelerate launch` set them; (0, 1) in a process started alone."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_device() -> torch.device:
    """This process's GPU, in turns over those of the machine; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
