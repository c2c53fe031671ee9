"""The paper's evaluation, and what it leaves out: reached through `evaluate --protocol paper`.

    python -m syncdiff.evaluation.evaluate LRS2 --protocol paper --list LRS2/test.txt --out RUN --weights OUT/pipeline

Every film is spoken anew three times: by its own voice, as in the paper; by another speaker's (foreign); by next to
nothing (silence), where lips that still follow the film's own voice have leaked through. The results lie in RUN and are
not made again. RUN/table.md and RUN/table.csv put the means beside the published rows, RUN/films.csv has every film.
A film that fails anywhere counts for no row, so that all means are over the same films.

As SyncDiff did, by every sign with TalkLip's code (docs/paper.md): PSNR and SSIM on the face box, 96x96; LSE on the
whole frame. Their PSNR is taken on unsigned bytes, which wrap around; it is given here as well, under its own name.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.evaluation.metrics import ssim_of
from syncdiff.evaluation.paper_results import WRAPPED, Corpus, Table, published
from syncdiff.evaluation.perceptual_metrics import load_inception, load_lpips
from syncdiff.faces import track_faces
from syncdiff.job import Job
from syncdiff.options import SampleOptions
from syncdiff.paper import cut_frame, paste_frame, place_frames, to_latents, to_pixels
from syncdiff.progress import finished
from syncdiff.sync import syncnet_v2
from syncdiff.sync.scoring import correlation, lip_opening
from syncdiff.training.lrs import Finder, Utterance, find_boxes, utterances
from syncdiff.training.prepare import FPS, read_frames, read_sound

SIDE = 96  # px of the face box, as TalkLip scores it
HUSH = 10 ** (-50 / 20)  # level of the noise that stands for silence: below -55 dB no voice is taken
COLUMNS = ("films", "PSNR", WRAPPED, "SSIM", "LPIPS", "FID", "LSE-C", "LSE-D", "WER", "lips r",
           "foreign LSE-C", "foreign LSE-D", "foreign lips r", "silence LSE-C", "silence lips r")  # fmt: skip


# --- pictures


def faces_of(images: list[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """The face boxes [T, 4] cut out of frames, [T', 96, 96, 3] uint8; frames without a box are left out.

    Raises InputError where no frame has one."""
    cut = []
    for image, box in zip(images, boxes, strict=False):
        if np.isfinite(box).all():
            x0, y0, x1, y1 = (max(0, round(float(v))) for v in box)
            cut.append(cv2.resize(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)], (SIDE, SIDE)))
    if not cut:
        raise InputError("none of its frames has a face box.")
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
    """What a lip reader of the caller's made of the films in RUN/matched, and of the corpus's own films."""

    reader: str
    read: dict[str, str]  # SPEAKER/CLIP, or GT/SPEAKER/CLIP for the film as it was -> words

    @classmethod
    def of(cls, spec: str) -> LipReading:
        """NAME=FILE; the file has a line a film: SPEAKER/CLIP, a tab, the words. Raises InputError.

        Lines that begin with GT/ are of the corpus's own films: their errors are the reader's."""
        name, _, file = spec.partition("=")
        if not name or not Path(file).is_file():
            raise InputError(f"--read is {spec!r}: give the lip reader's name, =, and a file of what it read.")
        lines = [line.split("\t", 1) for line in Path(file).read_text().splitlines() if "\t" in line]
        return cls(name, {film.removesuffix(".mp4"): words for film, words in lines})

    def errors(self, film: Utterance, maker: str) -> dict[str, int]:
        """Errors and words, where maker's film was read and its text is known; else nothing."""
        read = self.read.get({"ours": "", "GT": "GT/"}.get(maker, f"{maker}/") + film.name)
        if read is None or not film.text:
            return {}
        errors, words = word_errors(film.text, read)
        return {"errors": errors, "words": words}


# --- the films


class Bench:
    """One run: the job, the scorers that are there, and what is missing."""

    def __init__(
        self, job: Job, out: Path, options: SampleOptions, finder: Finder, reading: LipReading | None
    ) -> None:
        self.job, self.out, self.options, self.finder, self.reading = job, out, options, finder, reading
        self.net, lpips, inception = syncnet_v2.load(), load_lpips(), load_inception()
        self.missing = [said for said in (lpips, inception) if isinstance(said, str)]
        self.missing += [] if self.net else [f"LSE-C and LSE-D are not told. {syncnet_v2.how_to_get()}"]
        known = f"WER is of {reading.reader}." if reading else "WER is not told: give a lip reader's words by --read."
        self.missing.append(known)
        self.lpips = None if isinstance(lpips, str) else lpips
        self.inception = None if isinstance(inception, str) else inception
        self.features: dict[str, list[np.ndarray]] = {}

    def rows(self, films: list[Utterance]) -> Iterator[dict]:
        """A row for each film and maker; a film that cannot be drawn is named among what is missing."""
        for i, film in enumerate(films):
            others = films[i + 1 :] + films[:i]
            stranger = next((o for o in others if o.name.split("/")[0] != film.name.split("/")[0]), None)
            seen: dict[str, np.ndarray] = {}  # features of its faces, a maker
            try:
                rows = list(self._film(film, stranger, seen))
            except InputError as sentence:
                self.missing.append(f"{film.name} is left out: {sentence}")
                continue
            for maker, features in seen.items():
                self.features.setdefault(maker, []).append(features)
            yield from rows

    def _film(self, film: Utterance, stranger: Utterance | None, seen: dict[str, np.ndarray]) -> Iterator[dict]:
        truth, sound = read_frames(film.video), read_sound(film.video)
        if sound is None:
            raise InputError("it has no sound.")
        boxes = find_boxes(film.video, self.finder)
        makers = {"GT": truth}
        if self.job.pipe.vae is not None:
            makers["GT-Rec"] = self._reconstructed(truth, boxes)
        makers["ours"] = own = read_frames(self._drawn("matched", film, film.video))
        rows = {}
        for maker, images in makers.items():
            rows[maker] = {"film": film.name, "frames": len(truth), "maker": maker}
            rows[maker] |= self._scored(maker, images, truth, sound, boxes, seen)
            rows[maker] |= self.reading.errors(film, maker) if self.reading else {}
        row, lips = rows["ours"], opening(truth)
        row["lips r"] = _r(opening(own), lips)
        if stranger is not None:
            foreign = read_frames(self._drawn("foreign", film, stranger.video))
            row["foreign LSE-C"], row["foreign LSE-D"] = self._lse(foreign, read_sound(stranger.video))
            row["foreign lips r"] = _r(opening(foreign), opening(read_frames(stranger.video)))
        with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
            hush = _hush(Path(folder) / "hush.wav", len(truth) / FPS)
            still = read_frames(self._drawn("silence", film, hush))
        row["silence LSE-C"], _ = self._lse(still, sound)
        row["silence lips r"] = _r(opening(still), lips)
        yield from rows.values()

    def _drawn(self, kind: str, film: Utterance, voice: Path) -> Path:
        path = self.out / kind / f"{film.name}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}")  # a run that is killed leaves no half film to be scored
            for _ in self.job(film.video, voice, part, self.options):
                pass
            part.with_name(part.stem + ".source.mp4").unlink()
            part.replace(path)
        return path

    def _reconstructed(self, images: list[np.ndarray], boxes: np.ndarray) -> list[np.ndarray]:
        """Frames through the autoencoder and back: the topline of what its latents can show."""
        height, width = images[0].shape[:2]
        made = []
        for image, matrix in zip(images, place_frames(boxes, np.arange(len(images)) / FPS, width, height), strict=True):
            with torch.inference_mode():
                vae = self.job.pipe.vae
                square = to_pixels(vae, to_latents(vae, cut_frame(image, matrix)[None]))[0]
            patch, whole = paste_frame(image, square, matrix), image.copy()
            patch.apply(whole)
            made.append(whole)
        return made

    def _scored(
        self,
        maker: str,
        made: list[np.ndarray],
        truth: list[np.ndarray],
        sound: np.ndarray,
        boxes: np.ndarray,
        seen: dict[str, np.ndarray],
    ) -> dict:
        T = min(len(made), len(truth))
        drawn, real = faces_of(made[:T], boxes[:T]), faces_of(truth[:T], boxes[:T])
        if self.inception:
            seen[maker] = self.inception(drawn)
        row = {"PSNR": psnr(drawn, real), WRAPPED: wrapped_psnr(drawn, real), "SSIM": similarity(drawn, real)}
        row["LPIPS"] = self.lpips(drawn, real) if self.lpips else None
        row["LSE-C"], row["LSE-D"] = self._lse(made, sound)
        return row

    def _lse(self, images: list[np.ndarray], sound: np.ndarray | None) -> tuple[float | None, float | None]:
        if self.net is None or sound is None:
            return None, None
        seen = [
            np.zeros((0, 1024)),
            *syncnet_v2.see(self.net, syncnet_v2.squashed(syncnet_v2.jpegs(images))),
        ]  # a film may be too short
        told = syncnet_v2.lse(np.concatenate(seen), syncnet_v2.hear(self.net, sound), syncnet_v2.NAMES["frame"])
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


def means(bench: Bench, rows: list[dict]) -> Rows:
    """Per maker the mean of every column over its films; FID and WER over all of them together."""
    told = {}
    for maker in dict.fromkeys(row["maker"] for row in rows):
        here = [row for row in rows if row["maker"] == maker]
        known = {c: [row[c] for row in here if row.get(c) is not None] for c in COLUMNS}
        told[maker] = {c: float(np.mean(values)) if values else None for c, values in known.items()}
        told[maker]["films"] = len(here)
        words = sum(row.get("words", 0) for row in here)
        told[maker]["WER"] = 100 * sum(row.get("errors", 0) for row in here) / words if words else None
        told[maker]["FID"] = bench.fid(maker)
    return told


Rows = dict[str, dict[str, float | None]]  # figures by column, by maker


def table(told: Rows, beside: Rows, columns: Sequence[str] = COLUMNS) -> list[list[str]]:
    """Head and rows, ours first, then the published; "-" where nothing is known."""
    rows = [["maker", *columns]]
    for maker, figures in (told | beside).items():
        known = {column: figures.get(column) for column in columns}
        cells = ["-" if value is None else f"{value:{'.0f' if c == 'films' else '.3f'}}" for c, value in known.items()]
        rows.append([maker, *cells])
    return rows


def other_run(folder: Path, name: str = "table", columns: Sequence[str] = COLUMNS) -> Rows:
    """Our row of another run's table, by the name of its folder. Raises InputError where there is none."""
    try:
        with (folder / f"{name}.csv").open(newline="") as file:
            (row,) = [row for row in csv.DictReader(file) if row["maker"] == "ours"]
        return {f"ours, {folder.name}": {c: None if row[c] == "-" else float(row[c]) for c in columns}}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no table of a run: give an earlier run's --out.") from error


def write_table(out: Path, name: str, rows: list[list[str]], missing: list[str]) -> str:
    """OUT/NAME.csv, and in OUT/NAME.md the same as Markdown with a line for all that is missing; returns the latter."""
    with (out / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    told = "\n".join([*lines, "", *missing])
    (out / f"{name}.md").write_text(told + "\n")
    return told


def evaluate_as_published(
    job: Job,
    data: Path,
    out: Path,
    options: SampleOptions,
    *,
    listed: Path | None = None,
    corpus: Corpus = "LRS2",
    number: Table = "1",
    others: Sequence[Path] = (),
    limit: int | None = None,
    finder: Finder = "face-alignment",
    read: str | None = None,
) -> str:
    """The whole run; returns the Markdown table, which also lies in `out`. Raises InputError.

    Args:
        corpus: whose published rows stand beside.
        number: of the paper's table that they are from.
        others: folders of earlier runs, with other weights, whose rows stand beside too.
    """
    beside = {name: row for folder in others for name, row in other_run(folder).items()}
    beside |= {f"{row} (published, {corpus})": figures for row, figures in published(number, corpus).items()}
    bench = Bench(job, out, options, finder, LipReading.of(read) if read else None)
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
    return write_table(out, "table", table(means(bench, rows), beside), bench.missing)
