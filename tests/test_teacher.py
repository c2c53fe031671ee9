"""Whisper's file and encoder, on a file written here: version 6 of CTranslate2's format, little-endian."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.training.data import ClipRecord
from syncdiff.training.distill import COMPONENTS, TeacherStates
from syncdiff.training.teacher import KEPT, LAYERS, WhisperEncoder, read_tensors, teacher_in

WIDTH = 128
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
    positions = np.arange(200 * WIDTH, dtype=np.float32).reshape(200, WIDTH)
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


def test_states_of_the_first_layers_fifty_a_second(tmp_path):
    hear = teacher_in(write(tmp_path / "model.bin", whisper()))
    assert isinstance(hear, WhisperEncoder)
    states = hear(torch.randn(16_000))
    assert states.shape == (50, KEPT * WIDTH)
    assert torch.equal(states[:, :WIDTH], torch.arange(50.0 * WIDTH).reshape(50, WIDTH))
    assert torch.equal(states[:, :WIDTH], states[:, WIDTH:])


def click(at: float) -> ClipRecord:
    """Four and a half seconds of faint noise with a click."""
    rng = np.random.default_rng(int(at * 100))
    sound = rng.normal(0, 30, int(4.5 * SAMPLE_RATE))
    sound[round(at * SAMPLE_RATE)] = 30_000
    return ClipRecord("speech", f"click {at}", "nobody", sound.astype(np.int16), None, None, None)


def listening(tmp_path) -> Path:
    """A teacher whose states are the log mel power of all bands together, beside their own position."""
    tensors = whisper()
    tensors["encoder/conv1/weight"][0, :, 1] = 1 / 80
    tensors["encoder/conv2/weight"][0, 0, 1] = 1
    return write(tmp_path / "model.bin", tensors)


def test_a_state_is_centred_on_its_time_and_forgets_its_position(tmp_path):
    path = listening(tmp_path)
    whole = teacher_in(path)(torch.from_numpy(click(1.3).sound[:32_000] / np.float32(32768)))
    assert whole[:, 1].diff().eq(WIDTH).all()  # the position, as it was heard
    voices = [click(at) for at in np.arange(0.5, 4.0, 0.25)]
    hear = TeacherStates(path, voices, tmp_path / "states")
    (states,) = hear.of_set([click(2.4)])
    assert states.shape == (225, min(COMPONENTS, KEPT * WIDTH))
    rest = np.abs(states[:195].astype(np.float32)).sum(1)
    assert abs(int(rest.argmax()) / 50 - 2.4) <= 0.01
    assert rest[np.r_[0:110, 130:195]].max() < rest.max() / 3


def test_states_of_a_set_are_kept_until_its_clips_change(tmp_path, monkeypatch):
    hear = TeacherStates(listening(tmp_path), [click(at) for at in np.arange(0.5, 4.0, 0.25)], tmp_path / "states")
    first = hear.of_set([click(1.0), click(2.0)])
    monkeypatch.setattr(hear, "of", lambda record: np.zeros((3, 4), np.float16))
    kept = hear.of_set([click(1.0), click(2.0)])
    assert [np.array_equal(a, b) for a, b in zip(first, kept, strict=True)] == [True, True]
    assert [x.shape for x in hear.of_set([click(1.0)])] == [(3, 4)]
