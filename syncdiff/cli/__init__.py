"""The command line: `python -m syncdiff sync | batch | score | verify | doctor`.

Results go to standard output, progress and errors to standard error. Exit code 0; 2 for bad input or a full disk, with
one sentence; 1 when `doctor` finds something missing; 128 + the signal's number when stopped (130 for Ctrl-C, 141
where nobody reads the output).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import syncdiff
from syncdiff.errors import disk_errors_as_sentences
from syncdiff.server_tmpdir import RESULT_PREFIX, command_tmpdir, locked_tmpdir, try_to_replace

if TYPE_CHECKING:
    from syncdiff.job import Job
    from syncdiff.pipeline import Attention
    from syncdiff.sync.syncnet_v2 import SyncNet

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Steps of Progress that one video frame counts in each stage that goes frame by frame; drawing depends on --steps.
STEPS_PER_FRAME = {"finding the face": 2, "testing the offset": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    open_missing_streams()
    logging.getLogger("syncdiff").addHandler(logging.NullHandler())  # its warnings are for the log of a server
    arguments = parser().parse_args(argv)
    try:
        with stop_signals_raise(), disk_errors_as_sentences():
            check_working_folder()
            code = arguments.run(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 128 + signal.SIGPIPE
    except syncdiff.InputError as sentence:
        print(sentence, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # a closed terminal takes no more words
            print("Interrupted: nothing was written.", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


def open_missing_streams() -> None:
    """Where a shell closed standard output or error (`2>&-`), what is printed there goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 -- open to the end


def check_working_folder() -> None:
    """Raise InputError where the folder that the command runs in was deleted: torch would end the process."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise syncdiff.InputError("The folder that you are in was deleted: change to one that exists.") from error


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP raises KeyboardInterrupt(number), so that all three tidy up alike.

    Later ones are ignored while it tidies up. A signal that was ignored before, as SIGHUP is by nohup, stays ignored.
    """

    def stop(number: int, _: Any) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parser() -> argparse.ArgumentParser:
    """All commands; each sets `run`, a function of the parsed arguments that returns the exit code."""
    top = argparse.ArgumentParser(prog="python -m syncdiff", description="Give a face video a new voice, and score it.")
    top.add_argument("--version", action="version", version=f"syncdiff {syncdiff.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("sync", help="redraw the lips of a face video so that they speak a voice")
    one.add_argument("face", type=Path, metavar="FACE", help="video, or a photo")
    one.add_argument("voice", type=Path, metavar="VOICE", help="sound file, or a video whose sound it is")
    one.add_argument("out", type=Path, metavar="OUT", help="the mp4 to write")
    one.add_argument("--steps", type=int, metavar="N", help="sampling steps; more is slower")
    one.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same video")
    one.add_argument("--face", type=int, dest="index", metavar="N", help="which face, 0 the largest")
    one.add_argument("--correct-offset", action="store_true", help="where the lips would come early or late, draw them "
                     "as much later or earlier; takes a little longer")  # fmt: skip
    one.add_argument("--compare", type=Path, metavar="FILE", help="also write an mp4 of the original beside the result")
    one.add_argument("--trim", action="store_true", help="where the voice is shorter, end with it")
    one.add_argument("--weights", type=Path, metavar="DIR", help="folder of weights, instead of the shipped ones; they "
                     "say which profile they are of")  # fmt: skip
    one.add_argument("--profile", choices=("compact", "paper"), help="what the weights must be: the shipped kind, or "
                     "the paper's own, which you bring")  # fmt: skip
    one.add_argument("--attention", choices=("auto", "sdpa", "xformers"), default="auto",
                     help="xformers needs a GPU and pip install 'syncdiff[gpu]'")  # fmt: skip
    one.set_defaults(run=run_sync)

    many = commands.add_parser(
        "batch", help="many films with one loaded model; what is there already is not made again"
    )
    many.add_argument("listed", type=Path, metavar="LIST", help="CSV with the columns face, voice, out; or a folder")
    many.add_argument("out", type=Path, metavar="OUT", nargs="?", help="folder of the results")
    many.add_argument("--voice", type=Path, metavar="FILE", help="one voice for every face of a folder")
    many.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th film from the I-th on")
    many.add_argument("--steps", type=int, metavar="N", help="sampling steps")
    many.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same video")
    many.set_defaults(run=run_batch)

    two = commands.add_parser("score", help="how well lips and sound of a video, or of every video in a folder, agree")
    two.add_argument("video", type=Path, metavar="VIDEO", help="file, or folder (LSE only)")
    two.add_argument("--lse", choices=("tracks", "frame"), help="LSE of face tracks, as for real videos (default), or "
                     "of the whole frame, as for LRS2 and LRS3 (default for a folder)")  # fmt: skip
    two.add_argument("--syncnet", type=Path, metavar="FILE", help="SyncNet's own weights, for LSE-C and LSE-D")
    two.add_argument("--fetch", action="store_true", help="fetch them; asks before it does")
    two.set_defaults(run=run_score)
    for command in (one, two):
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.add_argument("--quiet", action="store_true", help="print no progress")

    check = commands.add_parser("verify", help="whether a video says, or hides, that its lips were redrawn")
    check.add_argument("video", type=Path, metavar="VIDEO")
    check.set_defaults(run=run_verify)
    check.add_argument("--json", action="store_true", help="print one JSON object")

    three = commands.add_parser("doctor", help="what this machine has, and whether it is enough")
    three.set_defaults(run=run_doctor)
    return top


@command_tmpdir()  # around the import of torch, which leaves an empty folder in the temporary one
def run_sync(arguments: argparse.Namespace) -> int:
    """Redraw one film and print what came of it. Raises InputError."""
    from syncdiff.media.side_by_side import side_by_side
    from syncdiff.options import OPTIONS
    from syncdiff.weights.folders import chosen

    weights, profile = chosen(arguments.weights, arguments.profile)
    tail = "trim" if arguments.trim else None
    given = {"steps": arguments.steps, "seed": arguments.seed, "face": arguments.index, "tail": tail}
    given["correct_offset"] = arguments.correct_offset
    options = OPTIONS[profile](**{name: value for name, value in given.items() if value is not None})
    for path in (arguments.face, arguments.voice):
        refuse_address(path)
    out = checked_out(arguments.out, (arguments.face, arguments.voice))
    compared = arguments.compare and checked_out(arguments.compare, (arguments.face, arguments.voice))
    if compared and compared.resolve() == out.resolve():
        raise syncdiff.InputError(f"The result and the comparison would both be {out.name}: name two files.")
    with locked_tmpdir(out.parent, RESULT_PREFIX) if compared else nullcontext() as beside:
        job = load(weights, arguments.attention)
        job.source_copy = compared is not None
        made = beside / out.name if beside else out  # where the job's copy of the source meets no file of the visitor's
        with closing(job(arguments.face, arguments.voice, made, options)) as items:
            steps_per_frame = STEPS_PER_FRAME | {"drawing": options.steps + 1}
            result = last(items, quiet=arguments.quiet, steps_per_frame=steps_per_frame)
        if compared:
            result.video.replace(out)
            side_by_side(result.source, out, compared)
    if arguments.json:
        report = result.report() | {"video": str(out)}
        del report["source"]  # none is left
        print(json.dumps(report))
    else:
        print("\n".join(summary(result, out)))
    return 0


def summary(result: syncdiff.Result, out: Path) -> Iterator[str]:
    """The lines that `sync` prints about the result at `out`."""
    seconds = ", ".join(f"{stage} {took:.1f} s" for stage, took in result.seconds.items())
    yield f"{out}: {result.frames} frames ({seconds}; peak memory {result.peak_memory_mib:.0f} MiB)"
    for gap in result.passed_through:
        yield f"{gap.start:.1f} to {gap.end:.1f} s is left as it was: {gap.reason}"
    yield from result.notes
    yield f"source: {in_words(result.source_scores)}"
    yield f"result: {in_words(result.result_scores)}"
    yield from (f"source: {in_words(face)}" for face in result.source_lse)
    yield from (f"result: {in_words(face)}" for face in result.result_lse)
    if result.lse_needs:
        yield result.lse_needs


@command_tmpdir()
def run_batch(arguments: argparse.Namespace) -> int:
    """Redraw the films of a list or a folder; exit code 2 where one failed. Raises InputError for the list."""
    from syncdiff.cli.batch import Film, films_of, run, shard_of
    from syncdiff.options import SampleOptions

    films = shard_of(films_of(arguments.listed, arguments.out, arguments.voice), arguments.shard)
    given = {"steps": arguments.steps, "seed": arguments.seed}
    options = SampleOptions(**{name: value for name, value in given.items() if value is not None})
    job = load()

    def make(film: Film) -> syncdiff.Result:
        out = checked_out(film.out, (film.face, film.voice))
        with closing(job(film.face, film.voice, out, options)) as items:
            return last(items, quiet=True)

    return 2 if run(films, make, partial(print, flush=True)) else 0


@command_tmpdir()
def run_score(arguments: argparse.Namespace) -> int:
    """Score a video, or every video of a folder. Raises InputError."""
    from syncdiff.sync import syncnet_v2
    from syncdiff.weights import ask_on_terminal

    refuse_address(arguments.video)
    fetched = syncnet_v2.fetch_weights(ask_on_terminal) if arguments.fetch else None
    net = syncnet_v2.load(arguments.syncnet or fetched)
    return (score_folder if arguments.video.is_dir() else score_video)(arguments, net)


def score_video(arguments: argparse.Namespace, net: SyncNet | None) -> int:
    """The judge's score of one video, and LSE where SyncNet is there."""
    from syncdiff.sync import syncnet_v2

    with closing(load().score(arguments.video)) as items:
        scores = last(items, quiet=arguments.quiet, steps_per_frame=STEPS_PER_FRAME)
    found, needed = (), syncnet_v2.how_to_get()
    if net is not None:
        try:
            steps = as_progress(syncnet_v2.score_video(arguments.video, net, arguments.lse or "tracks"))
            found = last(steps, quiet=arguments.quiet)
        except syncdiff.InputError as sentence:  # the face detector's files are missing: the judge's score stands
            needed = str(sentence)
    if arguments.json:
        told = {"lse": [asdict(face) for face in found]} if found else {"lse": None, "lse_needs": needed}
        print(json.dumps(asdict(scores) | told))
    else:
        print(in_words(scores))
        print("\n".join(map(in_words, found)) or needed)
    return 0


def score_folder(arguments: argparse.Namespace, net: SyncNet | None) -> int:
    """LSE of every video, and their mean."""
    from syncdiff.sync import syncnet_v2

    if net is None:
        raise syncdiff.InputError(f"{arguments.video} is a folder, which only LSE scores. {syncnet_v2.how_to_get()}")
    steps = as_progress(syncnet_v2.score_folder(arguments.video, net, arguments.lse or "frame"))
    rows = last(steps, quiet=arguments.quiet)
    mean = syncnet_v2.mean(rows)
    if arguments.json:
        told = [{"video": str(row.video), "faces": [asdict(face) for face in row.scores]} for row in rows]
        print(json.dumps({"videos": told, "mean": mean and asdict(mean)}))
        return 0
    for row in rows:
        for face in row.scores:
            print(f"{row.video.relative_to(arguments.video)}: {in_words(face)}")
    faces = [face.scorable for row in rows for face in row.scores]
    means = f": LSE-C {mean.confidence:.3f}, LSE-D {mean.distance:.3f} ({mean.judge})" if mean else ""
    print(f"mean of {sum(faces)} scored of {len(faces)}{means}")
    return 0


def as_progress(steps: Generator[float, None, Any]) -> Iterator[Any]:
    """Fractions 0..1 as Progress, then what the generator returns."""
    from syncdiff.progress import adapted
    from syncdiff.results import Progress

    yield (yield from adapted(steps, lambda done: Progress("scoring", round(100 * done), 100)))


def run_verify(arguments: argparse.Namespace) -> int:
    """Print which marks of redrawn lips a file carries. Raises InputError."""
    from syncdiff.provenance.verify import verify

    refuse_address(arguments.video)
    found = verify(arguments.video)
    print(json.dumps(found.report()) if arguments.json else "\n".join((found.verdict, *found.sentences)))
    return 0


def load(weights: Path | None = None, attention: Attention = "auto") -> Job:
    """A job with the weights in a folder, by default the shipped ones, on the GPU where there is one."""
    from syncdiff.job import Job
    from syncdiff.weights.folders import COMPACT

    return Job.ready(weights or COMPACT, attention, source_copy=False)


def refuse_address(path: Path) -> None:
    """Raise InputError for a web address: nothing is downloaded."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):  # Path joins the two slashes
        raise syncdiff.InputError(f"{path.name} is a web address: download the file first, then give its path.")


def checked_out(out: Path, inputs: Sequence[Path]) -> Path:
    """OUT as an absolute path that can be written and is none of the inputs; of a link, where it leads.

    Raises InputError."""
    if out.suffix.lower() != ".mp4":
        raise syncdiff.InputError(f"OUT is {out.name:.60}, but only MP4 is written: give it a name that ends in .mp4.")
    try:
        out = out.absolute()
        if out.is_symlink() and out.parent.is_dir():
            out = out.resolve()
        with disk_errors_as_sentences(out.parent):
            check_target(out, inputs)
            try_to_replace(out)
    except syncdiff.InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a link in a circle
        why = getattr(error, "strerror", None) or "it is a link in a circle"
        raise syncdiff.InputError(f"OUT cannot be {out.name:.60} ({why}): give it another name.") from error
    return out


def check_target(out: Path, inputs: Sequence[Path]) -> None:
    """Raise InputError where `out` lies in no folder, or is something that may not be written over."""
    if not out.parent.is_dir():
        raise syncdiff.InputError(f"{out.parent} is no folder: give OUT a folder that exists and is yours.")
    there = out.exists()
    if there and (not out.is_file() or os.path.ismount(out)):
        what = "a folder" if out.is_dir() else "no ordinary file"
        raise syncdiff.InputError(f"{out} is {what}: give OUT the name of a file.")
    if there and not os.access(out, os.W_OK):
        raise syncdiff.InputError(f"{out} is there and may not be written: give the result another name.")
    for path in inputs:
        same = False
        with suppress(OSError, RuntimeError):  # a link that leads nowhere, or in a circle
            same = out.resolve() == path.resolve() or out.samefile(path)  # whatever the spelling, and through links
        if same:
            raise syncdiff.InputError(f"OUT is {path.name}, which is an input: give the result another name.")


def last(items: Iterable[Any], *, quiet: bool = False, steps_per_frame: Mapping[str, int] | None = None) -> Any:
    """The item that comes after all progress.

    Progress goes to standard error: on a terminal a bar with stage, time left and frames a second, else one line a
    stage; with `quiet` nothing.

    Args:
        steps_per_frame: how many steps of Progress one frame counts, for the stages that go frame by frame.
    """
    from syncdiff.results import Progress

    steps_per_frame = steps_per_frame or {}
    moving, stage, item, bar = sys.stderr.isatty(), None, None, None
    try:
        for item in items:
            if not isinstance(item, Progress) or quiet:
                continue
            if item.stage != stage and not moving:
                print(item.stage, file=sys.stderr, flush=True)
            elif item.stage != stage:
                if bar is not None:
                    bar.close()
                bar = stage_bar(item, steps_per_frame.get(item.stage))
            stage = item.stage
            if bar is not None:
                bar.update(item.done - bar.n)
    finally:
        if bar is not None:
            bar.close()
    return item


def stage_bar(first: Any, steps_per_frame: int | None) -> Any:
    """tqdm's bar for one stage; its rate is in frames where the stage goes frame by frame."""
    from tqdm import tqdm

    rate = ", {rate_noinv_fmt}" if steps_per_frame else ""
    return tqdm(
        total=first.total,
        desc=first.stage,
        unit=" frames",
        unit_scale=1 / (steps_per_frame or 1),
        bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left" + rate,
        leave=False,
        file=sys.stderr,
        dynamic_ncols=True,
    )


def in_words(scores: syncdiff.Scores) -> str:
    """One line: the figures and whose they are, or why there are none."""
    if not scores.scorable:
        return f"{scores.reason} ({scores.judge})"
    confidence, distance = ("LSE-C", "LSE-D") if "LSE" in scores.judge else ("confidence", "distance")
    return (
        f"{confidence} {scores.confidence:.2f}, {distance} {scores.distance:.2f}, "
        f"offset {scores.offset_frames:+d} frames at 25 fps ({scores.judge})"
    )


def run_doctor(_: argparse.Namespace) -> int:
    """Print what this machine has, and whether it is enough."""
    from syncdiff.cli.doctor import doctor

    return doctor()
