"""Measures at the film's own scale: films that are known to be equal, blurred, or still."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from syncdiff.errors import InputError
from syncdiff.evaluation.film_scale import Film, load_film, measure, sheet, square
from syncdiff.evaluation.paper_drawing import write_film
from syncdiff.faces import OK
from syncdiff.training.prepare import read_frames, read_sound
from tests.media_fixtures import make_video

EXAMPLE = Path(__file__).resolve().parent.parent / "assets" / "examples" / "ines.mp4"


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """The first 1.4 s of an example; the track of its face is kept beside it by `film`."""
    path = tmp_path_factory.mktemp("films") / "ines.mp4"
    write_film(path, read_frames(EXAMPLE)[:35], read_sound(EXAMPLE)[: 35 * 640])
    return path


@pytest.fixture(scope="module")
def film(short: Path) -> Film:
    return load_film(short, 1.2, short.parent)


def test_what_is_known_of_a_film_is_measured(film: Film) -> None:
    itself = measure(film, film.frames)
    assert itself["r"] == pytest.approx(1)
    for ratio in ("reach", "width_r", "jitter", "sharpness", "SSIM"):
        assert itself[ratio] == pytest.approx(1), ratio
    assert itself["landmarks_%"] == pytest.approx(0)
    assert itself["PSNR"] > 70
    blurred = measure(film, [cv2.GaussianBlur(frame, (0, 0), 2) for frame in film.frames])
    assert blurred["sharpness"] < 0.3
    assert blurred["landmarks_%"] < 1
    rng = np.random.default_rng(0)
    noisy = [np.clip(frame + rng.normal(0, 5, frame.shape), 0, 255).astype(np.uint8) for frame in film.frames]
    assert measure(film, noisy)["PSNR"] == pytest.approx(20 * np.log10(255 / 5), abs=0.3)
    still = measure(film, [film.frames[0]] * len(film.frames))
    assert still["reach"] < 0.5
    assert still["landmarks_%"] > 0.3


def test_tracks_are_kept(short: Path, film: Film, monkeypatch) -> None:
    monkeypatch.setattr("syncdiff.evaluation.film_scale.track_faces", None)  # a second search would raise
    kept = load_film(short, 0.4, short.parent)
    assert np.array_equal(kept.track.points, film.track.points[:10], equal_nan=True)
    assert len(kept.frames) == 10
    assert len(kept.sound) == 6400


def test_a_film_without_sound_is_refused_in_a_sentence(tmp_path, monkeypatch, film: Film) -> None:
    silent = make_video(tmp_path / "silent.mp4", frames=12)
    monkeypatch.setattr("syncdiff.evaluation.film_scale.track_faces", lambda _frames: iter(()))
    monkeypatch.setattr("syncdiff.evaluation.film_scale.choose", lambda _tracks: film.track)
    with pytest.raises(InputError, match=r"silent\.mp4 has no sound"):
        load_film(silent)


def test_the_sheet_shows_every_row_upright(film: Film) -> None:
    numbers = film.usable[:3].tolist()
    picture = sheet(film, {"film": film.frames, "black": [0 * frame for frame in film.frames]}, numbers)
    side = picture.shape[1] // 3
    assert picture.shape == (2 * side, 3 * side, 3)
    assert picture[side + 20 :].max() == 0
    assert (film.track.state == OK).all()
    eyes = square(film.frames[0], film.to_frame[0], (0.0, 0.0, 128.0), 128)
    assert eyes.shape == (128, 128, 3)
