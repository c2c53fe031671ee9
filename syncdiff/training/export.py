"""A trained encoder and denoiser -> the weights folder of the product.

    python -m syncdiff.training.export TRAINED_SPEECH TRAINED_NET [OUT]
                                  --speech-note "..." --note "where and how long"

TRAINED_SPEECH is distill's folder, TRAINED_NET is train's; either may be a folder of finished weights (assets/weights),
whose network and record are taken as they are. OUT is assets/weights by default.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open

from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.weights.folders import COMPACT, save_pipeline


def _record(folder: Path, component: str, note: str) -> dict[str, object]:
    """The training record for the headers: a run's counters and the note, or the record of finished weights."""
    if (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", weights_only=True, mmap=True)
        return {"updates": state["update"], "samples": state["samples"], "note": note}
    with safe_open(next((folder / component).glob("*.safetensors")), framework="pt") as file:
        return json.loads(file.metadata()["record"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path)
    parser.add_argument("net", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=COMPACT)
    parser.add_argument("--note", default="", help="how the denoiser was trained")
    parser.add_argument("--speech-note", default="", help="how the encoder was")
    args = parser.parse_args()
    records = {
        "speech": _record(args.speech, "speech", args.speech_note),
        "denoiser": _record(args.net, "denoiser", args.note),
    }
    encoder = SpeechEncoder.from_pretrained(args.speech / "speech")
    denoiser = Denoiser.from_pretrained(args.net / "denoiser")
    save_pipeline(SyncDiffPipeline(denoiser, encoder, compact_schedule()), args.out, records)
    print(f"{args.out}: {records}")


if __name__ == "__main__":
    main()
