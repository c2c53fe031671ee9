"""The rows of the ablation, and their training: one network a row, as many samples for each.

Every row is one change to one of two set-ups. *plain* is the paper's: the identity frame as it is, and of the sound its
tokens alone. *warped* is the product's: the lip shape forecast from the sound is an input too, and the identity frame
comes warped to it. OUT/ROW holds each run (cut off, it goes on), OUT/helpers what rows of the same features share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from syncdiff.audio.mel import MELS
from syncdiff.conditioning import FrameInputs
from syncdiff.geometry.crops import S, mouth_mask
from syncdiff.geometry.interior import Interior
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.geometry.reference import FaceView
from syncdiff.models.speech_encoder import MEL_MEAN, MEL_STD
from syncdiff.training.sets import without
from syncdiff.training.train import Preset, train_together
from syncdiff.training.trainer import TrainConfig

HOURS = 24.0  # of a row at the most
GREY = 128  # where nothing of a mouth is shown
# Where nothing is warped, tokens alone tell the lips and the whole mouth is drawn anew: of many people (drawn ones, as
# few are filmed), more often from pure noise, as in sampling, and by a network that holds a position's 48 numbers. One
# that adds to the reference keeps the reference's lips (docs/ablations.md).
PLAIN_SHARE = {"addresses": 0.15, "grid-more": 0.05, "grid-s1": 0.15, "rendered": 0.2, "puppets": 0.45}
PLAIN_WIDTHS, PLAIN_LR, PLAIN_PURE_NOISE = (64, 96, 128), 8e-4, 0.5
WIDTHS, BATCH, CHAINED = (32, 64, 128), 16, 5  # half the product's batch: more updates of as many samples


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
    config = TrainConfig(
        lr=PLAIN_LR, pure_noise=PLAIN_PURE_NOISE, lip_shapes=False, speech_dropout=0.0, chained=CHAINED
    )
    return Preset(
        denoiser={"widths": PLAIN_WIDTHS, "bottleneck": bottleneck, "residual": False},
        share=PLAIN_SHARE,
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


def folder_of(name: str, out: Path) -> Path:
    """Where a row's run lives."""
    return out / name.replace(" ", "-")


def state_of(name: str, out: Path) -> dict[str, Any]:
    """A row's state as far as it was trained; no updates where it was not."""
    path = folder_of(name, out) / "state.pt"
    return torch.load(path, weights_only=True, mmap=True, map_location="cpu") if path.exists() else {"update": 0}


def train_rows(
    data: Path, out: Path, encoders: dict[str, Any], presets: dict[str, Preset], until: float = math.inf
) -> None:
    """Train rows, those together that see the same batches; one that has its updates is left as it is.

    Args:
        presets: by row: `ROWS[name].preset`, with the updates, and maybe more, changed.
        until: by time.time(), when to stop for now.
    """
    alike: dict[Any, dict[str, Preset]] = {}
    for name, preset in presets.items():
        if state_of(name, out)["update"] < preset.updates:
            batches = preset.build, str(preset.share), preset.config.chained, ROWS[name].features
            alike.setdefault(batches, {})[name] = preset
    for (*_, features), rows in alike.items():
        helpers = out / "helpers" / features.replace(" ", "-")
        folders = {folder_of(name, out): preset for name, preset in rows.items()}
        train_together(data, folders, encoders[features], HOURS, helpers, until=until)
