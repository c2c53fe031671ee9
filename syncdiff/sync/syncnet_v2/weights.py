"""SyncNet's released file: finding an installed one, downloading it, reading it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from syncdiff.errors import CheckpointError
from syncdiff.sync.syncnet_v2.network import SyncNet
from syncdiff.weights import Offer, fetch, load_strictly, read_tensors

FILE = "syncnet_v2.model"
HUB = "ByteDance/LatentSync-1.5"  # a repository on the Hugging Face hub that has the file too
SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"
OFFER = Offer(
    f"https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/{FILE}",
    "SyncNet v2 by the Visual Geometry Group, Oxford, 55 MB. The code it belongs to is MIT-licensed; the file names no "
    "licence of its own and was trained on broadcasts of the BBC. Cite Chung and Zisserman, 'Out of time' (2016).",
    SHA256,
    (f"https://huggingface.co/{HUB}/resolve/main/auxiliary/{FILE}",),  # the same bytes
)


def read(path: Path | str) -> SyncNet:
    """The released weights. Raises CheckpointError for a file that is not exactly the released one."""
    tensors = read_tensors(path, sha256=SHA256)
    with torch.device("meta"):
        net = SyncNet()
    counters = {key: torch.tensor(0) for key in net.state_dict() if key.endswith("num_batches_tracked")}
    load_strictly(net, counters | tensors, path, assign=True)
    return net.eval()


def offered() -> Path:
    """Where `fetch_weights` puts the file and `find` looks for it: torch's own folder of checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def find(path: Path | str | None = None) -> Path | None:
    """The released file: `path`, or what SYNCDIFF_SYNCNET names, or the one in torch's folder or the hub's cache.

    None where none is. Raises CheckpointError when a file was named and is not there."""
    named = path or os.environ.get("SYNCDIFF_SYNCNET")
    if named is None:
        return offered() if offered().is_file() else _preloaded()
    if not Path(named).is_file():
        raise CheckpointError(named, "there is no such file", f"{FILE} of {OFFER.url}")
    return Path(named)


def _preloaded() -> Path | None:
    """The file in the hub's local cache, where a Space puts it before it starts (README.md). Uses no network."""
    found = try_to_load_from_cache(HUB, f"auxiliary/{FILE}")
    return Path(found) if isinstance(found, str) else None


def load(path: Path | str | None = None) -> SyncNet | None:
    """The network of the file that `find` returns; None where there is none. Raises CheckpointError."""
    installed = find(path)
    return None if installed is None else read(installed)


def fetch_weights(ask: Callable[[str], bool]) -> Path:
    """Download the released file once `ask`, given its origin and licence, returns True. Raises CheckpointError."""
    return fetch(OFFER, offered().parent, ask=ask)


def how_to_get() -> str:
    """How to install the weights, in one line."""
    return (
        "For LSE-C and LSE-D, SyncNet's own weights are needed: `python -m syncdiff score VIDEO --fetch` asks, then "
        f"fetches them; or put {FILE} into {offered().parent}."
    )
