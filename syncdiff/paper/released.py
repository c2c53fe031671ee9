"""Loading the networks of others from the user's files: AV-HuBERT and the autoencoder VQ-f4."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import VQModel

from syncdiff.errors import InputError
from syncdiff.paper.avhubert import OFFERS, AVHubert
from syncdiff.paper.denoiser import VQ_F4_AT
from syncdiff.weights import fetch
from syncdiff.weights.folders import read_network


def read_speech_net(path: Path) -> AVHubert:
    """A released AV-HuBERT file, or a folder of ours; "base" or "large" is the released one, fetched after a yes.

    Raises CheckpointError."""
    if offer := OFFERS.get(str(path)):
        path = fetch(offer, Path(torch.hub.get_dir()) / "checkpoints")
    return read_network(AVHubert, path) if path.is_dir() else AVHubert.read(path)


def read_vae(folder: Path | None) -> VQModel:
    """VQ-f4 from a folder. Raises InputError that says where the files are; nothing is fetched."""
    if folder is None or not (folder / "config.json").is_file():
        hub, part = VQ_F4_AT
        raise InputError(
            f"VQ-f4 is not in {folder or '--vae'}: fetch the sub-folder {part} of {hub} from the Hugging Face hub "
            f"(hf download {hub} --include '{part}/*') and give that folder as --vae."
        )
    return read_network(VQModel, folder)
