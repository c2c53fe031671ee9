"""The paper's training, shrunken: films are prepared, learnt, stopped and gone on with, and what is saved draws."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler, LCMScheduler, VQModel
from torch import Tensor, nn

from syncdiff.errors import CheckpointError, InputError
from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import PaperDenoiser, few_step_schedule, paper_schedule, sampling_schedule
from syncdiff.paper.released import read_speech_net, read_vae
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.training import lrs, prepare_lrs, train_paper
from syncdiff.training.paper_losses import ConsistencyLoss, DenoisingLoss
from syncdiff.training.train import main
from syncdiff.training.train_paper import (
    PAPER_PRESETS,
    PaperPreset,
    PaperRows,
    PaperTrainer,
    accumulation,
    encoded,
    train,
)
from tests.fakes import write_video
from tests.media_fixtures import without_sound
from tests.released import small_vq, stirred

TINY = replace(PAPER_PRESETS["paper-tiny"], batch=2, updates=3)
BOX = np.array([90.0, 15, 230, 155], np.float32)


def boxes(images) -> np.ndarray:
    """Stands for a face finder: the film's face is drawn, always in one place."""
    return np.tile(BOX, (len(images), 1))


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """accelerate keeps the precision of the first Accelerator for the whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def nets() -> tuple[AVHubert, VQModel]:
    torch.manual_seed(0)
    return AVHubert(width=64, layers=2, hidden=64).eval(), small_vq()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """LRS2's layout with one film."""
    folder = tmp_path_factory.mktemp("lrs2")
    (folder / "main" / "1").mkdir(parents=True)
    write_video(folder / "main" / "1" / "00001.mp4", seconds=0.8)
    (folder / "main" / "1" / "00001.txt").write_text("Text:  GOOD EVENING\nConf:  4\n")
    (folder / "train.txt").write_text("1/00001 NF\n\n")
    return folder


@pytest.fixture(scope="module")
def data(corpus, nets, tmp_path_factory) -> Path:
    """The corpus prepared, with latents."""
    out = tmp_path_factory.mktemp("prepared")
    for one in lrs.utterances(corpus, corpus / "train.txt"):
        prepare_lrs.prepare_film(one, out, boxes, nets[1])
    return out


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory) -> Path:
    """The corpus prepared, without latents."""
    out = tmp_path_factory.mktemp("plain")
    for one in lrs.utterances(corpus, corpus / "train.txt"):
        prepare_lrs.prepare_film(one, out, boxes)
    return out


@pytest.fixture(scope="module")
def trained(corpus, data, nets, tmp_path_factory) -> Path:
    """A run of three updates at one go."""
    out = tmp_path_factory.mktemp("trained")
    train(data, out, deepcopy(nets[0]), nets[1], TINY, listed=corpus / "train.txt")
    return out


def rows(folder: Path, preset: PaperPreset, own: range = range(2)) -> PaperRows:
    return PaperRows(lrs.prepared(folder).films, preset, own)


# --- the corpus, prepared


def test_lists_and_folders(corpus, data, tmp_path):
    (one,) = lrs.utterances(corpus, corpus / "train.txt")
    assert (one.name, one.text) == ("1/00001", "GOOD EVENING")
    (same,) = lrs.utterances(corpus / "main")  # as LRS3 has it: a folder is a split
    assert same.video == one.video
    (corpus / "test.txt").write_text("1/00002\n")
    with pytest.raises(InputError, match=r"1/00002\.mp4 is in the list"):
        lrs.utterances(corpus, corpus / "test.txt")
    with pytest.raises(InputError, match="names no film"):
        lrs.utterances(corpus / "main" / "1" / "nothing")
    with pytest.raises(InputError, match="cannot be read"):
        lrs.utterances(corpus, corpus / "nowhere.txt")
    (tmp_path / "list.txt").write_text("1/00001\n2/00002\n3/00003\n")
    with pytest.raises(InputError, match=r"2 films of .* are not prepared .* first is 2/00002: run"):
        lrs.prepared(data, tmp_path / "list.txt")
    with pytest.raises(InputError, match="holds no prepared film"):
        lrs.prepared(tmp_path)
    assert [film.name for film in lrs.prepared(data, corpus / "train.txt").films] == ["1/00001"]


def test_a_film_is_what_the_generator_sees(corpus, data):
    film = lrs.prepared(data).films[0].read().film()
    assert film.frames.shape == (20, 256, 256, 3)
    assert len(film.sound) >= 20 * 640
    with av.open(str(corpus / "main" / "1" / "00001.mp4")) as container:
        height = next(container.decode(video=0)).height
    assert np.allclose(film.boxes[0, 2] - film.boxes[0, 0], 140 * 256 / height)  # a square as high as the film


def test_bad_films_are_refused_by_name_and_stop_nothing(corpus, tmp_path, capsys, monkeypatch):
    """A broken, an empty, a mute, a short and a faceless film beside a good one; a second run finds all of it done."""
    films = tmp_path / "films"
    films.mkdir()
    good = corpus / "main" / "1" / "00001.mp4"
    (films / "good.mp4").write_bytes(good.read_bytes())
    (films / "broken.mp4").write_bytes(good.read_bytes()[:2000])
    (films / "empty.mp4").write_bytes(b"")
    write_video(films / "short.mp4", seconds=0.1)
    write_video(films / "faceless.mp4", seconds=0.4, tone=110.0)
    without_sound(good, films / "mute.mp4")

    def find(images):
        if len(images) == 10:
            raise InputError("No face was found.")
        return boxes(images)

    monkeypatch.setattr(prepare_lrs, "mediapipe_finder", find)
    said = prepare_lrs.prepare(films, tmp_path / "out", finder="mediapipe")
    assert said.startswith("6 films: 1 prepared, 5 refused; 0.00 h to use.")
    report = (tmp_path / "out" / "report.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in report[1:]] == [
        ["broken", "refused"], ["empty", "refused"], ["faceless", "refused"],
        ["good", "prepared"], ["mute", "refused"], ["short", "refused"]]  # fmt: skip
    why = {line.split("\t")[0]: line.split("\t")[4] for line in report[1:]}
    assert "cannot be decoded" in why["broken"]
    assert why["faceless"] == "No face was found."
    assert "has no sound" in why["mute"]
    assert "at least 6 are needed" in why["short"]
    monkeypatch.setattr(prepare_lrs, "prepare_film", lambda *_: None)
    assert prepare_lrs.prepare(films, tmp_path / "out", finder="mediapipe") == said
    found = lrs.prepared(tmp_path / "out")
    assert ([film.name for film in found.films], sorted(found.refused)) == (
        ["good"], ["broken", "empty", "faceless", "mute", "short"])  # fmt: skip
    assert not list((tmp_path / "out").rglob(".*"))


def test_processes_share_the_films(corpus, tmp_path, monkeypatch):
    films = tmp_path / "films"
    films.mkdir()
    for i in range(5):
        (films / f"{i}.mp4").write_bytes((corpus / "main" / "1" / "00001.mp4").read_bytes())
    monkeypatch.setattr(prepare_lrs, "mediapipe_finder", boxes)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, left in ((1, "2 prepared, 3 to come"), (0, "5 prepared")):
        monkeypatch.setenv("RANK", str(rank))
        assert left in prepare_lrs.prepare(films, tmp_path / "out", finder="mediapipe")


def test_the_detector_alone_finds_the_boxes(monkeypatch):
    """S3FD of face-alignment, without its 68 points: on batches, shrunk to 640 px, one face followed among two."""
    seen = []

    class Detector:
        def detect_from_batch(self, batch: Tensor) -> list:
            seen.append(tuple(batch.shape))
            other = np.array([100, 10, 120, 30, 0.9])
            found = [[np.array([10 + t, 10, 40 + t, 40, 0.9]), other] for t in range(len(batch))]
            found[0], found[2] = [], [other]  # the larger face is missed twice
            return found

    monkeypatch.setattr(prepare_lrs, "load_s3fd", lambda device: Detector())
    find = prepare_lrs.s3fd_finder(torch.device("cpu"))
    made = find([np.zeros((640, 1280, 3), np.uint8)] * 6)
    assert seen == [(6, 3, 320, 640)]
    assert np.isnan(made[[0, 2]]).all()
    assert made[1].tolist() == [22, 20, 82, 80]  # in px of the film
    assert made[[3, 4, 5], 0].tolist() == [26, 28, 30]


# --- batches


def test_latents_on_disk_are_what_would_be_computed(data, plain, nets):
    kept, fresh = rows(data, TINY).batch(0), encoded(nets[1], rows(plain, TINY).batch(0))
    for key in ("clean", "masked", "identity", "pose"):
        assert kept[key].shape == (2, 3, 64, 64)
        assert torch.allclose(kept[key], fresh[key], atol=0.01), key
    assert not torch.allclose(kept["clean"], kept["masked"], atol=0.01)
    for key in ("frame", "noise", "timestep", "filterbanks", "lengths"):
        assert torch.equal(kept[key], fresh[key]), key
    # Nor does a row depend on the processes.
    whole, second = rows(data, TINY, range(4)).batch(7), rows(data, TINY, range(2, 4)).batch(7)
    assert torch.equal(whole["noise"][2:], second["noise"])
    assert torch.equal(whole["clean"][2:], second["clean"])
    assert not torch.equal(whole["noise"][0], whole["noise"][1])
    assert not torch.equal(rows(data, TINY, range(4)).batch(8)["noise"], whole["noise"])


def test_speech_layers_are_left_out_alike_with_and_without_latents_on_disk(data, plain, nets):
    """Both give the encoder its input, so that dropout and left-out layers act on all of it: features spread alike."""
    speech = deepcopy(nets[0]).train()
    spread = []
    for folder in (data, plain):
        batch = rows(folder, TINY).batch(0)
        torch.manual_seed(0)
        with torch.inference_mode():
            passes = torch.stack([speech(batch["filterbanks"], batch["lengths"]) for _ in range(30)])
        spread.append(passes.std(0).mean())
    assert spread[0] == spread[1] > 0.1


def test_a_film_that_cannot_be_read_is_skipped_and_listed_and_training_goes_on(corpus, nets, tmp_path):
    """One of two films is gone since it was prepared."""
    films, out = tmp_path / "films", tmp_path / "prepared"
    films.mkdir()
    for name in ("a", "b"):
        (films / f"{name}.mp4").write_bytes((corpus / "main" / "1" / "00001.mp4").read_bytes())
        prepare_lrs.prepare_film(lrs.Utterance(name, films / f"{name}.mp4"), out, boxes)
    (films / "b.mp4").write_bytes(b"nothing any more")
    train(out, tmp_path / "run", deepcopy(nets[0]), nets[1], TINY)
    (line,) = (tmp_path / "run" / "skipped.tsv").read_text().splitlines()
    assert line.startswith("b\t")
    assert "cannot be decoded" in line
    (films / "a.mp4").unlink()
    with pytest.raises(InputError, match="100 films in turn could not be read"):
        train(out, tmp_path / "other", deepcopy(nets[0]), nets[1], TINY)


# --- networks and losses


def test_the_presets_are_the_papers_variants():
    """Channels that go into the U-Net, pose frames among them, and layers of AV-HuBERT that learn."""
    told = {}
    for name, preset in PAPER_PRESETS.items():
        if "tiny" not in name:
            with torch.device("meta"):
                net = PaperDenoiser(**preset.denoiser)
            told[name] = (net.unet.conv_in.in_channels, net.config.previous, preset.tuned)
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
        "paper-few": (10, 1, 0),  # the teacher's, whatever it is
    }


def test_a_variant_learns(data, nets):
    """Five frames before, all of AV-HuBERT frozen: what Tables 5 and 6 change, in one."""
    variant = replace(TINY, denoiser=TINY.denoiser | {"previous": 5}, tuned=0)
    batch = encoded(nets[1], rows(data, variant).batch(1))
    assert batch["pose"].shape == (2, 15, 64, 64)
    loss = DenoisingLoss(stirred(PaperDenoiser(**variant.denoiser)), nets[0], paper_schedule(), variant.tuned)
    loss(**batch).backward()
    assert loss.denoiser.bottleneck_proj.weight.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in nets[0].parameters())


def test_accumulated_and_checkpointed_gradients_are_the_whole_batchs(data, nets, tmp_path):
    """Fewer GPUs give the same batch: (rows of one pass, passes) of each process."""
    told = {processes: accumulation(48, processes, 8) for processes in (1, 2, 3, 4, 6, 8)}
    assert told == {1: (8, 6), 2: (8, 3), 3: (8, 2), 4: (6, 2), 6: (8, 1), 8: (6, 1)}
    assert accumulation(48, 6, 3) == (2, 4)
    with pytest.raises(InputError, match="48 rows cannot be shared evenly by 5 processes"):
        accumulation(48, 5, 8)
    torch.manual_seed(0)
    speech = AVHubert(width=64, layers=2, hidden=64, dropout=0.0, layerdrop=0.0)
    net, batch = stirred(PaperDenoiser(**TINY.denoiser)), rows(data, TINY).batch(0)
    gradients = {}
    for change in ("none", "parts", "checkpointing"):
        networks = DenoisingLoss(deepcopy(net), deepcopy(speech), paper_schedule(), 1)
        trainer = PaperTrainer(tmp_path, networks, TINY, Accelerator(cpu=True))
        trainer.optimizer.step = trainer.optimizer.zero_grad = lambda: None
        parts = [batch]
        if change == "parts":
            parts = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(2)]
        if change == "checkpointing":
            trainer.networks.denoiser.unet.enable_gradient_checkpointing()
        trainer.learn(parts)
        gradients[change] = torch.cat([p.grad.flatten() for p in trainer.trainable if p.grad is not None])
    assert gradients["none"].norm() > 0.01
    for change, found in gradients.items():
        torch.testing.assert_close(found, gradients["none"], rtol=1e-3, atol=1e-5, msg=change)


class Gaussian(nn.Module):
    """The best noise estimate for clean latents of variance s^2: a factor at every timestep."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.factors = nn.Parameter(factors)

    def forward(self, noisy: Tensor, timestep: Tensor, told) -> Tensor:
        return self.factors[timestep // 20].view(-1, 1, 1, 1) * noisy.double()


def test_consistency_distillation_gives_in_one_step_what_the_teacher_gives_in_fifty():
    """Clean latents of spread 0.5, for which the best teacher and its 50 DDIM steps are known. The student that has no
    loss is the one whose single step ends where those 50 do; the teacher's own single step ends near the mean, zero."""
    alphas = paper_schedule().alphas_cumprod[19::20].double()
    teacher = Gaussian((1 - alphas).sqrt() / (alphas * 0.5**2 + 1 - alphas))
    ends, factors = 1.0, []  # of DDIM: z at a timestep -> the clean latents that its path ends at
    for i, factor in enumerate(teacher.factors.detach()):
        clean = (1 - (1 - alphas[i]).sqrt() * factor) / alphas[i].sqrt()
        ends = clean if i == 0 else ends * (alphas[i - 1].sqrt() * clean + (1 - alphas[i - 1]).sqrt() * factor)
        factors.append((1 - alphas[i].sqrt() * ends) / (1 - alphas[i]).sqrt())
    exact = Gaussian(torch.stack(factors))
    speech = AVHubert(width=64, layers=1, hidden=8)
    noise, t = torch.randn(50, 3, 4, 4).double(), torch.arange(50) * 20 + 19
    noisy = paper_schedule().add_noise(0.5 * torch.randn(50, 3, 4, 4).double(), noise, t)
    found = {}
    for name, student in (("exact", exact), ("teacher", deepcopy(teacher))):
        student.config = SimpleNamespace(tokens=1)
        loss = ConsistencyLoss(student, speech, paper_schedule(), teacher).loss(noisy, noise, t, None)
        loss.backward()
        found[name] = loss.item(), student.factors.grad.abs().sum().item()
    assert found["exact"][0] < 1e-5 < 1e-3 < found["teacher"][0]
    assert found["teacher"][1] > 0
    assert teacher.factors.grad is None

    z = torch.randn(2000, 3, 1, 1).double()
    schedule = DDIMScheduler.from_config(paper_schedule().config, timestep_spacing="trailing")
    schedule.set_timesteps(50)
    path = z
    for step in schedule.timesteps:
        done = schedule.step(teacher(path, step[None], None).detach(), step, path)
        path, many = done.prev_sample, done.pred_original_sample
    torch.testing.assert_close(sampled(exact, z, 1), many, rtol=1e-2, atol=1e-3)
    assert sampled(exact, z, 5).std().item() == pytest.approx(many.std().item(), rel=0.1)
    assert sampled(teacher, z, 1).std() < 0.02 < 0.4 < many.std()


def sampled(net: nn.Module, z: Tensor, steps: int) -> Tensor:
    """What the generator makes of the noise z with distilled weights, noise added anew between two steps."""
    schedule = sampling_schedule(few_step_schedule(), steps)
    for i, step in enumerate(schedule.timesteps):
        clean = schedule.step(net(z, step[None], None), step, z).denoised.detach()
        if i + 1 < steps:
            z = schedule.add_noise(clean, torch.randn_like(clean), schedule.timesteps[i + 1][None])
    return clean


# --- runs


def test_it_learns_one_clip_stops_and_goes_on(corpus, data, nets, trained, tmp_path, capsys, monkeypatch):
    speech, vae = nets
    monkeypatch.setattr(train_paper, "LOG_EVERY", 12)
    frozen, tuned = (speech.encoder.layers[i].fc1.weight.clone() for i in (0, 1))
    out = tmp_path / "out"
    for updates in (2, 3):
        learning = deepcopy(speech)  # as a new process would read it
        train(data, out, learning, vae, replace(TINY, updates=updates), listed=corpus / "train.txt")
    cut_off, straight = (torch.load(folder / "state.pt", weights_only=True) for folder in (out, trained))
    assert (cut_off["update"], cut_off["samples"]) == (3, 6)
    for name, value in straight["networks"].items():
        assert torch.equal(value, cut_off["networks"][name]), name
    pipe = train(data, out, speech, vae, replace(TINY, updates=12))
    assert "Done: all 12 updates." in capsys.readouterr().out
    head, line = (out / "log.csv").read_text().splitlines()
    assert head == "update,samples,loss,seconds"
    assert line.startswith("12,24,")
    assert pipe.profile == "paper"
    assert torch.equal(pipe.speech.encoder.layers[0].fc1.weight, frozen)
    assert not torch.equal(pipe.speech.encoder.layers[1].fc1.weight, tuned)
    fresh = DenoisingLoss(type(pipe.denoiser)(**TINY.denoiser), speech, pipe.scheduler, TINY.tuned).eval()
    after = DenoisingLoss(pipe.denoiser, pipe.speech, pipe.scheduler, TINY.tuned).eval()
    batch = rows(data, TINY, range(8)).batch(1005)
    with torch.inference_mode():
        losses = [loss(**batch).item() for loss in (fresh, after)]
    assert losses[0] == pytest.approx(1, abs=0.05)  # a new network outputs zeros, and the noise has variance 1
    assert losses[1] < 0.8


def test_a_run_ends_only_for_a_reason_that_it_prints(data, nets, tmp_path, capsys):
    """No limit by default; --hours counts from this start, not over all; a finished run says that it is."""
    run = data, tmp_path / "out", deepcopy(nets[0]), nets[1], TINY
    train(*run, hours=0.0)
    assert "Stopped 0.0 hours after the start (--hours), after update 0 of 3" in capsys.readouterr().out
    state = torch.load(tmp_path / "out" / "state.pt", weights_only=True)
    torch.save(state | {"elapsed": 1e9}, tmp_path / "out" / "state.pt")
    train(*run, hours=1.0)
    assert "Done: all 3 updates." in capsys.readouterr().out
    train(*run)
    assert "Nothing to do: " in capsys.readouterr().out


def test_the_scaler_of_half_precision_is_kept(data, nets, tmp_path):
    trainers = []
    for scale in (2.0**10, 2.0**16):
        networks = DenoisingLoss(PaperDenoiser(**TINY.denoiser), deepcopy(nets[0]), paper_schedule(), 1)
        trainers.append(PaperTrainer(tmp_path, networks, TINY, Accelerator(cpu=True)))
        trainers[-1].accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainers[-1].accelerator.scaler.scale(torch.ones(()))
    trainers[0].save(nets[1])
    trainers[1].resume()
    assert trainers[1].accelerator.scaler.get_scale() == 2.0**10


def test_a_trained_pipeline_is_distilled_from_the_command_line(data, trained, tmp_path, monkeypatch, capsys):
    given = [str(data), str(tmp_path / "few"), "--preset", "paper-tiny-few", "--workers", "1", "--rows", "2"]
    monkeypatch.setattr(sys, "argv", ["train", *given])
    with pytest.raises(SystemExit, match="give its folder, a run's OUT/pipeline, as --teacher"):
        main()
    monkeypatch.setattr(sys, "argv", ["train", *given, "--teacher", str(trained / "pipeline")])
    monkeypatch.setitem(PAPER_PRESETS, "paper-tiny-few", replace(PAPER_PRESETS["paper-tiny-few"], updates=2))
    main()
    assert "2 passes of 2 rows in each" in capsys.readouterr().out
    teacher, student = (SyncDiffPipeline.from_pretrained(run / "pipeline") for run in (trained, tmp_path / "few"))
    for key, value in teacher.speech.state_dict().items():
        assert torch.equal(value, student.speech.state_dict()[key]), key
    assert isinstance(student.scheduler, LCMScheduler)
    key = "unet.mid_block.resnets.0.conv1.weight"
    assert not torch.equal(teacher.denoiser.state_dict()[key], student.denoiser.state_dict()[key])


def test_a_state_of_another_preset_is_refused(data, nets, tmp_path):
    speech, vae = nets
    train(data, tmp_path / "out", deepcopy(speech), vae, replace(TINY, updates=0))
    other = replace(TINY, denoiser=TINY.denoiser | {"bottleneck": 0})
    with pytest.raises(CheckpointError, match=r"state\.pt is refused: it also has denoiser\.bottleneck_proj\.weight"):
        train(data, tmp_path / "out", deepcopy(speech), vae, other)


# --- files that are given


def test_av_hubert_is_fetched_by_name_only_after_its_licence_and_a_yes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda _: "no")
    with pytest.raises(CheckpointError, match=r"base_vox_iter5\.pt is refused: its licence was not accepted"):
        read_speech_net(Path("base"))
    assert "non-commercial research only" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_speech_net(Path("bass"))


def test_the_command_refuses_what_is_not_there_in_one_sentence(tmp_path, monkeypatch):
    for preset in ("tiny", "paper-tiny"):
        given = [str(tmp_path), str(tmp_path / "out"), "--preset", preset]
        monkeypatch.setattr(sys, "argv", ["train", *given, "--speech", str(tmp_path / "nowhere")])
        with pytest.raises(SystemExit, match=r"^nowhere is refused: [^\n]*; expected [^\n]*$"):
            main()
        monkeypatch.setattr(sys, "argv", ["train", *given])
        with pytest.raises(SystemExit, match=r"^--speech is missing: [^\n]*$"):
            main()
    with pytest.raises(InputError, match="CompVis/ldm-celebahq-256"):
        read_vae(tmp_path)


def test_the_autoencoder_is_read_with_the_names_of_its_time_and_nothing_else(tmp_path):
    """The file on the hub is older than diffusers' present names of attention."""
    vae = small_vq(attention=True)
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
