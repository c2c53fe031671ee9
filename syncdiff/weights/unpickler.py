"""A restricted unpickler for torch.load's `pickle_module`: it builds tensors and plain data, nothing else.

It derives from `pickle._Unpickler`, the Python implementation, whose opcode table can be changed.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor


class Placeholder:
    """Takes the place of an object whose class is not in `ALLOWED`: that class is neither imported nor called."""

    def __new__(cls, *_arguments: object, **_keywords: object) -> Placeholder:
        return super().__new__(cls)

    def _ignore(self, *_: object) -> None:
        """Drop what a pickle adds to a list, set or dictionary of an unknown class."""

    append = extend = add = update = __setitem__ = _ignore


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """A view of a storage, as torch.save stores tensors. torch itself refuses one that exceeds its storage."""
    tensor = _rebuild_tensor(storage, offset, size, stride)
    stored = tensor.untyped_storage().nbytes()
    if tensor.nbytes > stored:  # with a stride of 0, four bytes could become terabytes when copied
        raise ValueError(f"a tensor of {tensor.nbytes} bytes in a storage of {stored}")
    return tensor


ALLOWED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": torch.Size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, _requires_grad, _hooks: data,
}


class Unpickler(pickle._Unpickler):
    """Resolves only the names in `ALLOWED`, and sets no attributes."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The function for an allowed name, else a subclass of Placeholder with that name. Imports nothing."""
        full = f"{module}.{name}"
        return ALLOWED.get(full) or type(full, (Placeholder,), {})

    def _drop_state(self) -> None:
        self.stack.pop()  # pyright: ignore[reportAttributeAccessIssue] -- pickle's own, set by load()

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _drop_state}  # noqa: RUF012  # pyright: ignore[reportAssignmentType]


def load(file: BinaryIO, **options: Any) -> Any:
    """As pickle.load."""
    return Unpickler(file, **options).load()
