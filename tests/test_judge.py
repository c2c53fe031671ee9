"""Training the judge: the loss against a naive loop, augmentation that keeps time, and a run that can be broken off."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

from syncdiff.evaluation.judge_table import CachedJudge, delay  # noqa: E402
from syncdiff.progress import finished  # noqa: E402
from syncdiff.sync.judge import JudgeConfig, JudgeNet  # noqa: E402
from syncdiff.sync.scoring import score  # noqa: E402
from syncdiff.training import judge as training  # noqa: E402
from syncdiff.training.judge import JudgeClip, JudgeTraining, augment_picture, augment_sound, sync_loss  # noqa: E402


def test_loss_equals_the_naive_one() -> None:
    torch.manual_seed(0)
    video, audio = (F.normalize(torch.randn(3, 20, 8), dim=2) for _ in range(2))
    total = {"inside": 0.0, "across": 0.0}
    for one, other in ((video, audio), (audio, video)):
        for b in range(3):
            for v in range(20):
                own = 7.0 * (one[b, v] @ other[b, v])
                inside = [7.0 * (one[b, v] @ other[b, a]) for a in range(20) if abs(a - v) <= 15]
                across = [own, *(7.0 * (one[b, v] @ other[c, a]) for c in range(3) if c != b for a in range(20))]
                total["inside"] += float(torch.stack(inside).logsumexp(0) - own) / 120
                total["across"] += float(torch.stack(across).logsumexp(0) - own) / 120
    found = sync_loss(video, audio, torch.tensor(7.0), 0.3)
    assert float(found) == pytest.approx(total["inside"] + 0.3 * total["across"], rel=1e-5)


def test_loss_is_least_in_step() -> None:
    torch.manual_seed(0)
    same = F.normalize(torch.randn(2, 40, 64), dim=2)
    scale = torch.tensor(20.0)
    assert sync_loss(same, same, scale, 0.3) < 0.1
    assert sync_loss(same[:, 1:], same[:, :-1], scale, 0.3) > 5


def test_augmented_picture_keeps_time() -> None:
    """A mouth that opens in one frame still opens in that frame, whatever the light and the lens."""
    crops = np.full((20, 128, 128), 150, np.uint8)
    crops[8, 70:95, 45:85] = 20
    for seed in range(20):
        mouths = augment_picture(crops, JudgeConfig(), np.random.default_rng(seed))
        assert mouths.shape == (20, 36, 48)
        assert mouths.dtype == np.float32
        assert 0 <= mouths.min() <= mouths.max() <= 255
        assert mouths.mean((1, 2)).argmin() == 8


def test_augmented_sound_keeps_time() -> None:
    samples = np.zeros(16000, np.float32)
    samples[6400:7040] = np.random.default_rng(0).standard_normal(640) * 0.3  # frame 10 of 25
    for seed in range(20):
        sound = augment_sound(samples, np.zeros_like(samples), np.random.default_rng(seed))
        assert sound.shape == samples.shape
        assert np.square(sound).reshape(25, 640).mean(1).argmax() == 10


def talking_squares(count: int) -> list[JudgeClip]:
    """Clips of 60 frames whose dark square is as high as the sound is loud."""
    clips = []
    for n in range(count):
        rng = np.random.default_rng(n)
        level = rng.uniform(0.02, 1, 60)
        crops = np.full((60, 128, 128), 150, np.uint8)
        for crop, loud in zip(crops, level, strict=True):
            crop[75 : 76 + int(25 * loud), 45:85] = 20
        noise = rng.standard_normal((60, 640)) * level[:, None] * 0.2
        clips.append(
            JudgeClip(
                f"squares/{n}",
                crops,
                noise.ravel().astype(np.float32),
                np.tile(level[:, None] - 0.5, 2).astype(np.float32),
            )
        )
    return clips


def test_a_broken_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    clips, held = talking_squares(3), talking_squares(1)
    run = JudgeTraining(steps=4, clips=2, frames=20)
    whole, run_of_whole = training.train(clips, held, tmp_path / "whole", run=run)

    def stop_after_three(*args, **kwargs):
        for number, batch in enumerate(steps(*args, **kwargs)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    steps = training.batches
    monkeypatch.setattr(training, "batches", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        training.train(clips, held, tmp_path / "broken", run=run)
    monkeypatch.setattr(training, "batches", steps)
    resumed, run_of_resumed = training.train(clips, held, tmp_path / "broken", run=run)
    assert run_of_whole.update == run_of_resumed.update == 4
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_command_writes_a_judge_that_tells_its_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "read_clips", lambda *_: (talking_squares(2), talking_squares(1)))
    monkeypatch.setattr(training.torch, "set_num_threads", lambda _: None)
    given = [str(tmp_path / name) for name in ("data", "judge.safetensors")]
    given += ["--steps", "1", "--runs", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["judge", *given])
    training.main()
    assert JudgeNet.load(tmp_path / "judge.safetensors").name == "syncdiff-judge"
    with safe_open(tmp_path / "judge.safetensors", framework="pt") as file:
        record = json.loads(file.metadata()["record"])
    assert (record["steps_done"], record["clips"]) == (1, 2)
    assert str(tmp_path) not in record["command"]


ASSETS = Path(__file__).resolve().parent.parent / "assets"


@pytest.fixture(scope="module")
def shipped() -> JudgeNet:
    return JudgeNet.load(ASSETS / "weights" / "judge" / "judge.safetensors")


def spoken(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Face crops [T,S,S,3] and sound [640 T] of a shipped example."""
    from syncdiff.faces import choose, track_faces
    from syncdiff.geometry.crops import align, cut
    from syncdiff.training.prepare import read_frames, read_sound

    path = ASSETS / "examples" / name
    images = read_frames(path)
    track = choose(finished(track_faces(iter(images))))
    matrices = align(track, np.arange(len(images)) / 25)
    return np.stack([cut(*pair) for pair in zip(images, matrices, strict=True)]), read_sound(path)[: 640 * len(images)]


@pytest.mark.weights
def test_shipped_judge_on_the_examples(shipped: JudgeNet) -> None:
    """Sound moved by -5 .. +5 frames is found within a frame, and a still face earns less than the moving one."""
    crops, sound = spoken("malik.mp4")
    cached = CachedJudge(shipped, np.stack([shipped.crop_mouth(crop) for crop in crops]))
    found = [score(crops, delay(sound, frames), cached) for frames in range(-5, 6)]
    assert max(abs(scores.offset_frames + frames) for scores, frames in zip(found, range(-5, 6), strict=True)) <= 1
    still = np.broadcast_to(crops[:1], crops.shape)
    assert score(still, sound, shipped).confidence < 0.5 * found[5].confidence


@pytest.mark.weights
def test_shipped_judge_is_small_and_tells_its_making(shipped: JudgeNet) -> None:
    path = ASSETS / "weights" / "judge" / "judge.safetensors"
    assert path.stat().st_size < 2_000_000
    assert shipped.name == "syncdiff-judge"
    with safe_open(path, framework="np") as file:
        record = json.loads(file.metadata()["record"])
    assert record["command"].startswith("python -m syncdiff.training.judge ")
    assert " /" not in record["command"]
    assert record["steps_done"] > 0
