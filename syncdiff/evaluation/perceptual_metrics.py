"""Other people's networks that measure pictures: LPIPS and FID, where their packages and their files are.

Nothing is fetched: a sentence says what is missing, and the column stays empty. `pip install 'syncdiff[eval]'` brings
the packages; the files go into torch's folder of checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

ALEXNET = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet; the linear heads lie in the package lpips
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"  # the converted Inception that FID is defined by
PIECE = 32  # pictures at once

Distance = Callable[[np.ndarray, np.ndarray], float]  # pictures [T, H, W, 3] uint8 and the truth -> their mean distance
Features = Callable[[np.ndarray], np.ndarray]  # pictures [T, H, W, 3] uint8 -> [T, D]


def load_lpips() -> Distance | str:
    """LPIPS on AlexNet, or what it needs."""
    if needed := _missing("lpips", ALEXNET, "LPIPS"):
        return needed
    import lpips  # pyright: ignore[reportMissingImports] -- of the extra [eval]

    net = lpips.LPIPS(net="alex", verbose=False).eval()

    @torch.inference_mode()
    def distance(drawn: np.ndarray, truth: np.ndarray) -> float:
        parts = [net(a * 2 - 1, b * 2 - 1).flatten() for a, b in zip(_pieces(drawn), _pieces(truth), strict=True)]
        return float(torch.cat(parts).mean())

    return distance


def load_inception() -> Features | str:
    """FID's features [T, 2048], or what they need."""
    if needed := _missing("pytorch_fid", INCEPTION, "FID"):
        return needed
    from pytorch_fid.inception import InceptionV3  # pyright: ignore[reportMissingImports]

    net = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()  # it resizes to 299 px and shifts to -1..1 itself

    @torch.inference_mode()
    def features(pictures: np.ndarray) -> np.ndarray:
        return np.concatenate([net(part)[0].flatten(1).numpy() for part in _pieces(pictures)])

    return features


def _pieces(pictures: np.ndarray) -> list[torch.Tensor]:
    """[T, H, W, 3] uint8 -> parts [n, 3, H, W] float 0..1."""
    return [part.permute(0, 3, 1, 2).float() / 255 for part in torch.from_numpy(pictures).split(PIECE)]


def _missing(package: str, file: str, what: str) -> str | None:
    """Why `what` cannot be told, if it cannot. The packages would run whatever the file says, so it must be the very
    one: its name ends in the beginning of its sha256, as torch names such files."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not (find_spec(package) and path.is_file()):
        return f"{what} is not told: it needs the package {package} and {file} in {path.parent}."
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(path.stem.rsplit("-", 1)[-1]):
        return f"{what} is not told: {path} has the sha256 {found}; expected one that begins as its name ends."
    return None
