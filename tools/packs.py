"""Prepared clips packed into folders of a given size, and unpacked: how `tools/gpu.py` moves its data."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import soundfile

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.training.data import people_in
from syncdiff.training.sets import DENOISER_SHARE, SPEECH_SHARE
from syncdiff.training.teacher import first_layers

MIB = 2**20
PIECE = 2 * MIB  # of the teacher, so that it fits into the room left in a folder
QUALITY = 0.93  # soundfile's compression level of Opus: 24 kbit/s
TEACHER = "teacher.bin"
SETS = {name: DENOISER_SHARE.get(name, 0) + SPEECH_SHARE.get(name, 0) for name in DENOISER_SHARE | SPEECH_SHARE}

Item = tuple[str, Callable[[], bytes]]  # a file's name in a pack and a function that makes it


def opus(sound: np.ndarray) -> bytes:
    """Sound [N] int16 at 16 kHz as Ogg Opus."""
    out = io.BytesIO()
    soundfile.write(out, sound, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=QUALITY)
    return out.getvalue()


def _record(path: Path) -> Iterator[Item]:
    """The files of one prepared clip; its record comes last."""
    film = path.with_suffix(".mp4")
    if film.exists():
        yield film.name, film.read_bytes
    with np.load(path) as file:
        arrays = {key: file[key] for key in file}
    sound, rest = arrays.pop("sound"), io.BytesIO()
    yield path.with_suffix(".ogg").name, lambda: opus(sound)
    np.savez_compressed(rest, length=len(sound), **arrays)
    yield path.name, rest.getvalue


def clips(data: Path) -> Iterator[Path]:
    """Records in the order of packing: the set that is furthest behind its share comes next, its people in turn."""
    waiting = {}
    for name in SETS:
        people: dict[str, list[Path]] = {}
        for path, who in people_in(data / name).items():
            people.setdefault(who, []).append(path)
        turns = chain.from_iterable(zip_longest(*people.values()))
        waiting[name] = [path for path in turns if path]
    packed = dict.fromkeys(waiting, 0.0)
    while any(waiting.values()):
        name = min((name for name in waiting if waiting[name]), key=lambda name: packed[name] / SETS[name])
        path = waiting[name].pop(0)
        packed[name] += path.stat().st_size
        yield path


def items(data: Path, teacher: Path | None) -> Iterator[list[Item]]:
    """Everything to be packed; files of one list go into one folder."""
    if teacher:
        parts = pieces(first_layers(teacher), TEACHER, PIECE)
        yield from ([(name, lambda part=part: part)] for name, part in parts.items())
    for path in sorted(data.glob("*/identities.tsv")):
        if path.parent.name in SETS:
            yield [(f"{path.parent.name}/{path.name}", path.read_bytes)]
    for path in clips(data):
        yield [(f"{path.parent.name}/{name}", make) for name, make in _record(path)]


def pack(data: Path, out: Path, teacher: Path | None = None, size: float = 15.0, folders: float = math.inf) -> int:
    """Fill OUT/pack-01, OUT/pack-02, ... with at most `size` MiB each; returns how many there are.

    A folder is written whole or not at all, and one that is there is kept.
    Raises InputError for data without clips, and for a clip that is larger than a folder.
    """
    done, packed = set(), sorted(out.glob("pack-*/data.zip"))
    for path in packed:
        with zipfile.ZipFile(path) as file:
            done |= set(file.namelist())
    number, room, filling, found = len(packed), 0.0, None, False
    for files in items(data, teacher):
        found = True
        if files[-1][0] in done:
            continue
        contents = [(name, make()) for name, make in files]
        need = sum(len(content) + 2 * len(name) + 200 for name, content in contents)  # with zip's own headers
        if need > size * MIB - 200:
            raise InputError(f"{contents[-1][0]} takes {need / MIB:.1f} MiB: give --size of more than that.")
        if need > room:
            _close(filling, out, number)
            if number == folders:
                return number
            out.mkdir(parents=True, exist_ok=True)
            number, room, filling = number + 1, size * MIB - 200, zipfile.ZipFile(out / "open.partial", "w")
        for name, content in contents:
            filling.writestr(zipfile.ZipInfo(name), content)
        room -= need
    if not found:
        sets = ", ".join(SETS)
        raise InputError(f"{data} holds no prepared clips of {sets}: make them with syncdiff.training.prepare.")
    _close(filling, out, number)
    return number


def _close(pack: zipfile.ZipFile | None, out: Path, number: int) -> None:
    if pack:
        pack.close()
        (out / f"pack-{number:02d}").mkdir(exist_ok=True)
        (out / "open.partial").rename(out / f"pack-{number:02d}" / "data.zip")


def unpack(packs: list[Path], data: Path) -> None:
    """Restore prepared data from packs; files that exist are kept. Raises InputError for what is no pack."""
    for path in packs:
        try:
            with zipfile.ZipFile(path / "data.zip") as file:
                for name in file.namelist():
                    _restore(file, name, data)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no whole pack: give a folder that pack wrote. ({error})") from error
    joined(data, TEACHER)


def _restore(file: zipfile.ZipFile, name: str, data: Path) -> None:
    target = data / name
    if target.exists() or target.suffix == ".ogg":
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = file.read(name)
    if target.suffix == ".npz":
        with np.load(io.BytesIO(content)) as packed:
            arrays = {key: packed[key] for key in packed}
        sound, _ = soundfile.read(io.BytesIO(file.read(f"{name[:-4]}.ogg")), dtype="int16")
        record = io.BytesIO()
        np.savez(record, sound=sound[: int(arrays.pop("length"))], **arrays)
        content = record.getvalue()
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(content)
    partial.rename(target)


def pieces(content: bytes, name: str, size: int) -> dict[str, bytes]:
    """A file in parts called NAME.1of3 and so on."""
    count = max(1, math.ceil(len(content) / size))
    return {f"{name}.{i + 1}of{count}": content[i * size : (i + 1) * size] for i in range(count)}


def joined(folder: Path, name: str) -> Path | None:
    """FOLDER/NAME put together of its parts; None as long as one is missing."""
    target = folder / name
    parts = {int(path.suffix[1:].split("of")[0]): path for path in folder.glob(f"{name}.*of*")}
    if parts and len(parts) == int(parts[1].suffix.split("of")[1] if 1 in parts else 0):
        target.write_bytes(b"".join(parts[i].read_bytes() for i in sorted(parts)))
    return target if target.exists() else None
