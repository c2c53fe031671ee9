"""Folders of weights, as diffusers' save_pretrained writes them: the profile, strict reading, saving in shards.

Where diffusers warns, this module raises: diffusers fills a missing key with random numbers and ignores an extra one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar, cast

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, LCMScheduler, ModelMixin
from diffusers.utils import logging
from safetensors import safe_open
from safetensors.torch import save_file

from syncdiff.errors import CheckpointError, InputError
from syncdiff.late_imports import put_off
from syncdiff.options import Profile
from syncdiff.weights.reading import first_few

COMPACT = Path(__file__).resolve().parents[2] / "assets" / "weights"
MAX_SHARD_SIZE = "9MB"  # a Space refuses plain files over 10 MB
PAPER_NEEDS = (
    "The paper profile has no weights that may be shipped: train them with `python -m syncdiff.training.train DATA OUT "
    "--preset paper` from LRS2 (by agreement with the BBC), VQ-f4 (CompVis/ldm-celebahq-256, sub-folder vqvae, on the "
    "Hugging Face hub) and AV-HuBERT Base (base_vox_iter5.pt, from Meta, for research only), then give --weights "
    "OUT/pipeline."
)
Network = TypeVar("Network", bound=ModelMixin)


def resolve_weights(folder: Path | None = None, profile: Profile | None = None) -> tuple[Path, Profile]:
    """The folder of weights, by default the shipped one, and its profile. Raises InputError for another profile."""
    if folder is None and profile == "paper":
        raise InputError(PAPER_NEEDS)
    folder = folder or COMPACT
    actual = profile_of(folder)
    if profile not in (None, actual):
        also = f" {PAPER_NEEDS}" if profile == "paper" else ""
        raise InputError(
            f"{folder} holds the {actual} profile, not the {profile} profile: leave one of the two options out.{also}"
        )
    return folder, actual


def profile_of(folder: Path) -> Profile:
    """The profile of the pipeline in a folder. Raises InputError where there is none."""
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text())["denoiser"][1]
        profiles: dict[str, Profile] = {"Denoiser": "compact", "PaperDenoiser": "paper"}
        return profiles[name]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{folder} holds no pipeline of ours ({index.name} is missing or names another): give a folder that "
            "training wrote, OUT/pipeline."
        ) from error


def read_network(kind: type[Network], folder: Path) -> Network:
    """The network of class `kind` in a folder, in single precision and evaluation mode.

    Raises CheckpointError where a key is missing, left over or of another shape. Of a pickle, only tensors are built.
    """
    expected = f"{kind.__name__}'s config.json and its weights, whole, in {folder}"
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # missing and extra keys raise below
    logging.disable_progress_bar()  # the files are small
    try:
        net, info = kind.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            folder, output_loading_info=True, torch_dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(folder, _cause(error), expected) from error
    finally:
        logging.set_verbosity(verbosity)
    for what, keys in (("lacks", info["missing_keys"]), ("also has", info["unexpected_keys"])):
        if keys:
            raise CheckpointError(folder, f"it {what} {first_few(sorted(keys))}", expected)
    return net.eval()


def read_schedule(folder: Path) -> DDIMScheduler | LCMScheduler:
    """The noise schedule in a folder; LCMScheduler's for weights distilled to few steps. Raises CheckpointError."""
    try:
        config = DDIMScheduler.load_config(folder, local_files_only=True)
        kind = LCMScheduler if cast(dict, config).get("_class_name") == "LCMScheduler" else DDIMScheduler
        with put_off("scipy.stats", "scipy.integrate"):  # from_pretrained imports all compatible schedulers
            return cast(DDIMScheduler | LCMScheduler, kind.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(folder, _cause(error), f"scheduler_config.json in {folder}") from error


def _cause(error: BaseException) -> str:
    """The message of the first exception in the chain."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).split(". ")[0].rstrip(".")


def save_pipeline(pipe: DiffusionPipeline, folder: Path, records: dict[str, dict[str, object]]) -> None:
    """Save a pipeline in half precision, in shards of at most MAX_SHARD_SIZE.

    Args:
        pipe: converted in place.
        folder: where to; older shards of the same components are removed.
        records: by component, how it was trained; stored in the headers of the files, which `doctor` prints.
    """
    pipe.to("cpu").to(dtype=torch.float16)
    for old in (path for component in pipe.components for path in (folder / component).glob("*.safetensors*")):
        old.unlink()  # else older shards, if there were more of them, would stay beside the new ones
    for component in pipe.components.values():
        if isinstance(component, ModelMixin):  # else diffusers saves the path it was loaded from
            component.register_to_config(_name_or_path="")
    pipe.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
    for component in pipe.components:
        for path in (folder / component).glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- not a dict
            save_file(tensors, path, metadata={"format": "pt", "record": json.dumps(records[component])})
            path.chmod(0o644)
