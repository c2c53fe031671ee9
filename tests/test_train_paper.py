"""Training as published, shrunken: it reads LRS's layouts, learns one clip, stops, goes on, and what it saves draws."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from diffusers import VQModel

from syncdiff.errors import CheckpointError, InputError
from syncdiff.paper import PaperDenoiser, paper_schedule
from syncdiff.paper.avhubert import AVHubert, stacked
from syncdiff.training import lrs
from syncdiff.training.train import main
from syncdiff.training.train_paper import (
    PAPER_PRESETS,
    Films,
    Trainer,
    frozen_part,
    read_speech_net,
    read_vae,
    train,
    tuned_part,
)
from tests.fakes import write_video
from tests.released import small_vq

TINY = replace(PAPER_PRESETS["paper-tiny"], updates=3)
BOXES = np.tile(np.array([90.0, 15, 230, 155], np.float32), (20, 1))


@pytest.fixture(scope="module")
def nets() -> tuple[AVHubert, VQModel]:
    torch.manual_seed(0)
    return AVHubert(width=64, layers=2, hidden=64).eval(), small_vq()


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """LRS2's layout with one film; the face is drawn, so its box is given."""
    (tmp_path / "lrs2" / "main" / "1").mkdir(parents=True)
    write_video(tmp_path / "lrs2" / "main" / "1" / "00001.mp4", seconds=0.8)
    (tmp_path / "lrs2" / "main" / "1" / "00001.txt").write_text("Text:  GOOD EVENING\nConf:  4\n")
    (tmp_path / "lrs2" / "train.txt").write_text("1/00001 NF\n\n")
    monkeypatch.setattr(lrs, "_boxes", lambda images, finder: BOXES.copy())
    return tmp_path / "lrs2"


def test_lists_and_folders(corpus):
    (one,) = lrs.utterances(corpus, corpus / "train.txt")
    assert (one.name, one.text) == ("1/00001", "GOOD EVENING")
    (same,) = lrs.utterances(corpus / "main")  # as LRS3 has it: a folder is a split
    assert same.video == one.video
    (corpus / "test.txt").write_text("1/00002\n")
    with pytest.raises(InputError, match=r"1/00002\.mp4 is in the list"):
        lrs.utterances(corpus, corpus / "test.txt")
    with pytest.raises(InputError, match="names no film"):
        lrs.utterances(corpus / "main" / "1" / "nothing")


def test_the_cache_holds_what_would_be_computed(corpus, nets, tmp_path):
    speech, vae = nets
    found = lrs.utterances(corpus)
    batches = [
        Films(found, tmp_path / "kept", vae, speech, TINY, cached=cached).batch(np.random.default_rng(0))
        for cached in (False, True)
    ]
    for key in ("clean", "masked", "identity", "pose"):
        assert batches[0][key].shape == (2, 3, 64, 64)
        assert torch.allclose(batches[0][key], batches[1][key], atol=0.01), key
    assert not torch.allclose(batches[0]["clean"], batches[0]["masked"], atol=0.01)
    assert torch.equal(batches[0]["frame"], batches[1]["frame"])
    with torch.inference_mode():
        whole = speech(batches[0]["heard"], batches[0]["lengths"])
        rest = tuned_part(speech, batches[1]["heard"], batches[1]["lengths"], TINY.tuned)
    assert torch.allclose(whole, rest, atol=0.02)


@pytest.mark.parametrize("tuned", [0, 1, 2])  # of two layers
def test_the_frozen_and_the_tuned_part_are_the_whole(nets, tuned):
    speech, _ = nets
    frames = stacked(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))[None]
    lengths = torch.tensor([frames.shape[1]])
    with torch.inference_mode():
        hidden = frozen_part(speech, frames, tuned)
        assert torch.allclose(tuned_part(speech, hidden, lengths, tuned), speech(frames), atol=1e-5)


def test_the_presets_are_the_papers_variants():
    """Channels that go into the U-Net, pose frames among them, and layers of AV-HuBERT that learn."""
    told = {}
    for name, preset in PAPER_PRESETS.items():
        with torch.device("meta"):
            net = PaperDenoiser(**preset.denoiser)
        told[name] = (net.unet.conv_in.in_channels, net.config.previous, preset.tuned)
    del told["paper-tiny"]
    assert told == {
        "paper": (10, 1, 3),
        "paper-rnd": (9, 1, 3),
        "paper-prv": (9, 1, 3),
        "paper-prv-squeezed": (7, 1, 3),
        "paper-np5": (14, 5, 3),
        "paper-np10": (19, 10, 3),
        "paper-nf3": (10, 1, 9),
        "paper-nf6": (10, 1, 6),
        "paper-nf12": (10, 1, 0),
    }


@pytest.mark.parametrize("cached", [False, True])
def test_a_variant_learns(corpus, nets, tmp_path, cached):
    """Five frames before, all of AV-HuBERT frozen: what Tables 5 and 6 change, in one."""
    speech, vae = nets
    variant = replace(TINY, denoiser=TINY.denoiser | {"previous": 5}, tuned=0)
    films = Films(lrs.utterances(corpus), tmp_path / "kept", vae, speech, variant, cached=cached)
    batch = films.batch(np.random.default_rng(1))
    assert batch["pose"].shape == (2, 15, 64, 64)
    learner = Trainer(PaperDenoiser(**variant.denoiser), speech, paper_schedule(), variant.tuned)
    learner(**batch).backward()
    assert learner.denoiser.bottleneck_proj.weight.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in speech.parameters())


def test_it_learns_one_clip_stops_and_goes_on(corpus, nets, tmp_path):
    speech, vae = nets
    frozen = speech.encoder.layers[0].fc1.weight.clone()
    tuned = speech.encoder.layers[1].fc1.weight.clone()
    out, whole = tmp_path / "out", tmp_path / "whole"
    for folder, updates in ((out, 2), (out, 3), (whole, 3)):
        learning = deepcopy(speech)  # as a new process would read it
        train(corpus, folder, learning, vae, replace(TINY, updates=updates), listed=corpus / "train.txt", cached=True)
    cut_off, straight = (torch.load(folder / "state.pt", weights_only=True) for folder in (out, whole))
    assert (cut_off["update"], cut_off["samples"]) == (3, 6)
    for name, value in straight["learner"].items():
        assert torch.equal(value, cut_off["learner"][name]), name
    pipe = train(corpus, out, speech, vae, replace(TINY, updates=50), cached=True)
    head, line = (out / "log.csv").read_text().splitlines()
    assert head == "update,samples,loss,seconds"
    assert line.startswith("50,100,")
    assert pipe.profile == "paper"
    assert torch.equal(pipe.speech.encoder.layers[0].fc1.weight, frozen)
    assert not torch.equal(pipe.speech.encoder.layers[1].fc1.weight, tuned)
    fresh = Trainer(type(pipe.denoiser)(**TINY.denoiser), speech, pipe.scheduler, TINY.tuned).eval()
    after = Trainer(pipe.denoiser, pipe.speech, pipe.scheduler, TINY.tuned).eval()
    batch = Films(lrs.utterances(corpus), out / "boxes", vae, speech, TINY, cached=True).batch(np.random.default_rng(5))
    losses = []
    for learner in (fresh, after):
        torch.manual_seed(3)
        with torch.inference_mode():
            losses.append(learner(**batch).item())
    assert losses[1] < 0.7 * losses[0], losses


def test_a_state_of_another_preset_is_refused(corpus, nets, tmp_path):
    speech, vae = nets
    train(corpus, tmp_path / "out", deepcopy(speech), vae, replace(TINY, updates=0))
    other = replace(TINY, denoiser=TINY.denoiser | {"bottleneck": 0})
    with pytest.raises(CheckpointError, match=r"state\.pt is refused: it also has denoiser\.bottleneck_proj\.weight"):
        train(corpus, tmp_path / "out", deepcopy(speech), vae, other)


def test_av_hubert_is_fetched_by_name_only_after_its_licence_and_a_yes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda _: "no")
    with pytest.raises(CheckpointError, match=r"base_vox_iter5\.pt is refused: its licence was not accepted"):
        read_speech_net(Path("base"))
    assert "non-commercial research only" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_speech_net(Path("bass"))


@pytest.mark.parametrize("preset", ["tiny", "paper-tiny"])
def test_the_command_refuses_an_encoder_that_is_not_there_in_one_sentence(preset, tmp_path, monkeypatch):
    given = [str(tmp_path), str(tmp_path / "out"), "--preset", preset, "--speech", str(tmp_path / "nowhere")]
    monkeypatch.setattr(sys, "argv", ["train", *given])
    with pytest.raises(SystemExit, match=r"^nowhere is refused: [^\n]*; expected [^\n]*$"):
        main()


def test_without_the_autoencoder_one_sentence_says_where_it_is(tmp_path):
    with pytest.raises(InputError, match="CompVis/ldm-celebahq-256"):
        read_vae(tmp_path)


def test_the_autoencoder_is_read_with_the_names_of_its_time_and_nothing_else(nets, tmp_path):
    """The file on the hub is older than diffusers' present names of attention."""
    _, vae = nets
    vae.save_config(tmp_path)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in vae.state_dict().items():
        for new, former in names.items():
            key = key.replace(f".{new}.", f".{former}.")  # noqa: PLW2901
        old[key] = value
    assert sum("proj_attn" in key for key in old) == 4
    torch.save(old, tmp_path / "diffusion_pytorch_model.bin")
    again = read_vae(tmp_path).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in vae.state_dict().items())
    del old["quant_conv.weight"]
    torch.save(old, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"it lacks quant_conv\.weight; expected VQModel's"):
        read_vae(tmp_path)
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"is refused: .*; expected VQModel's config\.json"):
        read_vae(tmp_path)


def test_a_film_is_what_the_artist_sees(corpus):
    film = lrs.read_film(lrs.utterances(corpus)[0].video, "mediapipe")
    assert film.frames.shape == (20, 256, 256, 3)
    assert len(film.sound) >= 20 * 640
    with av.open(str(lrs.utterances(corpus)[0].video)) as container:
        height = next(container.decode(video=0)).height
    assert np.allclose(film.boxes[0, 2] - film.boxes[0, 0], 140 * 256 / height)  # a square as high as the film
