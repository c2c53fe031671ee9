"""Other people's checkpoint files -> plain containers of tensors. Knows the file formats, and no network's layers.

A PyTorch checkpoint is a pickle, and a pickle is a small program that may call whatever it names. It is never run here:
`read_tensors` steps through its instructions on a machine that has none for importing or calling. The machine builds
numbers, strings, containers and tensors; a class it does not know becomes `Inert`, a name and nothing more; a name from
Python's own library, torch or numpy that is not plain data means that somebody wrote code into the file, which is then
refused. Both formats are read: the zip of PyTorch 1.6 and later, and the older stream ("legacy") before it.

`fetch` is the only way in from outside, and it asks first.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickletools
import shutil
import struct
import sys
import tempfile
import urllib.request
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # what was called otherwise in Python 2: protocol 2 still does
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from syncdiff.media import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file in the older format
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class CheckpointError(InputError):
    """The checkpoint cannot be used: one sentence with the file, the reason and what was expected."""

    def __init__(self, path: Path | str, reason: str, expected: str) -> None:
        reason = shorten(reason, 300, placeholder=" ...")  # names in the file may be long, or hold line feeds
        super().__init__(f"{Path(path).name} is refused: {reason}; expected {expected}.")


class _Refused(Exception):  # noqa: N818 -- becomes a CheckpointError where the file's name is known
    """Why the file is refused, said by a part that does not know which file it is."""


@dataclass(frozen=True)
class Inert:
    """What stands where the file had a class, or an object of one, that is not built here: its name, nothing else."""

    name: str


def read_tensors(path: Path | str, *, sha256: str | None = None, entries: Sequence[str] | None = None) -> dict:
    """What a torch.save file holds: nested dict, list, tuple, set, str, bytes, numbers and CPU tensors; else `Inert`.

    Args:
        path: a file in PyTorch's zip format or in the older one; on any device when it was saved.
        sha256: the pinned hash, hex; checked before anything is read.
        entries: only those of these top-level entries that are there, at least one: an optimiser's state never comes
            into memory.

    Raises CheckpointError for a file that is cut off, carries code, has another hash, has none of the entries, or is
    something else altogether. Memory: the tensors asked for, which never exceed the file, and two storages more.
    """
    path = Path(path)
    expected = "a PyTorch checkpoint: a dictionary of plain data and tensors"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else None
            if found == (sha256 and sha256.lower()):
                return _read(file, entries)
    except FileNotFoundError as error:
        raise CheckpointError(path, "there is no such file", expected) from error
    except OSError as error:
        raise CheckpointError(path, f"it cannot be read ({error.strerror})", expected) from error
    except _Refused as refused:
        raise CheckpointError(path, str(refused), expected) from refused
    except _MALFORMED as error:
        raise CheckpointError(path, f"it is damaged ({type(error).__name__}: {error})", expected) from error
    raise CheckpointError(path, f"its sha256 is {found}", f"{sha256}")


# What reading a file that somebody bent can raise; none of it is a fault of this program.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def load_strictly(
    module: nn.Module, tensors: dict, path: Path | str, *, may_lack: tuple[str, ...] = (), assign: bool = False
) -> None:
    """Give `module` the tensors of the file at `path`: every key and shape must match, unless a key ends in `may_lack`.

    With `assign` the module takes the tensors themselves, as one built on the meta device must.
    Raises CheckpointError with the first key that is missing, left over or of another shape; the module is then as it
    was."""
    wanted = module.state_dict()
    expected = f"the {len(wanted)} tensors of {type(module).__name__}"
    if missing := [key for key in wanted if key not in tensors and not key.endswith(may_lack or ("\0",))]:
        raise CheckpointError(path, f"it lacks {_some(missing)}", expected)
    if foreign := [key for key in tensors if key not in wanted]:
        raise CheckpointError(path, f"it also has {_some(foreign)}", expected)
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(path, f"{key} is {_kind(tensor)}", f"a tensor of shape {tuple(wanted[key].shape)}")
        if tensor.shape != wanted[key].shape:
            raise CheckpointError(path, f"{key} has the shape {tuple(tensor.shape)}", f"{tuple(wanted[key].shape)}")
    module.load_state_dict(tensors, strict=False, assign=assign)


def _read(file: BinaryIO, entries: Sequence[str] | None) -> dict:
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    with closing(_ZipFormat(file) if start == b"PK\x03\x04" else _LegacyFormat(file, size)) as found:
        return _Plain(found.read, size).plain(_wanted(found.content, entries))


def _wanted(content: object, entries: Sequence[str] | None) -> dict:
    if not isinstance(content, dict):
        raise _Refused(f"it holds {_kind(content)}, not a dictionary")
    if entries is None:
        return content
    found = {key: content[key] for key in entries if key in content}
    if not found:
        raise _Refused(f"it has no entry {' or '.join(entries)}, but {_some(content)}")
    return found


def _kind(value: object) -> str:
    """What a value is, in a sentence."""
    if isinstance(value, Inert):
        return value.name
    return {_View: "a tensor", _Storage: "a storage"}.get(type(value), type(value).__name__)


def _some(names: Iterable[object], most: int = 5) -> str:
    """The first few names, and how many more there are: an error is one sentence."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


# --- tensors that are named, but not read yet


@dataclass(frozen=True)
class _Storage:
    """A run of numbers elsewhere in the file."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class _View:
    """A tensor: where it lies in its storage, in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: object, offset: object, size: object, stride: object, *_gradient: object) -> _View:
    size, stride = tuple(size), tuple(stride)
    whole = [offset, *size, *stride]
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise _Refused("a tensor in it is not made of a storage, a size and strides")
    if not all(type(number) is int and number >= 0 for number in whole):
        raise _Refused(f"a tensor in it has the size {size} and the strides {stride}")
    if 0 not in size:
        end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if end > storage.numel:
            raise _Refused(f"a tensor in it ends at number {end} of a storage of {storage.numel}")
    return _View(storage, offset, size, stride)


class _Plain:
    """Turns what the machine built into plain containers and read tensors."""

    def __init__(self, read: Callable[[_Storage], bytearray], budget: int) -> None:
        self.read, self.budget = read, budget
        self.tensors: dict[_View, Tensor] = {}
        self.done: dict[int, Any] = {}

    def plain(self, value: Any) -> Any:
        if isinstance(value, _View):
            return self.tensor(value)
        if not isinstance(value, (dict, list, tuple)):
            return Inert("a storage") if isinstance(value, _Storage) else value
        if id(value) in self.done:
            return self.done[id(value)]
        self.done[id(value)] = Inert("a container that holds itself")
        if isinstance(value, dict):
            made = {key: self.plain(item) for key, item in value.items()}
        else:
            made = type(value)(self.plain(item) for item in value)
        self.done[id(value)] = made
        return made

    def tensor(self, view: _View) -> Tensor:
        if view not in self.tensors:
            numel, dtype = math.prod(view.size), view.storage.dtype
            self.budget -= numel * dtype.itemsize
            if self.budget < 0:  # a stride of 0 makes terabytes of four bytes
                raise _Refused("its tensors add up to more than the file holds")
            if numel:
                whole = torch.frombuffer(self.read(view.storage), dtype=dtype)
                part = whole.as_strided(view.size, view.stride, view.offset)
                # the only tensor in its storage keeps the memory that was read; a part shall not hold on to the whole
                self.tensors[view] = part.contiguous() if numel == view.storage.numel else part.clone().contiguous()
            else:
                self.tensors[view] = torch.empty(view.size, dtype=dtype)
        return self.tensors[view]


# --- the machine that steps through a pickle


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in {"latin1", "latin-1"}:
        raise _Refused(f"it has bytes written as {encoding}")
    return text.encode("latin1")


# Everything that a pickle can have called here. Each is ours, or a container of the very thing it is given.
_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda pairs=(): dict(pairs),
    "collections.defaultdict": lambda _factory=None, pairs=(): dict(pairs),
    "collections.Counter": lambda counts=(): dict(counts),
    "builtins.set": lambda items=(): set(items),
    "builtins.frozenset": lambda items=(): frozenset(items),
    "_codecs.encode": _encode,  # how protocol 2 writes bytes
    "copyreg._reconstructor": lambda cls, _base, _state: Inert(cls.name),
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": lambda data, _gradient, _hooks: data,
}

# Names from Python, torch and numpy that are plain data, and so may stand in a file; they become Inert.
_DATA = frozenset(
    ["argparse.Namespace", "_operator.getitem", "types.SimpleNamespace", "torch.device", "torch.Tensor"]
    + [f"builtins.{kind.__name__}" for kind in (object, type, dict, list, tuple, int, float, complex, str, bool, bytes)]
    + [f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "float32", "int64", "int32", "bool_")]
    + [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]
    + [str(dtype) for dtype in STORAGES.values()]
    + [f"torch.{cuda}{name}" for cuda in ("", "cuda.") for name in STORAGES]
)
_DATA_MODULES = frozenset(["typing", "enum", "pathlib", "datetime"])
_WATCHED = sys.stdlib_module_names | {"torch", "numpy"}

# Instructions whose argument is the value that they push.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


def _name(module: object, name: object) -> Inert:
    """What an instruction that imports yields: the name, if the file may say it."""
    if not (isinstance(module, str) and isinstance(name, str)):
        raise _Refused("it imports something that has no name")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    full = f"{module}.{name}"
    plain = module in _DATA_MODULES or module.startswith("torch.nn.modules.")
    known = full in _BUILDERS or full in _DATA or (plain and "." not in name)
    if module.split(".")[0] in _WATCHED and not known:
        raise _Refused(f"it carries code ({full}), of which nothing was run")
    return Inert(full)


@dataclass
class _Machine:
    """Steps through one pickle with a stack and a memo. `storage` makes a _Storage of a persistent id."""

    storage: Callable[[tuple], _Storage]
    stack: list = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, stream: BinaryIO) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _VALUES:
                self.stack.append(argument)
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise _Refused(f"it uses the pickle instruction {opcode.name}, which torch.save does not")
        raise AssertionError("genops ends at STOP or raises")

    def take(self, count: int) -> list:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def since_mark(self) -> list:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def add(self, items: list) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(items)
        elif not isinstance(target, Inert):
            raise _Refused(f"it appends to {_kind(target)}")

    def put(self, pairs: list) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(pairs[::2], pairs[1::2], strict=True))
        elif not isinstance(target, Inert):
            raise _Refused(f"it sets items of {_kind(target)}")

    def call(self, function: object, arguments: object) -> None:
        if not isinstance(function, Inert) or not isinstance(arguments, tuple):
            raise _Refused(f"it calls {_kind(function)} with {_kind(arguments)}")
        build = _BUILDERS.get(function.name)
        self.stack.append(build(*arguments) if build else Inert(function.name))

    def remember(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def stored(self) -> None:
        self.stack.append(self.storage(self.stack.pop()))


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda _machine, _: None,
    "FRAME": lambda _machine, _: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.take(1),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.take(3))),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(machine.since_mark())),
    "APPEND": lambda machine, _: machine.add(machine.take(1)),
    "APPENDS": lambda machine, _: machine.add(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.put(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.put(machine.since_mark()),
    "BINPUT": lambda machine, number: machine.remember(number),
    "LONG_BINPUT": lambda machine, number: machine.remember(number),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "BINGET": lambda machine, number: machine.stack.append(machine.memo[number]),
    "LONG_BINGET": lambda machine, number: machine.stack.append(machine.memo[number]),
    "GLOBAL": lambda machine, names: machine.stack.append(_name(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.stack.append(_name(*machine.take(2))),
    "REDUCE": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ_EX": lambda machine, _: machine.call(*machine.take(3)[:2]),
    "BUILD": lambda machine, _: machine.take(1),  # an object's attributes: the objects that have any are inert
    "BINPERSID": lambda machine, _: machine.stored(),
}


def _storage(identity: object) -> _Storage:
    """The persistent id that torch.save writes for a storage: ("storage", type, key, device, numel[, view])."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise _Refused("it refers to something outside that is not a storage of numbers")
    _, kind, key, _device, numel = identity[:5]
    dtype = STORAGES.get(kind.name.split(".")[-1]) if isinstance(kind, Inert) else None
    if dtype is None:
        raise _Refused(f"it stores numbers as {_kind(kind)}, and known are {', '.join(STORAGES)}")
    if identity[5:] not in {(), (None,)}:
        raise _Refused("it has a storage within a storage, which PyTorch wrote before 0.4")
    if type(numel) is not int or numel < 0 or not isinstance(key, str):
        raise _Refused(f"it has a storage of {numel!r} numbers")
    return _Storage(key, dtype, numel)


# --- the two formats


class _ZipFormat:
    """PyTorch 1.6 and later: NAME/data.pkl, NAME/data/KEY, stored without compression."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self.archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise _Refused("it is cut off: a zip that lacks the directory at its end") from error
        self.members = {member.filename: member for member in self.archive.infolist()}
        pickles = [name for name in self.members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise _Refused(f"it is a zip of {_some(self.members)}, without a data.pkl")
        self.folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith((f"{self.folder}code/", f"{self.folder}constants.pkl")) for name in self.members):
            raise _Refused("it carries code (a TorchScript program), of which nothing was run")
        if self.member("byteorder", b"little") != b"little":
            raise _Refused("its numbers are big-endian")
        self.content = _Machine(_storage).run(BytesIO(self.member("data.pkl")))

    def member(self, name: str, default: bytes | None = None) -> bytes:
        member = self.members.get(self.folder + name)
        if member is None:
            if default is None:
                raise _Refused(f"its {name} is missing")
            return default
        if member.compress_type != zipfile.ZIP_STORED:
            raise _Refused(f"its {name} is compressed, which torch.save does not do")
        return self.archive.read(member)  # and compares the checksum

    def read(self, storage: _Storage) -> bytearray:
        data = bytearray(self.member(f"data/{storage.key}"))
        if len(data) != storage.numel * storage.dtype.itemsize:
            raise _Refused(f"storage {storage.key} has {len(data)} bytes, not {storage.numel} of {storage.dtype}")
        return data

    def close(self) -> None:
        self.archive.close()


class _LegacyFormat:
    """Before PyTorch 1.6: pickles of a magic number, a version, the machine, the content, the keys; the numbers."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.seen: dict[str, _Storage] = {}
        self.starts: dict[str, int] = {}
        start = file.read(2)
        file.seek(0)
        if not start.startswith(b"\x80") or self.pickle() != LEGACY_MAGIC:
            raise _Refused(f"it is no PyTorch file (it begins with {start!r})" if start else "it is empty (0 bytes)")
        version, _machine = self.pickle(), self.pickle()
        if version != 1001:
            raise _Refused(f"it has version {version} of the older format, and the only known one is 1001")
        self.content = self.pickle()
        for key in self.pickle():
            (numel,) = struct.unpack("<q", file.read(8))
            storage = self.seen[key]
            if numel != storage.numel:
                raise _Refused(f"storage {key} has {numel} numbers, not {storage.numel}")
            self.starts[key] = file.tell()
            end = self.starts[key] + numel * storage.dtype.itemsize
            if end > size:
                raise _Refused(f"it is cut off: {size} bytes, and storage {key} would end at {end}")
            file.seek(end)

    def pickle(self) -> Any:
        return _Machine(self.storage).run(self.file)

    def storage(self, identity: tuple) -> _Storage:
        storage = _storage(identity)
        if self.seen.setdefault(storage.key, storage) != storage:
            raise _Refused(f"storage {storage.key} has two sizes or kinds of number")
        return storage

    def read(self, storage: _Storage) -> bytearray:
        self.file.seek(self.starts[storage.key])
        data = bytearray(storage.numel * storage.dtype.itemsize)
        self.file.readinto(data)
        return data

    def close(self) -> None:
        """The file is the caller's."""


# --- fetching


@dataclass(frozen=True)
class Offer:
    """A file that its owner gives away under a licence, and where."""

    url: str
    licence: str  # its name and what it forbids, as the visitor shall read it before saying yes
    sha256: str | None = None  # None where its owner has published none


def ask_on_terminal(question: str) -> bool:
    """Print the question; only the word yes is a yes. Without a terminal nobody can say it."""
    print(question, file=sys.stderr)
    try:
        return input("Type yes to agree and download: ").strip().lower() == "yes"
    except EOFError:
        return False


def fetch(offer: Offer, folder: Path, *, ask: Callable[[str], bool] = ask_on_terminal) -> Path:
    """The offered file in `folder`: the one that lies there, or, after `ask` showed the licence and got True, fetched.

    `ask` must return True itself; nothing else is a yes. The file appears whole or not at all.
    Raises CheckpointError without a yes, when the address does not answer, or when another file came than the pinned.
    """
    to = folder / offer.url.rsplit("/", 1)[-1]
    if to.exists():
        return to
    question = f"{to.name} is not here. It can be fetched from {offer.url}\n{offer.licence}"
    if ask(question) is not True:
        raise CheckpointError(to, "nobody agreed to its licence, so nothing was fetched", f"a yes, or the file at {to}")
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=folder, prefix=f".{to.name}.")
    try:
        with os.fdopen(handle, "w+b") as file:
            with urllib.request.urlopen(offer.url, timeout=60) as answer:  # noqa: S310 -- an address of our own
                shutil.copyfileobj(answer, file, 2**20)
                announced = int(answer.headers.get("Content-Length") or file.tell())
            if file.tell() != announced:
                raise CheckpointError(to, f"only {file.tell()} bytes of it came", f"{announced} bytes")
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if offer.sha256 and found != offer.sha256.lower():
            raise CheckpointError(to, f"what came has the sha256 {found}", offer.sha256)
        Path(part).replace(to)
    except (OSError, HTTPException) as error:
        raise CheckpointError(to, f"{offer.url} cannot be fetched ({error})", "an answer from there") from error
    finally:
        Path(part).unlink(missing_ok=True)
    return to
