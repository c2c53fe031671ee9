"""The project's own sync judge: a mouth and a sound embedding for every window of 0.2 s.

`JudgeNet` ("syncdiff-judge") is built after SyncNet (Chung & Zisserman 2016) but is not it: its distances have another
scale and are never to be called LSE-C or LSE-D. `sync.scoring` computes scores from the embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.errors import CheckpointError
from syncdiff.sync.scoring import FRAME_SAMPLES, WINDOW
from syncdiff.weights import load_strictly
from syncdiff.weights.folders import COMPACT

COLUMNS_PER_FRAME = 4  # mel columns at 100 Hz
BATCH = 500  # windows embedded at once: memory stays flat however long the clip is


@dataclass(frozen=True)
class JudgeConfig:
    """The judge's shape; travels in the header of its weights file."""

    name: str = "syncdiff-judge"
    box: tuple[int, int, int, int] = (54, 34, 99, 94)  # top, left, bottom, right of the mouth in the 128 px face crop
    size: tuple[int, int] = (36, 48)  # what the network sees of it, H W
    mels: int = 80
    features: int = 128
    surround: int = 25  # frames to either side over which the still part of the face is averaged


class FaceEncoder(nn.Module):
    """Grey mouths [B,T,H,W] -> [B,T-4,D]: every frame through one small stack, then 5 frames together."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.surround = config.surround
        rows, columns = (-(-side // 16) for side in config.size)
        self.frame = nn.Sequential(
            _conv2d(2, 16, 5, 2, 2),
            _conv2d(16, 32, 3, 2, 1),
            _conv2d(32, 32, 3, 1, 1),
            _conv2d(32, 64, 3, 2, 1),
            _conv2d(64, 64, 3, 1, 1),
            _conv2d(64, 96, 3, 2, 1),
            nn.Flatten(),
            nn.Linear(96 * rows * columns, 96),
        )
        self.motion = nn.Sequential(
            nn.Dropout1d(0.1), _conv1d(96, 160, 3), _conv1d(160, 160, 3), nn.Conv1d(160, config.features, 1)
        )

    def forward(self, mouths: Tensor) -> Tensor:
        """Grey levels 0..255 -> embeddings, not yet of unit length."""
        B, T = mouths.shape[:2]
        features = self.frame(self.steady(mouths).flatten(0, 1).contiguous(memory_format=torch.channels_last))
        return self.motion(features.unflatten(0, (B, T)).transpose(1, 2)).transpose(1, 2)

    def steady(self, mouths: Tensor) -> Tensor:
        """[B,T,H,W] -> [B,T,2,H,W]: the mouth, and how it differs from its own average over the surrounding second.

        The difference removes the person's appearance, which varies too little in a small corpus."""
        time = torch.arange(mouths.shape[1], device=mouths.device)
        near = ((time[:, None] - time).abs() <= self.surround).to(mouths.dtype)
        with torch.autocast(mouths.device.type, enabled=False):  # half precision would round the grey levels
            average = torch.einsum("tu,buhw->bthw", near / near.sum(1, keepdim=True), mouths)
        level = average.mean((2, 3), keepdim=True)
        contrast = average.std((2, 3), keepdim=True) + 8.0  # grey levels; the floor keeps a flat picture flat
        return torch.stack([(mouths - level) / contrast, 2 * (mouths - average) / contrast], 2)


class SoundEncoder(nn.Module):
    """Log-mel [B,M,4(W-1)+20] -> [B,W,D]: 20 columns (0.2 s) a window, a step of 4 columns (one frame)."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.columns = nn.Sequential(
            _conv2d(1, 24, (5, 3), (2, 1), (2, 0)),  # columns seen so far: 3
            _conv2d(24, 48, (3, 4), (2, 2), (1, 0)),  # 6
            _conv2d(48, 64, (3, 4), (2, 2), (1, 0)),  # 12
            _conv2d(64, 64, (3, 1), (2, 1), (1, 0)),
        )
        self.window = nn.Sequential(
            nn.Dropout1d(0.1),
            _conv1d(64 * -(-config.mels // 16), 160, 3),
            nn.Conv1d(160, config.features, 1),  # 20
        )

    def forward(self, mel: Tensor) -> Tensor:
        """Embeddings, not yet of unit length."""
        return self.window(self.columns(mel.unsqueeze(1)).flatten(1, 2)).transpose(1, 2)


class JudgeNet(nn.Module):
    """Two branches into one space of unit vectors, where windows that belong together lie close."""

    def __init__(self, config: JudgeConfig | None = None) -> None:
        super().__init__()
        self.config = config or JudgeConfig()
        self.look = FaceEncoder(self.config)
        self.listen = SoundEncoder(self.config)
        self.scale = nn.Parameter(torch.tensor(2.3))  # log of the factor on cosines; only training needs it

    @property
    def name(self) -> str:
        """What its figures are called."""
        return self.config.name

    def forward(self, mouths: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mouths [B,T,H,W] grey 0..255 and log-mel [B,M,4T] -> two [B,T-4,D] of unit length.

        Window v covers frames v .. v+4 and the sound of the same 0.2 s."""
        return F.normalize(self.look(mouths), dim=2), F.normalize(self.listen(mel), dim=2)

    @torch.inference_mode()
    def embed_video(self, mouths: Iterable[np.ndarray]) -> np.ndarray:
        """T mouths of `crop_mouth`, uint8 [H,W] at 25 fps -> embeddings [T-4,D]; window v is frames v .. v+4.

        Reads the stream in batches and holds one batch with its surround. Raises ValueError for fewer than five."""
        stream, surround = iter(mouths), self.config.surround
        frames, parts = [], []
        first = start = 0  # the number of frames[0], and of the first window that is not embedded yet
        while True:
            needed = start + BATCH + WINDOW - 1 + surround  # frames, so that the batch's edge does not show
            frames += islice(stream, needed - first - len(frames))
            at_end = first + len(frames) < needed
            stop = _windows(first + len(frames)) if at_end else start + BATCH
            if start < stop:
                pixels = torch.from_numpy(np.stack(frames[: stop + WINDOW - 1 + surround - first]))
                embeddings = self.look(pixels[None].float().to(self.scale.device))[0, start - first : stop - first]
                parts.append(F.normalize(embeddings, dim=1).cpu())
            if at_end:
                return torch.cat(parts).numpy()
            start = stop
            del frames[: max(0, start - surround) - first]
            first = max(0, start - surround)

    @torch.inference_mode()
    def embed_audio(self, samples: np.ndarray) -> np.ndarray:
        """Samples [N] float32 at 16 kHz -> embeddings [N // 640 - 4, D], window v of the sound of frames v .. v+4."""
        from syncdiff.audio.mel import log_mel

        mel = log_mel(torch.as_tensor(samples, dtype=torch.float32))
        parts, windows = [], _windows(len(samples) // FRAME_SAMPLES)
        for start in range(0, windows, BATCH):
            stop = min(start + BATCH, windows)
            part = mel[:, COLUMNS_PER_FRAME * start : COLUMNS_PER_FRAME * (stop + WINDOW - 1)]
            parts.append(F.normalize(self.listen(part[None].to(self.scale.device))[0], dim=1).cpu())
        return torch.cat(parts).numpy()

    def crop_mouth(self, crop: np.ndarray) -> np.ndarray:
        """Face crop, uint8 [S,S,3] RGB -> the grey mouth, uint8 [H,W]."""
        import cv2

        top, left, bottom, right = self.config.box
        H, W = self.config.size
        grey = cv2.cvtColor(np.ascontiguousarray(crop[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, (W, H), interpolation=cv2.INTER_AREA)

    def save(self, path: Path, record: dict[str, object]) -> None:
        """Half-precision weights with the config and the training record in the header."""
        from safetensors.torch import save_file

        half = {key: value.half() if value.is_floating_point() else value for key, value in self.state_dict().items()}
        header = {"config": json.dumps(asdict(self.config)), "record": json.dumps(record), "format": "pt"}
        save_file({key: value.contiguous() for key, value in half.items()}, path, metadata=header)

    @classmethod
    def shipped(cls) -> JudgeNet | None:
        """The judge that comes with the compact weights, which scores either profile; None where it is not there."""
        path = COMPACT / "judge" / "judge.safetensors"
        return cls.load(path) if path.exists() else None

    @classmethod
    def load(cls, path: Path) -> JudgeNet:
        """The judge in a file that `save` wrote, ready to judge. Raises CheckpointError for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                stored = json.loads((file.metadata() or {})["config"])
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            judge = cls(JudgeConfig(**config))
        except (OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError) as error:
            reason = f"it cannot be read ({type(error).__name__}: {error})"
            raise CheckpointError(path, reason, "a judge and its settings, as JudgeNet.save wrote them") from error
        single = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
        load_strictly(judge, single, path)
        return judge.eval()


def _windows(frames: int) -> int:
    if frames < WINDOW:
        raise ValueError(f"one window needs {WINDOW} frames, and {frames} are here")
    return frames - WINDOW + 1


Sides = int | tuple[int, int]


def _conv2d(in_channels: int, out_channels: int, kernel: Sides, stride: Sides, padding: Sides) -> nn.Sequential:
    """A 2-D convolution with its batch norm."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


def _conv1d(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A convolution over time without padding: a window sees its own frames and no others."""
    convolution = nn.Conv1d(in_channels, out_channels, kernel, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(out_channels), nn.ReLU())
