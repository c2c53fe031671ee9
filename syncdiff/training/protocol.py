"""The paper's evaluation, and what it leaves out: reached through `evaluate --protocol paper`.

    python -m syncdiff.training.evaluate LRS2 --protocol paper --list LRS2/test.txt --out RUN --weights OUT/pipeline

Every film is spoken anew three times: by its own voice, as in the paper; by another speaker's (foreign); by next to
nothing (silence), where lips that still follow the film's own voice have leaked through. The results lie in RUN and are
not made again. RUN/table.md and RUN/table.csv put the means beside the published rows, RUN/films.csv has every film.

As SyncDiff did, by every sign with TalkLip's code (docs/paper.md): PSNR and SSIM on the face box, 96x96; LSE on the
whole frame. Their PSNR is taken on unsigned bytes, which wrap around; it is given here as well, under its own name.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch

from syncdiff import lse
from syncdiff.faces import track_faces
from syncdiff.media import InputError
from syncdiff.paper import cut_frame, paste_frame, place_frames, to_latents, to_pixels
from syncdiff.pipeline import SampleOptions, SyncDiffPipeline
from syncdiff.progress import finished
from syncdiff.scores import correlation, lip_opening
from syncdiff.training.lrs import Finder, Utterance, find_boxes, utterances
from syncdiff.training.measures import ssim_of
from syncdiff.training.prepare import FPS, SAMPLE_RATE, read_frames, read_sound

SIDE = 96  # px of the face box, as TalkLip scores it
HUSH = 10 ** (-50 / 20)  # level of the noise that stands for silence: below -55 dB no voice is taken
WRAPPED = "PSNR of wrapped bytes"
COLUMNS = ("PSNR", WRAPPED, "SSIM", "LPIPS", "FID", "LSE-C", "LSE-D", "WER", "lips r",
           "foreign LSE-C", "foreign LSE-D", "foreign lips r", "silence LSE-C", "silence lips r")  # fmt: skip

# Table 1 of the paper. Its PSNR is very probably the wrapped one: 29.27 dB does not go with SadTalker's SSIM of 0.543.
_TOLD = (WRAPPED, "SSIM", "LPIPS", "LSE-C", "LSE-D", "WER")
PUBLISHED = {
    corpus: {maker: dict(zip(_TOLD, figures, strict=True)) for maker, figures in rows.items()}
    for corpus, rows in {
        "LRS2": {
            "GT": (None, 1.000, 0.000, 8.25, 6.26, 23.82),
            "GT-Rec": (35.30, 0.956, 0.022, 8.02, 6.35, 28.47),
            "Wav2Lip": (31.07, 0.859, 0.079, 7.83, 6.65, 90.67),
            "SadTalker": (29.27, 0.543, 0.109, 5.45, 8.34, 110.64),
            "TalkLip": (31.16, 0.850, 0.084, 8.53, 5.70, 23.43),
            "DiffTalk": (32.36, 0.873, 0.056, 6.11, 7.93, 114.34),
            "SyncDiff": (32.39, 0.874, 0.049, 7.80, 6.58, 67.40),
        },
        "LRS3": {
            "GT": (None, 1.000, 0.000, 7.63, 6.89, 41.04),
            "GT-Rec": (36.06, 0.958, 0.015, 7.48, 6.95, 44.44),
            "Wav2Lip": (31.04, 0.846, 0.079, 8.10, 6.68, 91.58),
            "SadTalker": (29.08, 0.641, 0.144, 5.27, 8.65, 107.13),
            "TalkLip": (31.10, 0.852, 0.084, 8.11, 6.41, 22.01),
            "DiffTalk": (31.12, 0.779, 0.076, 4.80, 9.20, 114.16),
            "SyncDiff": (32.18, 0.846, 0.058, 6.82, 7.58, 83.94),
        },
    }.items()
}


# --- pictures


def faces_of(images: list[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """The face boxes [T, 4] cut out of frames, [T', 96, 96, 3] uint8; frames without a box are left out."""
    cut = []
    for image, box in zip(images, boxes, strict=False):
        if np.isfinite(box).all():
            x0, y0, x1, y1 = (max(0, round(float(v))) for v in box)
            cut.append(cv2.resize(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)], (SIDE, SIDE)))
    return np.stack(cut)


def psnr(drawn: np.ndarray, truth: np.ndarray) -> float | None:
    """dB between uint8 pictures [T, ...]: the mean of the frames' own; None where they are equal."""
    return _mean_db([np.square(a.astype(np.float64) - b).mean() for a, b in zip(drawn, truth, strict=True)])


def wrapped_psnr(drawn: np.ndarray, truth: np.ndarray) -> float | None:
    """The same with differences and squares modulo 256: what numpy makes of bytes, never much below 27.9 dB."""
    return _mean_db([np.square(a - b).mean() for a, b in zip(drawn, truth, strict=True)])


def _mean_db(errors: list[float]) -> float | None:
    found = [10 * np.log10(255**2 / error) for error in errors if error > 0]
    return float(np.mean(found)) if found else None


def similarity(drawn: np.ndarray, truth: np.ndarray) -> float:
    """SSIM (Gaussian, sigma 1.5), the mean over the three colours and all frames."""
    pairs = [(a[..., c], b[..., c]) for a, b in zip(drawn, truth, strict=True) for c in range(3)]
    return float(np.mean([ssim_of(a, b) for a, b in pairs]))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two sets of features [N, D] taken as Gaussians (Heusel et al. 2017)."""
    both = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    (mean_a, cov_a), (mean_b, cov_b) = both
    roots = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).astype(complex)).real.sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots)


# --- other people's networks, where they are


def _missing(package: str, file: str, what: str) -> str | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if find_spec(package) and path.is_file():
        return None
    return f"{what} is not told: it needs the package {package} and {file} in {path.parent}."


def load_lpips() -> Callable[[np.ndarray, np.ndarray], float] | str:
    """LPIPS on AlexNet over pictures uint8 [T, 96, 96, 3], or what it needs."""
    if needed := _missing("lpips", "alexnet-owt-7be5be79.pth", "LPIPS"):
        return needed
    import lpips

    net = lpips.LPIPS(net="alex", verbose=False).eval()

    @torch.inference_mode()
    def distance(drawn: np.ndarray, truth: np.ndarray) -> float:
        a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (drawn, truth))
        return float(net(a, b).mean())

    return distance


def load_inception() -> Callable[[np.ndarray], np.ndarray] | str:
    """FID's features [T, 2048] of pictures uint8 [T, 96, 96, 3], or what they need."""
    if needed := _missing("pytorch_fid", "pt_inception-2015-12-05-6726825d.pth", "FID"):
        return needed
    from pytorch_fid.inception import InceptionV3

    net = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()

    @torch.inference_mode()
    def features(pictures: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255).split(32)
        return np.concatenate([net(part)[0].flatten(1).numpy() for part in parts])

    return features


# --- words


def word_errors(said: str, read: str) -> tuple[int, int]:
    """Least insertions, deletions and substitutions from what was said to what was read; words said."""
    a, b = said.upper().split(), read.upper().split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        above, row = row, [i]
        for j, other in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1], len(a)


@dataclass(frozen=True)
class LipReading:
    """What a lip reader of the caller's made of the films in RUN/matched."""

    reader: str
    read: dict[str, str]  # SPEAKER/CLIP -> words

    @classmethod
    def of(cls, spec: str) -> LipReading:
        """NAME=FILE; the file has a line a film: SPEAKER/CLIP, a tab, the words. Raises InputError."""
        name, _, file = spec.partition("=")
        if not name or not Path(file).is_file():
            raise InputError(f"--read is {spec!r}: give the lip reader's name, =, and a file of what it read.")
        lines = [line.split("\t", 1) for line in Path(file).read_text().splitlines() if "\t" in line]
        return cls(name, {film.removesuffix(".mp4"): words for film, words in lines})


# --- the films


class Bench:
    """One run: the pipeline, the scorers that are there, and what is missing."""

    def __init__(
        self, pipe: SyncDiffPipeline, out: Path, options: SampleOptions, finder: Finder, reading: LipReading | None
    ) -> None:
        self.pipe, self.out, self.options, self.finder, self.reading = pipe, out, options, finder, reading
        self.net, lpips, inception = lse.load(), load_lpips(), load_inception()
        self.missing = [said for said in (lpips, inception) if isinstance(said, str)]
        self.missing += [] if self.net else [f"LSE-C and LSE-D are not told. {lse.how_to_get()}"]
        self.missing += [] if reading else ["WER is not told: give a lip reader's words by --read NAME=FILE."]
        self.lpips = None if isinstance(lpips, str) else lpips
        self.inception = None if isinstance(inception, str) else inception
        self.features: dict[str, list[np.ndarray]] = {}

    def rows(self, films: list[Utterance]) -> Iterator[dict]:
        """A row for each film and maker; a film that cannot be drawn is named among what is missing."""
        for i, film in enumerate(films):
            others = films[i + 1 :] + films[:i]
            stranger = next((o for o in others if o.name.split("/")[0] != film.name.split("/")[0]), None)
            try:
                yield from list(self._film(film, stranger))  # all of its rows or none: the means are over one set
            except InputError as sentence:
                self.missing.append(f"{film.name} is left out: {sentence}")

    def _film(self, film: Utterance, stranger: Utterance | None) -> Iterator[dict]:
        truth, sound = read_frames(film.video), read_sound(film.video)
        if sound is None:
            raise InputError("it has no sound.")
        boxes = find_boxes(film.video, self.finder)
        own = read_frames(self._drawn("matched", film, film.video))
        about = {"film": film.name, "frames": len(truth)}
        yield about | {"maker": "GT"} | self._scored("GT", truth, truth, sound, boxes)
        if self.pipe.vae is not None:
            there_and_back = self._reconstructed(truth, boxes)
            yield about | {"maker": "GT-Rec"} | self._scored("GT-Rec", there_and_back, truth, sound, boxes)
        row = about | {"maker": "ours"} | self._scored("ours", own, truth, sound, boxes)
        lips = opening(truth)
        row["lips r"] = _r(opening(own), lips)
        if self.reading and film.text and film.name in self.reading.read:
            row["errors"], row["words"] = word_errors(film.text, self.reading.read[film.name])
        if stranger is not None:
            foreign = read_frames(self._drawn("foreign", film, stranger.video))
            row["foreign LSE-C"], row["foreign LSE-D"] = self._lse(foreign, read_sound(stranger.video))
            row["foreign lips r"] = _r(opening(foreign), opening(read_frames(stranger.video)))
        with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
            hush = _hush(Path(folder) / "hush.wav", len(truth) / FPS)
            still = read_frames(self._drawn("silence", film, hush))
        row["silence LSE-C"], _ = self._lse(still, sound)
        row["silence lips r"] = _r(opening(still), lips)
        yield row

    def _drawn(self, kind: str, film: Utterance, voice: Path) -> Path:
        path = self.out / kind / f"{film.name}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            for _ in self.pipe(film.video, voice, path, self.options):
                pass
            path.with_name(path.stem + ".source.mp4").unlink()
        return path

    def _reconstructed(self, images: list[np.ndarray], boxes: np.ndarray) -> list[np.ndarray]:
        """Frames through the autoencoder and back: the topline of what its latents can show."""
        height, width = images[0].shape[:2]
        made = []
        for image, matrix in zip(images, place_frames(boxes, np.arange(len(images)) / FPS, width, height), strict=True):
            with torch.inference_mode():
                square = to_pixels(self.pipe.vae, to_latents(self.pipe.vae, cut_frame(image, matrix)[None]))[0]
            patch, whole = paste_frame(image, square, matrix), image.copy()
            whole[patch.y : patch.y + patch.rgb.shape[0], patch.x : patch.x + patch.rgb.shape[1]] = patch.rgb
            made.append(whole)
        return made

    def _scored(
        self, maker: str, made: list[np.ndarray], truth: list[np.ndarray], sound: np.ndarray, boxes: np.ndarray
    ) -> dict:
        T = min(len(made), len(truth))
        drawn, real = faces_of(made[:T], boxes[:T]), faces_of(truth[:T], boxes[:T])
        if self.inception:
            self.features.setdefault(maker, []).append(self.inception(drawn))
        row = {"PSNR": psnr(drawn, real), WRAPPED: wrapped_psnr(drawn, real), "SSIM": similarity(drawn, real)}
        row["LPIPS"] = self.lpips(drawn, real) if self.lpips else None
        row["LSE-C"], row["LSE-D"] = self._lse(made, sound)
        return row

    def _lse(self, images: list[np.ndarray], sound: np.ndarray | None) -> tuple[float | None, float | None]:
        if self.net is None or sound is None:
            return None, None
        seen = [*lse.see(self.net, lse.squashed(lse.jpegs(images)))]
        told = lse.lse(np.concatenate(seen), lse.hear(self.net, sound), lse.NAMES["frame"])
        return told.confidence, told.distance

    def fid(self, maker: str) -> float | None:
        if self.inception is None or maker == "GT":
            return None
        return frechet(np.concatenate(self.features[maker]), np.concatenate(self.features["GT"]))


def opening(images: list[np.ndarray]) -> np.ndarray:
    """[T] lip opening by mediapipe's points, NaN where there is no face."""
    tracks = finished(track_faces(iter(images)))
    return lip_opening(tracks[0].points) if tracks else np.full(len(images), np.nan)


def _r(made: np.ndarray, spoken: np.ndarray) -> float | None:
    n = min(len(made), len(spoken))
    both = np.isfinite(made[:n]) & np.isfinite(spoken[:n])
    return correlation(made[:n][both], spoken[:n][both]) if both.sum() > 2 else None


def _hush(path: Path, seconds: float) -> Path:
    noise = np.random.default_rng(0).normal(0, HUSH * 32_768, round(seconds * SAMPLE_RATE)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(SAMPLE_RATE)
        file.writeframes(noise.tobytes())
    return path


# --- the table


def means(bench: Bench, rows: list[dict]) -> dict[str, dict[str, float | None]]:
    """Per maker the mean of every column over its films; FID and WER over all of them together."""
    told = {}
    for maker in dict.fromkeys(row["maker"] for row in rows):
        here = [row for row in rows if row["maker"] == maker]
        known = {c: [row[c] for row in here if row.get(c) is not None] for c in COLUMNS}
        told[maker] = {c: float(np.mean(values)) if values else None for c, values in known.items()}
        words = sum(row.get("words", 0) for row in here)
        told[maker]["WER"] = 100 * sum(row.get("errors", 0) for row in here) / words if words else None
        told[maker]["FID"] = bench.fid(maker)
    return told


def table(told: dict[str, dict[str, float | None]], corpus: str) -> list[list[str]]:
    """Head and rows, ours first, then Table 1; "-" where nothing is known."""
    rows = [["maker", *COLUMNS]]
    published = {f"{maker} (published, {corpus})": figures for maker, figures in PUBLISHED[corpus].items()}
    for maker, figures in (told | published).items():
        known = [figures.get(column) for column in COLUMNS]
        rows.append([maker, *("-" if value is None else f"{value:.3f}" for value in known)])
    return rows


def markdown(rows: list[list[str]], missing: list[str]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join([*lines, "", *missing])


def evaluate_as_published(
    pipe: SyncDiffPipeline,
    data: Path,
    out: Path,
    options: SampleOptions,
    *,
    listed: Path | None = None,
    corpus: str = "LRS2",
    limit: int | None = None,
    finder: Finder = "face-alignment",
    read: str | None = None,
) -> str:
    """The whole run; returns the Markdown table, which also lies in `out`. Raises InputError."""
    bench = Bench(pipe, out, options, finder, LipReading.of(read) if read else None)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in bench.rows(utterances(data, listed)[:limit]):
        rows.append(row)
        print(f"{row['film']} {row['maker']}", file=sys.stderr, flush=True)
    if not rows:
        raise InputError(f"No film of {data} could be evaluated. {' '.join(bench.missing)}")
    with (out / "films.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader(), writer.writerows(rows)
    whole = table(means(bench, rows), corpus)
    with (out / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(whole)
    (out / "table.md").write_text(markdown(whole, bench.missing) + "\n")
    return markdown(whole, bench.missing)
