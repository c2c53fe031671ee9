"""An upload -> files that can be trusted. Runs as a process of its own: `python -m syncdiff.media.decode_worker JOB`.

Decoders meet whatever a stranger sends, so they do it here: with bounded memory, time and disk, with demuxers that open
no second file, and in a folder that is thrown away. JOB is one JSON object; the answer is JSON lines on stdout:
{"done": a fraction}, and last {"facts": {...}} or {"refused": "a sentence"}.
Light imports only: it starts once for every upload."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
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
import av.audio
import av.container
import av.error

from syncdiff.errors import InputError
from syncdiff.media.audio import MAX_CHANNELS, check_voice, read_sound
from syncdiff.media.clip import Limits
from syncdiff.media.extras import TrackTags, last_cue_end, read_extras
from syncdiff.media.filetype import CONTAINERS, HEAD, PICTURES, holds_another, is_encrypted, sniff, wav_data_size
from syncdiff.media.streams import choose_picture, default_stream, picture_streams, track_note
from syncdiff.media.timestamps import Scan, StreamClock, scan
from syncdiff.media.video import check_length, check_size, read_picture, read_video

ACCEPTED = {
    "face": "an mp4, mov, mkv, webm, avi or ts video, or a png, jpeg, webp or avif photo",
    "voice": "a wav, mp3, flac, ogg, m4a, aac, aiff or caf sound, or a video with sound",
}

SAYS_LENGTH = ("mov", "matroska", "flac", "aiff", "caf", "w64", "au")  # other headers name no length, or a guess
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
    clockwise: int = 0  # degrees by which the picture is turned


def decode_upload(job: Job) -> dict[str, Any]:
    """Check and normalise the upload; the facts about what lies in job.folder now. Raises InputError."""
    with Path(job.source).open("rb") as file:
        head = file.read(HEAD)
    kind = sniff(head)
    if not head:
        raise InputError(f"{job.name} is empty (0 bytes); give {ACCEPTED[job.slot]}.")
    if kind not in CONTAINERS + PICTURES:
        raise InputError(f"{job.name} is {kind or 'of no known kind'}; give {ACCEPTED[job.slot]}.")
    if kind in PICTURES:
        if job.slot == "voice":
            raise InputError(f"{job.name} is a picture and has no sound; give {ACCEPTED['voice']}.")
        report = reporter(job, job.limits.seconds, 0.0, 1.0)
        span = {"until": job.until, "clockwise": job.clockwise}
        return read_picture(job.source, job.name, Path(job.folder), job.limits, report, **span)
    if is_encrypted(Path(job.source), kind):
        raise InputError(f"{job.name} is encrypted (DRM), so it cannot be decoded; give a copy without protection.")
    return _face(job, kind) if job.slot == "face" else _voice(job, kind)


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


def _face(job: Job, kind: str) -> dict[str, Any]:
    with open_container(job, kind) as container:
        picture = choose_picture(container, job.name)
        sounds = list(container.streams.audio)
        sound_stream = default_stream(sounds) if sounds and job.until is None else None
        size = picture.codec_context.width, picture.codec_context.height
        check_size(*size, job.name, job.limits.pixels, job.limits.side)  # what is decoded counts all the same
        found = _scan(job, kind, [picture.index] + ([sound_stream.index] if sound_stream else []))
        clock = found.clocks[picture.index]
        check_length(clock.seconds, job.name, job.limits)
        report = reporter(job, clock.seconds, 0.0, 0.9)
        span = {"until": job.until, "clockwise": job.clockwise}
        facts = read_video(container, picture, clock, job.name, Path(job.folder), job.limits, report, **span)
        notes = facts["notes"]
        notes += track_note(picture_streams(container), picture, "picture")
        start, lost, seconds = facts.pop("start"), facts.pop("lost"), facts["seconds"]
        if job.until is not None:
            return {**facts, "sound": None}
        notes += _jump_note(found) + _another_note(job, kind)
        late = max(lost, start - (container.start_time or 0) / av.time_base)  # the sound may begin first
        with open_container(job, kind) as again:
            facts["extras"], lost_tracks = read_extras(again, picture.index, start)
        notes += lost_tracks
        sound = _sound(job, kind, found, sound_stream.index, 0.9, start=start, end=seconds) if sound_stream else None
        if sound_stream:
            notes += track_note(sounds, sound_stream, "sound")
        if found.jumps:  # what the header says counts the jumps
            return {**facts, "sound": sound}
        promised = float(picture.duration * (picture.time_base or 0)) if picture.duration else 0.0
        whole = _said_seconds(container, kind)
        reached = late + max(seconds, sound["heard"] if sound else 0.0, last_cue_end(facts["extras"]))
        if promised > lost + seconds + SLACK or (not promised and whole > reached + SLACK):
            notes.append(_ends_early("video", seconds, promised or whole))
    return {**facts, "sound": sound}


def _voice(job: Job, kind: str) -> dict[str, Any]:
    with open_container(job, kind) as container:
        if not container.streams.audio:
            raise InputError(f"{job.name} is a video without sound; give {ACCEPTED['voice']}.")
        sounds, pictures = list(container.streams.audio), picture_streams(container)
        stream = default_stream(sounds)
        _check_layout(stream, job.name)
        others = [default_stream(pictures).index] if pictures else []
        notes = track_note(sounds, stream, "sound")
        notes += TrackTags.of(stream).lost("The sound track")
        index = stream.index
        promised = _promised(container, stream, kind, job)
    found = _scan(job, kind, [index, *others])
    start = found.clocks[others[0]].start if others else None  # a sound that begins after the picture keeps its place
    sound = _sound(job, kind, found, index, 0.0, start=start, keep_early=True)
    sound = check_voice(sound, job.name, Path(job.folder), job.limits)
    if sound["mono_channel"] is not None:
        notes.append(f"Mixed, the sound channels lose the voice; the lips follow channel {sound['mono_channel'] + 1}.")
    if promised > sound["heard"] + SLACK and not found.jumps:
        notes.append(_ends_early("sound", sound["heard"], promised))
    return {"sound": sound, "notes": notes + _jump_note(found) + _another_note(job, kind)}


def _check_layout(stream: av.audio.AudioStream, name: str) -> None:
    """Raise InputError for more channels than can be mixed without knowing which is which."""
    known = stream.codec_context is not None and stream.layout
    if known and known.nb_channels > MAX_CHANNELS and re.fullmatch(r"\d+ channels", known.name):
        raise InputError(
            f"The sound of {name} has {known.nb_channels} channels and does not say what they are, and {MAX_CHANNELS} "
            "of that kind can be read; mix it down to two."
        )


def _promised(
    container: av.container.InputContainer, stream: av.audio.AudioStream, kind: str, job: Job
) -> float:
    """Seconds that the header says the sound lasts; 0 where it does not say."""
    if kind == "wav":  # whose length ffmpeg takes from the file's own size
        return 8 * wav_data_size(Path(job.source)) / stream.bit_rate if stream.bit_rate else 0.0
    if kind not in SAYS_LENGTH:
        return 0.0
    if stream.duration:
        return float(stream.duration * (stream.time_base or 0))
    return _said_seconds(container, kind) if len(container.streams) == 1 else 0.0


def _said_seconds(container: av.container.InputContainer, kind: str) -> float:
    """Seconds that the file says it lasts, from its first packet on; 0 where it does not say."""
    begin = (container.start_time or 0) if kind == "matroska" else 0  # its header says when the last packet ends
    return max(0, (container.duration or 0) - begin) / av.time_base


def _ends_early(what: str, read: float, promised: float) -> str:
    return f"The {what} file ends early: {read:.2f} s of {promised:.2f} s could be read."


def _scan(job: Job, kind: str, streams: list[int]) -> Scan:
    """Pass over the packets of these streams, by index."""
    with open_container(job, kind) as container:
        report = reporter(job, 0.0, 0.0, 0.0)
        return scan(container, [container.streams[index] for index in streams], lambda: report(0.0))


def _sound(job: Job, kind: str, found: Scan, index: int, begin: float, **span: Any) -> dict[str, Any] | None:
    """Decode the sound in a pass of its own: nothing waits in memory, however the file is interleaved."""
    clock: StreamClock = found.clocks[index]
    with open_container(job, kind) as container:
        report = reporter(job, clock.seconds, begin, 1.0)
        return read_sound(
            container, container.streams[index], clock, job.name, Path(job.folder), job.limits, report, **span  # pyright: ignore[reportArgumentType]
        )


def _jump_note(found: Scan) -> list[str]:
    times = f"{found.jumps} time{'s' * (found.jumps > 1)}"
    return [f"The clock of the file jumps {times}, as where recordings were joined; it was closed."] * bool(found.jumps)


def _another_note(job: Job, kind: str) -> list[str]:
    return ["A second recording stands behind the first in this file; it was not read."] * holds_another(
        Path(job.source), kind
    )


def reporter(job: Job, expected: float, begin: float, end: float) -> Callable[[float], None]:
    """A function of the seconds decoded so far. It tells the parent how far that is between `begin` and `end`, and puts
    off the alarm that ends a process which gets no further."""
    expected = expected or job.limits.seconds
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
        with suppress(OSError):  # the disk is full
            traceback.print_exc()  # for the log
        answer = {"refused": _why(error, job)}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # everything is on disk; freeing a decoder in the middle of a damaged file has nothing to give


def _why(error: Exception, job: Job) -> str:
    if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        place = Path(job.folder).parent
        return f"The disk is full ({place}): free some space there, or set TMPDIR to a folder on another disk."
    if getattr(error, "errno", None) == errno.EFBIG:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0] / 2**20  # of the job, or the user's own where it is less
        return f"{job.name} needs more than the {most:.0f} MiB of disk it may use; give a shorter clip."
    return f"{job.name} cannot be decoded ({type(error).__name__}); export it again, as an mp4 or a wav."


if __name__ == "__main__":
    main()
