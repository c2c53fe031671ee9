"""LRS2, LRS3 or any folder of films of one face -> what the paper's model trains and is evaluated on. Resumable.

    python -m syncdiff.training.prepare_lrs LRS2 PREPARED [--list LRS2/train.txt LRS2/test.txt] [--vae VQVAE]
    torchrun --standalone --nproc_per_node 6 -m syncdiff.training.prepare_lrs LRS2 PREPARED ...

For every film PREPARED/SPEAKER/CLIP.npz: the face box of every frame (S3FD alone, on the GPU where there is one) and
the speech encoder's input, 10 kB a second. With --vae also CLIP.latents.npy, what the autoencoder makes of every frame
and of it masked: 49 kB a frame, 128 GB for LRS2's main set, and training then runs without the autoencoder. All presets
share the folder. A film that cannot be used has CLIP.refused.txt with the reason instead, and PREPARED/report.tsv has a
line for every film. Several processes divide the films among them. What is there is not made again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import VQModel
from torch import nn

from syncdiff.errors import InputError
from syncdiff.faces import choose, track_faces
from syncdiff.faces.face_alignment_backend import DETECTED_AT, load_s3fd
from syncdiff.paper.avhubert import stacked
from syncdiff.paper.denoiser import to_latents
from syncdiff.paper.frames import face_boxes, masked
from syncdiff.paper.released import read_vae
from syncdiff.progress import finished
from syncdiff.training.lrs import (
    Film,
    Utterance,
    decode,
    latents_path,
    own_device,
    refusal_path,
    share,
    squares_of,
    utterances,
    write_whole,
)
from syncdiff.training.prepare import FPS

BATCH = 32  # frames that S3FD and the autoencoder take at once
MAX_MISSED_FRAMES = 25  # for which a face that is not found is expected where it was
MIN_FRAMES, MIN_FACES = 6, 2  # of a film, and of those after the first with a face: what one training row needs

FaceFinder = Callable[[Sequence[np.ndarray]], np.ndarray]  # RGB frames -> [T, 4] px, NaN rows; InputError for no face


def s3fd_finder(device: torch.device) -> FaceFinder:
    """Boxes by face-alignment's S3FD, without its landmarks. Raises InputError where its file is missing."""
    detector = load_s3fd(str(device))

    def find(images: Sequence[np.ndarray]) -> np.ndarray:
        scale = min(1.0, DETECTED_AT / max(images[0].shape[:2]))
        boxes: list[list[np.ndarray]] = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            if scale < 1:
                part = [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for image in part]
            batch = torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2)
            boxes += [[np.asarray(box[:4]) / scale for box in found] for found in detector.detect_from_batch(batch)]
        return one_face(boxes)

    return find


def mediapipe_finder(images: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes [T, 4] px around mediapipe's points of the largest face. Raises InputError for no face."""
    return face_boxes(choose(finished(track_faces(iter(images)))))


def one_face(found: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Boxes of every frame -> one face's [T, 4] float32, NaN rows where there is none.

    From the largest box of all forward and backward: in each frame the box that overlaps most with the last one. After
    more than MAX_MISSED_FRAMES without such a box, the largest is taken."""
    track = np.full((len(found), 4), np.nan, np.float32)
    sizes = [max((_area(box) for box in boxes), default=0.0) for boxes in found]
    first = int(np.argmax(sizes))
    for order in (range(first, len(found)), range(first, -1, -1)):
        last, at = None, first
        for t in order:
            lost = last is None or abs(t - at) > MAX_MISSED_FRAMES
            near = [box for box in found[t] if lost or _overlap(box, last) > 0]
            if near:
                last, at = max(near, key=partial(_priority, last)), t
                track[t] = last
    return track


def _priority(last: np.ndarray | None, box: np.ndarray) -> tuple[float, float]:
    return (0.0 if last is None else _overlap(box, last), _area(box))


def _area(box: np.ndarray) -> float:
    """px^2."""
    return float(np.prod(np.maximum(box[2:] - box[:2], 0)))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """px^2 that two boxes share."""
    return _area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))


def prepare_film(one: Utterance, out: Path, find: FaceFinder, vae: VQModel | None = None) -> None:
    """Write the film's record, and its latents where `vae` is given; or, where it cannot be used, why."""
    record = out / f"{one.name}.npz"
    if refusal_path(record).exists() or (record.exists() and (vae is None or latents_path(record).exists())):
        return
    try:
        images, sound = decode(one.video)
        boxes = _boxes(images, record, find)
    except InputError as sentence:
        why = f"{sentence}\n"
        write_whole(refusal_path(record), lambda path: path.write_text(why))
        return
    if vae is not None:
        latents = np.stack(list(_latents(vae, squares_of(images, sound, boxes)))).astype(np.float16)
        write_whole(latents_path(record), lambda path: np.save(path, latents))
    arrays = {"video": np.array(str(one.video.resolve())), "boxes": boxes, "speech": stacked(sound).numpy()}
    write_whole(record, lambda path: np.savez(path, allow_pickle=False, **arrays))


def _boxes(images: Sequence[np.ndarray], record: Path, find: FaceFinder) -> np.ndarray:
    """[T, 4] float32, from the record where there is one. Raises InputError for too few."""
    if record.exists():
        with np.load(record) as file:
            return file["boxes"]
    T = len(images)
    if T < MIN_FRAMES:
        raise InputError(f"It has {T} frames, and at least {MIN_FRAMES} are needed.")
    boxes = find(images).astype(np.float32)
    faces = int(np.isfinite(boxes[1:]).all(1).sum())
    if faces < MIN_FACES:
        raise InputError(f"Its face is found in {faces} of {T} frames; {MIN_FACES} after the first are needed.")
    return boxes


@torch.inference_mode()
def _latents(vae: VQModel, film: Film) -> Iterator[np.ndarray]:
    """[2, 3, 64, 64] of every frame, and of it masked where it has a face."""
    for start in range(0, len(film.frames), BATCH // 2):
        part, boxes = (x[start : start + BATCH // 2] for x in (film.frames, film.boxes))
        hidden = [masked(f, b) if np.isfinite(b).all() else f for f, b in zip(part, boxes, strict=True)]
        both = to_latents(vae, np.concatenate([part, np.stack(hidden)])).cpu().numpy()
        yield from np.stack([both[: len(part)], both[len(part) :]], 1)


def write_report(out: Path, films: Sequence[Utterance]) -> str:
    """OUT/report.tsv with a line for every film; returns how many were prepared, refused, and are to come."""
    rows, counts = [], {"prepared": 0, "refused": 0, "to come": 0}
    for one in films:
        record = out / f"{one.name}.npz"
        row: dict[str, Any] = {"film": one.name, "state": "to come", "frames": "", "with a face": "", "why": ""}
        if record.exists():
            with np.load(record) as file:
                boxes = file["boxes"]
            row |= {"state": "prepared", "frames": len(boxes), "with a face": int(np.isfinite(boxes).all(1).sum())}
        elif refusal_path(record).exists():
            row |= {"state": "refused", "why": refusal_path(record).read_text().strip()}
        counts[row["state"]] += 1
        rows.append(row)

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
            writer.writeheader(), writer.writerows(rows)

    write_whole(out / "report.tsv", write)
    seconds = sum(int(row["frames"] or 0) for row in rows) / FPS
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{len(films)} films: {states}; {seconds / 3600:.2f} h to use. {out / 'report.tsv'} has every film."


def prepare(
    corpus: Path, out: Path, lists: Sequence[Path] = (), *, finder: str = "face-alignment", vae: VQModel | None = None
) -> str:
    """This process's share of the films; returns the report's summary. Raises InputError."""
    films = list({one.name: one for listed in (lists or [None]) for one in utterances(corpus, listed)}.values())
    rank, processes = share()
    find = s3fd_finder(own_device()) if finder == "face-alignment" else mediapipe_finder
    assigned = films[rank::processes]
    for number, one in enumerate(assigned, start=1):
        prepare_film(one, out, find, vae)
        if number % 100 == 0:
            print(f"process {rank}: {number} of {len(assigned)} films", file=sys.stderr, flush=True)
    return write_report(out, films)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--list", type=Path, nargs="*", default=(), metavar="FILE", help="names of films; default all")
    parser.add_argument("--boxes", choices=("face-alignment", "mediapipe"), default="face-alignment")
    parser.add_argument("--vae", type=Path, metavar="DIR", help="VQ-f4: also write latents")
    args = parser.parse_args()
    try:
        vae = read_vae(args.vae) if args.vae else None
        if vae is not None:
            nn.Module.to(vae, own_device())
        print(prepare(args.corpus, args.out, args.list, finder=args.boxes, vae=vae), flush=True)
    except InputError as sentence:
        sys.exit(str(sentence))


if __name__ == "__main__":
    main()
