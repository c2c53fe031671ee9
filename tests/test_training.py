"""The training line, end to end, on the example faces: prepare, distil's parts, train, resume, draw."""

from __future__ import annotations

import csv
import pickle
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiff.conditioning import FaceClip, MouthPlan, condition, warped_inputs
from syncdiff.diffusion.losses import Objective
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.evaluation import ablate
from syncdiff.evaluation.baselines import SourceClip
from syncdiff.geometry.crops import WINDOW
from syncdiff.geometry.warp import mouth_pose
from syncdiff.models import pixel_codec, speech_encoder
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training import data, distill, prepare, rows, train
from syncdiff.training.landmark_net import LandmarkNet
from syncdiff.training.sync_loss import SyncMatcher

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    (root / "raw").mkdir()
    for name in ("ines.mp4", "tomas.mp4"):
        shutil.copy(EXAMPLES / name, root / "raw")
    (root / "raw" / "broken.mp4").write_bytes(b"not a video")
    prepare.prepare_set("heads", root / "raw", root / "data")
    return root / "data"


def test_prepare_reports_what_it_kept_and_why_not_and_goes_on(prepared):
    with (prepared / "heads" / "report.tsv").open() as file:
        rows = {row["clip"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert rows["ines"]["kept"] == "1"
    assert rows["broken"]["kept"] == "0"
    assert rows["broken"]["why"]
    before = (prepared / "heads" / "ines.mp4").stat().st_mtime_ns
    prepare.prepare_set("heads", prepared.parent / "raw", prepared)
    assert (prepared / "heads" / "ines.mp4").stat().st_mtime_ns == before  # not made twice


def test_a_folder_is_a_person_where_no_list_says_who_it_is(tmp_path):
    clips = [(tmp_path / "s1" / "video" / "a.mpg", "s1__video__a"), (tmp_path / "b.mp4", "b")]
    assert prepare._people(tmp_path, clips) == [("s1__video__a", "s1")]
    (tmp_path / "MANIFEST.tsv").write_text("file\tspeaker\nx/b.mp4\tkim\n")
    assert prepare._people(tmp_path, clips) == [("b", "kim")]
    (tmp_path / "MANIFEST.tsv").write_text("file\tperson\nb.mp4\tlee\n")
    assert prepare._people(tmp_path, clips) == [("b", "lee")]


def test_records_and_crops_agree(prepared):
    records = data.load_set(prepared, "heads")
    crops, starts = data.load_crops(prepared, records)
    assert starts[-1] == len(crops) == sum(len(r) for r in records)
    lips = records[0].points[:, : data.LIPS]
    assert (lips[..., 0] > WINDOW[1].start).all()
    assert (lips[..., 1] > WINDOW[0].start).all()  # lips lie in the window that the network sees
    assert records[0].opening.max() > records[0].opening.min() + 0.05  # and move: the head speaks


def test_training_and_sampling_build_equal_conditioning(prepared, monkeypatch):
    """The same frame, moments and lip shapes: bit for bit the same inputs of the network."""
    monkeypatch.setattr(data, "_wobble", lambda _rng: np.eye(2, 3))
    monkeypatch.setattr(data, "_degrade", lambda windows, _rng: windows)
    monkeypatch.setattr(data, "LIPS_NOISE", 0.0)
    monkeypatch.setattr(data, "JAW_GAP", (0, 1))  # the frame's own surroundings, as in use
    given = []

    def build(*args):
        given.append(args)
        return warped_inputs(*args)

    speech = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    faces = data.TalkingFaces(prepared, {"heads": 1.0}, lambda _records: lambda *_: speech, build=build)
    for seed in range(40):
        clean, trained = data._stack([faces._row("heads", np.random.default_rng(seed))]).encoded()
        frame, mouths, lip_shapes, _, interior = given[-1]
        if interior is None and torch.equal(pixel_codec.encode(frame.image[None, *WINDOW]), clean):  # not mirrored
            break
    views = (frame, *(view for view, _ in mouths))
    crops, points = np.stack([v.image for v in views]), np.stack([v.points for v in views])
    still = np.tile(np.eye(2, 3, dtype=np.float32), (4, 1, 1))
    face = FaceClip(crops, still, points, np.zeros(4), np.ones(4, bool), np.zeros(4, int))
    vars(face).update(open_frame=3, mouth_poses=np.stack([mouth_pose(v.points) for v in views]))
    shares = np.float32([[share for _, share in mouths]])
    plan = MouthPlan(lip_shapes[:1], np.array([[1, 2, 3]]), shares, lip_shapes[1:], np.zeros(1))
    used = condition([face.inputs(0, plan, 0).windowed()], trained.previous, torch.from_numpy(speech)[None])
    for name in ("masked", "reference", "lip_shapes", "blend_mask", "speech"):
        assert torch.equal(getattr(trained, name), getattr(used, name)), name


def test_batches_made_in_processes_are_those_made_here(prepared, tmp_path):
    hear = train.cached_features(SpeechEncoder(width=32, layers=1).eval(), 8, 2, tmp_path)
    make = partial(data.TalkingFaces(prepared, {"heads": 1.0}, hear).mixed, 3, 1, 0)
    assert len(pickle.dumps(make)) < 10_000  # large ones are waited for: 16 processes took four minutes to start
    here, there = (list(data.load_batches(make, range(2, 5), workers)) for workers in (0, 2))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert all(np.array_equal(getattr(a, field), getattr(b, field)) for field in vars(a))
    assert not np.array_equal(here[0].clean, here[1].clean)


def test_mirrored_landmarks_stay_on_their_lips():
    assert (np.sort(data._MIRROR) == np.arange(data.LIPS)).all()
    assert (data._MIRROR[data._MIRROR] == np.arange(data.LIPS)).all()
    outer = list(prepare.OUTER_LIPS)
    assert data._MIRROR[outer.index(61)] == outer.index(291)
    assert data._MIRROR[outer.index(17)] == outer.index(17)


def test_split_is_stable_and_about_even():
    halves = [data.split_of(f"person {i}") for i in range(1000)]
    assert 400 < halves.count("judge") < 600
    assert data.split_of("021958") == data.split_of("021958")


def test_augmentation_keeps_length_and_time():
    rng = np.random.default_rng(0)
    click = np.zeros(16000, np.float32)
    click[8000] = 1
    for _ in range(20):
        heard = distill.augment(click, np.zeros_like(click), rng)
        assert len(heard) == len(click)
        assert np.abs(heard).argmax() == 8000  # a room comes after the direct sound


def test_the_loss_is_zero_for_the_right_answer():
    clean = torch.randn(2, *pixel_codec.LATENT_SHAPE)
    terms, _ = Objective(compact_schedule(), LandmarkNet().eval())(lambda noisy, t, told: clean, clean, None)
    assert all(term.item() < 1e-5 for term in terms.values()), terms


def test_the_matcher_knows_a_pair_that_it_was_shown():
    torch.manual_seed(0)
    matcher = SyncMatcher(8, 32)
    mouths, sounds = torch.randn(16, 128, 5, 6), torch.randn(16, 8, 32)
    assert matcher(mouths, sounds).item() > 2  # chance is 2.77
    optimizer = torch.optim.Adam(matcher.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad(), matcher(mouths, sounds).backward(), optimizer.step()
    assert matcher(mouths, sounds) < 0.2
    assert matcher(mouths, sounds.roll(1, 0)) > 3


def test_training_cut_off_goes_on_as_if_it_had_not_been(prepared, tmp_path, monkeypatch):
    encoder = SpeechEncoder(width=32, layers=1).eval()
    preset = replace(train.PRESETS["tiny"], share={"heads": 1.0}, updates=4, helper_updates=1, save_every=2)
    preset = replace(preset, config=replace(preset.config, sync=0.1))
    whole = train.train(prepared, tmp_path / "whole", encoder, preset)
    (tmp_path / "cut").mkdir()
    for helper in ("reader.pt", "matcher.pt"):
        shutil.copy(tmp_path / "whole" / helper, tmp_path / "cut")
    calls, loss = [], Objective.__call__

    def power_cut(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*args, **kwargs)

    monkeypatch.setattr(Objective, "__call__", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train.train(prepared, tmp_path / "cut", encoder, preset)
    resumed = train.train(prepared, tmp_path / "cut", encoder, preset)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_train_resumes_and_what_it_saves_draws(prepared, tmp_path, monkeypatch):
    encoder = SpeechEncoder(width=32, layers=1).eval()
    preset = replace(train.PRESETS["tiny"], share={"heads": 1.0}, updates=3, helper_updates=2)
    train.train(prepared, tmp_path / "out", encoder, preset)
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["update"] == 3
    encoder.save_pretrained(tmp_path / "speech")
    monkeypatch.setitem(train.PRESETS, "tiny", replace(preset, updates=5))
    given = [str(prepared), str(tmp_path / "out"), "--speech", str(tmp_path / "speech"), "--preset", "tiny"]
    monkeypatch.setattr("sys.argv", ["train", *given])
    train.main()
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["update"] == 5
    assert (tmp_path / "out" / "sheet-000005.png").exists()
    shape = (1, *pixel_codec.LATENT_SHAPE)
    told = Conditioning(
        *(torch.zeros(shape) for _ in range(3)), torch.zeros(1, 8, 32), torch.zeros(1, 2, 5), torch.ones(shape)
    )
    again = Denoiser.from_pretrained(tmp_path / "out" / "denoiser").eval()
    average = Denoiser.from_config(again.config).eval()
    average.load_state_dict(torch.load(tmp_path / "out" / "state.pt", weights_only=True)["average"])
    with torch.inference_mode():
        t = torch.tensor([999])
        assert torch.allclose(again(torch.ones(shape), t, told), average(torch.ones(shape), t, told), atol=1e-5)


def test_ablate_trains_and_judges_rows(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path / "data")
    for path in (tmp_path / "data" / "heads").glob("*.npz"):  # two seconds of each film: what a foreign voice needs
        with np.load(path) as file:
            arrays = {key: value[: 50 * 640 if key == "sound" else 50] for key, value in file.items()}
        np.savez(path, **arrays)
    prepared = tmp_path / "data"
    tiny = train.PRESETS["tiny"]
    for name in ("log mel", "previous", "L1 regressor"):
        preset = rows.ROWS[name].preset
        small = replace(preset, share={"heads": 1.0}, batch=2, helper_updates=1, hearings=1, workers=0)
        config = replace(preset.config, chained=0)
        row = replace(rows.ROWS[name], preset=replace(small, denoiser=tiny.denoiser, config=config))
        monkeypatch.setitem(rows.ROWS, name, row)
    monkeypatch.setattr(ablate, "ABLATION", ("heads",))
    monkeypatch.setattr(ablate, "CLIPS", 1)
    encoders = {"facial-informative": SpeechEncoder(width=32, layers=1).eval(), "log mel": rows.LogMel()}
    (found,) = ablate.ablate(prepared, tmp_path / "out", encoders, ["log mel"], updates=2)
    assert (found["method"], found["samples"]) == ("log mel", 4)
    lines = (tmp_path / "out" / "ablations.md").read_text().splitlines()
    assert len(lines) == 3
    assert f"{found['sharpness']:.2f}" in lines[2]
    clip = SourceClip.of(prepared, data.load_set(prepared, "heads"), 0).first(12)
    drawn = {}

    def few_frames(methods, *_):
        for name, make in methods.items():
            drawn[name] = make(clip, clip.sound)
            yield {"method": name}

    monkeypatch.setattr(ablate, "evaluate", few_frames)
    for names in (["previous", "L1 regressor"], ["previous"]):
        again = ablate.ablate(prepared, tmp_path / "out", encoders, names, updates=2)
    assert [row["method"] for row in again] == ["log mel", "L1 regressor", "previous"]  # the others are kept
    assert again[0]["matched_r"] == pytest.approx(found["matched_r"])
    for name, crops in drawn.items():
        assert (crops != clip.crops).any((1, 2, 3)).all(), name


def test_log_mel_stands_in_an_encoders_place():
    mel = torch.randn(1, 80, 11)
    features = rows.LogMel()(mel)
    assert features.shape == (1, 5, rows.LogMel.config["width"])
    assert features[0, 2, :80] * speech_encoder.MEL_STD + speech_encoder.MEL_MEAN == pytest.approx(
        mel[0, :, 4], abs=1e-5
    )


def test_a_clip_that_lost_its_face_is_not_drawn_from(prepared, tmp_path):
    """Its NaN landmarks would end a run in NaN."""
    shutil.copytree(prepared, tmp_path / "data")
    with np.load(tmp_path / "data" / "heads" / "ines.npz") as file:
        arrays = dict(file)
    arrays["points"][3] = np.nan
    np.savez(tmp_path / "data" / "heads" / "ines.npz", **arrays)
    nothing = np.zeros((8, 16), np.float32)
    faces = data.TalkingFaces(tmp_path / "data", {"heads": 1.0}, lambda _records: lambda *_: nothing)
    records, _, _, people, _ = faces.rows["heads"]
    assert [records[i].name for person in people for i in person] == ["tomas"]
