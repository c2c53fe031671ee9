"""The paper's evaluation, with foreign voices and silence beside it: `evaluate --protocol paper`.

    python -m syncdiff.training.prepare_lrs LRS2 PREPARED --list LRS2/test.txt
    python -m syncdiff.evaluation.evaluate PREPARED --protocol paper --list LRS2/test.txt --out RUN --weights WEIGHTS

Every film is redrawn to its own voice, as in the paper, in batches of --batch films. --voices adds another speaker's
(foreign) and near silence: lips that still follow the film's own voice then have leaked through. Started with
`torchrun --nproc_per_node N -m ...`, N processes share the films, each on a GPU of its own, and the last one to end
writes the table. What is drawn and scored lies in RUN and is not made again. RUN/table.md and RUN/table.csv put the
means beside the published rows, RUN/films.csv has every film.

Pictures are scored in the frames that were drawn; frames that passed through undrawn, where no face was found, are
counted, and the table has a second row for the films drawn throughout. A film that fails counts in no row, so all means
are over the same films. PSNR, SSIM and LPIPS are means over films of means over frames, on the face box at 96x96.
"as TalkLip" follows that code instead, which SyncDiff very probably used (docs/paper.md): all frames of all films in
one mean, equal frames count 100 dB, a frame without a box gives its centre, and squares of bytes wrap around.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from syncdiff.errors import InputError
from syncdiff.evaluation.paper_drawing import Task, Voice, draw_by_job, draw_together, estimate
from syncdiff.evaluation.paper_results import TALKLIP_PSNR, TALKLIP_SSIM, Corpus, Table, published
from syncdiff.evaluation.paper_scores import LipReading, Scorer
from syncdiff.evaluation.perceptual_metrics import frechet_distance
from syncdiff.evaluation.reports import markdown, write_csv
from syncdiff.job import Job
from syncdiff.options import SampleOptions
from syncdiff.training.lrs import UNREADABLE, PreparedFilm, prepared, share, write_whole

COLUMNS = ("films", "frames", "not drawn", "PSNR", "SSIM", "LPIPS", "FID", "LSE-C", "LSE-D", "WER", TALKLIP_PSNR,
           TALKLIP_SSIM, "lips r", "foreign LSE-C", "foreign LSE-D", "foreign lips r", "silence LSE-C",
           "silence lips r")  # fmt: skip
WHOLE = ("films", "frames", "not drawn")  # columns of whole numbers
Rows = dict[str, dict[str, float | None]]  # figures by column, by method


class Evaluation:
    """One process's share of an evaluation, and the table over what all processes have scored so far."""

    def __init__(self, job: Job, out: Path, films: list[PreparedFilm], options: SampleOptions, scorer: Scorer) -> None:
        self.job, self.out, self.films, self.options, self.scorer = job, out, films, options, scorer
        rank, processes = share()
        self.assigned = films[rank::processes]  # of this process

    def stranger(self, film: PreparedFilm) -> PreparedFilm | None:
        """The next film of another speaker."""
        at = self.films.index(film)
        others = self.films[at + 1 :] + self.films[:at]
        return next((one for one in others if _speaker(one) != _speaker(film)), None)

    def draw(self, batch: int) -> None:
        """Draw those of this process's films that are not drawn yet; an estimate of the time is printed first."""
        tasks = self._tasks()
        if not tasks:
            return
        paper = self.job.pipe.profile == "paper"
        work = f"{len(tasks)} films, {sum(frames for _, frames in tasks)} frames, {self.options.steps} steps each"
        if paper:
            hours = estimate(self.job.pipe, [frames for _, frames in tasks], batch, self.options.steps)
            work += f": about {hours:.2f} hours of drawing in this process"
        print(work, file=sys.stderr, flush=True)
        for start in range(0, len(tasks), batch):
            part = [task for task, _ in tasks[start : start + batch]]
            if paper:
                failed = draw_together(self.job.pipe, part, self.options)
            else:
                failed = {name: why for task in part for name, why in draw_by_job(self.job, task, self.options).items()}
            for name, why in failed.items():
                self._write(name, {"left out": why})
            print(f"drawn: {min(start + batch, len(tasks))} of {len(tasks)}", file=sys.stderr, flush=True)

    def _tasks(self) -> list[tuple[Task, int]]:
        """What is to be drawn, each with its film's number of frames, shortest first."""
        tasks: list[tuple[Task, int]] = []
        for film in self.assigned:
            paths: dict[Voice, Path] = {voice: self.out / voice / f"{film.name}.mp4" for voice in self.scorer.voices}
            missing: list[Voice] = [voice for voice, path in paths.items() if not path.exists()]
            if not missing or "left out" in (self._read(film) or {}):
                continue
            try:
                frames = len(film.read().boxes)
            except InputError as sentence:
                self._write(film.name, {"left out": str(sentence)})
                continue
            stranger = self.stranger(film) if "foreign" in missing else None
            tasks += [
                (Task(film, voice, stranger, paths[voice]), frames)
                for voice in missing
                if voice != "foreign" or stranger is not None
            ]
        return sorted(tasks, key=lambda task: task[1])

    def score(self) -> None:
        """Score those of this process's films that are not scored yet by all measures."""
        for film in self.assigned:
            scored = self._read(film)
            if scored and ("left out" in scored or scored["measures"] == self.scorer.measures):
                continue
            try:
                rows, features = self.scorer.film(film, self.stranger(film))
            except (InputError, *UNREADABLE) as error:
                self._write(film.name, {"left out": str(error)})
                continue
            if features:
                write_whole(self._path(film.name, "npz"), partial(np.savez, allow_pickle=False, **features))
            self._write(film.name, {"measures": self.scorer.measures, "rows": rows})
            print(f"scored: {film.name}", file=sys.stderr, flush=True)

    def table(self, beside: Rows, refused: dict[str, str], reading: LipReading | None) -> str:
        """RUN/table.md and .csv once all films are scored; until then how many are to come. Raises InputError."""
        scored = {film.name: content for film in self.films if (content := self._read(film)) is not None}
        if to_come := len(self.films) - len(scored):
            return f"{to_come} of {len(self.films)} films are still to be scored, by other processes or another start."
        left_out = refused | {name: content["left out"] for name, content in scored.items() if "left out" in content}
        notes = [f"{name} is left out: {why}" for name, why in left_out.items()]
        rows = [row for content in scored.values() for row in content.get("rows", [])]
        if not rows:
            raise InputError(f"No film could be evaluated. {' '.join(notes)}")
        means, ours = self._means(rows, reading), [row for row in rows if row["method"] == "ours"]
        partly = {row["film"] for row in ours if row["not drawn"]}
        if 0 < len(partly) < len(ours):
            whole = self._means([row for row in rows if row["film"] not in partly], reading)
            means |= {f"{method}, films drawn throughout": figures for method, figures in whole.items()}
        undrawn, frames = (sum(row[column] for row in ours) for column in ("not drawn", "frames"))
        notes.append(f"{undrawn} of {frames} frames were not drawn, in {len(partly)} of {len(ours)} films.")
        notes.append("Pictures are scored in drawn frames only; LSE, WER and the columns as TalkLip in all frames.")
        notes.append(f"WER is of {reading.reader}." if reading else "WER needs a lip reader's words: --read.")
        notes += self.scorer.missing
        plain = [{key: float(np.mean(v)) if isinstance(v, list) else v for key, v in row.items()} for row in rows]
        write_whole(self.out / "films.csv", lambda path: write_csv(path, plain))
        return write_table(self.out, "table", table(means, beside), notes)

    def _means(self, rows: list[dict], reading: LipReading | None) -> Rows:
        """The mean of every column over each method's films; FID, WER and the columns as TalkLip pool all films."""
        means: Rows = {}
        for method in dict.fromkeys(row["method"] for row in rows):
            films = [row for row in rows if row["method"] == method]
            values = {c: [row[c] for row in films if row.get(c) is not None] for c in COLUMNS}
            values |= {c: [v for frames in values[c] for v in frames] for c in (TALKLIP_PSNR, TALKLIP_SSIM)}
            means[method] = {c: float(np.mean(v)) if v else None for c, v in values.items()}
            means[method] |= {"films": len(films)} | {c: sum(values[c]) for c in ("frames", "not drawn")}
            means[method] |= {"WER": reading.wer(films, method) if reading else None, "FID": self._fid(films, method)}
            if method == "GT":
                means[method][TALKLIP_PSNR] = None
        return means

    def _fid(self, rows: list[dict], method: str) -> float | None:
        if self.scorer.inception is None or method == "GT":
            return None
        features: dict[str, list[np.ndarray]] = {method: [], "GT": []}
        for row in rows:
            with np.load(self._path(row["film"], "npz")) as file:
                for name, films in features.items():
                    films.append(file[name])
        return frechet_distance(*map(np.concatenate, features.values()))

    def _path(self, name: str, suffix: str) -> Path:
        return self.out / "scores" / f"{name}.{suffix}"

    def _read(self, film: PreparedFilm) -> dict | None:
        path = self._path(film.name, "json")
        return json.loads(path.read_text()) if path.exists() else None

    def _write(self, name: str, content: dict) -> None:
        write_whole(self._path(name, "json"), lambda path: path.write_text(json.dumps(content)))


def _speaker(film: PreparedFilm) -> str:
    return film.name.rpartition("/")[0]


# --- the table


def table(ours: Rows, beside: Rows, columns: Sequence[str] = COLUMNS) -> list[list[str]]:
    """Head and rows, ours first, then the published; "-" where nothing is known."""
    rows = [["method", *columns]]
    for method, figures in (ours | beside).items():
        values = {column: figures.get(column) for column in columns}
        cells = ["-" if value is None else f"{value:{'.0f' if c in WHOLE else '.3f'}}" for c, value in values.items()]
        rows.append([method, *cells])
    return rows


def other_run(folder: Path, name: str = "table", columns: Sequence[str] = COLUMNS) -> Rows:
    """Our row of another run's table, by the name of its folder. Raises InputError where there is none."""
    try:
        with (folder / f"{name}.csv").open(newline="") as file:
            (row,) = [row for row in csv.DictReader(file) if row["method"] == "ours"]
        return {f"ours, {folder.name}": {c: None if row[c] == "-" else float(row[c]) for c in columns}}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no table of a run: give an earlier run's --out.") from error


def write_table(out: Path, name: str, rows: list[list[str]], notes: list[str]) -> str:
    """OUT/NAME.csv, and in OUT/NAME.md the same as Markdown with the notes below; returns the latter."""
    columns = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    write_whole(out / f"{name}.csv", lambda path: write_csv(path, columns))
    text = "\n".join([markdown(rows[0], rows[1:]), "", *notes])
    write_whole(out / f"{name}.md", lambda path: path.write_text(text + "\n"))
    return text


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
    read: str | None = None,
    voices: Sequence[Voice] = (),
    lips: bool = False,
    batch: int = 16,
) -> str:
    """The whole run of this process; returns the Markdown table, which also lies in `out`. Raises InputError.

    Args:
        data: a folder of `prepare_lrs`.
        corpus: whose published rows stand beside.
        number: of the paper's table that they are from.
        others: folders of earlier runs, with other weights, whose rows stand beside too.
        voices: besides the film's own, foreign or silence.
        lips: also correlate lip openings, by mediapipe on the CPU.
        batch: films drawn at once, the paper's profile.
    """
    beside = {name: row for folder in others for name, row in other_run(folder).items()}
    beside |= {f"{row} (published, {corpus})": figures for row, figures in published(number, corpus).items()}
    reading = LipReading.of(read) if read else None
    corpus_films = prepared(data, listed)
    out.mkdir(parents=True, exist_ok=True)
    scorer = Scorer(job.pipe, out, ["matched", *voices], lips=lips)
    run = Evaluation(job, out, corpus_films.films[:limit], options, scorer)
    run.draw(max(1, batch))
    run.score()
    return run.table(beside, corpus_films.refused, reading)
