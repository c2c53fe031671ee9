"""An upload -> Clip or Speech: starts a decode worker for it, and reads only the files that the worker wrote."""

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
from typing import Any, Literal

import numpy as np

from syncdiff.errors import InputError, raise_if_full
from syncdiff.media.clip import Clip, Colour, Speech
from syncdiff.media.extras import Extras, TrackTags
from syncdiff.media.request import LIMITS, DecodeRequest, Limits
from syncdiff.progress import finished

log = logging.getLogger(__name__)
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
TURNED = {
    90: "The picture lies on its side; it was turned to the right.",
    180: "The picture is upside down; it was turned.",
    270: "The picture lies on its side; it was turned to the left.",
}
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")  # a hostile file must find no tokens in the environment


def open_clip(path: str | Path, folder: Path, limits: Limits = LIMITS) -> Clip:
    """Read a video or a photo into `folder`. Raises InputError with one sentence for whatever cannot be used."""
    return finished(read_clip(path, folder, limits))


def open_speech(path: str | Path, folder: Path, limits: Limits = LIMITS) -> Speech:
    """Read a sound file, or the sound of a video, into `folder`. Raises InputError."""
    return finished(read_speech(path, folder, limits))


def read_clip(
    path: str | Path, folder: Path, limits: Limits = LIMITS, until: float | None = None, clockwise: int = 0
) -> Generator[float, None, Clip]:
    """As open_clip, but yields the fraction done, 0..1. Closing the generator ends the process and removes its files.

    until: seconds after which nothing more is read; the clip then comes without its sound.
    clockwise: degrees by which the picture is turned, 0, 90, 180 or 270."""
    facts, decoded = yield from _decode("face", path, folder, limits, until, clockwise)
    times = np.load(decoded / "times.npy", allow_pickle=False)
    return Clip(
        path=decoded / "picture.mp4",
        width=facts["width"],
        height=facts["height"],
        times=times,
        seconds=facts["seconds"],
        rate=Fraction(facts["rate"]),
        steady=facts["steady"],
        colour=Colour(*facts["colour"]),
        pixel_aspect=Fraction(facts["aspect"]),
        photo=facts["photo"],
        speech=_speech(decoded, facts.get("sound")),
        notes=(*facts["notes"], *([TURNED[clockwise]] if clockwise else [])),
        extras=Extras.of(facts["extras"]) if "extras" in facts else Extras(),
    )


def read_speech(path: str | Path, folder: Path, limits: Limits = LIMITS) -> Generator[float, None, Speech]:
    """As open_speech, but yields the fraction done, 0..1."""
    facts, decoded = yield from _decode("voice", path, folder, limits)
    speech = _speech(decoded, facts["sound"])
    assert speech is not None  # else the worker would have refused it
    return replace(speech, notes=tuple(facts["notes"]))


def _speech(decoded: Path, sound: dict[str, Any] | None) -> Speech | None:
    if sound is None:
        return None
    facts = {name: sound[name] for name in ("rate", "channels", "seconds", "mono_channel")}
    return Speech(decoded / "sound.wav", **facts, tags=TrackTags(**sound["tags"]))


def _decode(
    slot: Literal["face", "voice"],
    path: str | Path,
    folder: Path,
    limits: Limits,
    until: float | None = None,
    clockwise: int = 0,
) -> Generator[float, None, tuple[dict[str, Any], Path]]:
    """Run a decode worker; returns its facts and the folder of its files, which is removed unless all went well."""
    source, name = Path(path), quoted_name(path)
    _check_file(source, name, limits)
    target = Path(tempfile.mkdtemp(prefix=f"{slot}-", dir=folder))
    request = DecodeRequest(str(source.resolve()), name, slot, str(target), limits, until, clockwise)
    environment = {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ}
    environment |= {"PYTHONPATH": str(PACKAGE_ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-P", "-m", "syncdiff.media.decode_worker", json.dumps(asdict(request))]
    succeeded = False
    try:
        with (target / "worker.log").open("wb") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd=target, env=environment
            )
        try:
            yield 0.0  # the process works on while the caller does other things
            facts = yield from _answer(process, request)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
        succeeded = True
        return facts, target
    finally:
        if not succeeded:
            _log_errors(target / "worker.log", slot)
            shutil.rmtree(target, ignore_errors=True)


def _answer(process: subprocess.Popen[bytes], request: DecodeRequest) -> Generator[float, None, dict[str, Any]]:
    """Yield the worker's progress, return its facts. Raises InputError where it refuses, dies or takes too long."""
    limits = request.limits
    deadline = time.monotonic() + limits.timeout
    for line in _lines(process, deadline):
        answer = json.loads(line)
        if "refused" in answer:
            raise InputError(answer["refused"])
        if "facts" in answer:
            return answer["facts"]
        yield answer["done"]
    if time.monotonic() >= deadline:
        raise InputError(
            f"{request.name} takes longer than {limits.timeout:.0f} s to read; give a shorter or smaller file."
        )
    process.wait()
    raise_if_full(Path(request.folder))
    log.warning("a decode worker ended with exit code %s", process.returncode)  # no names of files in a log
    raise InputError(
        f"{request.name} cannot be read within {limits.memory >> 20} MiB of memory and {limits.stall:.0f} s without "
        "progress; export it again."
    )


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """Complete lines of its output until the process ends or the time is up."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)  # pyright: ignore[reportArgumentType]
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left) or not (block := os.read(process.stdout.fileno(), 65_536)):  # pyright: ignore[reportOptionalMemberAccess]
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from lines


def quoted_name(path: str | Path) -> str:
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


def _log_errors(path: Path, slot: str) -> None:
    with suppress(OSError):
        if errors := path.read_text(encoding="utf-8", errors="replace").strip():
            log.warning("decoding a %s: %s", slot, errors[-2000:])
