"""`python -m syncdiff doctor`: what this machine has for syncdiff, and whether it is enough.

Each function returns one line to print, and appends to `problems` what is missing. They import torch themselves, since
it may be what is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec

from syncdiff.errors import InputError

PACKAGES = ("torch", "numpy", "gradio", "diffusers", "accelerate", "safetensors", "av", "soundfile", "mediapipe",
            "face-alignment")  # fmt: skip


def run_doctor(_: argparse.Namespace) -> int:
    """Print a line for each check, the verdict last. Returns the exit code: 0 for ready, 1 for not."""
    problems: list[str] = []
    for check in (python, packages, cores, device, weights, syncnet, webcam, temp):
        try:
            line = check(problems)
        except ImportError as error:
            problems.append(str(error))
            line = "unknown"
        print(f"{check.__name__:9} {line}")
    print(f"verdict   {'not ready: ' + '; '.join(dict.fromkeys(problems)) if problems else 'ready'}")
    return 1 if problems else 0


def python(problems: list[str]) -> str:
    """Versions of Python and of the operating system."""
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        problems.append("Python 3.11 or 3.12 is needed")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def packages(problems: list[str]) -> str:
    """Versions of the packages that everything needs."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed")
    return ", ".join(versions)


def cores(_: list[str]) -> str:
    """Number of cores that this process may use."""
    from syncdiff.devices import usable_cores

    return str(usable_cores())


def device(_: list[str]) -> str:
    """The device and the attention that runs on it."""
    import torch

    where = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"
    faster = "; xformers is installed" if find_spec("xformers") else ""
    return f"{where}, {torch.get_num_threads()} threads, attention by torch's scaled_dot_product_attention{faster}"


def weights(problems: list[str]) -> str:
    """The shipped files, with the training record in each file's header."""
    from safetensors import safe_open

    from syncdiff.weights.folders import COMPACT

    lines = []
    for path in sorted(COMPACT.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("record", "{}"))
        text = ", ".join(f"{key} {value}" for key, value in record.items() if not isinstance(value, (list, dict)))
        lines.append(f"{path.relative_to(COMPACT)} {path.stat().st_size / 1e6:.1f} MB{': ' if text else ''}{text}")
    if not (COMPACT / "model_index.json").exists():
        problems.append(f"there are no weights in {COMPACT}")
    return f"\n{'':10}".join(lines) or "none"


def syncnet(problems: list[str]) -> str:
    """Whether LSE can be measured. SyncNet's weights are optional; another file in their place is a problem."""
    from syncdiff.sync import syncnet_v2

    try:
        installed = syncnet_v2.load() is not None
    except InputError as sentence:
        problems.append(str(sentence))
        return "another file"
    return f"{syncnet_v2.find()}: LSE-C and LSE-D are measured" if installed else f"none. {syncnet_v2.how_to_get()}"


def webcam(_: list[str]) -> str:
    """Whether the page can record: Gradio calls ffmpeg for that."""
    missing = [tool for tool in ("ffmpeg", "ffprobe") if not shutil.which(tool)]
    if missing:
        return f"off on the page: {' and '.join(missing)} not on PATH (nothing else needs them)"
    return "on: ffmpeg and ffprobe are on PATH"


def temp(problems: list[str]) -> str:
    """The folder for temporary files and its free space; a MiB is written to try it."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(2**20))
    except OSError as error:
        problems.append(f"nothing can be written to the temp folder ({error.strerror})")
        return "not writable"
    folder = tempfile.gettempdir()
    return f"{folder}, {shutil.disk_usage(folder).free / 2**30:.1f} GiB free"
