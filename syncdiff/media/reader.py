"""An upload -> Clip or Speech. Starts the intake process, watches it, and believes only what it wrote."""

from __future__ import annotations

import json
import logging
import os
import selectors
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from syncdiff.errors import InputError, raise_if_full
from syncdiff.media.clip import LIMITS, Clip, Colour, Limits, Speech
from syncdiff.media.extras import Extras, TrackTags
from syncdiff.progress import finished

log = logging.getLogger(__name__)
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
TURNED = {
    90: "The picture lies on its side; it was turned to the right.",
    180: "The picture is upside down; it was turned.",
    270: "The picture lies on its side; it was turned to the left.",
}
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")  # no tokens for a process that may be fooled


def open_clip(path: str | Path, folder: Path, limits: Limits = LIMITS) -> Clip:
    """Read a video or a photo into `folder`. Raises InputError with one sentence for whatever cannot be used."""
    return finished(read_clip(path, folder, limits))


def open_speech(path: str | Path, folder: Path, limits: Limits = LIMITS) -> Speech:
    """Read a sound file, or the sound of a video, into `folder`. Raises InputError."""
    return finished(read_speech(path, folder, limits))


def read_clip(
    path: str | Path, folder: Path, limits: Limits = LIMITS, until: float | None = None, clockwise: int = 0
) -> Generator[float, None, Clip]:
    """As open_clip, but yields how far it is, 0..1. Closing the generator ends the process and its files.

    until: seconds of which to read no more; the clip then comes without its sound.
    clockwise: degrees by which the picture is turned, 0, 90, 180 or 270."""
    facts, home = yield from _intake("face", path, folder, limits, until, clockwise)
    times = np.load(home / "times.npy", allow_pickle=False)
    matrix, primaries, transfer, full = facts["colour"]
    return Clip(
        path=home / "picture.mp4",
        width=facts["width"],
        height=facts["height"],
        times=times,
        seconds=facts["seconds"],
        rate=Fraction(facts["rate"]),
        steady=facts["steady"],
        colour=Colour(matrix, primaries, transfer, full),
        pixel_aspect=Fraction(facts["aspect"]),
        photo=facts["photo"],
        speech=_speech(home, facts.get("sound")),
        notes=(*facts["notes"], *([TURNED[clockwise]] if clockwise else [])),
        extras=Extras.of(facts["extras"]) if "extras" in facts else Extras(),
    )


def read_speech(path: str | Path, folder: Path, limits: Limits = LIMITS) -> Generator[float, None, Speech]:
    """As open_speech, but yields how far it is, 0..1."""
    facts, home = yield from _intake("voice", path, folder, limits)
    speech = _speech(home, facts["sound"])
    assert speech is not None  # else the worker had refused it
    return replace(speech, notes=tuple(facts["notes"]))


def _speech(home: Path, sound: dict[str, Any] | None) -> Speech | None:
    if sound is None:
        return None
    place, (rate, channels, seconds) = home / "sound.wav", (sound[key] for key in ("rate", "channels", "seconds"))
    return Speech(place, rate, channels, seconds, sound["mono_channel"], tags=TrackTags(**sound["tags"]))


def _intake(
    slot: str, path: str | Path, folder: Path, limits: Limits, until: float | None = None, clockwise: int = 0
) -> Generator[float, None, tuple[dict[str, Any], Path]]:
    source, name = Path(path), called(path)
    _check_file(source, name, limits)
    home = Path(tempfile.mkdtemp(prefix=f"{slot}-", dir=folder))
    job = {"source": str(source.resolve()), "name": name, "slot": slot, "folder": str(home)}
    job |= {"until": until, "clockwise": clockwise, "limits": asdict(limits)}
    environment = {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ}
    environment |= {"PYTHONPATH": str(PACKAGE_ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-P", "-m", "syncdiff.media.decode_worker", json.dumps(job)]
    whole = False
    try:
        with (home / "intake.log").open("wb") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd=home, env=environment
            )
        try:
            yield 0.0  # the process works on while the caller does other things
            facts = yield from _listen(process, name, home, limits)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
        whole = True
        return facts, home
    finally:
        if not whole:
            _log_trouble(home / "intake.log", slot)
            shutil.rmtree(home, ignore_errors=True)


def _listen(
    process: subprocess.Popen[bytes], name: str, home: Path, limits: Limits
) -> Generator[float, None, dict[str, Any]]:
    deadline = time.monotonic() + limits.timeout
    for line in _lines(process, deadline):
        answer = json.loads(line)
        if "refused" in answer:
            raise InputError(answer["refused"])
        if "facts" in answer:
            return answer["facts"]
        yield answer["done"]
    if time.monotonic() >= deadline:
        raise InputError(f"{name} takes longer than {limits.timeout:.0f} s to read; give a shorter or smaller file.")
    process.wait()
    raise_if_full(home)
    memory, stall = limits.memory >> 20, limits.stall
    log.warning("an intake ended with exit code %s", process.returncode)  # no names of files in a log
    raise InputError(
        f"{name} cannot be read within {memory} MiB of memory and {stall:.0f} s without progress; export it again."
    )


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """Whole lines until the process ends or the time is up."""
    rest = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)  # pyright: ignore[reportArgumentType]
        while (left := deadline - time.monotonic()) > 0:
            if not waiting.select(left) or not (block := os.read(process.stdout.fileno(), 65_536)):  # pyright: ignore[reportOptionalMemberAccess]
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from lines


def called(path: str | Path) -> str:
    """The file's name as a sentence may show it: printable, quoted, short."""
    name = "".join(letter if letter.isprintable() else "?" for letter in Path(path).name)
    return f"'{name if len(name) <= 60 else name[:40] + '...' + name[-15:]}'"


def _check_file(source: Path, name: str, limits: Limits) -> None:
    try:
        status = source.stat()
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be found or read; choose the file again.") from error
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not an ordinary file"
        raise InputError(f"{name} is {what}; choose a video, photo or sound file.")
    if not os.access(source, os.R_OK):
        raise InputError(f"{name} may not be read by this user; give a copy that may.")
    if status.st_size > limits.bytes:
        size, most = status.st_size / 2**20, limits.bytes >> 20
        raise InputError(f"{name} is {size:.0f} MiB large, and the most is {most} MiB; make it shorter or smaller.")


def _log_trouble(path: Path, slot: str) -> None:
    with suppress(OSError):
        if trouble := path.read_text(encoding="utf-8", errors="replace").strip():
            log.warning("intake of a %s: %s", slot, trouble[-2000:])
