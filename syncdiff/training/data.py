"""Prepared clips as records, and random batches of frames with their conditioning.

Crops stay uint8 in one memory-mapped file a set; sound stays int16. `load_batches` makes batches in processes.
`split_of` halves the people: a network inside the denoiser's losses trains on the half "generator", the judge on the
other half, so that nothing is judged by what trained it.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from syncdiff.audio import SAMPLE_RATE
from syncdiff.conditioning import BuildInputs, FrameInputs, condition, warped_inputs
from syncdiff.devices import usable_cores
from syncdiff.errors import InputError
from syncdiff.geometry.crops import WINDOW, S
from syncdiff.geometry.moments import moment_costs
from syncdiff.geometry.mouth_shape import SHAPE, lip_shape
from syncdiff.geometry.reference import UPRIGHT, FaceView, interior_of
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning
from syncdiff.progress import mapped
from syncdiff.sync.scoring import lip_opening, lip_width
from syncdiff.training.prepare import FPS, INNER_LIPS, KEPT, OUTER_LIPS

LIPS = len(OUTER_LIPS) + len(INNER_LIPS)  # the first 40 kept points
CROPS = "crops.npy"  # in a set's folder: the decoded frames of its clips

CHAIN = 16  # frames of a chain, in which the previous frame is the network's own: as a lane of the sampler
LIPS_NOISE = 0.4  # px, standard deviation, on the input lip shapes: in use they are a forecast
JAW_GAP = (2, 11)  # frames to the one whose jaw the reference has: in use the frame's own, which would leak the target
MOMENTS = 8  # candidates, of which the best is warped, as in use
TWO_MOMENTS = 0.3  # probability that the two best are mixed, as at a hand-over
INTERIOR = 0.1  # probability that an open mouth is made of the most closed moment and the drawn interior
MIN_OPEN_GAP = 3.0  # px of lip gap from which on that may happen
WIDEST_OF_THREE = 0.3  # probability that the widest open of three frames is drawn: open mouths are rare

# Records of a set -> a function of (clip, frame, rng) that returns the speech tokens [K, D] there.
TokenSource = Callable[["list[ClipRecord]"], Callable[[int, int, np.random.Generator], np.ndarray]]


def split_of(identity: str) -> Literal["generator", "judge"]:
    """The half of the corpus that this person belongs to; stable over machines and runs."""
    return ("generator", "judge")[zlib.crc32(identity.encode()) % 2]


@dataclass(frozen=True)
class ClipRecord:
    """One prepared clip: where it is and everything about it but its pixels."""

    set: str
    name: str
    identity: str
    sound: np.ndarray  # [N] int16 at 16 kHz, from the first frame on
    points: Any  # [T, 45, 2] float32 crop pixels, order KEPT; None in a set of sound only
    visemes: np.ndarray | None  # [T, 15] float32
    good: Any  # [T] bool; None in a set of sound only

    def __len__(self) -> int:
        """Video frames, or as many as the sound would fill."""
        return len(self.points) if self.points is not None else len(self.sound) * FPS // SAMPLE_RATE

    @property
    def samples(self) -> np.ndarray:
        """[N] float32 at 16 kHz, -1..1: the sound."""
        return self.sound / np.float32(32768)

    @cached_property
    def shape(self) -> np.ndarray:
        """[T, SHAPE] lip shape in crop pixels (see `syncdiff.geometry.mouth_shape`)."""
        return lip_shape(self.face(slice(None)))

    def face(self, frames: int | slice) -> np.ndarray:
        """Landmarks [..., 478, 2] in crop pixels, in FaceMesh's places; NaN where they were not kept."""
        face = np.full((*self.points[frames].shape[:-2], 478, 2), np.nan, np.float32)
        face[..., KEPT, :] = self.points[frames]
        return face

    @cached_property
    def opening(self) -> np.ndarray:
        """[T] inner lip gap over the distance of the outer eye corners."""
        return lip_opening(self.face(slice(None)))

    @cached_property
    def width(self) -> np.ndarray:
        """[T] distance of the lip corners over that of the outer eye corners."""
        return lip_width(self.face(slice(None)))


def people_in(folder: Path) -> dict[Path, str]:
    """Path -> identity of a prepared set's records, sorted by name; the clip's name where identities.tsv has none."""
    identities = {}
    if (folder / "identities.tsv").exists():
        with (folder / "identities.tsv").open(newline="") as file:
            identities = {row["clip"]: row["identity"] for row in csv.DictReader(file, delimiter="\t")}
    records = (path for path in sorted(folder.glob("*.npz")) if ".partial" not in path.name)
    return {path: identities.get(path.stem, path.stem) for path in records}


def load_set(root: Path, name: str) -> list[ClipRecord]:
    """Every prepared clip of a set, sorted by name."""
    records = []
    for path, who in people_in(root / name).items():
        with np.load(path) as file:
            points, visemes = (file[k].astype(np.float32) if k in file else None for k in ("points", "visemes"))
            good = file.get("good")
            records.append(ClipRecord(name, path.stem, who, file["sound"], points, visemes, good))
    return records


def load_crops(root: Path, records: Sequence[ClipRecord]) -> tuple[np.ndarray, np.ndarray]:
    """All crops of one set's clips end to end, [sum T, S, S, 3] uint8 memory-mapped, and their starts [clips + 1].

    Decoded once into `root/SET/crops.npy`; made again when the clips have changed.
    """
    starts = np.concatenate([[0], np.cumsum([len(r) for r in records])]).astype(np.int64)
    target = root / records[0].set / CROPS
    if not target.exists() or np.load(target, mmap_mode="r").shape[0] != starts[-1]:
        partial = target.with_suffix(".partial.npy")
        pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (int(starts[-1]), S, S, 3))

        def decode(clip: tuple[ClipRecord, int]) -> None:
            record, start = clip
            film = cv2.VideoCapture(str(root / record.set / f"{record.name}.mp4"))  # bit for bit as PyAV decodes it
            for i in range(len(record)):
                read, frame = film.read()
                if not read:
                    raise InputError(f"{root / record.set / record.name}.mp4 has {i} frames; expected {len(record)}.")
                pixels[start + i] = frame[..., ::-1]

        for _ in mapped(decode, zip(records, starts.tolist(), strict=False), usable_cores()):
            pass
        pixels.flush()
        partial.rename(target)
    return np.load(target, mmap_mode="r"), starts


class ArrayFile:
    """A .npy file, memory-mapped where it is read: a copy of this in another process maps it anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def array(self) -> np.ndarray:
        """Of the file's shape."""
        return np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}


@dataclass(frozen=True)
class FaceBatch:
    """Frames with their conditioning; all three pictures of a row are augmented alike."""

    clean: np.ndarray  # [B, 80, 96, 3] uint8 window px, as the next two
    reference: np.ndarray
    previous: np.ndarray
    landmarks: np.ndarray  # [B, 40, 2] float32 window px
    lip_shapes: np.ndarray  # [B, 2, SHAPE] float32 window px: the target shape and the reference's own
    blend_mask: np.ndarray  # [B, 80, 96] float32
    speech: np.ndarray  # [B, K, D] float32

    def encoded(self, device: torch.device | str = "cpu") -> tuple[Tensor, Conditioning]:
        """Clean latents [B, C, h, w], and their conditioning; pixels are encoded on the device."""
        columns = (self.clean, self.reference, self.blend_mask, self.lip_shapes)
        inputs = [FrameInputs(*row) for row in zip(*columns, strict=True)]
        clean, previous = (
            pixel_codec.encode(torch.from_numpy(pixels).to(device)) for pixels in (self.clean, self.previous)
        )
        return clean, condition(inputs, previous, torch.from_numpy(self.speech))


class TalkingFaces:
    """Endless random batches of frames with their conditioning."""

    def __init__(
        self,
        root: Path,
        share: dict[str, float],
        token_source: TokenSource,
        *,
        split: str | None = None,
        gap: int = 15,
        build: BuildInputs = warped_inputs,
    ) -> None:
        self.root, self.gap, self.rows, self.build, self.split = root, gap, {}, build, split
        self.share = share
        for name in share:
            records = load_set(root, name)
            _, starts = load_crops(root, records)
            crops = ArrayFile(root / name / CROPS)
            # A clip that lost its face in a frame has NaN landmarks there: one such row ends a run in NaN.
            usable = [
                i
                for i, r in enumerate(records)
                if (split is None or split_of(r.identity) == split) and np.isfinite(r.points).all()
            ]
            if not usable:
                raise ValueError(f"set {name!r} has no clips of the {split or 'whole'} half in {root}")
            people: dict[str, list[int]] = {}
            for i in usable:
                people.setdefault(records[i].identity, []).append(i)
            self.rows[name] = (records, crops, starts, list(people.values()), token_source(records))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process reads the records itself: processes that wait for 100 MB start one by one."""
        tokens = {name: row[-1] for name, row in self.rows.items()}
        return _unpickle, (self.root, self.share, tokens, {"split": self.split, "gap": self.gap, "build": self.build})

    def batch(self, size: int, rng: np.random.Generator) -> FaceBatch:
        """Random frames of random clips."""
        return _stack(self._random_rows(size, rng))

    def seeded(self, size: int, seed: int, number: int) -> FaceBatch:
        """Batch `number` of random frames."""
        return self.batch(size, np.random.default_rng([seed, number]))

    def mixed(self, size: int, chained: int, seed: int, number: int) -> FaceBatch:
        """Batch `number`: random frames, but each of the first `chained` rows follows that row of the batch before.

        For CHAIN batches such a row shows successive frames of one clip, augmented alike.
        """
        rows = []
        for lane in range(chained):
            chain, link = chain_link(lane, number)
            rng = np.random.default_rng([seed, 1 + chain, lane])
            name = str(rng.choice(list(self.share), p=list(self.share.values())))
            rows.append(self._row(name, rng, link))
        return _stack(rows + self._random_rows(size - chained, np.random.default_rng([seed, number])))

    def _random_rows(self, size: int, rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
        names = rng.choice(list(self.share), size, p=list(self.share.values()))
        return [self._row(str(name), rng) for name in names]

    def _row(self, name: str, rng: np.random.Generator, link: int | None = None) -> tuple[np.ndarray, ...]:
        records, crops, starts, people, tokens = self.rows[name]
        pixels = crops.array
        clip = int(rng.choice(people[rng.integers(len(people))]))  # by person: who was filmed longest counts no more
        record, start = records[clip], int(starts[clip])
        if link is None:
            t = rng.integers(1, len(record), 3 if rng.random() < WIDEST_OF_THREE else 1)
            t = int(t[record.shape[t, 0].argmax()])
        else:
            t = min(int(rng.integers(1, max(2, len(record) - CHAIN))) + link, len(record) - 1)
        first = t - (link or 0)  # the identity frame of a chain stays the same
        far = np.flatnonzero(np.abs(np.arange(len(record)) - first) >= min(self.gap, len(record) // 3))
        moments = rng.choice(far, MOMENTS)
        jaw = int(np.clip(t + rng.choice([-1, 1]) * rng.integers(*JAW_GAP), 0, len(record) - 1))
        shapes = record.shape[[t, *moments]] + rng.normal(0, LIPS_NOISE, (1 + MOMENTS, SHAPE)).astype(np.float32)
        shapes = np.maximum(shapes, 0)
        order = moment_costs(shapes[:1], np.zeros(1), shapes[1:], np.zeros(MOMENTS))[0].argsort(kind="stable")
        share = float(rng.choice([0.5, 0.75])) if rng.random() < TWO_MOMENTS else 1.0
        interior = None
        if shapes[0, 0] > MIN_OPEN_GAP and rng.random() < INTERIOR:
            order[0], share = shapes[1:, 0].argmin(), 1.0
            closed = FaceView(pixels[start + moments[order[0]]], UPRIGHT, record.face(moments[order[0]]))
            interior = interior_of(closed, shapes[1 + order[0]]), 1.0
        shares = np.array([share, 1 - share], np.float32)
        lip_shapes = np.stack([shapes[0], shares @ shapes[1 + order[:2]]])
        face = {i: FaceView(pixels[start + i], UPRIGHT, record.face(i)) for i in (t, jaw, *moments)}
        mouths = [(face[moments[k]], float(s)) for k, s in zip(order[:2], shares, strict=True)]
        mouths.append((face[moments[shapes[1:, 0].argmax()]], 0.0))
        inputs = self.build(face[t], mouths, lip_shapes, face[jaw], interior)
        matrix = _wobble(rng)
        frames = (inputs.crop, inputs.reference, pixels[start + t - 1])
        windows = _degrade(np.stack([_warp(f, matrix)[WINDOW] for f in frames]), rng)
        blend_mask = _warp(inputs.blend_mask, matrix)[WINDOW]
        corner = WINDOW[1].start, WINDOW[0].start
        landmarks = (record.points[t, :LIPS] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T - corner
        if rng.random() < 0.5:  # mirrored
            windows, blend_mask = windows[:, :, ::-1], blend_mask[:, ::-1]
            landmarks = np.stack([windows.shape[2] - 1 - landmarks[:, 0], landmarks[:, 1]], 1)[_MIRROR]
        lip_shapes = inputs.lip_shapes / np.sqrt(np.linalg.det(matrix[:, :2]))
        return *windows, landmarks.astype(np.float32), lip_shapes.astype(np.float32), blend_mask, tokens(clip, t, rng)


def _unpickle(root: Path, share: dict[str, float], tokens: dict[str, Any], options: dict[str, Any]) -> TalkingFaces:
    return TalkingFaces(root, share, lambda records: tokens[records[0].set], **options)


class _Numbered(Dataset):
    """Item `number` is the batch that a function makes of its number."""

    def __init__(self, make: Callable[[int], FaceBatch]) -> None:
        self.make = make

    def __getitem__(self, number: int) -> FaceBatch:
        return self.make(number)


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(1)  # as torch's own in a worker


def load_batches(make: Callable[[int], FaceBatch], numbers: range, workers: int) -> Generator[FaceBatch, None, None]:
    """The batches of these numbers in turn, made in so many processes; with 0, in this one."""
    loader = DataLoader(
        _Numbered(make), batch_size=None, sampler=numbers, num_workers=workers, worker_init_fn=_one_thread,
        multiprocessing_context="spawn" if workers else None, generator=torch.Generator(),
    )  # fmt: skip
    yield from loader


def chain_link(lane: int, number: int) -> tuple[int, int]:
    """The chain that row `lane` of batch `number` belongs to, and its frame in it; rows begin at different batches."""
    return divmod(number + 5 * lane, CHAIN)


def _stack(rows: list[tuple[np.ndarray, ...]]) -> FaceBatch:
    return FaceBatch(*(np.stack(column) for column in zip(*rows, strict=True)))


def _wobble(rng: np.random.Generator) -> np.ndarray:
    """A small random similarity transform, crop -> crop: alignment is never perfect."""
    angle, scale = np.radians(rng.normal(0, 2)), np.exp(rng.normal(0, 0.03))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    middle, shift = np.array([S / 2, 88.0]), rng.normal(0, 1.5, 2)
    rotation = np.array([[c, -s], [s, c]])
    return np.concatenate([rotation, (middle + shift - rotation @ middle)[:, None]], 1)


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(
        image, matrix, (S, S), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def _degrade(windows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, colour, blur and compression, the same for all pictures of a row. uint8 in and out."""
    x = windows.astype(np.float32)
    x = x * rng.normal(1, 0.05, 3) * np.exp(rng.normal(0, 0.15)) + rng.normal(0, 8)
    x = (x - x.mean()) * np.exp(rng.normal(0, 0.12)) + x.mean()
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * np.clip(np.exp(rng.normal(0, 0.2)), 0, 1.6)
    x = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        sigma = rng.uniform(0.3, 1.0)
        x = np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in x])
    if rng.random() < 0.2:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))]
        x = np.stack([cv2.imdecode(cv2.imencode(".jpg", p, quality)[1], cv2.IMREAD_COLOR) for p in x])
    return x


def _mirror() -> np.ndarray:
    """[LIPS] the index of every lip landmark's mirror image.

    Both rings of 20 begin at the right corner of the mouth and reach the left one half way."""
    size = len(OUTER_LIPS)
    ring = (size // 2 - np.arange(size)) % size
    return np.concatenate([ring, size + ring])


_MIRROR = _mirror()
