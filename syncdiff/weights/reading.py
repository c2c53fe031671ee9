"""A file -> its tensors, and from there into a network. All or nothing, and nothing in the file is run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from torch import Tensor, nn

from syncdiff.errors import CheckpointError
from syncdiff.weights.formats import opened
from syncdiff.weights.pickle_names import Plain, kind
from syncdiff.weights.refusal import MALFORMED, Refused, some


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
    except Refused as refused:
        raise CheckpointError(path, str(refused), expected) from refused
    except MALFORMED as error:
        raise CheckpointError(path, f"it is damaged ({type(error).__name__}: {error})", expected) from error
    raise CheckpointError(path, f"its sha256 is {found}", f"{sha256}")


def load_strictly(module: nn.Module, tensors: dict, path: Path | str, *, assign: bool = False) -> None:
    """Give `module` the tensors of the file at `path`: every key and shape must match.

    With `assign` the module takes the tensors themselves, as one built on the meta device must.
    Raises CheckpointError with the first key that is missing, left over or of another shape; the module is then as it
    was."""
    wanted = module.state_dict()
    expected = f"the {len(wanted)} tensors of {type(module).__name__}"
    if missing := [key for key in wanted if key not in tensors]:
        raise CheckpointError(path, f"it lacks {some(missing)}", expected)
    if foreign := [key for key in tensors if key not in wanted]:
        raise CheckpointError(path, f"it also has {some(foreign)}", expected)
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(path, f"{key} is {kind(tensor)}", f"a tensor of shape {tuple(wanted[key].shape)}")
        if tensor.shape != wanted[key].shape:
            raise CheckpointError(path, f"{key} has the shape {tuple(tensor.shape)}", f"{tuple(wanted[key].shape)}")
    module.load_state_dict(tensors, assign=assign)


def _read(file: BinaryIO, entries: Sequence[str] | None) -> dict:
    file.seek(0)  # the hash has read it
    with closing(opened(file)) as found:
        return Plain(found.read, os.fstat(file.fileno()).st_size).plain(_wanted(found.content, entries))


def _wanted(content: object, entries: Sequence[str] | None) -> dict:
    if not isinstance(content, dict):
        raise Refused(f"it holds {kind(content)}, not a dictionary")
    if entries is None:
        return content
    found = {key: content[key] for key in entries if key in content}
    if not found:
        raise Refused(f"it has no entry {' or '.join(entries)}, but {some(content)}")
    return found
