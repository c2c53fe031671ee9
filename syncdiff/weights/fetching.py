"""Fetching a file that its owner gives away: the licence is shown first, and only a yes is a yes."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from syncdiff.errors import CheckpointError


@dataclass(frozen=True)
class Offer:
    """A file that its owner gives away under a licence, and where."""

    url: str
    licence: str  # its name and what it forbids, as the visitor shall read it before saying yes
    sha256: str | None = None  # or how it begins, as far as its owner has published it
    mirrors: tuple[str, ...] = ()  # other addresses of the very file, tried where the first does not answer


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
    unreachable: list[str] = []
    for url in (offer.url, *offer.mirrors):
        try:
            _bring(url, to, offer.sha256)
        except (OSError, HTTPException) as error:
            unreachable.append(f"{url} cannot be fetched ({error})")
        else:
            return to
    raise CheckpointError(to, "; ".join(unreachable), "an answer from there")


def _bring(url: str, to: Path, sha256: str | None) -> None:
    """One address -> the file, whole or not at all."""
    handle, part = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    try:
        with os.fdopen(handle, "w+b") as file:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 -- an address of our own
                shutil.copyfileobj(answer, file, 2**20)
                announced = int(answer.headers.get("Content-Length") or file.tell())
            if file.tell() != announced:
                raise CheckpointError(to, f"only {file.tell()} bytes of it came", f"{announced} bytes")
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 and not found.startswith(sha256.lower()):
            raise CheckpointError(to, f"what came has the sha256 {found}", sha256)
        Path(part).replace(to)
    finally:
        Path(part).unlink(missing_ok=True)
