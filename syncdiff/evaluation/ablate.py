"""The paper's ablations at our scale: one network per row, as many samples for each, judged on people never seen.

    python -m syncdiff.evaluation.ablate DATA OUT --speech SPEECH [--updates 800] [--rows NAME ...] [--distilled SPEECH]

The rows stand in `training.rows`. OUT/ROW holds each run (cut off, it goes on), OUT/ablations.md and .csv the table: r
of lip opening with the true lips to the clip's own voice, and with the speaker's lips to a foreign one; the judge's
confidence; what moves under silence; sharpness, jitter.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from syncdiff.conditioning import warped_inputs
from syncdiff.devices import best_device
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.evaluation.baselines import Method, Regressor, SourceClip, draw
from syncdiff.evaluation.evaluate import evaluate
from syncdiff.evaluation.reports import markdown, means, write_csv
from syncdiff.generator import CompactGenerator
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.sync.judge import JudgeNet
from syncdiff.training.rows import BATCH, ROWS, LogMel, Row, folder_of, state_of, train_rows
from syncdiff.training.sets import ABLATION

CLIPS = 2  # of each set, that the rows are judged on
COLUMNS = ("matched_r", "best_r", "opening_ratio", "foreign_r", "leak_r", "confidence", "foreign_confidence",
           "silence_move", "sharpness", "jitter")  # fmt: skip


def drawn_by_row(row: Row, denoiser: Denoiser, encoder: SpeechEncoder) -> Method:
    """A method that draws with a row's network, from the inputs that it was trained with."""
    net = Regressor(denoiser) if row.preset.config.regressor else denoiser
    generator = CompactGenerator(cast(Denoiser, net.eval()), encoder, compact_schedule())

    def make(clip: SourceClip, sound: np.ndarray) -> np.ndarray:
        build = row.preset.build
        return draw(generator, replace(clip, build=build), sound, row.steps, whole=build is not warped_inputs)

    return make


def ablate(data: Path, out: Path, encoders: dict[str, Any], names: list[str], updates: int) -> list[dict]:
    """Train rows and judge them. Returns the figures of every clip, those of an earlier call's other rows first."""
    train_rows(data, out, encoders, {name: replace(ROWS[name].preset, updates=updates) for name in names})
    shipped, results = JudgeNet.shipped(), _earlier_results(out / "ablations.csv", names)
    judge = shipped and shipped.to(best_device())
    for name in names:
        row, samples = ROWS[name], state_of(name, out)["samples"]
        denoiser = Denoiser.from_pretrained(folder_of(name, out) / "denoiser", torch_dtype=torch.float32)
        method = drawn_by_row(row, denoiser, encoders[row.features])
        for figures in evaluate({name: method}, judge, data, ABLATION, CLIPS):
            results.append({"group": row.group, "samples": samples, **figures})
            print(figures, flush=True)
        write(results, out)
    return results


def _earlier_results(path: Path, repeated: list[str]) -> list[dict]:
    """The rows of an earlier call's CSV, without the methods that are judged again."""
    if not path.exists():
        return []
    words = {"group", "samples", "method", "set", "clip"}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] not in repeated]
    return [{k: v if k in words else float(v) if v else None for k, v in row.items()} for row in rows]


def write(results: list[dict], out: Path) -> None:
    """OUT/ablations.csv, clip by clip, and OUT/ablations.md, the means."""
    write_csv(out / "ablations.csv", results)
    lines = []
    for name in dict.fromkeys(row["method"] for row in results):
        clips = [row for row in results if row["method"] == name]
        lines.append([clips[0]["group"], name, clips[0]["samples"], *means(clips, COLUMNS)])
    (out / "ablations.md").write_text(markdown(["group", "row", "samples", *COLUMNS], lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--speech", type=Path, required=True, help="facial-informative encoder: OUT/speech of distill")
    parser.add_argument("--distilled", type=Path, help="an encoder trained by distill --only-teacher")
    parser.add_argument("--updates", type=int, default=800, help=f"of each row, {BATCH} samples each")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()
    encoders: dict[str, nn.Module] = {"log mel": LogMel()}
    encoders["facial-informative"] = SpeechEncoder.from_pretrained(args.speech).eval()
    if args.distilled:
        encoders["distilled"] = SpeechEncoder.from_pretrained(args.distilled).eval()
    rows = [name for name in args.rows if ROWS[name].features in encoders]
    for name in set(args.rows) - set(rows):
        print(f"{name}: left out, since its encoder was not given (--distilled).", flush=True)
    ablate(args.data, args.out, encoders, rows, args.updates)
    print((args.out / "ablations.md").read_text())


if __name__ == "__main__":
    main()
