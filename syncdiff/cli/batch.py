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

from syncdiff.cli.paths import checked_out
from syncdiff.cli.terminal import last
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
    given = {"steps": arguments.steps, "seed": arguments.seed}
    options = SampleOptions(**{name: value for name, value in given.items() if value is not None})
    job = Job.ready(source_copy=False)

    def make(film: Film) -> Result:
        out = checked_out(film.out, (film.face, film.voice))
        with closing(job(film.face, film.voice, out, options)) as items:
            return last(items, quiet=True)

    return 2 if run(films, make, partial(print, flush=True)) else 0


def films_of(listed: Path, out: Path | None, voice: Path | None) -> list[Film]:
    """The films of a CSV file or a folder. Relative paths of a CSV are taken from its own folder.

    Args:
        listed: a CSV file with the columns face, voice, out, or a folder.
        out: folder of the results; a CSV may do without, its column `out` then says where each goes.
        voice: for a folder: one voice for all.

    Raises:
        InputError: nothing to do, a column is missing, two films have the same result, or an input is one.
    """
    films = list(_of_folder(listed, out, voice) if listed.is_dir() else _of_csv(listed, out))
    if not films:
        raise InputError(f"{listed} names no film: a folder needs pairs like anna.mp4 and anna.wav, or --voice FILE.")
    inputs = {Path(os.path.realpath(path)) for film in films for path in (film.face, film.voice)}
    seen: dict[Path, Film] = {}
    for film in films:
        place = Path(os.path.realpath(film.out))  # as resolve(), which ends at a link in a circle
        if place in seen:
            raise InputError(f"{film.out} is the result of {seen[place].face.name} and {film.face.name}: name two.")
        if place in inputs:
            raise InputError(f"{film.out} is an input as well as a result: give the results another folder.")
        seen[place] = film
    return films


def _of_folder(folder: Path, out: Path | None, voice: Path | None) -> Iterator[Film]:
    if out is None:
        raise InputError("A folder of films needs OUT, the folder for the results.")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sounds = {path.stem: path for path in files if path.suffix.lower() in SOUNDS}
    for face in (path for path in files if path.suffix.lower() in PICTURES):
        if found := voice or sounds.get(face.stem):
            yield Film(face, found, out / f"{face.stem}.mp4")


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


def run(films: Sequence[Film], make: Callable[[Film], Result], tell: Callable[[str], None]) -> int:
    """Make every film that is not there yet; one line a film, one summary. Returns how many failed.

    Args:
        films: a film whose result exists counts as done, since a result appears only when it is whole.
        make: makes one film and returns its Result; an InputError fails that film alone.
        tell: where the lines go.
    """
    made, failed, skipped, began = 0, 0, 0, time.monotonic()
    for film in films:
        start = time.monotonic()
        with suppress(OSError):  # too long a name: `make` says so
            if film.out.exists():
                skipped += 1
                continue
        try:
            _make_folder(film.out.parent)
            result = make(film)
        except InputError as sentence:
            failed += 1
            tell(f"{film.out}: failed: {sentence}")
            continue
        made += 1
        tell(f"{film.out}: {result.frames} frames in {time.monotonic() - start:.1f} s")
    tell(f"{made} made, {skipped} were there, {failed} failed, in {time.monotonic() - began:.0f} s")
    return failed


def _make_folder(folder: Path) -> None:
    """Raises InputError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}): give another one.") from error
