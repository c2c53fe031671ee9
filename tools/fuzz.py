"""Damaged files, made by the thousand and handed to the real door: `python tools/fuzz.py [--minutes 10] [--seed 0]`.

Every file is made of its seed and number alone. It must end in a clip, a voice or one sentence, within the limits and
with nothing left behind. Whatever else happens is a finding: the file is kept, and `--seed S --only N` tries it again.
"""

import argparse
import logging
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it knows only its own folder
from syncdiff.errors import InputError
from syncdiff.media import Clip, Limits, Speech, open_clip, open_speech
from tests.media_fixtures import make_sound, make_video, numbered

# As in the product, but for time: no damaged file of half a second deserves more.
LIMITS = Limits(seconds=20.0, timeout=60.0, stall=20.0, memory=2**30, disk=2**28)
CPU = 30.0  # seconds of processor that one file may cost
SIZE, FRAMES = (112, 80), 10
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf"}  # that hold others


def originals(folder: Path) -> dict[str, bytes]:
    """One small file of every kind that is accepted, by name."""
    videos = {
        "a.mp4": {"clicks": [0.1]},
        "b.mp4": {"clicks": [0.1], "container_options": {"movflags": "frag_keyframe+empty_moov"}},
        "a.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "clicks": [0.1], "sound": {"codec": "pcm_s16le"}},
        "a.mkv": {"clicks": [0.1], "sound": {"codec": "libmp3lame"}},
        "a.webm": {"codec": "libvpx", "clicks": [0.1], "sound": {"codec": "libopus"}},
        "a.avi": {"codec": "mpeg4", "clicks": [0.1], "sound": {"codec": "pcm_s16le"}},
        "a.ts": {"codec": "mpeg2video", "clicks": [0.1], "sound": {"codec": "mp2"}},
    }
    for name, how in videos.items():
        make_video(folder / name, FRAMES, size=SIZE, **how)
    sounds = {"a.wav": "pcm_s16le", "a.mp3": "libmp3lame", "a.flac": "flac", "a.ogg": "libopus", "a.m4a": "aac"}
    for name, codec in sounds.items():
        make_sound(folder / name, 0.5, [0.2], codec=codec)
    make_sound(folder / "a.aac", 0.5, [0.2], codec="aac", format="adts")
    for name in ("a.png", "a.jpg", "a.webp"):
        Image.fromarray(numbered(5, *SIZE)).save(folder / name)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---- what is done to them. Each takes the file, a source of chance and the other files, and gives a new file.


def flip_bits(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 4, 30, len(data) // 50 + 1))):
        out[_place(out, chance)] ^= 1 << chance.randrange(8)
    return bytes(out)


def truncate(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    return data[: chance.randrange(len(data))]


def splice(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """A piece of another file in the middle, over what stood there or before it."""
    other = chance.choice(others)
    start = chance.randrange(len(other))
    piece = other[start : start + chance.randrange(1, 4000)]
    at = _place(data, chance)
    return data[:at] + piece + data[at + chance.choice((0, len(piece))) :]


def repeat(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """A piece many times over."""
    at = _place(data, chance)
    return data[:at] + data[at : at + chance.randrange(1, 200)] * chance.randrange(2, 200) + data[at:]


def blank(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    at, length = _place(data, chance), chance.randrange(1, 2000)
    return data[:at] + bytes([chance.choice((0, 255))]) * len(data[at : at + length]) + data[at + length :]


def lie(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Numbers that no header should hold: sizes, counts, lengths, rates."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 10))):
        form = chance.choice((">I", "<I", ">H", "<H", ">Q", "<Q"))
        at = _place(out, chance)
        number = struct.pack(form, chance.choice(EXTREMES) & (256 ** struct.calcsize(form) - 1))
        out[at : at + len(number)] = number
    return bytes(out)


def swap_boxes(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Two boxes (of an mp4) or two stretches (of anything else) change places, or one stands inside the other."""
    found = _boxes(data) or [(i * len(data) // 8, (i + 1) * len(data) // 8) for i in range(8)]
    (a, b), (c, d) = sorted(chance.choices(found, k=2))
    if b <= c:
        return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
    return data[:a] + data[c:d] + data[a:]


MUTATIONS = (flip_bits, truncate, splice, repeat, blank, lie, lie, swap_boxes)


def _place(data: bytes, chance: random.Random) -> int:
    """Anywhere, but mostly where the headers are: at both ends."""
    length = len(data)
    near = min(length, 1200)
    return chance.choice((chance.randrange(length), chance.randrange(near), length - 1 - chance.randrange(near)))


def _boxes(data: bytes, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
    """Where the boxes of an mp4 lie, with those inside others (ISO 14496-12, 4.2)."""
    found, at, stop = [], start, len(data) if stop is None else stop
    while at + 8 <= stop:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if not 8 <= size <= stop - at:
            break
        found.append((at, at + size))
        if kind in BOXES:
            found += _boxes(data, at + 8, at + size)
        at += size
    return found


def made(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """File `number` of `seed`: (name, content)."""
    chance = random.Random(f"{seed}:{number}")
    name = chance.choice([*files])
    data = files[name]
    for _ in range(chance.choice((1, 1, 2, 3))):
        data = chance.choice(MUTATIONS)(data, chance, [*files.values()]) or b"\0"
    return name, data


# ---- what must come of it


@dataclass
class Tally:
    """What came of the files so far."""

    ends: Counter = field(default_factory=Counter)  # in words: how many ended so
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds of processor, of one file


class Complaints(logging.Handler):
    """What the door wrote into its log about one file."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def attempt(path: Path, kind: str, job: Path, tally: Tally) -> list[str]:
    """Open one file as a face or as a voice; what went wrong, in words."""
    complaints, door = Complaints(), logging.getLogger("syncdiff.media.reader")
    door.addHandler(complaints)
    door.propagate = False
    before, wrong, end = _cpu(), [], ""
    try:
        opened = {"face": open_clip, "voice": open_speech}[kind](path, job, LIMITS)
        end = "read"
        wrong += unsound(opened)
    except InputError as error:
        end, sentence = "refused", str(error)
        if "\n" in sentence or not sentence.endswith(".") or str(job) in sentence:
            wrong.append(f"no sentence: {sentence!r}")
        if left := [*job.iterdir()]:
            wrong.append(f"left behind: {[one.name for one in left]}")
    except Exception as error:  # noqa: BLE001 -- that is what is looked for
        end = "crash of the parent"
        wrong.append(f"{type(error).__name__} reached the caller: {error}")
    finally:
        door.removeHandler(complaints)
    for words in complaints.said:
        if "exit code" in words:
            end = f"refused, process ended with{words.split('with')[1]}"
        if "Traceback" in words and "av.error." not in words.splitlines()[-1]:
            wrong.append(f"traceback: {' / '.join(words.splitlines()[-3:])}")
    spent = _cpu() - before
    tally.slowest = max(tally.slowest, spent)
    if spent > CPU:
        wrong.append(f"{spent:.0f} s of processor")
    tally.ends[f"{kind}: {end}"] += 1
    return wrong


def unsound(opened: Clip | Speech) -> list[str]:
    """What was accepted has to be what it says: every frame and every sample is there, and there are not too many."""
    wrong, speech = [], opened
    if isinstance(opened, Clip):
        shapes = {frame.rgb().shape for frame in opened.frames()}
        if shapes != {(opened.height, opened.width, 3)}:
            wrong.append(f"frames of {shapes} in a clip of {opened.width}x{opened.height}")
        if not np.all(np.diff(opened.times) > 0) or opened.seconds <= opened.times[-1]:
            wrong.append("time does not go forward")
        if opened.seconds > LIMITS.seconds + 1:
            wrong.append(f"{opened.seconds} s were accepted")
        speech = opened.speech
    if speech is not None:
        samples = speech.samples()
        if not np.isfinite(samples).all() or len(samples) / 16_000 > LIMITS.seconds + 1:
            wrong.append(f"{len(samples)} samples of sound")
    return wrong


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fuzz(seed: int, numbers: range, until: float, kept: Path) -> Tally:
    """Try these files until the clock (time.monotonic) says so; findings go to `kept`."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        root = Path(name)
        (root / "originals").mkdir()
        files = originals(root / "originals")
        for number in numbers:
            if time.monotonic() > until:
                break
            original, data = made(files, seed, number)
            for kind in ("voice",) if original[2:] in {"wav", "mp3", "flac", "ogg", "aac"} else ("face", "voice"):
                job = root / "job"
                job.mkdir()
                path = root / original
                path.write_bytes(data)
                if wrong := attempt(path, kind, job, tally):
                    kept.mkdir(exist_ok=True)
                    (kept / f"{seed}-{number}-{kind}-{original}").write_bytes(data)
                    tally.findings.append(f"--seed {seed} --only {number} ({kind}, {original}): {'; '.join(wrong)}")
                    print(tally.findings[-1], flush=True)
                for left in sorted(job.rglob("*"), reverse=True):
                    left.rmdir() if left.is_dir() else left.unlink()
                job.rmdir()
                path.unlink()
        if others := [path.name for path in root.iterdir() if path.name != "originals"]:
            tally.findings.append(f"left beside the jobs: {others}")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try one file again")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="folder for files that found something"
    )
    asked = parser.parse_args()
    numbers = range(10**9) if asked.only is None else range(asked.only, asked.only + 1)
    began = time.monotonic()
    tally = fuzz(asked.seed, numbers, began + 60 * asked.minutes, asked.keep)
    for end, count in tally.ends.most_common():
        print(f"{count:6d}  {end}")
    print(f"{tally.ends.total()} files in {time.monotonic() - began:.0f} s; at most {tally.slowest:.1f} s of processor "
          f"for one; {len(tally.findings)} findings")  # fmt: skip
    return bool(tally.findings)


if __name__ == "__main__":
    raise SystemExit(main())
