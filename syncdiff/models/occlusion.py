"""Finds frames in which something covers the mouth (a hand, a microphone, a mask, text), by a small network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from syncdiff.errors import InputError
from syncdiff.faces import COVERED, OK, FaceTrack
from syncdiff.geometry.crops import WINDOW
from syncdiff.weights.folders import COMPACT
from syncdiff.weights.reading import load_strictly

WEIGHTS = COMPACT / "occlusion" / "occlusion.safetensors"
INPUT_SIZE = (48, 40)  # px, width and height of the crop's window as the network sees it
# Hysteresis: in a covered stretch the probability is above THRESHOLD throughout and above SURE somewhere. With SURE,
# beards and wide open mouths raise fewer false alarms: see the rates that evaluation/occlusion.py prints.
THRESHOLD, SURE = 0.5, 0.98
SPAN = 5  # frames of the median filter: a single odd frame is no cover
GROWN = 2  # frames to either side of a cover that count as covered: a hand comes in blurred
BRIDGED = 12  # frames of a break between two covers that count as covered: lips that flash up would only distract
BATCH = 256  # frames judged at once


class Crops(Protocol):
    def __getitem__(self, frame: int) -> np.ndarray: ...


class OcclusionNet(nn.Module):
    """Mouth window [B, 3, 40, 48] in -1..1 -> logit [B] that something covers the lips."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

        self.features = nn.Sequential(
            *block(3, width, 2), *block(width, 2 * width, 2), *block(2 * width, 2 * width, 1),
            *block(2 * width, 4 * width, 2), *block(4 * width, 4 * width, 1),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * width * 5 * 6, 1))

    def forward(self, windows: Tensor) -> Tensor:
        return self.head(self.features(windows))[:, 0]

    def save(self, path: Path, record: dict[str, object]) -> None:
        """Write the weights in half precision, with the record of their training in the header."""
        half = {key: value.half() if value.is_floating_point() else value for key, value in self.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in half.items()}, path, {"record": json.dumps(record), "format": "pt"})


@cache
def shipped() -> OcclusionNet:
    """The network in assets/weights."""
    return load(WEIGHTS)


def load(path: Path) -> OcclusionNet:
    """Load a file that `save` wrote. Raises CheckpointError."""
    net = OcclusionNet()
    with safe_open(path, framework="pt") as file:
        load_strictly(net, {key: file.get_tensor(key) for key in file.keys()}, path)  # noqa: SIM118  not a dict
    return net.eval()


def window_of(crop: np.ndarray) -> np.ndarray:
    """Face crop [S, S, 3] uint8 -> the network's input [40, 48, 3] uint8."""
    return cv2.resize(crop[WINDOW], INPUT_SIZE, interpolation=cv2.INTER_AREA)


@torch.inference_mode()
def cover_probability(net: OcclusionNet, windows: Sequence[np.ndarray]) -> np.ndarray:
    """Probability [T] float32 that something covers the lips in each of T windows from `window_of`."""
    pixels = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2)
    return torch.sigmoid(net(pixels / 127.5 - 1)).numpy()


def covered_frames(probability: np.ndarray, run: np.ndarray) -> np.ndarray:
    """[T] bool: median-filtered within each run, thresholded, short breaks bridged, ends grown by GROWN frames.

    Args:
        probability: [T] that each frame is covered; NaN where it was not judged.
        run: [T] int, frames of one unbroken run share a number (see `FaceTrack.run`).
    """
    covered = np.zeros(len(run), bool)
    for number in np.unique(run[run >= 0]):
        frames = np.flatnonzero((run == number) & ~np.isnan(probability))
        if not frames.size:
            continue
        padded = np.pad(probability[frames], SPAN // 2, mode="edge")
        filtered = np.median(np.lib.stride_tricks.sliding_window_view(padded, SPAN), axis=1)
        likely = filtered > THRESHOLD
        for start, stop in _stretches(~likely):
            likely[start:stop] |= start > 0 and stop < len(likely) and stop - start <= BRIDGED
        for start, stop in _stretches(likely):
            likely[start:stop] &= filtered[start:stop].max() > SURE
        covered[frames] = np.convolve(likely, np.ones(2 * GROWN + 1))[GROWN : GROWN + len(likely)] > 0
    return covered


def _stretches(flags: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of every stretch of frames whose flags [T] are set."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def mark_covered(track: FaceTrack, crops: Crops, *, consecutive: bool = True) -> FaceTrack:
    """The track with the state COVERED in frames where something covers the mouth.

    Args:
        crops: [T] of upright crops [S, S, 3] uint8, by frame number.
        consecutive: whether the frames follow each other; else each is judged alone.

    Raises:
        InputError: no frame is left to redraw.
    """
    probability = np.full(len(track.state), np.nan)
    usable = np.flatnonzero(track.state == OK)
    for start in range(0, len(usable), BATCH):
        frames = usable[start : start + BATCH]
        probability[frames] = cover_probability(shipped(), [window_of(crops[int(i)]) for i in frames])
    covered = covered_frames(probability, track.run) if consecutive else probability > SURE
    state = np.where(covered, np.uint8(COVERED), track.state)
    if not (state == OK).any():
        raise InputError(
            "In every frame something covers the mouth, or the face is drawn. Pick a clip where filmed lips are seen."
        )
    return replace(track, state=state)
