"""An upload -> files that can be trusted. Runs as a process of its own: `python -m syncdiff.media.decode_worker JOB`.

Decoders meet whatever a stranger sends, so they do it here: with bounded memory, time and disk, with demuxers that open
no second file, and in a folder that is thrown away. JOB is one JSON object; the answer is JSON lines on stdout:
{"done": a fraction}, and last {"facts": {...}} or {"refused": "a sentence"}.
Light imports only: it starts once for every upload."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from syncdiff.errors import InputError
from syncdiff.media.audio import check_voice, read_sound
from syncdiff.media.clip import Limits
from syncdiff.media.filetype import CONTAINERS, HEAD, STILLS, sniff
from syncdiff.media.video import read_photo, read_video

ACCEPTED = {
    "face": "an mp4, mov, mkv, webm, avi or ts video, or a png, jpeg or webp photo",
    "voice": "a wav, mp3, flac, ogg, m4a or aac sound, or a video with sound",
}

SLACK = 0.3  # seconds that a header may promise too much before it is worth a word


@dataclass(frozen=True)
class Job:
    """What the parent asks for."""

    source: str  # path of the upload
    name: str  # what to call it in a sentence
    slot: str  # "face" or "voice"
    folder: str  # where the normalised files go
    limits: Limits
    until: float | None = None  # seconds of a video of which no more is read, nor its sound


def decode_upload(job: Job) -> dict[str, Any]:
    """Check and normalise the upload; the facts about what lies in job.folder now. Raises InputError."""
    with Path(job.source).open("rb") as file:
        head = file.read(HEAD)
    kind = sniff(head)
    if not head:
        raise InputError(f"{job.name} is empty (0 bytes); give {ACCEPTED[job.slot]}.")
    if kind not in CONTAINERS + STILLS:
        raise InputError(f"{job.name} is {kind or 'of no known kind'}; give {ACCEPTED[job.slot]}.")
    if kind in STILLS:
        if job.slot == "voice":
            raise InputError(f"{job.name} is a picture and has no sound; give {ACCEPTED['voice']}.")
        return read_photo(job.source, job.name, Path(job.folder), job.limits)
    with open_container(job, kind) as container:
        return _face(job, container, kind) if job.slot == "face" else _voice(job, container)


def open_container(job: Job, kind: str) -> av.container.InputContainer:
    """The upload under the one demuxer its bytes call for."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join((*CONTAINERS, "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")),
        "max_pixels": str(job.limits.pixels),
    }
    try:
        return av.open(f"file:{job.source}", format=kind, options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        why = "its index is missing, as when an upload or a recording was cut off" if kind == "mov" else "it is damaged"
        raise InputError(f"{job.name} cannot be opened: {why}; export or upload it again.") from error


def _face(job: Job, container: av.container.InputContainer, kind: str) -> dict[str, Any]:
    report = reporter(job, container, 0.0, 0.9)
    facts = read_video(container, job.name, Path(job.folder), job.limits, report, until=job.until)
    start, promised, seconds, sound = facts.pop("start"), facts.pop("promised"), facts["seconds"], None
    if job.until is not None:
        return {**facts, "sound": None}
    if container.streams.audio:
        with open_container(job, kind) as again:  # a second pass: nothing waits in memory, however it is interleaved
            report = reporter(job, container, 0.9, 1.0)
            sound = read_sound(again, job.name, Path(job.folder), job.limits, report, start=start, end=seconds)
    heard = sound["heard"] if sound else 0.0
    whole = (container.duration or 0) / av.time_base
    if promised > seconds + SLACK or (not promised and whole > max(seconds, heard) + SLACK):
        promised = promised or whole
        facts["notes"].append(f"The video file ends early: {seconds:.2f} s of {promised:.2f} s could be read.")
    return {**facts, "sound": sound}


def _voice(job: Job, container: av.container.InputContainer) -> dict[str, Any]:
    if not container.streams.audio:
        raise InputError(f"{job.name} is a video without sound; give {ACCEPTED['voice']}.")
    sound = read_sound(container, job.name, Path(job.folder), job.limits, reporter(job, container, 0.0, 1.0))
    return {"sound": check_voice(sound, job.name, Path(job.folder), job.limits)}


def reporter(job: Job, container: av.container.InputContainer, begin: float, end: float) -> Callable[[float], None]:
    """A function of the seconds decoded so far. It tells the parent how far that is between `begin` and `end`, and puts
    off the alarm that ends a process which gets no further."""
    expected = (container.duration or 0) / av.time_base or job.limits.seconds
    said = 0.0

    def report(seconds: float) -> None:
        nonlocal said
        signal.setitimer(signal.ITIMER_REAL, job.limits.stall)
        if time.monotonic() - said > 0.2:
            said = time.monotonic()
            print(json.dumps({"done": round(begin + (end - begin) * min(1.0, seconds / expected), 4)}), flush=True)

    return report


def bound(limits: Limits) -> None:
    """Take from this process what it does not need."""
    import resource

    for what, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.disk),
        (resource.RLIMIT_CPU, int(4 * limits.timeout)),  # of all its threads together
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # macOS bounds no address space
            resource.setrlimit(what, (most, most))
    signal.setitimer(signal.ITIMER_REAL, limits.stall)  # the default action of SIGALRM works even inside a decoder


def main() -> None:
    """Do the job in argv[1]; print the answer. Exit code 0 whenever there is an answer."""
    job = json.loads(sys.argv[1])
    job = Job(**{**job, "limits": Limits(**job["limits"])})
    bound(job.limits)
    try:
        answer = {"facts": decode_upload(job)}
    except InputError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": f"{job.name} needs more than the {job.limits.memory >> 20} MiB of memory it may use."}
    except Exception as error:  # noqa: BLE001  whatever a hostile file provokes in a decoder ends here, in a sentence
        traceback.print_exc()  # for the log
        answer = {"refused": _why(error, job)}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # everything is on disk; freeing a decoder in the middle of a damaged file has nothing to give


def _why(error: Exception, job: Job) -> str:
    if getattr(error, "errno", None) in {errno.EFBIG, errno.ENOSPC}:
        return f"{job.name} needs more than the {job.limits.disk >> 20} MiB of disk it may use; give a shorter clip."
    return f"{job.name} cannot be decoded ({type(error).__name__}); export it again, as an mp4 or a wav."


if __name__ == "__main__":
    main()
