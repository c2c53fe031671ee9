"""The process that decodes one upload: `python -m syncdiff.media.decode_worker REQUEST` writes normalised files.

Decoders meet whatever a stranger sends, so they run in this process: with bounded memory, time and disk, with demuxers
that open no second file, and in a folder that is thrown away. REQUEST is a DecodeRequest as JSON. The answer is JSON
lines on stdout: {"done": a fraction}, and last {"facts": {...}} or {"refused": "a sentence"}.
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
from pathlib import Path
from typing import Any

import av
import av.audio
import av.container
import av.error

from syncdiff.errors import InputError
from syncdiff.media.audio import MAX_CHANNELS, check_voice, read_sound
from syncdiff.media.extras import TrackTags, last_cue_end, read_extras
from syncdiff.media.filetype import CONTAINERS, HEAD, PICTURES, holds_another, is_encrypted, sniff, wav_data_size
from syncdiff.media.request import DecodeRequest, Limits
from syncdiff.media.streams import choose_picture, default_stream, picture_streams, track_note
from syncdiff.media.timestamps import Scan, scan
from syncdiff.media.video import check_length, check_size, read_picture, read_video

ACCEPTED = {
    "face": "an mp4, mov, mkv, webm, avi or ts video, or a png, jpeg, webp or avif photo",
    "voice": "a wav, mp3, flac, ogg, m4a, aac, aiff or caf sound, or a video with sound",
}

# Containers whose header states the duration of its sound; the others give none, or a guess.
STATES_DURATION = ("mov", "matroska", "flac", "aiff", "caf", "w64", "au")
MAX_MISSING_SECONDS = 0.3  # a file that is shorter than its header states by more gets a note


def decode_upload(request: DecodeRequest) -> dict[str, Any]:
    """Check and normalise the upload; returns facts about the files in request.folder. Raises InputError."""
    with Path(request.source).open("rb") as file:
        head = file.read(HEAD)
    kind = sniff(head)
    if not head:
        raise InputError(f"{request.name} is empty (0 bytes); give {ACCEPTED[request.slot]}.")
    if kind not in CONTAINERS + PICTURES:
        raise InputError(f"{request.name} is {kind or 'of no known kind'}; give {ACCEPTED[request.slot]}.")
    if kind in PICTURES:
        if request.slot == "voice":
            raise InputError(f"{request.name} is a picture and has no sound; give {ACCEPTED['voice']}.")
        return read_picture(request, reporter(request, request.limits.seconds, 0.0, 1.0))
    if is_encrypted(Path(request.source), kind):
        raise InputError(f"{request.name} is encrypted (DRM), so it cannot be decoded; give a copy without protection.")
    return _face(request, kind) if request.slot == "face" else _voice(request, kind)


def open_container(request: DecodeRequest, kind: str) -> av.container.InputContainer:
    """The upload under the one demuxer its bytes call for."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join((*CONTAINERS, "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")),
        "max_pixels": str(request.limits.pixels),
    }
    try:
        return av.open(f"file:{request.source}", format=kind, options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        why = "its index is missing, as when an upload or a recording was cut off" if kind == "mov" else "it is damaged"
        raise InputError(f"{request.name} cannot be opened: {why}; export or upload it again.") from error


def _face(request: DecodeRequest, kind: str) -> dict[str, Any]:
    with open_container(request, kind) as container:
        picture = choose_picture(container, request.name)
        sounds = list(container.streams.audio)
        sound_stream = default_stream(sounds) if sounds and request.until is None else None
        size = picture.codec_context.width, picture.codec_context.height
        check_size(*size, request.name, request.limits.pixels, request.limits.side)  # the decoder has its own limit
        scanned = _scan(request, kind, [picture.index] + ([sound_stream.index] if sound_stream else []))
        clock = scanned.clocks[picture.index]
        check_length(request, clock.seconds)
        facts = read_video(request, container, picture, clock, reporter(request, clock.seconds, 0.0, 0.9))
        notes = facts["notes"]
        notes += track_note(picture_streams(container), picture, "picture")
        start, lost, seconds = facts.pop("start"), facts.pop("lost"), facts["seconds"]
        if request.until is not None:
            return {**facts, "sound": None}
        notes += _notes_on_joined_files(scanned, request, kind)
        late = max(lost, start - (container.start_time or 0) / av.time_base)  # the sound may begin first
        with open_container(request, kind) as again:
            facts["extras"], lost_tracks = read_extras(again, picture.index, start)
        notes += lost_tracks
        sound = None
        if sound_stream:
            sound = _sound(request, kind, scanned, sound_stream.index, 0.9, start=start, end=seconds)
            notes += track_note(sounds, sound_stream, "sound")
        if scanned.jumps:  # the header's duration includes the jumps
            return {**facts, "sound": sound}
        stated = float(picture.duration * (picture.time_base or 0)) if picture.duration else 0.0
        whole = _stated_seconds(container, kind)
        reached = late + max(seconds, sound["heard"] if sound else 0.0, last_cue_end(facts["extras"]))
        if stated > lost + seconds + MAX_MISSING_SECONDS or (not stated and whole > reached + MAX_MISSING_SECONDS):
            notes.append(_ends_early("video", seconds, stated or whole))
    return {**facts, "sound": sound}


def _voice(request: DecodeRequest, kind: str) -> dict[str, Any]:
    with open_container(request, kind) as container:
        if not container.streams.audio:
            raise InputError(f"{request.name} is a video without sound; give {ACCEPTED['voice']}.")
        sounds, pictures = list(container.streams.audio), picture_streams(container)
        stream = default_stream(sounds)
        _check_layout(stream, request.name)
        others = [default_stream(pictures).index] if pictures else []
        notes = track_note(sounds, stream, "sound")
        notes += TrackTags.of(stream).lost("The sound track")
        index = stream.index
        stated = _stated_sound_seconds(request, kind, container, stream)
    scanned = _scan(request, kind, [index, *others])
    start = scanned.clocks[others[0]].start if others else None  # sound that begins after the picture keeps its delay
    sound = _sound(request, kind, scanned, index, 0.0, start=start, keep_early=True)
    sound = check_voice(request, sound)
    if sound["mono_channel"] is not None:
        notes.append(f"Mixed, the sound channels lose the voice; the lips follow channel {sound['mono_channel'] + 1}.")
    if stated > sound["heard"] + MAX_MISSING_SECONDS and not scanned.jumps:
        notes.append(_ends_early("sound", sound["heard"], stated))
    return {"sound": sound, "notes": notes + _notes_on_joined_files(scanned, request, kind)}


def _check_layout(stream: av.audio.AudioStream, name: str) -> None:
    """Raise InputError for more channels than can be mixed without knowing which is which."""
    known = stream.codec_context is not None and stream.layout
    if known and known.nb_channels > MAX_CHANNELS and re.fullmatch(r"\d+ channels", known.name):
        raise InputError(
            f"The sound of {name} has {known.nb_channels} channels and does not say what they are, and {MAX_CHANNELS} "
            "of that kind can be read; mix it down to two."
        )


def _stated_sound_seconds(
    request: DecodeRequest, kind: str, container: av.container.InputContainer, stream: av.audio.AudioStream
) -> float:
    """Duration of the sound by its header, s; 0 where the header states none."""
    if kind == "wav":  # ffmpeg computes its duration from the size of the file
        return 8 * wav_data_size(Path(request.source)) / stream.bit_rate if stream.bit_rate else 0.0
    if kind not in STATES_DURATION:
        return 0.0
    if stream.duration:
        return float(stream.duration * (stream.time_base or 0))
    return _stated_seconds(container, kind) if len(container.streams) == 1 else 0.0


def _stated_seconds(container: av.container.InputContainer, kind: str) -> float:
    """Duration of the file by its header, from its first packet on, s; 0 where the header states none."""
    begin = (container.start_time or 0) if kind == "matroska" else 0  # its header states when the last packet ends
    return max(0, (container.duration or 0) - begin) / av.time_base


def _ends_early(what: str, read: float, promised: float) -> str:
    return f"The {what} file ends early: {read:.2f} s of {promised:.2f} s could be read."


def _scan(request: DecodeRequest, kind: str, streams: list[int]) -> Scan:
    """Pass over the packets of these streams, by index."""
    with open_container(request, kind) as container:
        report = reporter(request, 0.0, 0.0, 0.0)
        return scan(container, [container.streams[index] for index in streams], lambda: report(0.0))


def _sound(
    request: DecodeRequest, kind: str, scanned: Scan, index: int, begin: float, **span: Any
) -> dict[str, Any] | None:
    """Decode the sound in a pass of its own: nothing waits in memory, however the file is interleaved."""
    clock = scanned.clocks[index]
    with open_container(request, kind) as container:
        report = reporter(request, clock.seconds, begin, 1.0)
        return read_sound(request, container, container.streams[index], clock, report, **span)  # pyright: ignore[reportArgumentType]


def _notes_on_joined_files(scanned: Scan, request: DecodeRequest, kind: str) -> list[str]:
    notes = []
    if scanned.jumps:
        times = f"{scanned.jumps} time{'s' * (scanned.jumps > 1)}"
        notes.append(f"The clock of the file jumps {times}, as where recordings were joined; it was closed.")
    if holds_another(Path(request.source), kind):
        notes.append("A second recording stands behind the first in this file; it was not read.")
    return notes


def reporter(request: DecodeRequest, expected: float, begin: float, end: float) -> Callable[[float], None]:
    """A function of the seconds decoded so far, of `expected`, that prints the fraction between `begin` and `end`.

    Each call also postpones the alarm that ends a process which makes no progress."""
    expected = expected or request.limits.seconds
    last_print = 0.0

    def report(seconds: float) -> None:
        nonlocal last_print
        signal.setitimer(signal.ITIMER_REAL, request.limits.stall)
        if time.monotonic() - last_print > 0.2:
            last_print = time.monotonic()
            print(json.dumps({"done": round(begin + (end - begin) * min(1.0, seconds / expected), 4)}), flush=True)

    return report


def apply_rlimits(limits: Limits) -> None:
    """Bound memory, file size, CPU time and core dumps of this process, and start the alarm against a stall."""
    for resource_kind, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.disk),
        (resource.RLIMIT_CPU, int(4 * limits.timeout)),  # of all its threads together
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # macOS bounds no address space
            resource.setrlimit(resource_kind, (most, most))
    signal.setitimer(signal.ITIMER_REAL, limits.stall)  # the default action of SIGALRM works even inside a decoder


def main() -> None:
    """Decode the request in argv[1]; print the answer. Exit code 0 whenever there is an answer."""
    fields = json.loads(sys.argv[1])
    request = DecodeRequest(**fields | {"limits": Limits(**fields["limits"])})
    apply_rlimits(request.limits)
    try:
        answer = {"facts": decode_upload(request)}
    except InputError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        most = request.limits.memory >> 20
        answer = {"refused": f"{request.name} needs more than the {most} MiB of memory it may use."}
    except Exception as error:  # noqa: BLE001  whatever a hostile file provokes in a decoder becomes a sentence
        with suppress(OSError):  # the disk is full
            traceback.print_exc()  # for the log
        answer = {"refused": _reason(error, request)}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # everything is on disk; freeing a decoder in the middle of a damaged file would gain nothing


def _reason(error: Exception, request: DecodeRequest) -> str:
    if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        place = Path(request.folder).parent
        return f"The disk is full ({place}): free some space there, or set TMPDIR to a folder on another disk."
    if getattr(error, "errno", None) == errno.EFBIG:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0] / 2**20  # or the user's own limit
        return f"{request.name} needs more than the {most:.0f} MiB of disk it may use; give a shorter clip."
    return f"{request.name} cannot be decoded ({type(error).__name__}); export it again, as an mp4 or a wav."


if __name__ == "__main__":
    main()
