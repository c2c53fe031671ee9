"""The teacher of the speech encoder, for training only: Whisper base's encoder, or the paper's AV-HuBERT.

Whisper is read from a CTranslate2 file without that library: any file of the format version 6 will do. Two packages
carry one half each of base (MIT weights by OpenAI), to be joined: the README's training section says how.
AV-HuBERT's files are Meta's, and what is distilled from them is under the same terms (see `avhubert.LICENCE`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from syncdiff.audio.mel import mel_power
from syncdiff.devices import best_device
from syncdiff.paper.avhubert import AVHubert, stacked

LAYERS, KEPT = 3, 2  # Whisper's first three are run; of those the last two's states, closer to phones than to words
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
RATE = 50  # features per second


def read_tensors(path: Path, prefix: str = "encoder/") -> dict[str, Tensor]:
    """Tensors of a CTranslate2 model (binary version 6, little-endian) whose names begin with `prefix`, as float32."""
    data = memoryview(Path(path).read_bytes())
    return {
        name.removeprefix(prefix): torch.from_numpy(
            np.frombuffer(data, dtype, int(np.prod(shape)), at).reshape(shape).astype(np.float32)
        )
        for name, shape, dtype, at, _ in _entries(data, path)
        if name.startswith(prefix)
    }


def first_layers(path: Path) -> bytes:
    """A CTranslate2 file of those tensors alone that `WhisperEncoder` uses: 22 of base's 145 MB."""
    data = memoryview(path.read_bytes())
    wanted = ("conv", "position_encodings/", *(f"layer_{i}/" for i in range(LAYERS)))
    wanted = tuple(f"encoder/{name}" for name in wanted)
    entries = list(_entries(data, path))
    kept = [data[start:end] for name, _, _, _, (start, end) in entries if name.startswith(wanted)]
    begin = entries[0][-1][0]
    count = struct.pack("<I", len(kept))
    return b"".join([data[: begin - len(count)], count, *kept])


def _entries(data: memoryview, path: Path) -> Iterator[tuple[str, list[int], type, int, tuple[int, int]]]:
    """Name, shape, type and place of every tensor's values, and where its whole entry begins and ends."""
    at = 0

    def take(code: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize(code)
        return value

    def text() -> str:
        nonlocal at
        size = take("H")
        at += size
        return bytes(data[at - size : at]).rstrip(b"\0").decode()

    version = take("I")
    if version != 6:
        raise ValueError(f"{path} has CTranslate2 binary version {version}, expected 6")
    text(), take("I")  # the spec's name and revision
    for _ in range(take("I")):
        begin, name = at, text()
        shape = [take("I") for _ in range(take("B"))]
        dtype, size = _DTYPES[take("B")], take("I")
        at += size
        yield name, shape, dtype, at - size, (begin, at)


def teacher_in(path: Path) -> WhisperEncoder | AVHubertEncoder:
    """A CTranslate2 file (.bin), or a released AV-HuBERT file. Raises CheckpointError for another of the latter."""
    return WhisperEncoder(path) if path.suffix == ".bin" else AVHubertEncoder(path)


class AVHubertEncoder:
    """AV-HuBERT's audio path as a function: samples [N] -> [T50, D] of the layer that SyncDiff uses (section 3.2).

    Each of its 25 states a second is repeated once.
    """

    def __init__(self, path: Path) -> None:
        self.net = AVHubert.read(path).to(best_device())  # pyright: ignore[reportArgumentType]

    @torch.inference_mode()
    def __call__(self, samples: Tensor) -> Tensor:
        states = self.net(stacked(samples.numpy())[None].to(best_device()))[0].cpu()
        return states.repeat_interleave(RATE // self.net.rate, dim=0)


class WhisperEncoder:
    """Whisper's encoder: samples [N] at 16 kHz -> [T50, KEPT * D], the states after the second and third layer.

    State k is centred on k / 50 s. With those after the first and second one head forecast the lip opening of strangers
    with r 0.54 (0.68 at the best lag) instead of 0.57 (0.71).
    """

    def __init__(self, path: Path) -> None:
        self.weights = {name: weight.to(best_device()) for name, weight in read_tensors(path).items()}
        self.heads = len(self.weights["conv2/bias"]) // 64  # Whisper of every size has heads of 64

    @torch.inference_mode()
    def __call__(self, samples: Tensor) -> Tensor:
        power = mel_power(samples)
        mel = (torch.maximum(power, power.max() - 8) + 4) / 4  # Whisper's own normalisation
        mel = mel.to(best_device())
        w = self.weights
        x = F.gelu(F.conv1d(mel[None], w["conv1/weight"], w["conv1/bias"], padding=1))
        x = F.gelu(F.conv1d(x, w["conv2/weight"], w["conv2/bias"], padding=1, stride=2))[0].T
        x = x + w["position_encodings/encodings"][: len(x)]
        states = []
        for i in range(LAYERS):
            x = x + self._attend(self._norm(x, f"layer_{i}/self_attention"), f"layer_{i}/self_attention")
            y = F.gelu(self._linear(self._norm(x, f"layer_{i}/ffn"), f"layer_{i}/ffn/linear_0"))
            x = x + self._linear(y, f"layer_{i}/ffn/linear_1")
            states.append(x)
        return torch.cat(states[-KEPT:], -1).cpu()

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}/weight"], self.weights.get(f"{name}/bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(
            x, x.shape[-1:], self.weights[f"{name}/layer_norm/gamma"], self.weights[f"{name}/layer_norm/beta"]
        )

    def _attend(self, x: Tensor, name: str) -> Tensor:
        q, k, v = self._linear(x, f"{name}/linear_0").view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)
        return self._linear(
            F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(len(x), -1), f"{name}/linear_1"
        )
