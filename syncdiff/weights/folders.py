"""Folders of weights: which profile they are of, how they are read, how a pipeline becomes files that a Space takes.

A folder is what diffusers' save_pretrained writes, a sub-folder a network. What diffusers merely warns of is refused
here: it fills a missing key with random numbers, and leaves out one too many.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.utils import logging
from safetensors import safe_open
from safetensors.torch import save_file

from syncdiff.errors import CheckpointError, InputError
from syncdiff.options import Profile
from syncdiff.weights.reading import first_few

COMPACT = Path(__file__).resolve().parents[2] / "assets" / "weights"
SHARD = "9MB"  # a Space refuses plain files over 10 MB
PAPER_NEEDS = (
    "The paper profile has no weights that may be shipped: train them with `python -m syncdiff.training.train DATA OUT "
    "--preset paper` from LRS2 (by agreement with the BBC), VQ-f4 (CompVis/ldm-celebahq-256, sub-folder vqvae, on the "
    "Hugging Face hub) and AV-HuBERT Base (base_vox_iter5.pt, from Meta, for research only), then give --weights "
    "OUT/pipeline."
)
Network = TypeVar("Network", bound=ModelMixin)


def chosen(folder: Path | None = None, profile: Profile | None = None) -> tuple[Path, Profile]:
    """The folder to use, by default the shipped one, and its profile. Raises InputError where another was asked for."""
    if folder is None and profile == "paper":
        raise InputError(PAPER_NEEDS)
    folder = folder or COMPACT
    found = profile_of(folder)
    if profile not in (None, found):
        also = f" {PAPER_NEEDS}" if profile == "paper" else ""
        raise InputError(
            f"{folder} holds the {found} profile, and {profile} was asked for: leave one of the two out.{also}"
        )
    return folder, found


def profile_of(folder: Path) -> Profile:
    """Which profile the pipeline in a folder is of. Raises InputError where there is none."""
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text())["denoiser"][1]
        return {"Denoiser": "compact", "PaperDenoiser": "paper"}[name]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{folder} holds no pipeline of ours ({index.name} is missing or tells of another): give a folder that "
            "training wrote, OUT/pipeline."
        ) from error


def read_network(kind: type[Network], folder: Path) -> Network:
    """The network in a folder, in single precision and evaluation mode; every key and every shape must match.

    Raises CheckpointError. Of a pickle, tensors are all that is built."""
    expected = f"{kind.__name__}'s config.json and its weights, whole, in {folder}"
    told = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # what it would warn of is refused below
    logging.disable_progress_bar()  # a few small files: nothing to watch
    try:
        net, found = kind.from_pretrained(
            folder, output_loading_info=True, torch_dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(folder, _cause(error), expected) from error
    finally:
        logging.set_verbosity(told)
    for what, keys in (("lacks", found["missing_keys"]), ("also has", found["unexpected_keys"])):
        if keys:
            raise CheckpointError(folder, f"it {what} {first_few(sorted(keys))}", expected)
    return net.eval()


def read_schedule(folder: Path) -> DDIMScheduler:
    """The noise schedule in a folder. Raises CheckpointError."""
    try:
        return DDIMScheduler.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(folder, _cause(error), f"scheduler_config.json in {folder}") from error


def _cause(error: BaseException) -> str:
    """What was wrong at first, not what became of it."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).split(". ")[0].rstrip(".")


def ship(pipe: DiffusionPipeline, folder: Path, records: dict[str, dict[str, object]]) -> None:
    """Save in half precision, in shards of at most SHARD, each component's training record in its headers.

    `doctor` shows them."""
    pipe.to("cpu").to(dtype=torch.float16)
    for old in (path for component in pipe.components for path in (folder / component).glob("*.safetensors*")):
        old.unlink()  # shards of another number would be found beside the new ones
    for component in pipe.components.values():
        if isinstance(component, ModelMixin):  # diffusers would write down where the network lay on the trainer's disk
            component.register_to_config(_name_or_path="")
    pipe.save_pretrained(folder, max_shard_size=SHARD)
    for component in pipe.components:
        for path in (folder / component).glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- not a dict
            save_file(tensors, path, metadata={"format": "pt", "record": json.dumps(records[component])})
            path.chmod(0o644)
