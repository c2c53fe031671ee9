"""The journey from two files to a scored video, on small untrained weights: everything but how it looks."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.errors import InputError
from syncdiff.generator import CompactGenerator
from syncdiff.geometry.crops import mouth_mask
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline, score_file
from syncdiff.provenance import read_manifest
from syncdiff.provenance.label import ALIKE, sees_label
from syncdiff.results import Progress, Result
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import Scores

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
FACE, VOICE = EXAMPLES / "ines.mp4", EXAMPLES / "voice-river.wav"


@pytest.fixture(scope="module")
def pipe() -> SyncDiffPipeline:
    torch.manual_seed(0)
    denoiser = Denoiser(widths=(16, 32), speech_width=16, tokens=4, residual=False).eval()
    made = SyncDiffPipeline(denoiser, SpeechEncoder(width=16, layers=1).eval(), compact_schedule())
    made.judge = JudgeNet().eval()
    return made


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> tuple[Path, Path]:
    """The first 2.4 s of an example face, and of an example voice."""
    folder = tmp_path_factory.mktemp("short")
    with av.open(str(FACE)) as source, av.open(str(folder / "face.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width = stream.height = 240
        for i, frame in enumerate(source.decode(video=0)):
            if i < 60:
                out.mux(stream.encode(frame.reformat(240, 240, "yuv420p")))
        out.mux(stream.encode())
    import soundfile

    samples, rate = soundfile.read(VOICE)
    soundfile.write(folder / "voice.wav", samples[: int(2.4 * rate)], rate)
    return folder / "face.mp4", folder / "voice.wav"


def run(pipe, face, voice, out, **options) -> tuple[list[Progress], Result]:
    *progress, result = pipe(face, voice, out, SampleOptions(**{"steps": 1} | options))
    return progress, result


def pixels(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_the_journey(pipe, short, tmp_path, private_temp):
    progress, result = run(pipe, *short, tmp_path / "out.mp4")
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
    assert sees_label(pixels(result.video)[::20]) > ALIKE
    before, after = pixels(short[0]), pixels(result.video)
    assert before.shape == after.shape
    changed = np.abs(before.astype(int) - after).mean((0, 3)) > 25
    assert 0.02 < changed.mean() < 2 * mouth_mask().mean()  # untrained weights draw noise, but only where the mouth is
    assert not any(private_temp.iterdir())  # nothing is left behind


def test_same_seed_same_video_other_seed_other_video(pipe, short, tmp_path):
    videos = [pixels(run(pipe, *short, tmp_path / f"{i}.mp4", seed=s)[1].video) for i, s in enumerate((3, 3, 4))]
    assert (videos[0] == videos[1]).all()
    assert not (videos[0] == videos[2]).all()


def test_cancel_takes_effect_at_once_and_leaves_nothing(pipe, short, tmp_path, private_temp):
    with closing(pipe(*short, tmp_path / "out.mp4", SampleOptions(steps=50))) as steps:
        for update in steps:
            if update.stage == "drawing":
                break
        assert update.done < 0.02 * update.total
    assert not any(private_temp.iterdir())
    assert not any(tmp_path.iterdir())


def test_a_shorter_voice_leaves_the_rest_as_it_was(pipe, short, tmp_path):
    import soundfile

    samples, rate = soundfile.read(short[1])
    soundfile.write(tmp_path / "one.wav", samples[:rate], rate)
    _, result = run(pipe, short[0], tmp_path / "one.wav", tmp_path / "out.mp4", label=False)
    assert result.frames == 60
    assert not read_manifest(result.video).labelled
    (gap,) = result.passed_through
    assert (round(gap.start, 2), round(gap.end, 2), gap.reason) == (1.0, 2.4, "the voice has ended")
    before, after = pixels(short[0])[30:].astype(float), pixels(result.video)[30:]
    assert 10 * np.log10(255**2 / ((before - after) ** 2).mean()) > 36
    _, trimmed = run(pipe, short[0], tmp_path / "one.wav", tmp_path / "trim.mp4", tail="trim")
    assert trimmed.frames == 25


def test_no_face_is_one_sentence(pipe, short, tmp_path, private_temp):
    with av.open(str(tmp_path / "grey.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(30):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 90, np.uint8))))
        out.mux(stream.encode())
    with pytest.raises(InputError, match="face") as caught:
        run(pipe, tmp_path / "grey.mp4", short[1], tmp_path / "out.mp4")
    assert "\n" not in str(caught.value)
    assert not any(private_temp.iterdir())


def test_inputs_are_never_overwritten(pipe, short, tmp_path):
    for out, words in ((short[0], "is an input"), (tmp_path / "nowhere" / "out.mp4", "folder that exists")):
        with pytest.raises(InputError, match=words):
            run(pipe, *short, out)
    assert short[0].stat().st_size > 1000


def test_what_a_rehearsal_found_moves_what_every_frame_hears(pipe, short, tmp_path, monkeypatch):
    rehearsed = [Scores("judge", 0.3, 1.0, 5, steady=True), Scores("judge", 0.3, 1.0, 5), Scores("judge", reason="why")]
    score, draw, heard = pipe._score, CompactGenerator.draw_chunk, []

    def listens(generator, scene, *told, **options):
        heard.append(scene.middles)
        return draw(generator, scene, *told, **options)

    monkeypatch.setattr(CompactGenerator, "draw_chunk", listens)
    for word, moved, said in zip(
        rehearsed, (5, 0, 0), ("200 ms earlier", "in step as they are", "not be told"), strict=True
    ):
        words = iter([word])
        monkeypatch.setattr(pipe, "_score", lambda *told, words=words: next(words, None) or score(*told))
        heard.clear()
        progress, result = run(pipe, *short, tmp_path / "out.mp4", correct_offset=True)
        assert "rehearsing" in {p.stage for p in progress}
        first, second = heard
        np.testing.assert_allclose(second - first, moved / 25, atol=1e-9)
        assert result.earlier_frames == moved
        assert any(said in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "0 steps.*1 to 50"),
        ({"seed": -1}, "seed is -1"),
        ({"tail": "x"}, "keep or trim"),
        ({"job": 65_536}, "job number is 65536.*65535"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(InputError, match=words):
        SampleOptions(**options)


def test_save_and_load_draw_the_same(pipe, short, tmp_path):
    pipe.save_pretrained(tmp_path / "weights")
    again = SyncDiffPipeline.from_pretrained(tmp_path / "weights")
    assert again.judge is None
    videos = [pixels(run(p, *short, tmp_path / f"{i}.mp4")[1].video) for i, p in enumerate((pipe, again))]
    assert (videos[0] == videos[1]).all()


def test_score_file_says_when_there_is_nothing_to_score(pipe, short):
    *_, scores = score_file(pipe, short[0])
    assert "without a sound of its own" in scores.reason
