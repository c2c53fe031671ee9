"""Many films with one loaded model: `python -m syncdiff batch LIST [OUT]`, resumable, in shards over machines.

LIST is a CSV file with the columns face, voice and out, or a folder. In a folder every video whose name a sound file
shares (`anna.mp4`, `anna.wav`) is one film; `--voice FILE` gives all of its videos and photos the same voice.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from syncdiff.cli.paths import checked_output
from syncdiff.cli.terminal import show_progress
from syncdiff.errors import InputError
from syncdiff.server_tmpdir import command_tmpdir

if TYPE_CHECKING:
    from syncdiff.results import Result

COLUMNS = ("face", "voice", "out")
PICTURES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".jpg", ".jpeg", ".png", ".webp"}
SOUNDS = {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aif"}


@dataclass(frozen=True)
class Film:
    """One job of a batch."""

    face: Path
    voice: Path
    out: Path


@command_tmpdir()
def run_batch(arguments: argparse.Namespace) -> int:
    """Redraw the films of a list or a folder; exit code 2 where one failed. Raises InputError for the list."""
    from syncdiff.job import Job
    from syncdiff.options import SampleOptions

    films = shard_of(films_of(arguments.listed, arguments.out, arguments.voice), arguments.shard)
    options = SampleOptions.of(steps=arguments.steps, seed=arguments.seed)
    job = Job.ready(source_copy=False)

    def make(film: Film) -> Result:
        out = checked_output(film.out, (film.face, film.voice))
        with closing(job(film.face, film.voice, out, options)) as updates:
            return show_progress(updates, quiet=True)

    return 2 if run_films(films, make, partial(print, flush=True)) else 0


def films_of(listed: Path, out: Path | None, voice: Path | None) -> list[Film]:
    """The films of a CSV file or a folder. Relative paths of a CSV are taken from its own folder.

    Args:
        listed: a CSV file with the columns face, voice, out, or a folder.
        out: folder of the results; by default that of the CSV file. A folder needs one.
        voice: one voice for every face of a folder.

    Raises:
        InputError: nothing to do, a column is missing, two films have the same result, or a result is an input.
    """
    films = list(_of_folder(listed, out, voice) if listed.is_dir() else _of_csv(listed, out))
    if not films:
        raise InputError(f"{listed} names no film: a folder needs pairs like anna.mp4 and anna.wav, or --voice FILE.")
    inputs = {Path(os.path.realpath(path)) for film in films for path in (film.face, film.voice)}
    by_output: dict[Path, Film] = {}
    for film in films:
        out = Path(os.path.realpath(film.out))  # resolve() would raise at a link in a circle
        if out in by_output:
            raise InputError(f"{film.out} is the result of {by_output[out].face.name} and {film.face.name}: name two.")
        if out in inputs:
            raise InputError(f"{film.out} is an input as well as a result: give the results another folder.")
        by_output[out] = film
    return films


def _of_folder(folder: Path, out: Path | None, voice: Path | None) -> Iterator[Film]:
    if out is None:
        raise InputError("A folder of films needs OUT, the folder for the results.")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sounds = {path.stem: path for path in files if path.suffix.lower() in SOUNDS}
    for face in (path for path in files if path.suffix.lower() in PICTURES):
        if sound := voice or sounds.get(face.stem):
            yield Film(face, sound, out / f"{face.stem}.mp4")


def _of_csv(path: Path, out: Path | None) -> Iterator[Film]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path.name} lacks the column {missing[0]}: its first line is {','.join(COLUMNS)}.")
            for number, row in enumerate(reader, start=2):
                face, voice, result = (row[name] for name in COLUMNS)
                if not (face and voice and result):
                    raise InputError(f"Line {number} of {path.name} is not complete: it needs {', '.join(COLUMNS)}.")
                yield Film(path.parent / face, path.parent / voice, (out or path.parent) / result)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} cannot be read as CSV ({error}): give a text file or a folder.") from error


def shard_of(films: Sequence[Film], shard: str) -> list[Film]:
    """Every n-th film from the i-th on, for `i/n` with 1 <= i <= n. Raises InputError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"The shard is {shard!r:.40}: write i/n with i from 1 to n, as 2/8.")
    return list(films[int(match[1]) - 1 :: int(match[2])])


def run_films(films: Sequence[Film], make: Callable[[Film], Result], print_line: Callable[[str], None]) -> int:
    """Make every film that is not there yet; prints one line a film and a summary. Returns how many failed.

    Args:
        films: a film whose result exists counts as done, since a result appears only when it is whole.
        make: makes one film and returns its Result; an InputError fails that film alone.
        print_line: prints one line.
    """
    made, failed, skipped, began = 0, 0, 0, time.monotonic()
    for film in films:
        start = time.monotonic()
        with suppress(OSError):  # too long a name, for which `make` has a sentence
            if film.out.exists():
                skipped += 1
                continue
        try:
            _make_folder(film.out.parent)
            result = make(film)
        except InputError as sentence:
            failed += 1
            print_line(f"{film.out}: failed: {sentence}")
            continue
        made += 1
        print_line(f"{film.out}: {result.frames} frames in {time.monotonic() - start:.1f} s")
    print_line(f"{made} made, {skipped} were there, {failed} failed, in {time.monotonic() - began:.0f} s")
    return failed


def _make_folder(folder: Path) -> None:
    """Raises InputError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}): give another one.") from error
