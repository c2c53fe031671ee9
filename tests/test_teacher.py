"""Whisper's file and encoder, on a file written here: version 6 of CTranslate2's format, little-endian."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiff.training.teacher import WhisperEncoder, read_tensors, teacher_in

WIDTH, LAYERS = 128, 2
CODES = {np.dtype(np.float32): 0, np.dtype(np.float16): 4}


def text(words: str) -> bytes:
    return struct.pack("<H", len(words) + 1) + words.encode() + b"\0"


def write(path: Path, tensors: dict[str, np.ndarray], version: int = 6) -> Path:
    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<II", 3, len(tensors))]
    for name, values in tensors.items():
        parts += [text(name), struct.pack("<B", values.ndim), struct.pack(f"<{values.ndim}I", *values.shape)]
        parts += [struct.pack("<BI", CODES[values.dtype], values.nbytes), values.tobytes()]
    path.write_bytes(b"".join([*parts, struct.pack("<I", 0)]))
    return path


def whisper() -> dict[str, np.ndarray]:
    """An encoder whose layers add nothing: what comes out is what the convolutions and the positions put in."""
    shapes = {"conv1/weight": (WIDTH, 80, 3), "conv1/bias": (WIDTH,)}
    shapes |= {"conv2/weight": (WIDTH, WIDTH, 3), "conv2/bias": (WIDTH,)}
    for i in range(LAYERS):
        for part in (f"layer_{i}/self_attention", f"layer_{i}/ffn"):
            shapes |= {f"{part}/layer_norm/{name}": (WIDTH,) for name in ("gamma", "beta")}
        shapes |= {f"layer_{i}/self_attention/linear_{k}/weight": ((3 - 2 * k) * WIDTH, WIDTH) for k in (0, 1)}
        shapes |= {
            f"layer_{i}/ffn/linear_0/weight": (4 * WIDTH, WIDTH),
            f"layer_{i}/ffn/linear_1/weight": (WIDTH, 4 * WIDTH),
        }
    tensors = {f"encoder/{name}": np.zeros(shape, np.float16) for name, shape in shapes.items()}
    positions = np.arange(100 * WIDTH, dtype=np.float32).reshape(100, WIDTH)
    return tensors | {"encoder/position_encodings/encodings": positions, "decoder/other": np.ones(3, np.float32)}


def test_tensors_are_read_by_name_shape_and_type(tmp_path):
    made = {"encoder/a": np.arange(6, dtype=np.float16).reshape(2, 3), "encoder/b": np.float32([[7.5]])}
    found = read_tensors(write(tmp_path / "model.bin", made | {"decoder/c": np.zeros(2, np.float32)}))
    assert set(found) == {"a", "b"}
    assert torch.equal(found["a"], torch.tensor([[0.0, 1, 2], [3, 4, 5]]))
    assert found["b"].item() == 7.5


def test_another_version_is_refused(tmp_path):
    with pytest.raises(ValueError, match="version 5, expected 6"):
        read_tensors(write(tmp_path / "model.bin", {}, version=5))


def test_states_after_every_layer_fifty_a_second(tmp_path):
    hear = teacher_in(write(tmp_path / "model.bin", whisper()))
    assert isinstance(hear, WhisperEncoder)
    assert (hear.heads, hear.layers) == (WIDTH // 64, LAYERS)
    states = hear(torch.randn(16_000))
    assert states.shape == (LAYERS, 50, WIDTH)
    assert torch.equal(states[0], torch.arange(50.0 * WIDTH).reshape(50, WIDTH))
    assert torch.equal(states[0], states[1])
