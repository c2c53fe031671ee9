"""The first look: who is in the picture, and one frame redrawn, on the shipped examples and in pictures made here."""

from fractions import Fraction

import av
import numpy as np
import pytest

from syncdiff.errors import InputError
from syncdiff.faces import Spot
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.preview import Preview, _loudest
from syncdiff.web.examples import EXAMPLES
from syncdiff.weights.folders import COMPACT
from tests.media_fixtures import make_video

FACE, VOICE = EXAMPLES / "malik.mp4", EXAMPLES / "voice-wednesday.wav"


def write_pair(path):
    """Ines and Malik side by side, half a second."""
    frames = []
    for name in ("ines", "malik"):
        with av.open(str(EXAMPLES / f"{name}.mp4")) as container:
            frames.append(
                [f.to_ndarray(format="rgb24") for _, f in zip(range(13), container.decode(video=0), strict=False)]
            )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), width=960, height=480, pix_fmt="yuv420p")
        for left, right in zip(*frames, strict=True):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.concatenate([left, right], 1), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_two_people_are_two_faces_and_a_spot_names_each(tmp_path, private_temp) -> None:
    found = Preview(None).faces(write_pair(tmp_path / "pair.mp4"))
    assert len(found) == 2
    assert sorted(round(face.spot.x) for face in found) == [0, 1]  # one in the left half, one in the right
    assert all(face.trouble is None and min(face.picture.shape[:2]) > 100 for face in found)
    assert not list(private_temp.glob("syncdiff-*"))


def test_nobody_in_the_picture_is_an_empty_list(tmp_path) -> None:
    assert Preview(None).faces(make_video(tmp_path / "nobody.mp4")) == []


@pytest.mark.weights
@pytest.mark.skipif(not (COMPACT / "model_index.json").exists(), reason="no shipped weights: no frame was tried out")
def test_one_frame_is_redrawn_inside_the_mask_and_nowhere_else(tmp_path, private_temp) -> None:
    look = Preview(SyncDiffPipeline.from_pretrained)
    seen = look.trial(FACE, VOICE, SampleOptions(steps=1))
    changed = np.argwhere((seen.before != seen.after).any(-1))[:, ::-1]
    assert len(changed) > 1000
    low, high = seen.mask.min(0) - 3, seen.mask.max(0) + 3
    assert (changed >= low).all()
    assert (changed <= high).all()

    with av.open(str(FACE)) as container:
        film = [frame.to_ndarray(format="rgb24").astype(np.float32) for frame in container.decode(video=0)]
    seen = look.trial(FACE, VOICE, SampleOptions(steps=1), at=3.5)  # that very frame
    assert abs(np.argmin([np.abs(frame - seen.before).mean() for frame in film]) - 3.5 * 25) <= 1

    pair = write_pair(tmp_path / "pair.mp4")
    for x in (0.25, 0.75):
        seen = look.trial(pair, VOICE, SampleOptions(steps=1, face=Spot(0.0, x, 0.5)))
        changed = np.argwhere((seen.before != seen.after).any(-1))
        assert abs(changed[:, 1].mean() / 960 - x) < 0.12
    with pytest.raises(InputError, match="No face was found"):
        look.trial(make_video(tmp_path / "nobody.mp4"), VOICE, SampleOptions(steps=1))
    assert not list(private_temp.glob("syncdiff-*"))


def test_the_loudest_moment_is_found() -> None:
    samples = np.zeros(32_000, np.float32)
    samples[20_000:21_600] = 0.5
    assert _loudest(samples) == pytest.approx(1.3, abs=0.06)


@pytest.mark.parametrize("spot", [(-1.0, 0.5, 0.5), (0.0, 1.5, 0.5), (0.0, 0.5, float("nan"))])
def test_a_spot_outside_the_picture_gets_a_sentence(spot) -> None:
    with pytest.raises(InputError, match="choose a second from 0 on"):
        Spot(*spot)
