"""Measures of the paper's evaluation, and the scores of one redrawn film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity

from syncdiff.devices import autocast
from syncdiff.errors import InputError
from syncdiff.evaluation.metrics import SSIM
from syncdiff.evaluation.paper_drawing import Voice, drawn_mask, sound_of, write_film
from syncdiff.evaluation.paper_results import TALKLIP_PSNR, TALKLIP_SSIM
from syncdiff.evaluation.perceptual_metrics import load_inception, load_lpips
from syncdiff.faces import track_faces
from syncdiff.paper.denoiser import to_latents, to_pixels
from syncdiff.paper.frames import paste_square
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.progress import finished
from syncdiff.sync import syncnet_v2
from syncdiff.sync.scoring import correlation, lip_opening
from syncdiff.training.lrs import Film, PreparedFilm, own_device, write_whole
from syncdiff.training.prepare import decode_frames, read_frames

SIDE = 96  # px of the face box, as TalkLip scores it


# --- pictures


def faces_of(images: Sequence[np.ndarray], boxes: np.ndarray, which: np.ndarray) -> np.ndarray:
    """The face boxes [T, 4] cut out of the frames `which` [T] bool, [n, 96, 96, 3] uint8.

    Raises InputError where none is left."""
    cut = [_resized(images[int(t)], *(round(float(v)) for v in boxes[t])) for t in np.flatnonzero(which)]
    if not cut:
        raise InputError("none of its frames has a face box and was drawn.")
    return np.stack(cut)


def talklip_faces(images: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """All frames as TalkLip cuts them, [T, 96, 96, 3] uint8: whole pixels, and 96 px at the centre without a box."""
    cut = []
    for image, box in zip(images, boxes, strict=True):
        height, width = image.shape[:2]
        x, y = int((width - SIDE) / 2), int((height - SIDE) / 2)
        corners = [int(v) for v in box] if np.isfinite(box).all() else [x, y, x + SIDE, y + SIDE]
        cut.append(_resized(image, *corners))
    return np.stack(cut)


def _resized(image: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    x0, y0 = max(0, x0), max(0, y0)
    return cv2.resize(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)], (SIDE, SIDE))


def psnr(drawn: np.ndarray, truth: np.ndarray) -> float | None:
    """dB between uint8 pictures [T, ...]: the mean of the frames' own; None where all are equal."""
    errors = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(drawn, truth, strict=True)]
    decibels = [10 * np.log10(255**2 / error) for error in errors if error > 0]
    return float(np.mean(decibels)) if decibels else None


def talklip_psnr(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[T] dB with differences and squares modulo 256, as numpy has them for bytes: hardly ever below 27.9 dB. Equal
    frames count 100."""
    errors = [np.square(a - b).mean() for a, b in zip(drawn, truth, strict=True)]
    return np.array([10 * np.log10(255**2 / error) if error > 0 else 100.0 for error in errors])


def similarity(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[T] SSIM over the three colours, Gaussian of sigma 1.5, by scikit-image."""
    pairs = zip(drawn, truth, strict=True)
    return np.array([structural_similarity(a, b, channel_axis=2, **SSIM) for a, b in pairs])


# --- words


@dataclass(frozen=True)
class LipReading:
    """The caller's lip reader's transcripts of the films in RUN/matched, and of the corpus's own films."""

    reader: str
    read: dict[str, str]  # SPEAKER/CLIP, or GT/SPEAKER/CLIP for the film as it was -> words

    @classmethod
    def of(cls, spec: str) -> LipReading:
        """NAME=FILE; the file has a line a film: SPEAKER/CLIP, a tab, the words. Raises InputError.

        Lines that begin with GT/ or GT-Rec/ are of the corpus's own films and of RUN/GT-Rec."""
        name, _, file = spec.partition("=")
        if not name or not Path(file).is_file():
            raise InputError(f"--read is {spec!r}: give the lip reader's name, =, and a file of what it read.")
        if not find_spec("jiwer"):
            raise InputError("WER needs the package jiwer: pip install 'syncdiff[eval]'.")
        lines = [line.split("\t", 1) for line in Path(file).read_text().splitlines() if "\t" in line]
        return cls(name, {film.removesuffix(".mp4"): words for film, words in lines})

    def wer(self, rows: Sequence[dict], method: str) -> float | None:
        """Word error rate in percent over all films of a method that were read and whose text is known, by jiwer."""
        import jiwer  # pyright: ignore[reportMissingImports] -- of the extra [eval]

        prefix = "" if method.startswith("ours") else f"{method}/"
        pairs = [(row["text"].upper(), self.read[prefix + row["film"]].upper()) for row in rows
                 if row["text"] and prefix + row["film"] in self.read]  # fmt: skip
        return 100 * float(jiwer.wer(*map(list, zip(*pairs, strict=True)))) if pairs else None


# --- scoring


class Scorer:
    """The measures that are installed, on one device, and sentences about those that are not."""

    def __init__(self, pipe: SyncDiffPipeline, out: Path, voices: Sequence[Voice], *, lips: bool) -> None:
        self.pipe, self.out, self.lips = pipe, out, lips
        self.voices: Sequence[Voice] = voices
        device = own_device()
        self.net, lpips, inception = syncnet_v2.load(), load_lpips(device), load_inception(device)
        if self.net:
            self.net.to(device)
        self.missing = [sentence for sentence in (lpips, inception) if isinstance(sentence, str)]
        self.missing += [] if self.net else [syncnet_v2.how_to_get()]
        self.lpips = None if isinstance(lpips, str) else lpips
        self.inception = None if isinstance(inception, str) else inception

    @property
    def measures(self) -> list[str]:
        """What a film's scores hold; scores with other measures are made again."""
        installed = {"LPIPS": self.lpips, "FID": self.inception, "LSE": self.net, "lips": self.lips}
        return [*self.voices, *(name for name, there in installed.items() if there)]

    def film(self, film: PreparedFilm, stranger: PreparedFilm | None) -> tuple[list[dict], dict[str, np.ndarray]]:
        """A row for each method, and Inception's features [n, 2048] of its faces. Raises InputError."""
        record = film.read()
        decoded = record.film()
        truth, boxes, sound = decoded.images, record.boxes, decoded.sound
        path = self.out / "matched" / f"{film.name}.mp4"
        ours, mask = read_frames(path), drawn_mask(path)
        T = min(len(ours), len(truth), len(mask))
        drawn = mask[:T] & np.isfinite(boxes[:T]).all(1)
        methods = {"GT": (truth, record.utterance.video)}
        if self.pipe.vae is not None:
            reconstruction = self.out / "GT-Rec" / f"{film.name}.mp4"
            if not reconstruction.exists():
                rebuilt = self._reconstructed(decoded)
                write_whole(reconstruction, lambda p: write_film(p, rebuilt, sound))
            methods["GT-Rec"] = (read_frames(reconstruction), reconstruction)
        methods["ours"] = (ours, path)
        rows, features, real = [], {}, faces_of(truth, boxes, drawn)
        for method, (images, file) in methods.items():
            faces = faces_of(images, boxes, drawn)
            row = {"film": film.name, "method": method, "text": record.utterance.text, "frames": T}
            row["not drawn"] = int(T - drawn.sum())
            row |= {"PSNR": psnr(faces, real), "SSIM": float(similarity(faces, real).mean())}
            row["LPIPS"] = self.lpips(faces, real) if self.lpips else None
            pair = [talklip_faces(frames[:T], boxes[:T]) for frames in (images, truth)]
            row |= {TALKLIP_PSNR: talklip_psnr(*pair).tolist(), TALKLIP_SSIM: similarity(*pair).tolist()}
            row["LSE-C"], row["LSE-D"] = self._lse(file, sound)
            if self.inception:
                features[method] = self.inception(faces)
            rows.append(row)
        self._other_voices(rows[-1], film, stranger, decoded, ours)
        return rows, features

    def _other_voices(
        self, row: dict, film: PreparedFilm, stranger: PreparedFilm | None, decoded: Film, ours: list[np.ndarray]
    ) -> None:
        """Add the columns of lip openings and of the other voices to a film's row of "ours"."""
        lips = opening(decoded.images) if self.lips else None
        row["lips r"] = None if lips is None else _r(opening(ours), lips)
        if "foreign" in self.voices and stranger is not None:
            path, other = self.out / "foreign" / f"{film.name}.mp4", stranger.read()
            row["foreign LSE-C"], row["foreign LSE-D"] = self._lse(path, sound_of(other.utterance))
            if self.lips:
                row["foreign lips r"] = _r(opening(read_frames(path)), opening(read_frames(other.utterance.video)))
        if "silence" in self.voices:
            path = self.out / "silence" / f"{film.name}.mp4"
            row["silence LSE-C"], _ = self._lse(path, decoded.sound)
            row["silence lips r"] = None if lips is None else _r(opening(read_frames(path)), lips)

    @torch.inference_mode()
    def _reconstructed(self, film: Film) -> list[np.ndarray]:
        """Frames through the autoencoder and back: the topline of what its latents can show."""
        images = []
        for image, square, matrix in zip(film.images, film.frames, film.to_frame, strict=True):
            with autocast(self.pipe.vae.device):
                decoded = to_pixels(self.pipe.vae, to_latents(self.pipe.vae, square[None]))[0]
            images.append(image.copy())
            paste_square(image, decoded, matrix).apply(images[-1])
        return images

    def _lse(self, file: Path, sound: np.ndarray) -> tuple[float | None, float | None]:
        """LSE-C and LSE-D of the whole frame, from the file's own planes. None where the film is too short."""
        if self.net is None:
            return None, None
        pictures = syncnet_v2.resized(syncnet_v2.jpeg_round_trip(decode_frames(file)))
        video = np.concatenate([np.zeros((0, 1024), np.float32), *syncnet_v2.embed_video(self.net, pictures)])
        lse = syncnet_v2.lse(video, syncnet_v2.embed_audio(self.net, sound), syncnet_v2.NAMES["frame"])
        return lse.confidence, lse.distance


def opening(images: Sequence[np.ndarray]) -> np.ndarray:
    """[T] lip opening by mediapipe's points, NaN where there is no face."""
    tracks = finished(track_faces(iter(images)))
    return lip_opening(tracks[0].points) if tracks else np.full(len(images), np.nan)


def _r(drawn: np.ndarray, spoken: np.ndarray) -> float | None:
    n = min(len(drawn), len(spoken))
    return correlation(drawn[:n], spoken[:n])
