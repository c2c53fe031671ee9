"""Reads PyTorch checkpoints of others without running code in them, and loads their tensors into a network."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from syncdiff.errors import CheckpointError
from syncdiff.weights import unpickler


def read_tensors(path: Path | str, *, sha256: str | None = None) -> dict[Any, Any]:
    """The dictionary in a torch.save file, on the CPU: plain data and tensors; other objects are `Placeholder`s.

    Args:
        path: a file in PyTorch's zip format or in the stream format from before 1.6 ("legacy").
        sha256: the pinned hash, hex; checked before anything is unpickled.

    Raises CheckpointError for a file that is missing, damaged, has another hash or holds no dictionary. The whole file
    is held in memory.
    """
    path, reason, content = Path(path), None, None
    expected = "a PyTorch checkpoint: a dictionary of plain data and tensors"
    try:
        with path.open("rb") as file:
            reason = _wrong_hash(file, sha256) or _unsupported(file)
            if reason is None:
                content = torch.load(file, "cpu", pickle_module=unpickler, weights_only=False)
    except FileNotFoundError:
        reason = "there is no such file"
    except IsADirectoryError:
        reason = "it is a folder"
    except Exception as error:  # noqa: BLE001 -- a damaged pickle raises anything
        reason = f"it cannot be read ({type(error).__name__}: {_first_line(error)})"
    if reason:
        raise CheckpointError(path, reason, expected)
    if not isinstance(content, dict):
        raise CheckpointError(path, f"it holds {type(content).__name__}, not a dictionary", expected)
    return content


def load_strictly(module: nn.Module, tensors: Mapping[str, Any], path: Path | str, *, assign: bool = False) -> None:
    """Load the tensors of the file at `path` into `module`: every key and shape must match.

    With `assign` the module holds the tensors themselves, not copies: needed for a module on the meta device.
    Raises CheckpointError with the first keys that are missing, left over or of another shape; the module is then
    unchanged."""
    state = module.state_dict()
    expected = f"the {len(state)} tensors of {type(module).__name__}"
    if missing := [key for key in state if key not in tensors]:
        raise CheckpointError(path, f"it lacks {first_few(missing)}", expected)
    if extra := [key for key in tensors if key not in state]:
        raise CheckpointError(path, f"it also has {first_few(extra)}", expected)
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(path, f"{key} is {type(tensor).__name__}", "a tensor")
        if tensor.shape != state[key].shape:
            raise CheckpointError(path, f"{key} has the shape {tuple(tensor.shape)}", f"{tuple(state[key].shape)}")
    module.load_state_dict(tensors, assign=assign)


def first_few(names: Iterable[object]) -> str:
    """The first five names, and how many more there are: an error is one sentence."""
    names = [str(name) for name in names]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]  # torch appends a stack trace of C++


def _wrong_hash(file: BufferedReader, sha256: str | None) -> str | None:
    """What is wrong with the file's hash, or None. Leaves the file at its start."""
    actual = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else None
    file.seek(0)
    return None if sha256 is None or actual == sha256.lower() else f"its sha256 is {actual}, not {sha256}"


def _unsupported(file: BinaryIO) -> str | None:
    """Why the file may not be given to torch.load, or None: it would load a TorchScript program and unpack a tar."""
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        if "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records():  # torch.load's own test
            return "it is a TorchScript program, of which nothing was run"
        if damaged := zipfile.ZipFile(file).testzip():  # torch.load does not verify checksums
            return f"its {damaged} is damaged (its checksum differs)"
    elif start[:1] != b"\x80":
        return f"it is no PyTorch file (it begins with {start!r})" if start else "it is empty (0 bytes)"
    elif tarfile.is_tarfile(file):
        return "it is a tar archive"
    file.seek(0)
    return None
