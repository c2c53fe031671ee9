"""Steps through a pickle on a machine that has no instruction for importing or calling.

It builds numbers, strings, containers and tensors. A class it does not know becomes `Inert`, a name and nothing more; a
name from Python's own library, torch or numpy that is not plain data means that somebody wrote code into the file,
which is then refused.
"""

from __future__ import annotations

import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # what was called otherwise in Python 2: protocol 2 still does
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from syncdiff.weights.pickle_names import STORAGES, Inert, Storage, kind, view
from syncdiff.weights.refusal import Refused


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in {"latin1", "latin-1"}:
        raise Refused(f"it has bytes written as {encoding}")
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
    "torch._utils._rebuild_tensor": view,
    "torch._utils._rebuild_tensor_v2": view,
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
        raise Refused("it imports something that has no name")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    full = f"{module}.{name}"
    plain = module in _DATA_MODULES or module.startswith("torch.nn.modules.")
    known = full in _BUILDERS or full in _DATA or (plain and "." not in name)
    if module.split(".")[0] in _WATCHED and not known:
        raise Refused(f"it carries code ({full}), of which nothing was run")
    return Inert(full)


@dataclass
class Machine:
    """Steps through one pickle with a stack and a memo. `storage` makes a Storage of a persistent id."""

    storage: Callable[[tuple], Storage]
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
                raise Refused(f"it uses the pickle instruction {opcode.name}, which torch.save does not")
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
            raise Refused(f"it appends to {kind(target)}")

    def put(self, pairs: list) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(pairs[::2], pairs[1::2], strict=True))
        elif not isinstance(target, Inert):
            raise Refused(f"it sets items of {kind(target)}")

    def call(self, function: object, arguments: object) -> None:
        if not isinstance(function, Inert) or not isinstance(arguments, tuple):
            raise Refused(f"it calls {kind(function)} with {kind(arguments)}")
        build = _BUILDERS.get(function.name)
        self.stack.append(build(*arguments) if build else Inert(function.name))

    def remember(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def stored(self) -> None:
        self.stack.append(self.storage(self.stack.pop()))


_STEPS: dict[str, Callable[[Machine, Any], None]] = {
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
