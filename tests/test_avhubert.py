"""The audio path of AV-HuBERT against a slow one written out in numpy, and its files as the test itself writes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from syncdiff.audio.mfcc import log_filterbank
from syncdiff.errors import CheckpointError
from syncdiff.paper.avhubert import CONTEXT, LICENCE, OFFERS, SIZES, WINDOW, AVHubert, stacked
from syncdiff.training.teacher import teacher_in
from tests.released import audio_path, beside_audio, write

WIDTH, LAYERS, HIDDEN, HEADS = 128, 3, 192, 2


# --- the reference: nothing here calls the code under test, or torch


def written_out_filterbank(samples: np.ndarray) -> np.ndarray:
    """python_speech_features.logfbank with its defaults, sample by sample and bin by bin: [N] int16 -> [T100, 26]."""
    x = samples.astype(np.float64)
    x = np.array([x[0], *(x[n] - 0.97 * x[n - 1] for n in range(1, len(x)))])
    frames = 1 if len(x) <= 400 else 1 + math.ceil((len(x) - 400) / 160)
    x = np.concatenate([x, np.zeros(160 * frames + 400)])
    turn = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    hertz = [700 * (10 ** (m * 2595 * math.log10(1 + 8000 / 700) / 27 / 2595) - 1) for m in range(28)]
    corner = [math.floor(513 * f / 16000) for f in hertz]
    rows = np.zeros((frames, 26))
    for t in range(frames):
        power = np.abs(turn @ x[160 * t : 160 * t + 400]) ** 2 / 512
        for band in range(26):
            a, b, c = corner[band : band + 3]
            up = sum(power[k] * (k - a) / (b - a) for k in range(a, b))
            energy = up + sum(power[k] * (c - k) / (c - b) for k in range(b, c))
            rows[t, band] = math.log(energy or np.finfo(float).eps)
    return rows


def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def written_out_network(frames: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """[T, 104] -> [T, D] by the released keys, as section 3.2 of the project's notes gives the steps."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        return norm(x, w[f"{name}.weight"], w[f"{name}.bias"])

    audio = linear(frames, "feature_extractor_audio.proj")
    x = linear(normed(np.concatenate([audio, np.zeros_like(audio)], 1), "layer_norm"), "post_extract_proj")
    T = len(x)

    v, g = w["encoder.pos_conv.0.weight_v"], w["encoder.pos_conv.0.weight_g"]
    position = np.tile(w["encoder.pos_conv.0.bias"], (T, 1))
    share = WIDTH // 16
    for tap in range(128):
        kernel = v[:, :, tap] * g[0, 0, tap] / math.sqrt((v[:, :, tap] ** 2).sum())  # [D, D / 16]
        for t in range(T):
            if 0 <= t + tap - 64 < T:
                for group in range(16):
                    own = slice(group * share, (group + 1) * share)
                    position[t, own] += kernel[own] @ x[t + tap - 64, own]
    x = x + gelu(position)

    for i in range(LAYERS):
        layer = f"encoder.layers.{i}"
        y = normed(x, f"{layer}.self_attn_layer_norm")
        q, k, v = (linear(y, f"{layer}.self_attn.{name}_proj") for name in "qkv")
        seen = np.zeros_like(y)
        for head in range(HEADS):
            part = slice(64 * head, 64 * head + 64)
            scores = np.exp((q[:, part] / 8) @ k[:, part].T)
            seen[:, part] = scores / scores.sum(1, keepdims=True) @ v[:, part]
        x = x + linear(seen, f"{layer}.self_attn.out_proj")
        y = normed(x, f"{layer}.final_layer_norm")
        x = x + linear(gelu(linear(y, f"{layer}.fc1")), f"{layer}.fc2")
    return normed(x, "encoder.layer_norm")


# --- files as they are released


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return audio_path(WIDTH, HIDDEN, LAYERS)


@pytest.fixture(scope="module")
def model(weights, tmp_path_factory) -> AVHubert:
    return AVHubert.read(
        write(tmp_path_factory.mktemp("avhubert") / "pretrained.pt", {"model": weights | beside_audio(WIDTH)})
    )


@pytest.fixture
def speech() -> np.ndarray:
    """1.3 s that buzz and hush, on the grid of 16-bit samples."""
    t = np.arange(20_840) / 16_000
    buzz = np.sin(2 * np.pi * 120 * t) ** 15 * np.maximum(0, np.sin(2 * np.pi * 2 * t))
    noise = np.random.default_rng(0).normal(0, 0.01, len(t))
    return (np.round((buzz * 0.5 + noise) * 32_768) / 32_768).astype(np.float32)


# --- the front end


def test_filterbank_is_the_written_out_one(speech):
    """Of the shortest sounds too, around a frame's 400 samples and its step of 160."""
    for length in (0, 1, 399, 400, 401, 560, 561, None):
        sound = speech if length is None else speech[5000 : 5000 + length]
        expected = written_out_filterbank(np.round((sound if len(sound) else np.zeros(1)) * 32_768))
        assert log_filterbank(sound).shape == expected.shape, length
        assert np.allclose(log_filterbank(sound), expected, atol=1e-4), length


def test_silence_is_the_smallest_float(speech):
    assert torch.allclose(log_filterbank(np.zeros(1600, np.float32)), torch.tensor(np.log(np.finfo(float).eps)).float())
    assert log_filterbank(np.full(1600, 1e-6, np.float32)).max() < -36  # less than one step of 16 bits is silence too


def test_four_frames_stand_side_by_side_in_time_order(speech):
    bands = written_out_filterbank(np.round(speech * 32_768))
    rows = stacked(speech)
    assert rows.shape == (math.ceil(len(bands) / 4), 104)
    bands = np.concatenate([bands, np.zeros((-len(bands) % 4, 26))])
    for i, row in enumerate(rows.numpy()):
        four = np.concatenate(bands[4 * i : 4 * i + 4])
        assert np.allclose(row, (four - four.mean()) / np.sqrt(four.var() + 1e-5), atol=1e-4)
    assert stacked(np.zeros(16_000, np.float32)).shape == (AVHubert(64, 1, 8).rate, 104)


# --- the network


def test_network_is_the_written_out_one(model, weights, speech):
    expected = written_out_network(
        stacked(speech).double().numpy(), {k: v.double().numpy() for k, v in weights.items()}
    )
    assert expected.std() > 0.5
    assert np.allclose(model.encode(speech), expected, atol=2e-4)


def test_padding_of_a_batch_changes_nothing(model):
    long, short = torch.randn(1, 30, 104), torch.randn(1, 13, 104)
    batch = torch.cat([long, torch.cat([short, 9 * torch.randn(1, 17, 104)], 1)])
    with torch.inference_mode():
        together = model(batch, torch.tensor([30, 13]))
        assert torch.allclose(together[:1], model(long), atol=1e-4)
        assert torch.allclose(together[1:, :13], model(short), atol=1e-4)


def test_long_speech_goes_in_windows(model, monkeypatch):
    """Up to 20 s the whole is encoded; beyond, every frame comes from one window with CONTEXT around it."""
    shapes = []
    whole = AVHubert.forward
    monkeypatch.setattr(AVHubert, "forward", lambda self, frames: shapes.append(frames.shape[1]) or frames[..., :1])
    for seconds, pieces in ((20, 1), (20.04, 2), (33, 3), (60, 5)):
        shapes.clear()
        noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)
        assert torch.equal(model.encode(noise), stacked(noise)[:, :1])  # every frame once, in order
        assert len(shapes) == pieces
        assert set(shapes) == {WINDOW}
    monkeypatch.setattr(AVHubert, "forward", whole)

    frames = stacked(noise)
    got = model.encode(noise)
    with torch.inference_mode():
        middle = model(frames[None, 2 * (WINDOW - 2 * CONTEXT) :][:, :WINDOW])[0, CONTEXT:-CONTEXT]
    start = 2 * (WINDOW - 2 * CONTEXT) + CONTEXT
    assert torch.allclose(got[start : start + len(middle)], middle, atol=1e-4)


def test_only_the_last_layers_learn(model):
    for count in (0, 1, 3):
        model.trainable_layers(count)
        model(torch.randn(1, 8, 104)).sum().backward() if count else None
        learning = {name for name, part in model.named_parameters() if part.requires_grad}
        wanted = tuple(f"encoder.layers.{i}." for i in range(LAYERS - count, LAYERS))
        assert learning == {name for name, _ in model.named_parameters() if name.startswith(wanted)}, count
        assert all((part.grad is not None) == part.requires_grad for part in model.parameters()), count
        model.zero_grad()
    with pytest.raises(ValueError, match=r"0\.\.3 can be trainable, not 4"):
        model.trainable_layers(4)


def test_dropout_and_layerdrop_only_in_training(model):
    frames = torch.randn(1, 8, 104)
    with torch.no_grad():
        assert torch.equal(model(frames), model(frames))
        model.train()
        assert not torch.equal(model(frames), model(frames))
        model.eval()


def test_the_published_sizes():
    for size, million in (("base", 91.0), ("large", 312.9)):
        with torch.device("meta"):
            model = AVHubert(**SIZES[size])
        assert round(sum(part.numel() for part in model.parameters()) / 1e6, 1) == million
        model.trainable_layers(3)
    with torch.device("meta"):
        base = AVHubert(**SIZES["base"])
    base.trainable_layers(3)
    assert round(sum(part.numel() for part in base.parameters() if part.requires_grad) / 1e6, 1) == 21.3
    assert AVHubert.__init__.__wrapped__.__defaults__[:3] == tuple(SIZES["base"].values())


# --- released files


def test_every_released_kind_of_file_gives_the_same_network(model, weights, tmp_path):
    inside = weights | {key: value for key, value in beside_audio(WIDTH).items() if not key.startswith("final_proj")}
    decoder = {"decoder.embed_tokens.weight": torch.zeros(4, 8), "decoder.layers.0.fc1.weight": torch.zeros(4, 8)}
    faces = {
        "face_encoder_blocks.0.0.conv_block.0.weight": torch.zeros(2),
        "audio_map.weight": torch.zeros(2),
        "sync_net.a": torch.zeros(1),
    }
    kinds = {
        "pretrained": {"model": weights | beside_audio(WIDTH)},
        "finetuned": {"model": {f"encoder.w2v_model.{key}": value for key, value in inside.items()} | decoder},
        "talklip": {"state_dict": {f"audio_encoder.w2v_model.{key}": value for key, value in inside.items()} | faces},
    }
    frames = torch.randn(1, 12, 104)
    for name, content in kinds.items():
        for legacy in (False, True):
            read = AVHubert.read(write(tmp_path / f"{name}.pt", content, legacy=legacy))
            assert torch.equal(read(frames), model(frames)), (name, legacy)
            assert dict(read.config)["hidden"] == HIDDEN
            assert not read.training
    read.save_pretrained(tmp_path)
    assert torch.equal(AVHubert.from_pretrained(tmp_path)(frames), model(frames))


def test_it_teaches_the_compact_encoder_as_whisper_does(model, weights, speech, tmp_path):
    """`distill --teacher base_vox_iter5.pt`: the last layer's states, 50 a second."""
    states = teacher_in(write(tmp_path / "base.pt", {"model": weights}))(torch.from_numpy(speech))
    assert states.shape == (2 * 33, WIDTH)
    assert torch.allclose(states[1::2], model.encode(speech), atol=1e-5)
    assert torch.equal(states[::2], states[1::2])


def test_half_precision_files_become_single(weights, tmp_path):
    halves = {key: value.half() for key, value in weights.items()}
    read = AVHubert.read(write(tmp_path / "half.pt", {"model": halves}))
    assert read.dtype == torch.float32
    assert torch.equal(read.layer_norm.weight, halves["layer_norm.weight"].float())


def test_another_file_is_refused_and_what_is_wrong_is_named(weights, tmp_path, subtests):
    def without(key):
        return {"model": {name: value for name, value in weights.items() if name != key}}

    def having(**changes):
        return {"model": weights | {key.replace("__", "."): value for key, value in changes.items()}}

    deeper = {f"encoder.w2v_model.{key}": value for key, value in weights.items()} | {"encoder.extra": torch.zeros(1)}
    other = torch.nn.Linear(2, 2).state_dict()
    for sentence, content in {
        r"it lacks encoder.layers.1.fc2.bias; expected the \d+ tensors": without("encoder.layers.1.fc2.bias"),
        "it also has surprise; expected": having(surprise=torch.zeros(1)),
        r"layer_norm.bias has the shape \(3,\); expected": having(layer_norm__bias=torch.zeros(3)),
        "its layer_norm.bias is no tensor; expected": having(layer_norm__bias="zero"),
        "it has no post_extract_proj.weight; expected AV-HuBERT's keys": without("post_extract_proj.weight"),
        r"weight_g and _v have the shapes \[None, \(128, 8, 128\)\]": without("encoder.pos_conv.0.weight_g"),
        r"have the shapes \[\(128, 1, 1\)": having(encoder__pos_conv__0__weight_g=torch.ones(128, 1, 1)),
        "its features are 100 wide in 3 layers; exp": having(post_extract_proj__bias=torch.zeros(100)),
        "its features are 128 wide in 3 layers; expected a multiple of 64": without("encoder.layers.0.fc1.bias"),
        "it lacks encoder.layers.3": having(encoder__layers__7__fc1__bias=torch.zeros(HIDDEN)),
        r"beside AV-HuBERT it has encoder\.extra": {"model": deeper},
        "it has no post_extract_proj.weight": {"model": {}},
        "it has no post_extract_proj.weight; expected": {"model": other},
        r"has no post_extract_proj\.weight; expected": other,
    }.items():
        with subtests.test(sentence), pytest.raises(CheckpointError, match=f"^wrong.pt is refused: .*{sentence}"):
            AVHubert.read(write(tmp_path / "wrong.pt", content))


def test_the_licence_says_what_it_forbids():
    assert {"base", "large"} == set(OFFERS)
    for offer in OFFERS.values():
        assert offer.licence == LICENCE
        assert offer.url.startswith("https://")
    assert "non-commercial research only" in LICENCE
    assert "AV-HuBERT is licensed under the AV-HuBERT license, Copyright (c)\nMeta Platforms, Inc." in LICENCE
