"""SyncNet v2 and LSE: against naive loops, planted offsets, a file in the released format; and, where it lies on this
machine, the released file with the figures its authors printed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from syncdiff.audio.mfcc import mfcc
from syncdiff.errors import CheckpointError, InputError
from syncdiff.sync import syncnet_v2
from syncdiff.sync.scoring import shifted_distances
from syncdiff.sync.syncnet_v2 import weights
from syncdiff.sync.syncnet_v2.distance import ADDED
from syncdiff.sync.syncnet_v2.network import SyncNet
from syncdiff.sync.syncnet_v2.s3fd import S3FD, find_original, read_original
from syncdiff.sync.syncnet_v2.tracks import Track, crop, detect, link_tracks, smoothed_boxes
from tests.media_fixtures import make_track, track_packets, without_sound

FRAME = 640


def finish(steps: Iterator) -> object:
    """What a generator returns; its fractions must rise from 0 to 1."""
    last = 0.0
    while True:
        try:
            fraction = next(steps)
        except StopIteration as end:
            return end.value
        assert last - 1e-9 <= fraction <= 1 + 1e-9
        last = fraction


# --- the network and its file


@pytest.fixture(scope="module")
def net() -> SyncNet:
    """Random weights with uneven batch statistics, so that nothing cancels by luck; a layer that forgot its norm, its
    ReLU or its bias gives other numbers."""
    torch.manual_seed(0)
    made = SyncNet()
    for part in made.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return made.eval()


def released(net: SyncNet) -> dict[str, torch.Tensor]:
    """The tensors as the released file has them: without the counters that PyTorch added later."""
    return {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def file(net: SyncNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own weights in the released format: a plain state dict in the stream that PyTorch wrote before 1.6."""
    path = tmp_path_factory.mktemp("syncnet") / weights.FILE
    torch.save(released(net), path, _use_new_zipfile_serialization=False)
    return path


def pinned(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("syncdiff.sync.syncnet_v2.weights.SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def test_the_tensors_are_those_of_the_released_file(net: SyncNet) -> None:
    tensors = released(net)
    assert len(tensors) == 88
    assert sum(tensor.numel() for tensor in tensors.values()) == 13_640_256
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    assert shapes["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert shapes["netcnnlip.15.running_var"] == (256,)
    assert shapes["netfcaud.1.running_mean"] == (512,)
    assert shapes["netfclip.3.bias"] == (1024,)
    convolutions = {int(key.split(".")[1]) for key in shapes if key.startswith("netcnn") and len(shapes[key]) > 1}
    assert convolutions == {0, 4, 8, 11, 14, 18}


def test_layer_sizes_are_those_of_the_paper(net: SyncNet) -> None:
    sizes = {}
    for branch, given in (("netcnnlip", torch.zeros(1, 3, 5, 224, 224)), ("netcnnaud", torch.zeros(1, 1, 13, 20))):
        x = given
        with torch.inference_mode():
            for index, layer in enumerate(getattr(net, branch)):
                x = layer(x)
                sizes[branch, index] = tuple(x.shape[-2:])
    assert [sizes["netcnnlip", i] for i in (0, 3, 4, 7, 8, 17, 18)] == [
        (109, 109), (54, 54), (26, 26), (13, 13), (13, 13), (6, 6), (1, 1)
    ]  # fmt: skip
    assert [sizes["netcnnaud", i] for i in (0, 3, 4, 7, 8, 17, 18)] == [
        (13, 20), (13, 20), (13, 20), (11, 9), (11, 9), (5, 4), (1, 1)
    ]  # fmt: skip


def test_the_released_format_is_read(net: SyncNet, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(monkeypatch, file)
    read = weights.read(file)
    assert not read.training
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in released(net).items())
    cepstra = torch.randn(3, 1, 13, 20)
    with torch.inference_mode():
        assert torch.equal(read.forward_aud(cepstra), net.forward_aud(cepstra))


def test_another_file_is_refused_in_one_sentence(file: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(
        CheckpointError, match=rf"syncnet_v2.model is refused: its sha256 is \w+, not {weights.SHA256}"
    ):
        weights.read(file)
    torch.save({"netfcaud.0.weight": torch.zeros(2)}, tmp_path / "other.model")
    pinned(monkeypatch, tmp_path / "other.model")
    with pytest.raises(CheckpointError, match=r"other.model is refused: it lacks netcnnaud.0.weight"):
        weights.read(tmp_path / "other.model")
    with pytest.raises(CheckpointError, match="no such file"):
        syncnet_v2.find(tmp_path / "nowhere.model")


def test_where_the_weights_are_looked_for(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNCDIFF_SYNCNET", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert syncnet_v2.find() is None
    cached = f"{weights.HUB.replace('/', '--')}/snapshots/main/auxiliary/{weights.FILE}"
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_: f"cache/{cached}")
    assert syncnet_v2.find() == Path("cache") / cached
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_: None)
    assert str(tmp_path / "checkpoints") in syncnet_v2.how_to_get()
    asked = []
    with pytest.raises(CheckpointError, match="not accepted"):  # and nothing is fetched without a yes
        syncnet_v2.fetch_weights(asked.append)
    assert "MIT" in asked[0]
    assert not (tmp_path / "checkpoints").exists()
    weights.offered().parent.mkdir()
    weights.offered().write_bytes(b"x")
    assert syncnet_v2.find() == weights.offered()
    monkeypatch.setenv("SYNCDIFF_SYNCNET", str(file))
    assert syncnet_v2.find() == file
    assert syncnet_v2.find(weights.offered()) == weights.offered()


# --- sound


def mfcc_by_hand(signal: np.ndarray) -> np.ndarray:
    """int16 [N] -> [T,13], window after window and band after band."""
    emphasised = [float(signal[0])] + [float(b) - 0.97 * float(a) for a, b in pairwise(signal)]
    rows = 1 if len(signal) <= 400 else 1 + int(np.ceil((len(signal) - 400) / 160))
    emphasised += [0.0] * ((rows - 1) * 160 + 400 - len(emphasised))
    top = 2595 * np.log10(1 + 8000 / 700)
    corners = [int(513 * 700 * (10 ** (top * i / 27 / 2595) - 1) / 16000) for i in range(28)]
    table = []
    for row in range(rows):
        power = np.abs(np.fft.fft(emphasised[160 * row : 160 * row + 400], 512)[:257]) ** 2 / 512
        logs = []
        for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
            energy = sum(power[k] * (k - low) / (middle - low) for k in range(low, middle))
            energy += sum(power[k] * (high - k) / (high - middle) for k in range(middle, high))
            logs.append(np.log(energy or np.finfo(float).eps))
        cepstra = [np.log(power.sum() or np.finfo(float).eps)]
        for n in range(1, 13):
            total = sum(value * np.cos(np.pi * n * (2 * k + 1) / 52) for k, value in enumerate(logs))
            cepstra.append(np.sqrt(2 / 26) * total * (1 + 11 * np.sin(np.pi * n / 22)))
        table.append(cepstra)
    return np.array(table)


def noise(length: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(length) * 3000).astype(np.int16)


def test_mfcc_equals_the_naive_loop(subtests) -> None:
    for length in [100, 400, 401, 3000]:
        with subtests.test(length=length):
            signal = noise(length)
            signal[1000:2500] = 0
            found = mfcc(signal.astype(np.float32) / 32768)
            np.testing.assert_allclose(found, mfcc_by_hand(signal), atol=1e-9)


def test_mfcc_gives_what_python_speech_features_printed() -> None:
    """Version 0.6, rows 0 and 3 of a fixed signal."""
    t = np.arange(1200)
    signal = (8000 * np.sin(2 * np.pi * 440 * t / 16000) + (t * 37 % 101)).astype(np.int16)
    rows = mfcc(signal.astype(np.float32) / 32768)[[0, 3]]
    printed = [
        [19.06374, 16.05955, 4.60042, -16.0117, -26.88089, -32.10984, -32.55961, -14.46601, -8.04442, 14.83032,
         14.23078, 20.892, 9.12103],
        [19.06814, 21.68129, 14.59929, -12.16477, -19.54442, -28.19478, -29.74613, -10.18301, -5.54146, 17.39378,
         16.59217, 21.80985, 7.90683],
    ]  # fmt: skip
    np.testing.assert_allclose(rows, printed, atol=1e-5)


def test_mfcc_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(9000).astype(np.float32) / 32768
    whole = mfcc(samples)
    monkeypatch.setattr("syncdiff.audio.mfcc.PIECE_WINDOWS", 7)
    np.testing.assert_allclose(mfcc(samples), whole, atol=1e-9)


def test_sound_windows_are_twenty_columns_four_apart(net: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncdiff.sync.syncnet_v2.sound_windows.BATCH", 10)
    samples = noise(20 * FRAME + 300).astype(np.float32) / 32768
    heard = syncnet_v2.embed_audio(net, samples)
    assert heard.shape == (15, 1024)  # min_length - 5
    columns = torch.from_numpy(mfcc(samples)).float()
    with torch.inference_mode():
        for v in (0, 9, 10, 14):
            alone = net.forward_aud(columns[4 * v : 4 * v + 20].T[None, None])[0].numpy()
            np.testing.assert_allclose(heard[v], alone, atol=1e-4)
    assert syncnet_v2.embed_audio(net, samples[: 5 * FRAME]).shape == (0, 1024)


# --- pictures


def test_windows_in_one_pass_equal_windows_alone(net: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncdiff.sync.syncnet_v2.face_windows.BATCH", 3)
    pictures = np.random.default_rng(0).integers(0, 256, (9, 224, 224, 3), np.uint8)
    seen = np.concatenate(list(syncnet_v2.embed_video(net, iter(pictures))))
    assert seen.shape == (5, 1024)
    for v in (0, 2, 3, 4):
        window = np.stack([picture.astype(np.float32).transpose(2, 0, 1) for picture in pictures[v : v + 5]], 1)
        with torch.inference_mode():
            alone = net.forward_lip(torch.from_numpy(window)[None])[0, 0].numpy()
        np.testing.assert_allclose(seen[v], alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max())
    assert list(syncnet_v2.embed_video(net, iter(pictures[:4]))) == []


def test_jpegs_are_bgr_coarse_and_one_each() -> None:
    y, x = np.mgrid[:120, :160]
    picture = np.stack([200 + 0 * x, x, y], 2).astype(np.uint8)
    picture[40:80, 40:80] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    written = list(syncnet_v2.jpeg_round_trip(picture for _ in range(12)))
    assert len(written) == 12
    assert abs(written[-1][100, 100, ::-1].astype(int) - (200, 100, 100)).max() < 12
    errors = [np.abs(image[..., ::-1].astype(int) - picture).mean() for image in written]
    assert errors[-1] > errors[0] > 0  # the rate nears 200 kbit/s


def picture_of(frame: av.VideoFrame) -> np.ndarray:
    """BGR [H,W,3] float of a limited-range yuv420p frame, by BT.601 and JPEG's own formula, chroma repeated."""
    planes = [np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes]
    y, u, v = (planes[0] - 16.0) * 255 / 219, *((p - 128.0) * 255 / 224 for p in planes[1:])
    u, v = (p.repeat(2, 0).repeat(2, 1) for p in (u, v))
    return np.clip(np.stack([y + 1.772 * u, y - 0.344136 * u - 0.714136 * v, y + 1.402 * v], 2), 0, 255)


def test_a_decoded_frame_is_encoded_from_its_own_planes() -> None:
    """By way of RGB they came out about 2 levels darker in blue and red. A smooth picture: JPEG loses little."""
    y, x = np.mgrid[:96, :128]
    frame = av.VideoFrame(128, 96, "yuv420p")
    values = (40 + x, 100 + y[:48, :64] // 2, 150 - x[:48, :64] // 2)
    for plane, value in zip(frame.planes, values, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = value
        plane.update(padded.tobytes())
    (written,) = syncnet_v2.jpeg_round_trip([frame])
    error = written - picture_of(frame)
    assert np.abs(error.mean((0, 1))).max() < 0.8
    assert np.abs(error).mean() < 1.0
    limits = av.VideoFrame(16, 16, "yuv420p")
    for plane, value in zip(limits.planes, (235, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    (white,) = syncnet_v2.jpeg_round_trip([limits])
    assert white.min() == 255


# --- the score


def distances_by_hand(video: np.ndarray, audio: np.ndarray) -> list[list[float]]:
    table = []
    for v in range(len(video)):
        row = []
        for shift in range(-15, 16):
            sound = audio[v + shift] if 0 <= v + shift < len(audio) else np.zeros(len(audio[0]))
            row.append(sum((a - b + 1e-6) ** 2 for a, b in zip(video[v], sound, strict=True)) ** 0.5)
        table.append(row)
    return table


def test_distances_equal_the_naive_loop() -> None:
    video, audio = np.random.default_rng(1).standard_normal((2, 21, 6)).astype(np.float32)
    np.testing.assert_allclose(shifted_distances(video, audio, 0.0, ADDED), distances_by_hand(video, audio), rtol=1e-5)


def test_confidence_is_median_minus_minimum() -> None:
    video, audio = np.random.default_rng(2).standard_normal((2, 30, 6)).astype(np.float32)
    means = sorted(np.mean(distances_by_hand(video[:29], audio[:29]), 0))  # the window that the original leaves out
    found = syncnet_v2.lse(video, audio[:29], "x")
    assert found.distance == pytest.approx(means[0], rel=1e-5)
    assert found.confidence == pytest.approx(means[15] - means[0], rel=1e-4)


def test_planted_offset_is_found(subtests) -> None:
    for late in [-15, -4, 0, 3, 15]:
        with subtests.test(late=late):
            series = np.random.default_rng(3).standard_normal((160, 8)).astype(np.float32)
            found = syncnet_v2.lse(series[30:121], series[30 - late : 120 - late], "x")
            assert found.offset_frames == -late  # sound after the lips is negative
            assert found.confidence > 1
            assert len(found.curve) > 5


def test_too_short_says_so() -> None:
    assert "at least 6 frames" in syncnet_v2.lse(np.zeros((1, 4)), np.zeros((9, 4)), "x").reason
    assert "at least 6 frames" in syncnet_v2.lse(np.zeros((0, 4)), np.zeros((0, 4)), "x").reason


# --- tracks


def box(x: float, y: float = 300, side: float = 120) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def test_a_track_needs_more_than_a_hundred_detections_and_a_large_face() -> None:
    def count(frames: int, side: float = 120, cuts: tuple[int, ...] = ()) -> int:
        return len(link_tracks([[box(300, side=side)]] * frames, cuts))

    assert (count(100), count(101)) == (0, 1)
    assert (count(150, side=100), count(150, side=101)) == (0, 1)
    assert (count(150, cuts=(75,)), count(230, cuts=(110,)), count(180, cuts=(75,))) == (0, 2, 1)


def test_two_faces_with_a_drop_out_are_two_tracks_filled_between() -> None:
    found = [[box(200 + t), box(900)] for t in range(140)]
    for t in range(50, 74):
        del found[t][0]
    first, second = link_tracks(found, ())
    assert first.first == second.first == 0
    np.testing.assert_allclose(first.boxes, [box(200 + t) for t in range(140)])
    np.testing.assert_allclose(second.boxes, [box(900)] * 140)
    del found[74][0]  # 25 in a row: one more than may be missed, and neither end is long enough
    assert [round(track.boxes[0, 0]) for track in link_tracks(found, ())] == [840]


def test_a_jump_ends_a_track() -> None:
    found = [[box(200)]] * 120 + [[box(280)]] * 120  # a fifth of the two boxes is shared
    assert [track.first for track in link_tracks(found, ())] == [0, 120]


def test_places_are_medians_over_thirteen_with_zeros_beyond_the_ends() -> None:
    boxes = np.stack([box(300 + t, 200, 120 + 2 * (t % 3)) for t in range(40)])
    boxes[20] = box(700, 700, 400)
    x, y, s = smoothed_boxes(Track(0, boxes)).T
    values = [300 + t for t in range(40)]
    values[20] = 700
    for t in range(40):
        around = sorted(values[i] if 0 <= i < 40 else 0 for i in range(t - 6, t + 7))
        assert x[t] == around[6]
    assert x[0] == 300  # the least of the first seven
    assert y[6:34].tolist() == [200] * 28
    assert s[10] == 61


def test_the_crop_reaches_as_far_as_the_paper_says_and_is_grey_beyond() -> None:
    y, x = np.mgrid[:400, :600]
    image = np.stack([x / 4, y / 4, 0 * x], 2).astype(np.uint8)
    face = crop(image, 300, 200, 80)
    np.testing.assert_array_equal(face, cv2.resize(image[120:344, 188:412], (224, 224)))
    corner = crop(image, 20, 30, 80)
    assert corner.shape == (224, 224, 3)
    assert (corner[10, 10] == 110).all()
    assert (corner[200, 200] != 110).any()


def test_boxes_are_scaled_back_sure_and_one_a_face() -> None:
    class Detector:
        def detect_from_image(self, image: np.ndarray) -> list[list[float]]:
            assert image.shape == (90, 160, 3)
            return [[10, 10, 40, 40, 0.95], [12, 12, 42, 42, 0.99], [80, 10, 110, 40, 0.89], [50, 10, 79, 40, 0.91]]

    found = detect(Detector(), np.zeros((360, 640, 3), np.uint8))
    assert [list(one) for one in found] == [[48, 48, 168, 168], [200, 40, 316, 160]]


def test_the_original_detector_is_read_from_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights under the released names; where the layers agree, the boxes are those of face-alignment's net."""
    from face_alignment.detection.sfd.detect import get_predictions
    from face_alignment.detection.sfd.net_s3fd import s3fd

    torch.manual_seed(0)
    weights = S3FD().state_dict()
    assert (len(weights), weights["vgg.31.weight"].shape) == (65, (1024, 512, 3, 3))
    weights = {key: value * 3 if key.startswith("conf") else value for key, value in weights.items()}
    torch.save(weights, tmp_path / "sfd_face.pth")
    monkeypatch.setenv("SYNCDIFF_S3FD", str(tmp_path / "sfd_face.pth"))
    ours, theirs = read_original(find_original()), s3fd().eval()
    assert (ours.vgg[31].padding, ours.vgg[31].dilation) == ((6, 6), (6, 6))
    x = torch.randn(1, 3, 64, 96) * 50
    with torch.inference_mode():
        boxes, scores = ours(x)
        theirs.load_state_dict(dict(zip(theirs.state_dict(), _as_face_alignment(weights), strict=True)))
        theirs.fc6.padding, theirs.fc6.dilation = (6, 6), (6, 6)
        out = [part.softmax(1) if i % 2 == 0 else part for i, part in enumerate(part.clone() for part in theirs(x))]
        found = get_predictions([part.numpy() for part in out], 1)[0]
    assert len(found) == (scores > 0.05).sum() > 100
    both = [np.concatenate([boxes, scores[:, None]], 1)[scores > 0.05], found]
    np.testing.assert_allclose(*(rows[np.lexsort(rows.round(2).T)] for rows in both), atol=1e-3)

    seen = []
    ours.vgg[0].register_forward_pre_hook(lambda _, given: seen.append(given[0][0, :, 0, 0].tolist()))
    kept = ours.detect_from_image(np.tile(np.array([200, 100, 50], np.uint8), (64, 64, 1)))
    assert seen == [[200 - 123, 100 - 117, 50 - 104]]
    assert (np.diff(kept[:, 4]) <= 0).all()
    torch.save({"vgg.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "sfd_face.pth")
    with pytest.raises(CheckpointError, match=r"sfd_face\.pth is refused: it lacks"):
        read_original(find_original())


def _as_face_alignment(weights: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """In the order of face-alignment's network: layer by layer, each detector's scores before its boxes."""
    for part in ("vgg.", "extras.", "L2Norm"):
        yield from (value for key, value in weights.items() if key.startswith(part))
    for i in range(6):
        for part in ("conf", "loc"):
            yield from (weights[f"{part}.{i}.{kind}"] for kind in ("weight", "bias"))


# --- whole videos


class LevelNet:
    """A net without weights: a picture's brightness and a sound's energy, in the same unit."""

    device = torch.device("cpu")

    def forward_lip(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures[:, :, :, 90:134, 90:134].mean((1, 3, 4)).unfold(1, 5, 1) / 20

    def forward_aud(self, cepstra: torch.Tensor) -> torch.Tensor:
        return cepstra[:, 0, 0].reshape(-1, 5, 4).mean(2) - 14


def write(path: Path, brightness: np.ndarray, late: int, size: tuple[int, int] = (320, 240)) -> Path:
    """Grey frames; the log of the sound's energy goes up by one where the frame, `late` before, is 20 brighter."""
    rng = np.random.default_rng(0)
    T = len(brightness)
    loud = np.roll(brightness, late)
    sound = rng.standard_normal((T, FRAME)) * np.exp((loud / 20 - 4) / 2)[:, None] * 50
    with av.open(str(path), "w") as out:
        video, voice = out.add_stream("libx264", rate=25), make_track(out, "pcm_s16le", 16_000)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for level in brightness:
            image = np.full((size[1], size[0], 3), level, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
        for packet in track_packets(voice, sound.reshape(-1, 1).clip(-32000, 32000).astype(np.int16)):
            out.mux(packet)
    return path


def levels(frames: int) -> np.ndarray:
    return np.random.default_rng(5).integers(60, 200, frames).astype(float)


@pytest.mark.parametrize("late", [-2, 3])
def test_a_planted_offset_in_a_file_is_found(tmp_path: Path, late: int) -> None:
    (found,) = finish(syncnet_v2.score_video(write(tmp_path / "a.mkv", levels(60), late), LevelNet(), "frame"))
    assert found.judge == "SyncNet v2, LSE on the whole frame"
    assert found.offset_frames == -late
    assert found.confidence > 1


def planted_detector(monkeypatch: pytest.MonkeyPatch, boxes: list[list[float]]) -> None:
    class Detector:
        @staticmethod
        def detect_from_image(image: np.ndarray) -> list[list[float]]:
            return boxes

    monkeypatch.setattr("syncdiff.sync.syncnet_v2.videos.load_s3fd", lambda: Detector)


def test_every_face_has_its_score_on_its_own_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_detector(monkeypatch, [[10, 10, 40, 40, 0.99], [50, 10, 80, 40, 0.99]])
    steps = syncnet_v2.score_video(write(tmp_path / "a.mkv", levels(60), 2), LevelNet(), "tracks", min_track=50)
    found = finish(steps)
    assert [scores.offset_frames for scores in found] == [-2, -2]
    assert {scores.judge for scores in found} == {"SyncNet v2, LSE on face tracks"}


def test_nothing_to_score_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_detector(monkeypatch, [])
    video = write(tmp_path / "a.mkv", levels(30), 0)
    (found,) = finish(syncnet_v2.score_video(video, LevelNet(), "tracks"))
    assert found.reason == (
        "not scorable: no face is followed for more than 100 frames at 25 fps and 100 pixels across"
    )
    mute = without_sound(video, tmp_path / "mute.mkv")
    (found,) = finish(syncnet_v2.score_video(mute, LevelNet(), "frame"))
    assert found.reason == "not scorable: the video has no sound"


def test_a_folder_is_a_table_with_a_mean(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "b.mkv", levels(40), 1)
    write(tmp_path / "in" / "a.mkv", levels(50), 0)
    (tmp_path / "c.mp4").write_text("no video at all")
    rows = finish(syncnet_v2.score_folder(tmp_path, LevelNet()))
    assert [row.video.name for row in rows] == ["b.mkv", "c.mp4", "a.mkv"]
    assert rows[1].scores[0].reason.startswith("not scorable: 'c.mp4'")
    mean = syncnet_v2.mean(rows)
    assert mean.confidence == pytest.approx((rows[0].scores[0].confidence + rows[2].scores[0].confidence) / 2)
    assert mean.distance == pytest.approx((rows[0].scores[0].distance + rows[2].scores[0].distance) / 2)
    assert syncnet_v2.mean(rows[1:2]) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no video"):
        finish(syncnet_v2.score_folder(tmp_path / "empty", LevelNet()))


def test_a_full_run_with_weights_in_the_released_format(file: Path, tmp_path: Path, monkeypatch) -> None:
    """The very code that the released file would go through, from the file to the figures."""
    pinned(monkeypatch, file)
    monkeypatch.setenv("SYNCDIFF_SYNCNET", str(file))
    planted_detector(monkeypatch, [[10, 10, 40, 40, 0.99]])
    net = weights.read(syncnet_v2.find())
    video = write(tmp_path / "a.mkv", levels(14), 0)
    for protocol in ("frame", "tracks"):
        (found,) = finish(syncnet_v2.score_video(video, net, protocol, min_track=10))
        assert found.scorable, found.reason
        assert found.distance > 0
        assert found.confidence >= 0


# --- the released file itself

EXAMPLE = os.environ.get("SYNCDIFF_SYNCNET_EXAMPLE")  # data/example.avi of joonson/syncnet_python


@pytest.mark.skipif(
    syncnet_v2.find() is None or not EXAMPLE,
    reason="no syncnet_v2.model (SYNCDIFF_SYNCNET) or no example.avi (SYNCDIFF_SYNCNET_EXAMPLE): LSE was NOT compared "
    "with the published figures",
)
def test_golden_example() -> None:
    """Its README prints offset 3, minimum distance 5.353 and confidence 10.021; one more encode lies between."""
    (found,) = finish(syncnet_v2.score_video(EXAMPLE, weights.read(syncnet_v2.find()), "frame"))
    assert found.offset_frames == 3
    assert found.distance == pytest.approx(5.353, abs=0.1)
    assert found.confidence == pytest.approx(10.021, abs=0.1)
