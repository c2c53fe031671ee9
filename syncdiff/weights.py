"""Where the shipped weights lie, and how a pipeline becomes files that a Space takes. Knows nothing of training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file

COMPACT = Path(__file__).resolve().parent.parent / "assets" / "weights"
SHARD = "9MB"  # a Space refuses plain files over 10 MB


def ship(pipe: DiffusionPipeline, folder: Path, record: dict[str, object]) -> None:
    """Save in half precision, in shards of at most SHARD, the training record in every header (`doctor` shows it)."""
    pipe.to("cpu").to(dtype=torch.float16)
    for old in (path for component in pipe.components for path in (folder / component).glob("*.safetensors*")):
        old.unlink()  # shards of another number would be found beside the new ones
    pipe.save_pretrained(folder, max_shard_size=SHARD)
    for component in pipe.components:
        for path in (folder / component).glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- not a dict
            save_file(tensors, path, metadata={"format": "pt", "record": json.dumps(record)})
            path.chmod(0o644)
