"""The command line: `python -m syncdiff sync | batch | score | verify | doctor`.

Results go to standard output, progress and errors to standard error. Exit code 0; 2 for bad input or a full disk, with
one sentence; 1 when `doctor` finds something missing; 128 + the signal's number when stopped (130 for Ctrl-C, 141
where nobody reads the output). Each command has a module of its own, which imports torch only when it runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from syncdiff import __version__
from syncdiff.cli.batch import run_batch
from syncdiff.cli.doctor import run_doctor
from syncdiff.cli.paths import refuse_address
from syncdiff.cli.score import run_score
from syncdiff.cli.sync import run_sync
from syncdiff.errors import InputError, disk_errors_as_sentences

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    open_missing_streams()
    logging.getLogger("syncdiff").addHandler(logging.NullHandler())  # its warnings are meant for a server's log
    arguments = parser().parse_args(argv)
    try:
        with stop_signals_raise(), disk_errors_as_sentences():
            check_working_folder()
            code = arguments.run(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes when it exits
        return 128 + signal.SIGPIPE
    except InputError as sentence:
        print(sentence, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # the terminal may be closed
            print("Interrupted: no result is left half written.", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


def open_missing_streams() -> None:
    """Replace a standard output or error that the shell closed (`2>&-`) by os.devnull."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 -- open to the end


def check_working_folder() -> None:
    """Raise InputError where the working directory was deleted: torch would end the process."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError("The folder that you are in was deleted: change to one that exists.") from error


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP raises KeyboardInterrupt(number); all three clean up alike.

    Later ones are ignored during the clean-up. A signal that was ignored before, as SIGHUP is by nohup, stays ignored.
    """

    def stop(number: int, _: Any) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    previous = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def parser() -> argparse.ArgumentParser:
    """All commands; each sets `run`, a function of the parsed arguments that returns the exit code."""
    top = argparse.ArgumentParser(prog="python -m syncdiff", description="Give a face video a new voice, and score it.")
    top.add_argument("--version", action="version", version=f"syncdiff {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], words: str) -> Callable[..., Any]:
        """Add a command; returns its add_argument."""
        added = commands.add_parser(name, help=words)
        added.set_defaults(run=run)
        return added.add_argument

    add = command("sync", run_sync, "redraw the lips of a face video so that they speak a voice")
    add("face", type=Path, metavar="FACE", help="video, or a photo")
    add("voice", type=Path, metavar="VOICE", help="sound file, or a video whose sound it is")
    add("out", type=Path, metavar="OUT", help="the mp4 to write")
    add("--steps", type=int, metavar="N", help="sampling steps; more is slower")
    add("--seed", type=int, metavar="N", help="the same seed gives the same video")
    add("--face", type=int, dest="index", metavar="N", help="which face, 0 the largest")
    add("--correct-offset", action="store_true", help="where the lips would come early or late, draw them as much "
        "later or earlier; takes a little longer")  # fmt: skip
    add("--compare", type=Path, metavar="FILE", help="also write an mp4 of the original beside the result")
    add("--trim", action="store_true", help="where the voice is shorter, end with it")
    add("--weights", type=Path, metavar="DIR", help="folder of weights, instead of the shipped ones; they say which "
        "profile they are of")  # fmt: skip
    add("--profile", choices=("compact", "paper"), help="what the weights must be: the shipped kind, or the paper's "
        "own, which you bring")  # fmt: skip
    add("--attention", choices=("auto", "sdpa", "xformers"), default="auto",
        help="xformers needs a GPU and pip install 'syncdiff[gpu]'")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    add("--quiet", action="store_true", help="print no progress")

    add = command("batch", run_batch, "many films with one loaded model; what is there already is not made again")
    add("listed", type=Path, metavar="LIST", help="CSV with the columns face, voice, out; or a folder")
    add("out", type=Path, metavar="OUT", nargs="?", help="folder of the results")
    add("--voice", type=Path, metavar="FILE", help="one voice for every face of a folder")
    add("--shard", default="1/1", metavar="I/N", help="every N-th film from the I-th on")
    add("--steps", type=int, metavar="N", help="sampling steps")
    add("--seed", type=int, metavar="N", help="the same seed gives the same video")

    add = command("score", run_score, "how well lips and sound of a video, or of every video in a folder, agree")
    add("video", type=Path, metavar="VIDEO", help="file, or folder (LSE only)")
    add("--lse", choices=("tracks", "frame"), help="LSE of face tracks, as for real videos (default), or of the whole "
        "frame, as for LRS2 and LRS3 (default for a folder)")  # fmt: skip
    add("--syncnet", type=Path, metavar="FILE", help="SyncNet's own weights, for LSE-C and LSE-D")
    add("--fetch", action="store_true", help="fetch them; asks before it does")
    add("--json", action="store_true", help="print one JSON object")
    add("--quiet", action="store_true", help="print no progress")

    add = command("verify", run_verify, "whether a video says, or hides, that its lips were redrawn")
    add("video", type=Path, metavar="VIDEO")
    add("--json", action="store_true", help="print one JSON object")

    command("doctor", run_doctor, "what this machine has, and whether it is enough")
    return top


def run_verify(arguments: argparse.Namespace) -> int:
    """Print which marks of redrawn lips a file carries. Raises InputError."""
    from syncdiff.provenance.verify import verify

    refuse_address(arguments.video)
    outcome = verify(arguments.video)
    print(json.dumps(outcome.report()) if arguments.json else "\n".join((outcome.verdict, *outcome.sentences)))
    return 0
