"""The protocol against a naive loop and planted offsets, the judge's network against its own claims, lips by hand."""

import re
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from syncdiff.sync.scoring import best_lag, correlation, lip_opening, lip_width, score, shifted_distances

FRAME = 640


class LevelJudge:
    """A judge that needs no training: a crop's brightness against the loudness of its 40 ms."""

    name = "level"

    def crop_mouth(self, crop: np.ndarray) -> np.ndarray:
        return crop.mean(keepdims=True)[0, 0]

    def embed_video(self, views: Iterable[np.ndarray]) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(np.stack(list(views))[:, 0] / 255, 5)

    def embed_audio(self, samples: np.ndarray) -> np.ndarray:
        loud = np.sqrt(np.square(samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)).mean(1))
        return np.lib.stride_tricks.sliding_window_view(loud, 5)


def speaking(level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise [N] whose root mean square in frame t is level[t]."""
    noise = rng.standard_normal((len(level), FRAME))
    noise /= np.sqrt(np.square(noise).mean(1, keepdims=True))
    return (noise * level[:, None]).ravel().astype(np.float32)


def clip(late: int = 0, frames: int = 75, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Crops [T,8,8,3] and samples [N]; the sound of a frame comes `late` frames after its picture."""
    rng = np.random.default_rng(seed)
    level = rng.integers(5, 250, frames + 40)
    crops = np.broadcast_to(level[20 : 20 + frames, None, None, None], (frames, 8, 8, 3)).astype(np.uint8)
    return crops, speaking(level[20 - late : 20 - late + frames] / 255, rng)


def test_distances_equal_the_naive_loop() -> None:
    for windows in (3, 24):  # fewer than the reach, and more
        video, audio = np.random.default_rng(1).standard_normal((2, windows, 6))
        found = shifted_distances(video, audio)
        assert found.shape == (windows, 31)
        for v in range(windows):
            for shift in range(-15, 16):
                a = v + shift
                if 0 <= a < windows:
                    assert found[v, shift + 15] == pytest.approx(np.sqrt(sum((video[v] - audio[a]) ** 2)), rel=1e-6)
                else:
                    assert np.isnan(found[v, shift + 15])


def test_planted_offset_is_found(subtests) -> None:
    for late in range(-5, 6):
        with subtests.test(late=late):
            found = score(*clip(late), LevelJudge())
            assert found.offset_frames == -late  # sound after the lips is negative, as in SyncNet
            assert found.distance == pytest.approx(0, abs=1e-6)
            assert found.confidence > 0.5
            assert found.judge == "level"
            assert found.scorable
            assert found.steady
            assert found.out_of_step == (-late if abs(late) >= 2 else 0)


def test_confidence_is_median_minus_minimum_of_the_means() -> None:
    crops, samples = clip(2)
    judge = LevelJudge()
    video, audio = judge.embed_video(map(judge.crop_mouth, crops)), judge.embed_audio(samples)
    means = []
    for shift in range(-15, 16):
        pairs = [(v, v + shift) for v in range(len(video)) if 0 <= v + shift < len(audio)]
        means.append(np.mean([np.linalg.norm(video[v] - audio[a]) for v, a in pairs]))
    found = score(crops, samples, LevelJudge())
    assert found.distance == pytest.approx(min(means), abs=1e-6)
    assert found.confidence == pytest.approx(np.median(means) - min(means), rel=1e-5)


def test_foreign_sound_has_little_confidence() -> None:
    matched = score(*clip(), LevelJudge())
    foreign = score(clip(seed=1)[0], clip(seed=2)[1], LevelJudge())
    assert foreign.confidence < 0.3 * matched.confidence


def test_an_offset_that_only_a_part_of_the_clip_has_is_not_steady() -> None:
    crops, samples = clip(4, frames=120)
    assert score(crops, samples, LevelJudge()).steady
    elsewhere = np.concatenate([samples[: 24 * FRAME], clip(-9, frames=120)[1][24 * FRAME :]])
    parts = [score(crops, sound, LevelJudge()) for sound in (elsewhere, clip(seed=2, frames=120)[1])]
    assert [part.steady for part in parts] == [True, False]  # four fifths agree; a stranger's sound agrees nowhere
    assert parts[0].offset_frames == 9
    assert parts[1].out_of_step == 0


def test_crops_may_come_from_a_generator() -> None:
    crops, samples = clip()
    assert score((crop for crop in crops), samples, LevelJudge()) == score(crops, samples, LevelJudge())


def test_picture_and_sound_may_differ_in_length() -> None:
    crops, samples = clip()
    both = score(crops[:60], samples[: 60 * FRAME], LevelJudge())
    assert score(crops, samples[: 60 * FRAME + 639], LevelJudge()) == both
    assert score(crops[:60], samples, LevelJudge()) == both
    assert score(*clip(3, frames=50), LevelJudge()).offset_frames == -3  # two seconds are enough


def test_frames_without_a_good_face_do_not_count() -> None:
    crops, samples = clip(frames=120)
    states = np.zeros(120, np.uint8)
    states[50:60] = 1
    crops[50:60] = 255
    found = score(crops, samples, LevelJudge(), states=states)
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert score(crops, samples, LevelJudge()).distance > 0.01


def test_curve_falls_where_the_sound_slips() -> None:
    crops, samples = clip(frames=300)
    samples[200 * FRAME :] = clip(7, frames=300)[1][200 * FRAME :]
    times, heights = np.array(score(crops, samples, LevelJudge()).curve).T
    assert (np.diff(times) > 0).all()
    assert 0 < times[0] < 1
    assert 11 < times[-1] < 12
    assert (heights[times < 7.4] > 0.4).all()
    assert (heights[times > 8.6] < 0.2).all()


def test_curve_skips_a_missing_face() -> None:
    crops, samples = clip(frames=300)
    states = np.zeros(300, np.uint8)
    states[100:200] = 1
    times = np.array(score(crops, samples, LevelJudge(), states=states).curve)[:, 0]
    assert not ((times > 4.5) & (times < 7.5)).any()
    assert (times < 3.5).any()
    assert (times > 8.5).any()


def hum(frames: int) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 200 * np.arange(frames * FRAME) / 16000).astype(np.float32)


def state(bad: int, frames: int) -> np.ndarray:
    return np.array([bad] * frames + [0] * (75 - frames))


def test_not_scorable_says_why(subtests) -> None:
    for crops, samples, states, words in [
        (clip(frames=49)[0], clip()[1], None, r"there are 2\.0 s of picture, and at least 2 s"),
        (clip(frames=30)[0], clip(frames=30)[1], None, r"1\.2 s of picture"),
        (clip()[0], clip(frames=20)[1], None, r"0\.8 s of sound"),
        (clip()[0], np.zeros(0, np.float32), None, r"0\.0 s of sound"),
        (np.zeros((0, 8, 8, 3), np.uint8), clip()[1], None, r"0\.0 s of picture"),
        (clip()[0], clip()[1], state(1, 40), r"the face is missing for 1\.6 s of 3\.0 s"),
        (clip()[0], clip()[1], state(2, 75), r"the face is too small for 3\.0 s of 3\.0 s"),
        (clip()[0], clip()[1], state(3, 60), r"the face is turned away for 2\.4 s"),
        (clip()[0], clip()[1], np.arange(75) % 2, r"the face is missing for 1\.5 s"),
        (clip()[0], np.zeros(75 * FRAME, np.float32), None, "the voice is silent"),
        (clip()[0], np.full(75 * FRAME, 0.5, np.float32), None, "the voice is silent"),
        (clip()[0], clip()[1] * 1e-4, None, "the voice is silent"),
        (clip()[0], hum(75), None, "there is no speech"),
        (clip()[0], speaking(np.full(75, 0.1), np.random.default_rng(0)), None, "there is no speech"),
    ]:
        with subtests.test(words):
            found = score(crops, samples, LevelJudge(), states=states)
            assert not found.scorable
            assert found.reason.startswith("not scorable: ")
            assert re.search(words, found.reason), found.reason
            assert (found.confidence, found.distance, found.offset_frames, found.curve) == (None, None, None, ())


def test_states_must_fit_the_crops() -> None:
    with pytest.raises(ValueError, match="3 states for 75 crops"):
        score(*clip(), LevelJudge(), states=np.zeros(3))


# Lip measures


def face(opening: np.ndarray, width: np.ndarray) -> np.ndarray:
    points = np.full((len(opening), 478, 2), np.nan)
    points[:, 33], points[:, 263] = (0, 0), (100, 0)
    points[:, 13, 0], points[:, 13, 1] = 50, 70
    points[:, 14, 0], points[:, 14, 1] = 50, 70 + opening
    points[:, 61, 0], points[:, 61, 1] = 50 - width / 2, 75
    points[:, 291, 0], points[:, 291, 1] = 50 + width / 2, 75
    return points


def test_lip_measures_do_not_care_for_size_place_or_tilt() -> None:
    opening, width = np.array([0.0, 5, 10, 20]), np.array([40.0, 42, 50, 55])
    turn = 3.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    points = face(opening, width) @ turn.T + (300, -20)
    points[1] = opening[1] = width[1] = np.nan  # a missing face stays missing
    np.testing.assert_allclose(lip_opening(points), opening / 100, atol=1e-9)
    np.testing.assert_allclose(lip_width(points), width / 100, atol=1e-9)


def test_correlation_is_pearson_and_skips_gaps() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 50))
    b += a
    assert correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    with_gaps = a.copy()
    with_gaps[10:15] = np.nan
    kept = np.isfinite(with_gaps)
    assert correlation(with_gaps, b) == pytest.approx(np.corrcoef(a[kept], b[kept])[0, 1])


def test_correlation_of_nothing_is_none() -> None:
    moving = np.arange(20.0)
    assert correlation(moving, np.full(20, 3.0)) is None
    assert correlation(moving[:7], moving[:7]) is None
    assert correlation(moving, np.full(20, np.nan)) is None
    assert best_lag(moving, np.full(20, 3.0)) is None


def test_best_lag_finds_the_planted_one(subtests) -> None:
    series = np.random.default_rng(3).standard_normal(80)
    for late in range(-5, 6):
        with subtests.test(late=late):
            found = best_lag(series[10 - late : 60 - late], series[10:60])
            assert found.frames == late
            assert found.r == pytest.approx(1)


# The network

torch = pytest.importorskip("torch")
from syncdiff.errors import CheckpointError  # noqa: E402
from syncdiff.sync.judge import JudgeConfig, JudgeNet  # noqa: E402


@pytest.fixture
def judge() -> JudgeNet:
    """An untrained judge with uneven batch statistics, so that nothing cancels by luck."""
    net = JudgeNet(JudgeConfig(surround=3))
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return net.eval()


def changed(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    return torch.nonzero((before - after).abs().amax(1) > 1e-7).flatten().tolist()


def test_a_window_is_five_frames_of_picture(judge: JudgeNet) -> None:
    mouths = torch.rand(1, 30, 36, 48) * 255
    other = mouths.clone()
    other[:, 15] = 0
    assert judge.look(mouths).shape == (1, 26, 128)
    # frame 15 is in windows 11..15, and in the average of the three frames to either side
    assert changed(judge.look(mouths)[0], judge.look(other)[0]) == list(range(8, 19))


def test_a_window_is_twenty_columns_of_sound(judge: JudgeNet) -> None:
    mel = torch.randn(1, 80, 120)
    other = mel.clone()
    other[:, :, 60:64] += 5
    assert judge.listen(mel).shape == (1, 26, 128)
    assert changed(judge.listen(mel)[0], judge.listen(other)[0]) == [11, 12, 13, 14, 15]


def test_brightness_and_contrast_hardly_matter(judge: JudgeNet) -> None:
    mouths = 100 * torch.rand(1, 1, 36, 48) + 20 * torch.rand(1, 12, 36, 48) + 50
    seen = judge.look.steady(mouths)
    torch.testing.assert_close(judge.look.steady(mouths + 40), seen, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(judge.look.steady(1.2 * mouths), seen, atol=0.01, rtol=0.06)


def test_unit_length_and_the_size_promised(judge: JudgeNet, tmp_path: Path) -> None:
    video, audio = judge(torch.rand(2, 9, 36, 48) * 255, torch.randn(2, 80, 36))
    for side in (video, audio):
        assert side.shape == (2, 5, 128)
        assert torch.allclose(side.norm(dim=2), torch.ones(2, 5), atol=1e-5)
    judge.save(tmp_path / "judge.safetensors", {})
    assert (tmp_path / "judge.safetensors").stat().st_size < 2_000_000


def test_weights_travel_with_config_and_record(judge: JudgeNet, tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    judge.save(path, {"command": "train it", "steps": 3})
    again = JudgeNet.load(path)
    assert again.config == judge.config
    assert not again.training
    mouths, mel = torch.rand(1, 9, 36, 48) * 255, torch.randn(1, 80, 36)
    for one, other in zip(judge(mouths, mel), again(mouths, mel), strict=True):
        assert (one * other).sum(2).min() > 0.999
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        assert '"command": "train it"' in file.metadata()["record"]


def test_another_file_than_a_judge_is_refused(judge: JudgeNet, tmp_path: Path, subtests) -> None:
    from safetensors.torch import load_file, save_file

    judge.save(tmp_path / "a.safetensors", {})
    tensors = load_file(tmp_path / "a.safetensors")
    less = {key: tensor for key, tensor in tensors.items() if key != "scale"}
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-50])
    save_file(tensors, tmp_path / "bare.safetensors")
    save_file(less, tmp_path / "less.safetensors", metadata={"config": "{}"})
    save_file(tensors, tmp_path / "other.safetensors", metadata={"config": '{"name": "x", "wings": 2}'})
    for name, reason in (
        ("cut", "incomplete"),
        ("bare", "config"),
        ("less", "it lacks scale"),
        ("other", "wings"),
        ("none", "No such file"),
    ):
        said = rf"{name}\.safetensors is refused: .*{reason}.*; expected"
        with subtests.test(name), pytest.raises(CheckpointError, match=said):
            JudgeNet.load(tmp_path / f"{name}.safetensors")


def test_chunks_do_not_show(judge: JudgeNet, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    mouths, samples = rng.integers(0, 256, (60, 36, 48), np.uint8), clip(frames=60)[1]
    seen, heard = judge.embed_video(mouths), judge.embed_audio(samples)
    assert seen.shape == heard.shape == (56, 128)
    monkeypatch.setattr("syncdiff.sync.judge.BATCH", 11)
    np.testing.assert_allclose(judge.embed_video(mouths), seen, atol=1e-5)
    np.testing.assert_allclose(judge.embed_audio(samples), heard, atol=1e-5)


def test_a_stream_gives_what_the_whole_gives(judge: JudgeNet, monkeypatch, subtests) -> None:
    monkeypatch.setattr("syncdiff.sync.judge.BATCH", 11)
    for frames in [5, 17, 18, 19, 28, 29, 30, 60]:
        with subtests.test(frames=frames):
            mouths = np.random.default_rng(0).integers(0, 256, (frames, 36, 48), np.uint8)
            with torch.inference_mode():
                whole = torch.nn.functional.normalize(judge.look(torch.from_numpy(mouths)[None].float())[0], dim=1)
            np.testing.assert_allclose(judge.embed_video(iter(mouths)), whole, atol=1e-5)


def test_a_stream_is_not_held(judge: JudgeNet, monkeypatch) -> None:
    monkeypatch.setattr("syncdiff.sync.judge.BATCH", 11)
    given, most = [], 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal most
        for level in range(90):
            given.append(weakref.ref(mouth := np.full((36, 48), level, np.uint8)))
            most = max(most, sum(reference() is not None for reference in given))
            yield mouth
            del mouth

    assert len(judge.embed_video(stream())) == 86
    assert most <= 11 + 4 + 2 * 3 + 1  # a piece, the rest of its last window, three frames to either side, the next


def test_less_than_a_window_is_refused(judge: JudgeNet) -> None:
    with pytest.raises(ValueError, match="needs 5 frames, and 4 are here"):
        judge.embed_video(np.zeros((4, 36, 48), np.uint8))


def test_the_view_is_the_grey_mouth_box(judge: JudgeNet) -> None:
    crop = np.zeros((128, 128, 3), np.uint8)
    top, left, bottom, right = judge.config.box
    crop[top:bottom, left:right] = 90
    assert judge.crop_mouth(crop).shape == (36, 48)
    assert (judge.crop_mouth(crop) == 90).all()
