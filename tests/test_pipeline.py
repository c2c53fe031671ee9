"""The journey from two files to a scored video, on small untrained weights: everything but how it looks."""

from __future__ import annotations

import errno
import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiff.conditioning import FaceClip, FramePlan
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.errors import InputError
from syncdiff.evaluation.paper_drawing import write_film
from syncdiff.generator import CompactGenerator
from syncdiff.geometry.crops import WINDOW, S, mouth_mask
from syncdiff.job import Job
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.provenance.label import SEEN_CORRELATION, label_likeness
from syncdiff.provenance.manifest import read_manifest
from syncdiff.results import Progress, Result, correction_note
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import Scores
from syncdiff.training.prepare import read_sound
from tests.media_fixtures import make_video, part_of_sound, rgb_frames, shrunk_video

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
FACE, VOICE = EXAMPLES / "ines.mp4", EXAMPLES / "voice-river.wav"


@pytest.fixture(scope="module")
def pipe() -> SyncDiffPipeline:
    torch.manual_seed(0)
    denoiser = Denoiser(widths=(16, 32), speech_width=16, tokens=4, residual=False).eval()
    return SyncDiffPipeline(denoiser, SpeechEncoder(width=16, layers=1).eval(), compact_schedule())


@pytest.fixture(scope="module")
def job(pipe) -> Job:
    return Job(pipe, JudgeNet().eval())


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> tuple[Path, Path]:
    """The first 2.4 s of an example face, and of an example voice."""
    folder = tmp_path_factory.mktemp("short")
    return shrunk_video(FACE, folder / "face.mp4", 60, 240), part_of_sound(VOICE, folder / "voice.wav", 2.4)


def run(job, face, voice, out, **options) -> tuple[list[Progress], Result]:
    *progress, result = job(face, voice, out, SampleOptions(**{"steps": 1} | options))
    return progress, result


@pytest.fixture(scope="module")
def journey(job, short, tmp_path_factory) -> tuple[list[Progress], Result]:
    """One whole run, with the seed 3."""
    temp = tmp_path_factory.mktemp("temp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temp))
        patch.setattr("tempfile.tempdir", str(temp))
        done = run(job, *short, tmp_path_factory.mktemp("out") / "out.mp4", seed=3)
    assert not any(temp.iterdir())  # nothing is left behind
    return done


def test_the_journey(journey, short):
    progress, result = journey
    stages = list(dict.fromkeys(p.stage for p in progress))
    assert stages == ["reading", "finding the face", "listening", "drawing", "scoring"]
    assert all(0 <= p.done <= p.total for p in progress)
    for stage in stages:
        done = [p.done / p.total for p in progress if p.stage == stage]
        assert done == sorted(done), stage
    assert result.frames == result.redrawn == 60
    assert result.passed_through == ()
    assert result.source_scores.reason == "not scorable: the face came without a sound of its own"
    assert result.result_scores.confidence is not None
    assert json.loads(json.dumps(result.report()))["frames"] == 60
    note = read_manifest(result.video)
    assert (note.state, note.ours, note.labelled) == ("self-signed", True, True)
    assert label_likeness(rgb_frames(result.video)[::20]) > SEEN_CORRELATION
    before, after = rgb_frames(short[0]), rgb_frames(result.video)
    assert before.shape == after.shape
    changed = np.abs(before.astype(int) - after).mean((0, 3)) > 25
    assert 0.02 < changed.mean() < 2 * mouth_mask().mean()  # untrained weights draw noise, but only where the mouth is
    (_, x, y, width), (high, wide) = result.mouth[0], changed.shape
    rows, columns = np.mgrid[:high, :wide]
    there = np.hypot(columns - x * wide, rows - y * high) < width * wide / 4
    assert changed[there].mean() > 3 * changed[~there].mean()
    assert 10 <= len(result.mouth) <= 12  # 2.4 s
    assert sorted(path.name for path in result.video.parent.iterdir()) == ["out.mp4", "out.source.mp4"]


def test_cancel_takes_effect_at_once_and_leaves_nothing(job, short, tmp_path, private_temp):
    with closing(job(*short, tmp_path / "out.mp4", SampleOptions(steps=50))) as steps:
        for update in steps:
            if update.stage == "drawing":
                break
        assert update.done < 0.02 * update.total
    assert not any(private_temp.iterdir())
    assert not any(tmp_path.iterdir())


def test_a_shorter_voice_leaves_the_rest_as_it_was(job, short, tmp_path):
    voice = part_of_sound(short[1], tmp_path / "one.wav", 1.0)
    _, result = run(job, short[0], voice, tmp_path / "out.mp4", label=False)
    assert result.frames == 60
    assert not read_manifest(result.video).labelled
    (gap,) = result.passed_through
    assert (round(gap.start, 2), round(gap.end, 2), gap.reason) == (1.0, 2.4, "the voice has ended")
    before, after = rgb_frames(short[0])[30:].astype(float), rgb_frames(result.video)[30:]
    assert 10 * np.log10(255**2 / ((before - after) ** 2).mean()) > 36


def test_no_face_is_one_sentence(job, short, tmp_path, private_temp):
    make_video(tmp_path / "grey.mp4", [np.full((240, 320, 3), 90, np.uint8)] * 30)
    with pytest.raises(InputError, match="face") as caught:
        run(job, tmp_path / "grey.mp4", short[1], tmp_path / "out.mp4")
    assert "\n" not in str(caught.value)
    assert not any(private_temp.iterdir())


def test_inputs_are_never_overwritten(job, short, tmp_path):
    for out, words in ((short[0], "is an input"), (tmp_path / "nowhere" / "out.mp4", "folder that exists")):
        with pytest.raises(InputError, match=words):
            run(job, *short, out)
    assert short[0].stat().st_size > 1000


def test_what_lay_at_out_is_replaced_only_at_the_very_end(job, journey, short, tmp_path, private_temp, monkeypatch):
    out = tmp_path / "out.mp4"
    out.write_text("before")
    for update in (steps := job(*short, out, SampleOptions(steps=1, seed=3))):
        if update.stage == "scoring":  # the last stage
            break
    assert out.read_text() == "before"
    (finished,) = tmp_path.glob(".syncdiff-*/result.mp4")
    assert (rgb_frames(finished) == rgb_frames(journey[1].video)).all()  # the same seed gives the same video
    steps.close()
    monkeypatch.setattr("syncdiff.media.ClipWriter.write", full_disk)
    with pytest.raises(InputError, match=r"The disk is full \((.*)\): free some space there") as caught:
        run(job, *short, out)
    assert re.search(r"\((.*)\)", str(caught.value))[1] == str(tmp_path)
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert not any(private_temp.iterdir())


def full_disk(writer, *_):
    raise OSError(errno.ENOSPC, "No space left on device", str(writer.path))


def test_a_corrected_offset_moves_the_sound_of_every_frame(job, short, tmp_path, monkeypatch):
    found, score = iter([Scores("judge", 0.3, 1.0, 5, steady=True)]), job._score
    generate, plans, seeds = CompactGenerator.generate, [], []

    def recorded(generator, plan, *given, **options):
        plans.append(plan.middles)
        seeds.append(options["seed"])
        return generate(generator, plan, *given, **options)

    monkeypatch.setattr(CompactGenerator, "generate", recorded)
    monkeypatch.setattr(job, "_score", lambda *given: next(found, None) or score(*given))
    voice = part_of_sound(short[1], tmp_path / "one.wav", 1.0)
    progress, result = run(job, short[0], voice, tmp_path / "out.mp4", correct_offset=True, seed=4, tail="trim")
    assert "testing the offset" in {p.stage for p in progress}
    first, second = plans
    np.testing.assert_allclose(second - first, 5 / 25, atol=1e-9)
    assert seeds == [4, 4]
    assert result.earlier_frames == 5
    assert correction_note(Scores("judge", 0.3, 1.0, 5, steady=True)) in result.notes


def test_what_came_of_a_correction_is_said_in_a_sentence():
    for scores, note in [
        (Scores("judge", 0.3, 1.0, 5, steady=True), "drawn 200 ms earlier: a test pass had found them late"),
        (Scores("judge", 0.3, 1.0, -2, steady=True), "drawn 80 ms later: a test pass had found them early"),
        (Scores("judge", 0.3, 1.0, 5), "in sync: nothing was corrected"),
        (Scores("judge", reason="why"), "could not be found: why"),
    ]:
        assert note in correction_note(scores)


def test_options_out_of_range(subtests):
    for options, words in [
        ({"steps": 0}, "0 steps.*1 to 50"),
        ({"seed": -1}, "seed is -1"),
        ({"tail": "x"}, "keep or trim"),
    ]:
        with subtests.test(words), pytest.raises(InputError, match=words):
            SampleOptions(**options)


def test_a_film_without_sound_cannot_be_scored(job, short):
    *_, scores = job.score(short[0])
    assert "without a sound of its own" in scores.reason


def test_the_pipeline_alone_redraws_crops_and_leaves_the_others(pipe, tmp_path):
    crops = np.random.default_rng(0).integers(0, 256, (6, S, S, 3), dtype=np.uint8)
    points = np.random.default_rng(1).uniform(50, 100, (1, 478, 2)).repeat(6, 0)
    face = FaceClip(crops, np.tile(np.eye(2, 3), (6, 1, 1)), points, np.zeros(6), np.ones(6, bool), np.zeros(6, int))
    times = np.arange(6) / 25
    plan = FramePlan(face, np.arange(6), times, times + 0.02, np.float32([0, 1, 1, 1, 1, 1]))
    drawn = pipe(plan, np.zeros(8000, np.float32), num_inference_steps=1).crops
    assert (drawn[0] == crops[0]).all()
    assert (drawn[1:, : WINDOW[0].start] == crops[1:, : WINDOW[0].start]).all()
    assert (drawn[1:] != crops[1:]).any((1, 2, 3)).all()
    pipe.save_pretrained(tmp_path)
    again = SyncDiffPipeline.from_pretrained(tmp_path)
    for seed, same in ((0, True), (1, False)):
        other = again(plan, np.zeros(8000, np.float32), num_inference_steps=1, seed=seed).crops
        assert (other == drawn).all() == same


def test_a_film_out_of_sync_is_noted(job, short, tmp_path, monkeypatch):
    """The lips of a film of a talking head follow a planted forecast 3 frames late."""
    write_film(tmp_path / "own.mp4", rgb_frames(short[0]), read_sound(short[1]))
    seen = {}

    def face_clip(generator, clip, track, to_frame, crops):
        seen["gap"] = FaceClip.of(track, to_frame, crops).shapes[:, 0]
        return made(generator, clip, track, to_frame, crops)

    def forecast(_speech, times):
        lips = np.zeros((len(times), 5), np.float32)
        lips[:, 0] = np.interp(times * 25 - 0.5 + 3, np.arange(60), seen["gap"]) / 8  # the sound runs 3 frames ahead
        return lips

    made = CompactGenerator.face_clip
    monkeypatch.setattr(CompactGenerator, "face_clip", face_clip)
    monkeypatch.setattr(CompactGenerator, "forecast", staticmethod(forecast))
    _, result = run(job, tmp_path / "own.mp4", short[1], tmp_path / "out.mp4")
    assert result.source_offset == pytest.approx(3, abs=0.3)
    assert "the lips come 1" in " ".join(result.notes)
    assert "ms after its own sound" in " ".join(result.notes)
