"""The two formats of torch.save: where the pickle is, and where the numbers are."""

from __future__ import annotations

import os
import struct
import zipfile
from io import BytesIO
from typing import Any, BinaryIO

from syncdiff.weights.pickle_machine import Machine
from syncdiff.weights.pickle_names import Storage, storage_of
from syncdiff.weights.refusal import Refused, some

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file in the older format


def opened(file: BinaryIO) -> ZipFormat | LegacyFormat:
    """The file in the format that its first bytes call for; `close` it when its numbers are read."""
    start = file.read(4)
    file.seek(0)
    return ZipFormat(file) if start == b"PK\x03\x04" else LegacyFormat(file, os.fstat(file.fileno()).st_size)


class ZipFormat:
    """PyTorch 1.6 and later: NAME/data.pkl, NAME/data/KEY, stored without compression."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self.archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise Refused("it is cut off: a zip that lacks the directory at its end") from error
        self.members = {member.filename: member for member in self.archive.infolist()}
        pickles = [name for name in self.members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise Refused(f"it is a zip of {some(self.members)}, without a data.pkl")
        self.folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith((f"{self.folder}code/", f"{self.folder}constants.pkl")) for name in self.members):
            raise Refused("it carries code (a TorchScript program), of which nothing was run")
        if self.member("byteorder", b"little") != b"little":
            raise Refused("its numbers are big-endian")
        self.content = Machine(storage_of).run(BytesIO(self.member("data.pkl")))

    def member(self, name: str, default: bytes | None = None) -> bytes:
        member = self.members.get(self.folder + name)
        if member is None:
            if default is None:
                raise Refused(f"its {name} is missing")
            return default
        if member.compress_type != zipfile.ZIP_STORED:
            raise Refused(f"its {name} is compressed, which torch.save does not do")
        return self.archive.read(member)  # and compares the checksum

    def read(self, storage: Storage) -> bytearray:
        data = bytearray(self.member(f"data/{storage.key}"))
        if len(data) != storage.numel * storage.dtype.itemsize:
            raise Refused(f"storage {storage.key} has {len(data)} bytes, not {storage.numel} of {storage.dtype}")
        return data

    def close(self) -> None:
        self.archive.close()


class LegacyFormat:
    """Before PyTorch 1.6: pickles of a magic number, a version, the machine, the content, the keys; the numbers."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.seen: dict[str, Storage] = {}
        self.starts: dict[str, int] = {}
        start = file.read(2)
        file.seek(0)
        if not start.startswith(b"\x80") or self.pickle() != LEGACY_MAGIC:
            raise Refused(f"it is no PyTorch file (it begins with {start!r})" if start else "it is empty (0 bytes)")
        version, _machine = self.pickle(), self.pickle()
        if version != 1001:
            raise Refused(f"it has version {version} of the older format, and the only known one is 1001")
        self.content = self.pickle()
        for key in self.pickle():
            (numel,) = struct.unpack("<q", file.read(8))
            storage = self.seen[key]
            if numel != storage.numel:
                raise Refused(f"storage {key} has {numel} numbers, not {storage.numel}")
            self.starts[key] = file.tell()
            end = self.starts[key] + numel * storage.dtype.itemsize
            if end > size:
                raise Refused(f"it is cut off: {size} bytes, and storage {key} would end at {end}")
            file.seek(end)

    def pickle(self) -> Any:
        return Machine(self.storage).run(self.file)

    def storage(self, identity: tuple) -> Storage:
        storage = storage_of(identity)
        if self.seen.setdefault(storage.key, storage) != storage:
            raise Refused(f"storage {storage.key} has two sizes or kinds of number")
        return storage

    def read(self, storage: Storage) -> bytearray:
        self.file.seek(self.starts[storage.key])
        data = bytearray(storage.numel * storage.dtype.itemsize)
        self.file.readinto(data)
        return data

    def close(self) -> None:
        """The file is the caller's."""
