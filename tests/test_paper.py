"""The paper profile: its numbers as published or counted, its rules, and the whole way on small weights of our own."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, VQModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from syncdiff import pipeline
from syncdiff.cli import main
from syncdiff.conditioning import FramePlan
from syncdiff.errors import CheckpointError, InputError
from syncdiff.job import Job
from syncdiff.media import LIMITS
from syncdiff.options import PAPER_STEPS, PaperOptions
from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import (
    VQ_F4_AT,
    PaperDenoiser,
    Priors,
    few_step_schedule,
    paper_schedule,
    sampling_schedule,
    to_latents,
    to_pixels,
)
from syncdiff.paper.frames import SIDE, masked, paste_square, place_frames, to_square
from syncdiff.paper.frames import cut as cut_frame
from syncdiff.paper.generator import FaceFrames, PaperGenerator
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.provenance.verify import verify
from syncdiff.results import Progress, Result
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import Scores
from syncdiff.weights.folders import COMPACT, read_network, resolve_weights
from tests.media_fixtures import part_of_sound, rgb_frames, shrunk_video
from tests.released import VQ_F4, small_vq, stirred

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
FRAMES = 10


def tiny_denoiser() -> PaperDenoiser:
    return stirred(PaperDenoiser(widths=(32, 64), layers=1, head=16, speech_width=64)).eval()


@pytest.fixture(scope="module")
def pipe() -> SyncDiffPipeline:
    torch.manual_seed(0)
    speech = AVHubert(width=64, layers=2, hidden=64).eval()
    return SyncDiffPipeline(tiny_denoiser(), speech, paper_schedule(), small_vq())


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[Path, Path]:
    """0.4 s of an example, 160x160 as LRS2 is, and of a voice."""
    folder = tmp_path_factory.mktemp("clip")
    face = shrunk_video(EXAMPLES / "ines.mp4", folder / "face.mp4", FRAMES, 160)
    return face, part_of_sound(EXAMPLES / "voice-river.wav", folder / "voice.wav", FRAMES / 25, start=1.0)


# --- the numbers


def test_parameters_and_cost_are_those_that_were_counted():
    with torch.device("meta"):
        net, vae = PaperDenoiser(), VQModel(**VQ_F4)
        told = Priors(*(torch.zeros(1, 3, 64, 64) for _ in range(3)), torch.zeros(1, 1, 768))
        with FlopCounterMode(display=False) as counted:
            net(torch.zeros(1, 3, 64, 64), torch.zeros(1), told)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 546.2
    assert round(sum(p.numel() for p in vae.parameters()) / 1e6, 1) == 55.3
    assert abs(counted.get_total_flops() / 2 / 171e9 - 1) < 0.02
    assert net.unet.conv_in.in_channels == 10
    assert net.unet.conv_out.out_channels == 3
    assert tuple(net.bottleneck_proj.weight.shape) == (1, 3, 1, 1)
    heads = {block.attn2.inner_dim // block.attn2.heads for block in _blocks(net.unet)}
    assert heads == {32}
    assert not [block for block in _blocks(net.unet.down_blocks[0])]  # noqa: C416 -- the highest level does not attend


def _blocks(module):
    return [m for m in module.modules() if type(m).__name__ == "BasicTransformerBlock"]


def test_the_schedule_is_latent_diffusions():
    beta = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    schedule = paper_schedule()
    assert np.allclose(schedule.alphas_cumprod.numpy(), np.cumprod(1 - beta), rtol=1e-4)
    schedule.set_timesteps(PAPER_STEPS)
    assert schedule.timesteps.tolist() == list(range(996, 0, -5))
    assert schedule.final_alpha_cumprod == schedule.alphas_cumprod[0]


def test_latents_are_taken_before_quantisation_and_quantised_in_the_decoder():
    torch.manual_seed(0)
    vae = small_vq()
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        z = to_latents(vae, frame)
        assert z.shape == (1, 3, 16, 16)
        code = vae.quantize.embedding.weight
        code.copy_(z.mean() + z.std() * torch.randn_like(code))
        near = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 3), code)
        assert near.min(1).values.min() > 0  # none of them is a code itself
        quantised = code[near.argmin(1)].reshape(1, 16, 16, 3).permute(0, 3, 1, 2)
        decoded = vae.decode(quantised, force_not_quantize=True).sample
        shown = ((decoded.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
        assert np.abs(to_pixels(vae, z) - shown).max() < 0.6  # rounding
        plain = vae.decode(z, force_not_quantize=True).sample
        assert (plain - decoded).abs().max() > 0.02


# --- the network


def test_only_one_channel_of_the_pose_gets_through_and_the_others_whole():
    torch.manual_seed(0)
    net = tiny_denoiser()
    g = torch.Generator().manual_seed(1)
    parts = {name: torch.randn(1, 3, 16, 16, generator=g) for name in ("masked", "identity", "pose")}
    parts["speech"] = torch.randn(1, 1, 64, generator=g)
    noisy, t = torch.randn(1, 3, 16, 16, generator=g), torch.tensor([500])

    def run(**changes):
        with torch.inference_mode():
            return net(noisy, t, Priors(**parts | changes))

    usual = run()
    assert usual.shape == (1, 3, 16, 16)
    null = torch.linalg.svd(net.bottleneck_proj.weight[:, :, 0, 0].detach()).Vh[1:]  # what the convolution cannot see
    hidden = torch.einsum("nc,bnhw->bchw", null, torch.randn(1, 2, 16, 16, generator=g))
    assert torch.allclose(usual, run(pose=parts["pose"] + 5 * hidden), atol=1e-4)
    for name, value in parts.items():
        assert not torch.allclose(usual, run(**{name: value + 1}), atol=1e-4), name


def test_the_variants_of_the_ablation_tables_are_told_less_or_more():
    """Table 3: no pose frame, or nothing but it, whole; Table 5: several."""
    g = torch.Generator().manual_seed(1)
    noisy, t = torch.randn(1, 3, 16, 16, generator=g), torch.tensor([500])
    told = Priors(*(torch.randn(1, 3, 16, 16, generator=g) for _ in range(3)), torch.randn(1, 1, 64, generator=g))
    small = {"widths": (32, 64), "layers": 1, "head": 16, "speech_width": 64}

    @torch.inference_mode()
    def noticed(net: PaperDenoiser, told: Priors, **changes) -> bool:
        return not torch.allclose(net(noisy, t, told), net(noisy, t, replace(told, **changes)), atol=1e-4)

    for changes, channels, pose, identity in (
        ({"bottleneck": 0}, 9, False, True),
        ({"bottleneck": 3, "identity": False}, 9, True, False),
        ({"identity": False}, 7, True, False),
    ):
        torch.manual_seed(0)
        net = stirred(PaperDenoiser(**small, **changes)).eval()
        assert net.unet.conv_in.in_channels == channels
        assert noticed(net, told, pose=told.pose + 1) == pose
        assert noticed(net, told, identity=told.identity + 1) == identity
    assert not list(PaperDenoiser(**small, bottleneck=3).bottleneck_proj.parameters())  # as they are
    net = stirred(PaperDenoiser(**small, previous=5)).eval()
    assert net.unet.conv_in.in_channels == 14
    many = replace(told, pose=torch.randn(1, 15, 16, 16, generator=g))
    oldest = many.pose.clone()
    oldest[:, -1] += 3
    assert noticed(net, many, pose=oldest)


# --- the frame


def test_a_square_frame_is_taken_whole_and_another_is_cut_around_the_face_and_meets_it_at_its_edge():
    boxes = np.tile(np.array([60.0, 40, 110, 100]), (5, 1))
    whole = place_frames(boxes, np.arange(5) / 25, 160, 160)
    image = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    assert (whole == np.array([[160 / SIDE, 0, 0], [0, 160 / SIDE, 0]], np.float32)).all()
    assert cut_frame(image, whole[0]).shape == (SIDE, SIDE, 3)
    patch = paste_square(image, np.full((SIDE, SIDE, 3), 7, np.uint8), whole[0])
    assert (patch.y, patch.x, patch.rgb.shape) == (0, 0, (160, 160, 3))
    assert (patch.rgb == 7).all()  # the whole frame is the generated one

    boxes[2] = np.nan
    boxes[3:, ::2] += 50
    placed = place_frames(boxes, np.arange(5) / 25, 640, 360)
    assert np.isfinite(placed).all()
    assert np.allclose(placed[:, 0, 0], 120 / SIDE)  # twice the box's height, the same size throughout
    assert (np.diff(placed[:, 0, 2]) >= 0).all()
    box = to_square(boxes, placed)[0]
    assert np.allclose(box[2:] - box[:2], np.array([50, 60]) * SIDE / 120, atol=1e-3)

    image = np.full((360, 640, 3), 50, np.uint8)
    matrix = np.array([[1, 0, 100], [0, 1, 0]], np.float32)
    rgb = paste_square(image, np.full((SIDE, SIDE, 3), 200, np.uint8), matrix).rgb.astype(int)
    assert (rgb[:100, 30:-30] == 200).all()  # up to the frame's own edge above
    assert rgb[128, 0].max() < 60
    assert rgb[-1, 128].max() < 60
    assert (np.diff(rgb[128, :30, 0]) >= 0).all()


def test_placing_the_square_takes_memory_by_the_frame():
    """Ten minutes at 60 fps: a table of frames by frames would take ten gigabytes."""
    T = 36_000
    boxes = np.tile(np.array([60.0, 40, 110, 100]), (T, 1)) + 20 * np.sin(np.arange(T) / 500)[:, None]
    tracemalloc.start()
    placed = place_frames(boxes, np.arange(T) / 60, 640, 360)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert placed.shape == (T, 2, 3)
    assert peak < 2000 * T
    assert np.abs(np.diff(placed[:, 0, 2])).max() <= 1  # it glides


def test_the_mask_is_the_lower_half_of_the_box_and_black():
    square = np.full((SIDE, SIDE, 3), 99, np.uint8)
    hidden = masked(square, np.array([64.0, 100, 192, 220]))
    black = (hidden == 0).all(-1)
    rows, columns = np.flatnonzero(black.any(1)), np.flatnonzero(black.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (160, 219, 64, 191)
    assert black.sum() == 60 * 128
    assert (hidden[~black] == 99).all()
    assert (square == 99).all()
    black = (masked(square, np.array([-40.0, 100, 60, 356])) == 0).all(-1)  # reaches 100 px beyond the lower edge
    assert (np.flatnonzero(black.any(1))[0], np.flatnonzero(black.any(0))[-1]) == (228, 59)


# --- drawing


class Spy(PaperDenoiser):
    """Remembers what it was told."""

    def forward(self, noisy, timestep, told):
        self.told.append(told)
        return super().forward(noisy, timestep, told)


def drawn(
    pipe: SyncDiffPipeline, wanted: list[bool], **changes
) -> tuple[list[Priors], dict[int, np.ndarray], FaceFrames]:
    net = Spy(**{k: v for k, v in tiny_denoiser().config.items() if not k.startswith("_")} | changes)
    net.told = []
    T = len(wanted)
    crops = np.random.default_rng(0).integers(0, 256, (T, SIDE, SIDE, 3), dtype=np.uint8)
    boxes = np.tile(np.array([64.0, 64, 192, 192]), (T, 1))
    face = FaceFrames(crops, np.tile(np.eye(2, 3), (T, 1, 1)), boxes, np.ones(T, bool))
    times = np.arange(T) / 25
    plan = FramePlan(face, np.arange(T), times, times + 0.02, np.array(wanted, np.float32))
    heard = torch.arange(T)[:, None].float().expand(T, 64)
    generator, out = PaperGenerator(net, pipe.speech, pipe.vae, pipe.scheduler), {}
    for step in generator.generate(plan, heard, 0, steps=1, seed=0):
        out |= {i: frame.crop for i, frame in step.finished.items()}
    return net.told, out, face


def test_each_frame_is_told_of_the_one_generated_before(pipe):
    told, out, face = drawn(pipe, [True, True, False, True])
    assert list(out) == [0, 1, 3]

    def latents(*pictures):
        return torch.cat([pipe.generator()._encoded(picture) for picture in pictures], dim=1)

    assert torch.equal(told[0].pose, latents(face.crops[0]))  # the first frame is given
    assert torch.equal(told[1].pose, latents(out[0]))  # generated, decoded, encoded again
    assert torch.equal(told[2].pose, latents(face.crops[2]))  # after a gap: what the gap showed
    for i, frame in enumerate((0, 1, 3)):
        assert torch.equal(told[i].identity, latents(face.crops[0]))
        assert torch.equal(told[i].masked, latents(masked(face.crops[frame], face.boxes[frame])))
        assert torch.equal(told[i].speech, torch.full((1, 1, 64), float(frame)))  # one token, this frame's

    told, out, face = drawn(pipe, [True, True, False, True, True], previous=2)  # newest first
    assert torch.equal(told[0].pose, latents(face.crops[0], face.crops[0]))
    assert torch.equal(told[1].pose, latents(out[0], out[0]))  # there is none before the first: it again
    assert torch.equal(told[2].pose, latents(face.crops[2], out[1]))
    assert torch.equal(told[3].pose, latents(out[3], face.crops[2]))


def test_several_films_together_become_what_each_becomes_alone(pipe, monkeypatch):
    """Of different length, one with a gap. In float32, where a batch changes the last digits only."""
    monkeypatch.setattr("syncdiff.paper.generator.autocast", lambda _: nullcontext())
    plans, heard = [], []
    for seed, wanted in ((0, [True, True, False, True]), (1, [True, True])):
        T = len(wanted)
        crops = np.random.default_rng(seed).integers(0, 256, (T, SIDE, SIDE, 3), dtype=np.uint8)
        boxes = np.tile(np.array([64.0, 64, 192, 192]), (T, 1))
        face = FaceFrames(crops, np.tile(np.eye(2, 3), (T, 1, 1)), boxes, np.ones(T, bool))
        times = np.arange(T) / 25
        plans.append(FramePlan(face, np.arange(T), times, times + 0.02, np.array(wanted, np.float32)))
        heard.append(torch.randn(T, 64, generator=torch.Generator().manual_seed(seed)))
    for schedule in (paper_schedule(), few_step_schedule()):
        generator = PaperGenerator(pipe.denoiser, pipe.speech, pipe.vae, schedule)
        together = {(film, i): square for film, i, square in generator.generate_together(plans, heard, steps=2, seed=3)}
        assert set(together) == {(0, 0), (0, 1), (0, 3), (1, 0), (1, 1)}
        for n, plan in enumerate(plans):
            for step in generator.generate(plan, heard[n], 0, steps=2, seed=3):
                for i, frame in (step.finished or {}).items():
                    apart = np.abs(frame.crop.astype(int) - together[n, i])
                    assert (apart <= 2).mean() > 0.99, (n, i, schedule)  # another code is nearest, now and then
    with pytest.raises(InputError, match="distilled to few steps: choose 1 to 50, not 200"):
        sampling_schedule(few_step_schedule(), 200)


@pytest.fixture(scope="module")
def whole(pipe, clip, tmp_path_factory) -> SimpleNamespace:
    """One whole run of one step a frame: its updates, its result, and the videos that SyncNet was given."""
    asked, temp = {}, tmp_path_factory.mktemp("temp")

    def score_video(video, net, limits=LIMITS):
        asked[Path(video).name] = limits
        yield 1.0
        return (Scores(net, 8.0, 6.5, 0),)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(temp))
        patch.setattr("syncdiff.sync.syncnet_v2.score_video", score_video)
        out = tmp_path_factory.mktemp("out") / "out.mp4"
        *progress, result = Job(pipe, syncnet="SyncNet v2")(*clip, out, PaperOptions(steps=1))
    assert not any(temp.iterdir())  # nothing is left behind
    return SimpleNamespace(progress=progress, result=result, asked=asked)


def test_the_whole_way(whole, clip):
    result, asked = whole.result, whole.asked
    assert isinstance(result, Result)
    assert result.frames == result.redrawn == FRAMES
    assert {p.stage for p in whole.progress} == {"reading", "finding the face", "listening", "drawing", "scoring"}
    before, after = rgb_frames(clip[0]), rgb_frames(result.video)
    assert before.shape == after.shape
    changed = np.abs(before.astype(int) - after).max((0, 3)) > 8
    assert changed.mean() > 0.9  # untrained weights: the whole frame is another
    assert "mediapipe's points, not S3FD's" in " ".join(result.notes)
    assert result.source_lse == result.result_lse == (Scores("SyncNet v2", 8.0, 6.5, 0),)
    assert asked["face.mp4"] == LIMITS
    (result_limits,) = (limits for name, limits in asked.items() if name != "face.mp4")
    assert result_limits.bytes > 1000 * LIMITS.bytes  # a result may be larger than any upload


def test_saved_and_loaded_it_draws_the_same_from_the_command_line(pipe, clip, whole, tmp_path, capsys):
    pipe.save_pretrained(tmp_path / "weights")
    again = SyncDiffPipeline.from_pretrained(tmp_path / "weights")
    assert again.profile == "paper"
    assert isinstance(again.vae, VQModel)
    assert isinstance(again.denoiser.unet, UNet2DConditionModel)
    assert isinstance(again.scheduler, DDIMScheduler)
    where = ["--profile", "paper", "--weights", str(tmp_path / "weights")]
    assert main(["sync", *map(str, clip), str(tmp_path / "out.mp4"), "--steps", "1", "--json", *where]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["profile"], report["attention"], report["device"]) == ("paper", "sdpa", "cpu")
    assert (rgb_frames(tmp_path / "out.mp4") == rgb_frames(whole.result.video)).all()


class Interrupted(PaperDenoiser):
    """Counts its evaluations, and is stopped by hand in the one asked for."""

    evaluations, last = 0, 10**9

    def forward(self, noisy, timestep, told):
        self.evaluations += 1
        if self.evaluations > self.last:
            raise KeyboardInterrupt
        return super().forward(noisy, timestep, told)


@pytest.fixture
def slow(pipe) -> SyncDiffPipeline:
    net = Interrupted(**{key: value for key, value in pipe.denoiser.config.items() if not key.startswith("_")})
    return SyncDiffPipeline(net.eval(), pipe.speech, pipe.scheduler, pipe.vae)


def in_the_second_frame(updates: Iterator[Progress | Result]) -> None:
    """Work until three of the second frame's 20 steps are done, then close."""
    with closing(updates):
        for update in updates:
            if isinstance(update, Progress) and update.stage == "drawing" and update.done == 23:
                return
    pytest.fail("it ended before")


def test_cancel_stops_between_two_steps_and_leaves_nothing(slow, clip, tmp_path, private_temp):
    in_the_second_frame(Job(slow)(*clip, tmp_path / "out.mp4", PaperOptions(steps=20)))
    assert slow.denoiser.evaluations == 23
    assert not any(private_temp.iterdir())
    assert not any(tmp_path.iterdir())


def test_interrupted_on_the_command_line_it_leaves_nothing(
    pipe, slow, clip, tmp_path, private_temp, monkeypatch, capsys
):
    pipe.save_config(tmp_path)
    before = set(tmp_path.iterdir())
    slow.denoiser.last = 5
    monkeypatch.setattr(Job, "ready", lambda *_, **__: Job(slow))
    given = ["--weights", str(tmp_path), "--profile", "paper", "--steps", "20"]
    assert main(["sync", *map(str, clip), str(tmp_path / "out.mp4"), *given]) == 130
    assert "Interrupted: no result is left half written." in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before
    assert not any(private_temp.iterdir())


class Shrinks(nn.Module):
    """Stands for a trained autoencoder: a picture a quarter as large, and back."""

    device, dtype = torch.device("cpu"), torch.float32

    def encode(self, x):
        return SimpleNamespace(latents=F.interpolate(x, scale_factor=0.25, mode="area"))

    def decode(self, z):
        return SimpleNamespace(sample=F.interpolate(z, scale_factor=4.0, mode="bicubic"))


class Repeats(nn.Module):
    """Stands for a trained denoiser: it finds the very noise that hides the identity frame."""

    device, config = torch.device("cpu"), {"tokens": 1, "previous": 1}
    alphas = paper_schedule().alphas_cumprod

    def forward(self, noisy, t, told):
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        return (noisy - alpha.sqrt() * told.identity) / (1 - alpha).sqrt()


@pytest.mark.weights
def test_the_mark_lies_in_the_result_and_the_judge_scores_it(tmp_path):
    """A face that can be found in the result: two seconds of one picture, under a voice."""
    with av.open(str(EXAMPLES / "ines.mp4")) as source, av.open(str(tmp_path / "face.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height = 288, 240  # not square: the whole frame is not the model's
        for i, frame in enumerate(source.decode(video=0)):
            if i < 50:
                image = np.pad(frame.reformat(240, 240, "rgb24").to_ndarray(), ((0, 0), (24, 24), (0, 0)), mode="edge")
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode())
    pipe = SyncDiffPipeline(Repeats(), AVHubert(width=64, layers=1, hidden=8).eval(), paper_schedule(), Shrinks())
    options = PaperOptions(steps=2)
    *_, result = Job(pipe, JudgeNet.shipped())(
        tmp_path / "face.mp4", EXAMPLES / "voice-river.wav", tmp_path / "out.mp4", options
    )
    assert result.result_scores.judge == "syncdiff-judge"
    assert result.result_scores.scorable
    assert result.source_scores.reason == "not scorable: the face came without a sound of its own"
    found = verify(result.video)
    assert (found.watermark.found, found.label) == (True, "seen")


# --- weights that are given


def test_without_weights_one_sentence_says_what_is_needed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pipeline.SyncDiffPipeline, "from_pretrained", lambda *_: pytest.fail("nothing to load"))
    assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4"), "--profile", "paper"]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    for word in (*VQ_F4_AT, "base_vox_iter5.pt", "LRS2", "--weights"):
        assert word in said


def test_the_weights_say_which_profile_they_are_of(pipe, tmp_path, capsys):
    pipe.save_config(tmp_path)
    assert resolve_weights(tmp_path) == resolve_weights(tmp_path, "paper") == (tmp_path, "paper")
    assert resolve_weights() == resolve_weights(None, "compact") == (COMPACT, "compact")
    for folder, asked, held in ((tmp_path, "compact", "paper"), (COMPACT, "paper", "compact")):
        where = ["--weights", str(folder), "--profile", asked]
        assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4"), *where]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith(f"{folder} holds the {held} profile, not the {asked} profile")
        assert "\n" not in said
    (tmp_path / "model_index.json").write_text('{"denoiser": ["os", "system"]}')
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"holds no pipeline of ours \(model_index.json"):
            resolve_weights(folder)


def without(path: Path, key: str) -> None:
    tensors = load_file(path)
    del tensors[key]
    save_file(tensors, path, {"format": "pt"})


def with_one_more(path: Path) -> None:
    save_file(load_file(path) | {"surprise": torch.zeros(1)}, path, {"format": "pt"})


def of_another_shape(path: Path) -> None:
    save_file(load_file(path) | {"quant_conv.bias": torch.zeros(5)}, path, {"format": "pt"})


def pickled_code(path: Path) -> None:
    class Call:
        def __reduce__(self):
            return Path.touch, (path.with_name("mark"),)

    torch.save({"quant_conv.bias": Call()}, path.with_name("diffusion_pytorch_model.bin"))
    path.unlink()


def test_a_network_that_is_not_what_it_says_is_refused(tmp_path, subtests):
    for reason, spoil in {
        r"it lacks quant_conv\.bias": lambda path: without(path, "quant_conv.bias"),
        "it also has surprise": with_one_more,
        r"quant_conv\.bias expected shape": of_another_shape,
        "incomplete|cover|length": lambda path: path.write_bytes(path.read_bytes()[:-100]),
        "header": lambda path: path.write_bytes(b""),
        "no file named": Path.unlink,
        "unsupported|not an allowed|Unsupported": pickled_code,
        "property name": lambda path: path.with_name("config.json").write_text("{"),
    }.items():
        with subtests.test(reason):
            folder = tmp_path / reason[:9] / "vae"
            small_vq().save_pretrained(folder)
            spoil(folder / "diffusion_pytorch_model.safetensors")
            with pytest.raises(CheckpointError, match=reason) as caught:
                read_network(VQModel, folder)
            said = str(caught.value)
            assert said.startswith("vae is refused: ")
            assert said.endswith(f"; expected VQModel's config.json and its weights, whole, in {folder}.")
            assert "\n" not in said
            assert not (folder / "mark").exists()


def test_options_are_the_papers():
    assert PaperOptions().steps == 200
    assert PaperOptions(steps=7).steps == 7  # few steps are spaced from the last timestep, whatever their number
    with pytest.raises(InputError, match=r"1001 steps.*1 to 1000"):
        PaperOptions(steps=1001)
    for steps in (350, 1000):
        with pytest.raises(InputError, match=f"{steps} steps.*1 to 19, or a divisor of 1000 up to 500"):
            PaperOptions(steps=steps)


# --- attention


def test_xformers_only_where_it_can_run(pipe, monkeypatch):
    pipe.set_attention("auto")
    assert pipe.attention == "sdpa"
    with pytest.raises(InputError, match="xformers cannot be used here"):
        pipe.set_attention("xformers")
    with pytest.raises(InputError, match="choose auto, sdpa or xformers"):
        pipe.set_attention("flash")
    # A GPU and the package, pretended: the call that diffusers' U-Nets obey is made, and a failure falls back.
    called = []
    monkeypatch.setattr(pipeline, "find_spec", lambda _: object())
    monkeypatch.setattr(SyncDiffPipeline, "device", property(lambda _: torch.device("cuda")))
    monkeypatch.setattr(pipe.denoiser.unet, "enable_xformers_memory_efficient_attention", lambda: called.append(1))
    pipe.set_attention("auto")
    assert (pipe.attention, called) == ("xformers", [1])

    def fails():
        raise NotImplementedError("no operator")

    monkeypatch.setattr(pipe.denoiser.unet, "enable_xformers_memory_efficient_attention", fails)
    pipe.set_attention("auto")
    assert pipe.attention == "sdpa"
    with pytest.raises(InputError, match="no operator"):
        pipe.set_attention("xformers")
