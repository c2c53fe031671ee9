"""What the paper profile cannot run without, in words."""

from __future__ import annotations

import json
from pathlib import Path

from syncdiff.media import InputError
from syncdiff.paper.denoiser import VQ_F4_AT

NEEDS = (
    "the paper profile has no weights that may be shipped: train them with `python -m syncdiff.training.train DATA OUT "
    f"--preset paper` from LRS2 (by agreement with the BBC), VQ-f4 ({VQ_F4_AT[0]}, sub-folder {VQ_F4_AT[1]}, on the "
    "Hugging Face hub) and AV-HuBERT Base (base_vox_iter5.pt, from Meta, for research only), then give --weights "
    "OUT/pipeline"
)


def check_weights(folder: Path | None) -> Path:
    """The folder, if it holds a pipeline of the paper profile. Raises InputError."""
    if folder is None:
        raise InputError(f"There are no weights: {NEEDS}.")
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no pipeline (model_index.json): {NEEDS}.") from error
    if index.get("denoiser", [None, None])[1] != "PaperDenoiser":
        raise InputError(f"{folder} holds a pipeline of another profile: {NEEDS}.")
    return folder
