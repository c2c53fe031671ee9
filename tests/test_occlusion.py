"""Covered mouths: what counts over time, and that the shipped network finds made-up covers on the shipped examples."""

from functools import cache
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from syncdiff.errors import InputError
from syncdiff.faces import COVERED, OK, FaceTrack, choose, track_faces
from syncdiff.geometry.crops import S, align, cut, mouth_mask
from syncdiff.models.occlusion import (
    GROWN,
    THRESHOLD,
    cover_probability,
    covered_frames,
    mark_covered,
    shipped,
    window_of,
)
from syncdiff.progress import finished
from syncdiff.training.covers import COVERS, clear, covered
from syncdiff.training.prepare import OUTER_LIPS

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
FRAMES = 30


@cache
def example(name: str) -> tuple[FaceTrack, np.ndarray, np.ndarray]:
    """The track of a shipped example, its crops [T, S, S, 3], and its outer lips [T, 20, 2] crop px."""
    with av.open(str(EXAMPLES / f"{name}.mp4")) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), FRAMES)]
    track = choose(finished(track_faces(iter(images))))
    to_frame = align(track, np.arange(FRAMES) / 25)
    crops = np.stack([cut(image, matrix) for image, matrix in zip(images, to_frame, strict=True)])
    lips = track.points[:, list(OUTER_LIPS)] - to_frame[:, None, :, 2]
    return track, crops, np.einsum("tij,tpj->tpi", np.linalg.inv(to_frame[:, :, :2]), lips)


def test_a_cover_grows_to_its_blurred_ends_and_bridges_short_breaks() -> None:
    probability, run = np.zeros(70), np.zeros(70, int)
    probability[5] = 1  # a single odd frame is none
    probability[20:30], probability[24:28] = 0.7, 0.99
    probability[60:70] = 0.8  # never sure
    assert np.flatnonzero(covered_frames(probability, run)).tolist() == list(range(20 - GROWN, 30 + GROWN))
    for length, bridged in ((6, True), (30, False)):
        probability = np.r_[np.zeros(9), np.ones(10), np.zeros(length), np.ones(10), np.zeros(9)]
        found = covered_frames(probability, np.zeros(len(probability), int))
        assert found[19 : 19 + length].all() == bridged
        assert not found[: 9 - GROWN].any()
        assert not found[-9 + GROWN :].any()
    # Neither across a cut nor over frames that were not judged.
    probability = np.r_[np.ones(10), np.zeros(10), np.full(10, np.nan)]
    run = np.repeat([0, 1, -1], 10)
    assert np.flatnonzero(covered_frames(probability, run)).tolist() == list(range(10))


@pytest.mark.weights
def test_clear_mouths_are_left_to_be_redrawn() -> None:
    for name in ("ines", "malik", "tomas"):
        track, crops, _ = example(name)
        assert (mark_covered(track, crops).state == OK).all(), name


@pytest.mark.weights
def test_nine_of_ten_covers_are_found() -> None:
    _, crops, lips = example("ines")
    made = [
        covered(np.random.default_rng(i), crops[i], lips[i], crops, kind) for kind in COVERS for i in range(6)
    ]
    assert (cover_probability(shipped(), [window_of(crop) for crop in made]) > THRESHOLD).mean() >= 0.9


@pytest.mark.weights
def test_covered_frames_are_left_alone_and_named(subtests) -> None:
    track, clean, lips = example("ines")
    for kind in ("hand", "microphone", "mask", "text"):
        crops = clean.copy()
        for i in range(10, 20):
            crops[i] = covered(np.random.default_rng(3), crops[i], lips[i], crops, kind)
        with subtests.test(kind):
            marked = mark_covered(track, crops)
            assert (marked.state[10:20] == COVERED).all()
            assert (marked.state[: 10 - GROWN] == OK).all()
            assert (marked.state[20 + GROWN :] == OK).all()
            assert [gap.reason for gap in marked.gaps(np.arange(FRAMES) / 25)] == ["something covers the mouth"]


@pytest.mark.weights
def test_a_mouth_that_is_covered_throughout_is_one_sentence() -> None:
    track, crops, lips = example("ines")
    masked = [covered(np.random.default_rng(1), crop, at, crops, "mask") for crop, at in zip(crops, lips, strict=True)]
    with pytest.raises(InputError, match=r"^In every frame something covers the mouth, .* Pick .*\.$"):
        mark_covered(track, np.stack(masked))


def test_made_up_covers_lie_on_the_mouth_and_clear_ones_beside_it() -> None:
    crop = np.full((S, S, 3), 150, np.uint8)
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    lips = np.stack([64 + 14 * np.cos(turn), 91 + 7 * np.sin(turn)], 1)
    others = np.random.default_rng(0).integers(0, 256, (4, S, S, 3), np.uint8)
    for kind in set(COVERS) - {"mosaic", "blur"}:  # which look the same on a plain picture
        for i in range(5):
            changed = np.abs(covered(np.random.default_rng(i), crop, lips, others, kind).astype(int) - 150).max(-1)
            assert (changed[86:96, 52:76] > 3).mean() > 0.2 or (changed[mouth_mask()] > 3).mean() > 0.15, kind
    untouched = [np.abs(clear(np.random.default_rng(i), crop, lips, others, 1.0).astype(int) - 150) for i in range(5)]
    assert max((c[86:96, 52:76].max(-1) > 60).mean() for c in untouched) < 0.1
