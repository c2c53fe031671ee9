"""What a file names: classes that stay names, storages, and tensors that are read when they are wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from syncdiff.weights.refusal import Refused

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


@dataclass(frozen=True)
class Inert:
    """What stands where the file had a class, or an object of one, that is not built here: its name, nothing else."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers elsewhere in the file."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class View:
    """A tensor: where it lies in its storage, in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def kind(value: object) -> str:
    """What a value is, in a sentence."""
    if isinstance(value, Inert):
        return value.name
    return {View: "a tensor", Storage: "a storage"}.get(type(value), type(value).__name__)


def storage_of(identity: object) -> Storage:
    """The persistent id that torch.save writes for a storage: ("storage", type, key, device, numel[, view])."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise Refused("it refers to something outside that is not a storage of numbers")
    _, numbers, key, _device, numel = identity[:5]
    dtype = STORAGES.get(numbers.name.split(".")[-1]) if isinstance(numbers, Inert) else None
    if dtype is None:
        raise Refused(f"it stores numbers as {kind(numbers)}, and known are {', '.join(STORAGES)}")
    if identity[5:] not in {(), (None,)}:
        raise Refused("it has a storage within a storage, which PyTorch wrote before 0.4")
    if type(numel) is not int or numel < 0 or not isinstance(key, str):
        raise Refused(f"it has a storage of {numel!r} numbers")
    return Storage(key, dtype, numel)


def view(storage: object, offset: object, size: object, stride: object, *_gradient: object) -> View:
    """What torch's pickles call to make a tensor: refused where it would reach beyond its storage."""
    size, stride = tuple(size), tuple(stride)
    whole = [offset, *size, *stride]
    if not isinstance(storage, Storage) or len(size) != len(stride):
        raise Refused("a tensor in it is not made of a storage, a size and strides")
    if not all(type(number) is int and number >= 0 for number in whole):
        raise Refused(f"a tensor in it has the size {size} and the strides {stride}")
    if 0 not in size:
        end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if end > storage.numel:
            raise Refused(f"a tensor in it ends at number {end} of a storage of {storage.numel}")
    return View(storage, offset, size, stride)


class Plain:
    """Turns what the machine built into plain containers and read tensors, of at most `budget` bytes in all."""

    def __init__(self, read: Callable[[Storage], bytearray], budget: int) -> None:
        self.read, self.budget = read, budget
        self.tensors: dict[View, Tensor] = {}
        self.done: dict[int, Any] = {}

    def plain(self, value: Any) -> Any:
        if isinstance(value, View):
            return self.tensor(value)
        if not isinstance(value, (dict, list, tuple)):
            return Inert("a storage") if isinstance(value, Storage) else value
        if id(value) in self.done:
            return self.done[id(value)]
        self.done[id(value)] = Inert("a container that holds itself")
        if isinstance(value, dict):
            made = {key: self.plain(item) for key, item in value.items()}
        else:
            made = type(value)(self.plain(item) for item in value)
        self.done[id(value)] = made
        return made

    def tensor(self, view: View) -> Tensor:
        if view not in self.tensors:
            numel, dtype = math.prod(view.size), view.storage.dtype
            self.budget -= numel * dtype.itemsize
            if self.budget < 0:  # a stride of 0 makes terabytes of four bytes
                raise Refused("its tensors add up to more than the file holds")
            if numel:
                whole = torch.frombuffer(self.read(view.storage), dtype=dtype)
                part = whole.as_strided(view.size, view.stride, view.offset)
                # the only tensor in its storage keeps the memory that was read; a part shall not hold on to the whole
                self.tensors[view] = part.contiguous() if numel == view.storage.numel else part.clone().contiguous()
            else:
                self.tensors[view] = torch.empty(view.size, dtype=dtype)
        return self.tensors[view]
