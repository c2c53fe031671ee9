"""LPIPS and FID by the packages `lpips` and `pytorch_fid`, where they and their backbones are installed.

Nothing is downloaded: what is missing is named in a sentence, and the column stays empty. `pip install
'syncdiff[eval]'` brings the packages; the backbones go into torch's folder of checkpoints.
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


def load_lpips(device: torch.device) -> Distance | str:
    """LPIPS on AlexNet, or what it needs."""
    if needed := _missing("lpips", ALEXNET, "LPIPS"):
        return needed
    import lpips  # pyright: ignore[reportMissingImports] -- of the extra [eval]

    net = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    @torch.inference_mode()
    def distance(drawn: np.ndarray, truth: np.ndarray) -> float:
        pairs = zip(_pieces(drawn, device), _pieces(truth, device), strict=True)
        return float(torch.cat([net(a * 2 - 1, b * 2 - 1).flatten() for a, b in pairs]).mean())

    return distance


def load_inception(device: torch.device) -> Features | str:
    """FID's features [T, 2048], or what they need."""
    if needed := _missing("pytorch_fid", INCEPTION, "FID"):
        return needed
    from pytorch_fid.inception import InceptionV3  # pyright: ignore[reportMissingImports]

    # It resizes to 299 px and shifts to -1..1 itself.
    net = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).to(device).eval()

    @torch.inference_mode()
    def features(pictures: np.ndarray) -> np.ndarray:
        return np.concatenate([net(part)[0].flatten(1).cpu().numpy() for part in _pieces(pictures, device)])

    return features


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """FID of two sets of features [N, D] (Heusel et al. 2017), by pytorch_fid."""
    from pytorch_fid.fid_score import calculate_frechet_distance  # pyright: ignore[reportMissingImports]

    moments = [f for x in (a, b) for f in (x.mean(0), np.cov(x, rowvar=False))]
    return float(calculate_frechet_distance(*moments))


def _pieces(pictures: np.ndarray, device: torch.device) -> list[torch.Tensor]:
    """[T, H, W, 3] uint8 -> parts [n, 3, H, W] float 0..1."""
    return [part.to(device).permute(0, 3, 1, 2).float() / 255 for part in torch.from_numpy(pictures).split(PIECE)]


def _missing(package: str, file: str, what: str) -> str | None:
    """What `what` needs that is not installed. The packages load whatever the file holds, so it must be the very one:
    its name ends in the beginning of its sha256, as torch names such files."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not (find_spec(package) and path.is_file()):
        return f"{what} needs the package {package} (pip install 'syncdiff[eval]') and {file} in {path.parent}."
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(path.stem.rsplit("-", 1)[-1]):
        return f"{what} is left out: {path} has the sha256 {found}; expected one that begins as its name ends."
    return None
