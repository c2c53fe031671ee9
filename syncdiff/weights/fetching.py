"""Downloads of files that may not be shipped, after the user has accepted their licence."""

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
    """A downloadable file: address, licence and hash."""

    url: str
    licence: str  # its name and restrictions, as shown to the user
    sha256: str | None = None  # hex; a prefix of it where the owner has published no more
    mirrors: tuple[str, ...] = ()  # other addresses of the same file, tried in turn when the first fails


def ask_on_terminal(question: str) -> bool:
    """Print the question; True for the word yes, False for all else and without a terminal."""
    print(question, file=sys.stderr)
    try:
        return input("Type yes to agree and download: ").strip().lower() == "yes"
    except EOFError:
        return False


def fetch(offer: Offer, folder: Path, *, ask: Callable[[str], bool] = ask_on_terminal) -> Path:
    """Path of the file in `folder`; it is downloaded if it is missing and `ask` returns True.

    `ask` is called with a question that holds address and licence. The file appears whole or not at all. Raises
    CheckpointError without a yes, where no address answers, and for a file with another hash.
    """
    to = folder / offer.url.rsplit("/", 1)[-1]
    if to.exists():
        return to
    question = f"{to.name} is not here. It can be downloaded from {offer.url}\n{offer.licence}"
    if ask(question) is not True:
        raise CheckpointError(to, "its licence was not accepted, so nothing was downloaded", f"a yes, or the file {to}")
    folder.mkdir(parents=True, exist_ok=True)
    unreachable: list[str] = []
    for url in (offer.url, *offer.mirrors):
        try:
            _download(url, to, offer.sha256)
        except (OSError, HTTPException) as error:
            unreachable.append(f"{url} cannot be downloaded ({error})")
        else:
            return to
    raise CheckpointError(to, "; ".join(unreachable), "an answer from there")


def _download(url: str, to: Path, sha256: str | None) -> None:
    """Download one address; the file appears whole or not at all."""
    handle, part = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    try:
        with os.fdopen(handle, "w+b") as file:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 -- an address of our own
                shutil.copyfileobj(answer, file, 2**20)
                announced = int(answer.headers.get("Content-Length") or file.tell())
            if file.tell() != announced:
                raise CheckpointError(to, f"only {file.tell()} bytes of it arrived", f"{announced} bytes")
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 and not found.startswith(sha256.lower()):
            raise CheckpointError(to, f"the download has the sha256 {found}", sha256)
        Path(part).replace(to)
    finally:
        Path(part).unlink(missing_ok=True)
