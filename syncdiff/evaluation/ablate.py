"""The paper's ablations at our scale: one network per row, as many samples for each, judged on people never seen.

    python -m syncdiff.evaluation.ablate DATA OUT --speech SPEECH [--updates 800] [--rows NAME ...] [--distilled SPEECH]

Every row is one change to one of two set-ups. *plain* is the paper's: the identity frame as it is, and of the sound its
tokens alone. *warped* is the product's: the lip shape forecast from the sound is an input too, and the identity frame
comes warped to it. OUT/ROW holds each run (cut off, it goes on), OUT/helpers what rows of the same features share, and
OUT/ablations.md and .csv the table: r of lip opening with the true lips to the clip's own voice, and with the speaker's
lips to a foreign one; the judge's confidence; what moves under silence; sharpness, jitter.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from syncdiff.audio.mel import MELS
from syncdiff.conditioning import FrameInputs, warped_inputs
from syncdiff.devices import best_device
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.evaluation.baselines import Method, Regressor, SourceClip, draw
from syncdiff.evaluation.evaluate import evaluate
from syncdiff.evaluation.reports import markdown, means, write_csv
from syncdiff.generator import CompactGenerator
from syncdiff.geometry.crops import S, mouth_mask
from syncdiff.geometry.interior import Interior
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.geometry.reference import FaceView
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import MEL_MEAN, MEL_STD, SpeechEncoder
from syncdiff.sync.judge import JudgeNet
from syncdiff.training.sets import ABLATION, without
from syncdiff.training.train import Preset, train
from syncdiff.training.trainer import TrainConfig

CLIPS = 2  # of each set, that the rows are judged on
GREY = 128  # where nothing of a mouth is shown
WIDTHS, BATCH, CHAINED = (32, 64, 128), 16, 5  # half the product's batch: more updates of as many samples
COLUMNS = (
    "matched_r",
    "best_r",
    "foreign_r",
    "confidence",
    "foreign_confidence",
    "silence_move",
    "sharpness",
    "jitter",
)


class LogMel(nn.Module):
    """Two frames of log mel in an encoder's place: 50 Hz, no forecast."""

    config, rate, device, dtype = {"width": 2 * MELS}, 50, torch.device("cpu"), torch.float32

    def forward(self, mel: Tensor) -> Tensor:
        """Log mel [B, M, T100] -> features [B, T50, 2 M]."""
        mel = ((mel - MEL_MEAN) / MEL_STD).transpose(1, 2)
        return mel[:, : mel.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)

    def lips(self, features: Tensor) -> Tensor:
        """Features [B, T50, D] -> zeros [B, T50, SHAPE]: no lip shape is forecast."""
        return features.new_zeros(*features.shape[:2], SHAPE)


@dataclass(frozen=True)
class Row:
    """One line of the table: what is changed."""

    group: str
    preset: Preset
    features: str = "facial-informative"
    steps: int = 2


def plain_inputs(
    frame: FaceView,
    mouths: Sequence[tuple[FaceView, float]],
    lip_shapes: np.ndarray,
    _surroundings: FaceView,
    _interior: tuple[Interior, float] | None = None,
) -> FrameInputs:
    """The paper's: the reference frame as it is, drawn over wholly, and lip shapes [2, SHAPE] of zeros."""
    return FrameInputs(frame.image, mouths[-1][0].image, np.ones((S, S), np.float32), np.zeros_like(lip_shapes))


def no_reference_inputs(frame: FaceView, *others: Any) -> FrameInputs:
    """The same without a reference: nothing but the frame around its mouth."""
    hidden = np.where(mouth_mask()[..., None], np.uint8(GREY), frame.image)
    return replace(plain_inputs(frame, *others), reference=hidden)


def _plain(*, bottleneck: int = 4, **changes) -> Preset:
    config = TrainConfig(lip_shapes=False, speech_dropout=0.0, chained=CHAINED)
    return Preset(
        denoiser={"widths": WIDTHS, "bottleneck": bottleneck},
        batch=BATCH,
        config=config,
        build=plain_inputs,
        **changes,
    )


def _warped(share: dict[str, float] | None = None, **config) -> Preset:
    changes: dict[str, Any] = {} if share is None else {"share": share}
    return Preset(
        denoiser={"widths": WIDTHS}, batch=BATCH, config=TrainConfig(**{"chained": CHAINED, **config}), **changes
    )


WHOLE = 48  # channels: the previous frame without a bottleneck
ROWS = {
    "random": Row("plain: reference frame", _plain(bottleneck=0)),
    "previous": Row("plain: reference frame", replace(_plain(bottleneck=WHOLE), build=no_reference_inputs)),
    "bottlenecked previous": Row("plain: reference frame", replace(_plain(), build=no_reference_inputs)),
    "random + bottlenecked previous": Row("plain: reference frame", _plain()),
    "L1 regressor without the warp": Row(
        "plain: losses",
        replace(_plain(), config=replace(_plain().config, regressor=True, chained=0, pose_dropout=1.0)),
        steps=1,
    ),
    "random + whole previous": Row("plain: bottleneck", _plain(bottleneck=WHOLE)),
    "bottleneck of 1": Row("plain: bottleneck", _plain(bottleneck=1)),
    "bottleneck of 12": Row("plain: bottleneck", _plain(bottleneck=12)),
    "log mel": Row("plain: audio features", _plain(), "log mel"),
    "distilled": Row("plain: audio features", _plain(), "distilled"),
    "log mel, whole previous": Row("plain: neither", _plain(bottleneck=WHOLE), "log mel"),
    "as the product": Row("warped", _warped()),
    "without rendered heads": Row("warped: data", _warped(without("rendered"))),
    "without puppets": Row("warped: data", _warped(without("puppets"))),
    "sync loss 0.02": Row("warped: losses", _warped(sync=0.02)),
    "sync loss 0.1": Row("warped: losses", _warped(sync=0.1)),
    "L1 regressor": Row("warped: losses", _warped(regressor=True, chained=0, pose_dropout=1.0), steps=1),
}


def drawn_by_row(row: Row, denoiser: Denoiser, encoder: SpeechEncoder) -> Method:
    """Draws as this row's network was trained to."""
    net = Regressor(denoiser) if row.preset.config.regressor else denoiser
    generator = CompactGenerator(cast(Denoiser, net.eval()), encoder, compact_schedule())

    def make(clip: SourceClip, sound: np.ndarray) -> np.ndarray:
        build = row.preset.build
        return draw(generator, replace(clip, build=build), sound, row.steps, whole=build is not warped_inputs)

    return make


def ablate(data: Path, out: Path, encoders: dict[str, Any], names: list[str], updates: int) -> list[dict]:
    """Train and judge row after row. Returns the figures of every clip, first those of an earlier call's other rows."""
    shipped, found = JudgeNet.shipped(), _read(out / "ablations.csv", names)
    judge = shipped and shipped.to(best_device())
    for name in names:
        row, folder = ROWS[name], out / name.replace(" ", "-")
        encoder = encoders[row.features]
        preset = replace(row.preset, updates=updates)
        denoiser = train(data, folder, encoder, preset, helpers=out / "helpers" / row.features.replace(" ", "-"))
        samples = torch.load(folder / "state.pt", weights_only=True, mmap=True)["samples"]
        for figures in evaluate({name: drawn_by_row(row, denoiser, encoder)}, judge, data, ABLATION, CLIPS):
            found.append({"group": row.group, "samples": samples, **figures})
            print(figures, flush=True)
        write(found, out)
    return found


def _read(path: Path, anew: list[str]) -> list[dict]:
    """What an earlier call found, less what is to be found anew."""
    if not path.exists():
        return []
    words = {"group", "samples", "method", "set", "clip"}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] not in anew]
    return [{k: v if k in words else float(v) if v else None for k, v in row.items()} for row in rows]


def write(found: list[dict], out: Path) -> None:
    """OUT/ablations.csv, clip by clip, and OUT/ablations.md, the means."""
    write_csv(out / "ablations.csv", found)
    lines = []
    for name in dict.fromkeys(row["method"] for row in found):
        here = [row for row in found if row["method"] == name]
        lines.append([here[0]["group"], name, here[0]["samples"], *means(here, COLUMNS)])
    (out / "ablations.md").write_text(markdown(["group", "row", "samples", *COLUMNS], lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--speech", type=Path, required=True, help="the facial-informative encoder: distill's OUT/speech"
    )
    parser.add_argument("--distilled", type=Path, help="one that only the teacher taught: distill --only-teacher")
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
