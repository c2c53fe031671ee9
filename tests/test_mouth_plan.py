"""Whose mouth every output frame gets: moments of a film, its shots, its own voice, and what is held of it."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.conditioning import FaceClip, FramePlan
from syncdiff.generator import FilmScalePaste
from syncdiff.geometry.crops import WINDOW, S
from syncdiff.geometry.mouth_shape import CLOSED_FORECAST, FORECAST_GAINS, SHAPE, SpeakerScale
from syncdiff.media import Patch
from tests.mouths import crop, landmarks

SCALE, AT = 2.0, np.array([10.0, 6.0])  # the face's crop in the film's frames
GAPS = (0, 2, 4, 6, 8, 10)


class Film:
    """A film of one drawn face, and what was read of it."""

    def __init__(self, gaps, shots=None, skins=None) -> None:
        self.points = np.stack([landmarks(gap=g) for g in gaps])
        self.skins = [128] * len(gaps) if skins is None else skins
        self.shots = np.zeros(len(gaps), int) if shots is None else np.array(shots)
        self.crops = np.stack([crop(p, skin) for p, skin in zip(self.points, self.skins, strict=True)])
        self.read: list[int] = []

    def frame(self, i: int) -> np.ndarray:
        big = crop(self.points[i], self.skins[i], int(SCALE))
        return np.pad(big, ((int(AT[1]), 20), (int(AT[0]), 20), (0, 0)))

    def frames(self, indices):
        for i in indices:
            self.read.append(int(i))
            yield self.frame(int(i))

    def face(self, **changes) -> FaceClip:
        n = len(self.points)
        matrix = np.array([[SCALE, 0, AT[0]], [0, SCALE, AT[1]]], np.float32)
        return FaceClip(
            self.crops,
            np.tile(matrix, (n, 1, 1)),
            SCALE * self.points + AT,
            np.zeros(n),
            np.ones(n, bool),
            self.shots,
            **{"film": self.frames, "picture": self.frame(0).shape[:2]} | changes,
        )


def units(face: FaceClip, gaps) -> np.ndarray:
    """A forecast [T, SHAPE] that asks for these gaps, px."""
    found = np.zeros((len(gaps), SHAPE), np.float32)
    wanted = (np.array(gaps) - face.scale.rest[0]) / face.scale.reach
    found[:, 0] = np.where(wanted > 0, CLOSED_FORECAST + wanted / FORECAST_GAINS[0], 0)
    return found


def test_the_moment_that_opens_alike_lends_its_mouth() -> None:
    film = Film([g for g in GAPS for _ in range(8)])
    face = film.face()
    mouths = face.plan_mouths(np.zeros(30, int), units(face, [0] * 10 + [8] * 10 + [4] * 10))
    for i, gap in ((5, 0), (15, 8), (25, 4)):
        assert mouths.target[i, 0] == pytest.approx(gap, abs=0.6)
        assert face.shapes[mouths.moments[i, 0], 0] == pytest.approx(gap, abs=1.3)
    assert mouths.shares.sum(1) == pytest.approx(np.ones(30))
    assert not mouths.inside.any()


def test_mouths_are_never_taken_from_another_shot() -> None:
    gaps = [*GAPS, *GAPS]
    film = Film(gaps, shots=[0] * 6 + [1] * 6, skins=[110] * 6 + [170] * 6)
    face = film.face()
    order = np.array([0, 1, 2, 8, 9, 10, 3])
    mouths = face.plan_mouths(order, units(face, [6.0] * 7))
    for i, frame in enumerate(order):
        lent = mouths.moments[i][mouths.shares[i] > 0]
        assert (film.shots[lent] == film.shots[frame]).all()


def test_a_covered_mouth_and_one_cut_by_the_edge_lend_nothing() -> None:
    film = Film([g for g in GAPS for _ in range(4)])
    film.crops[20:24] = 240  # a hand before the widest mouths
    face = film.face()
    assert not set(face.moments[0]) & set(range(20, 24))
    low = film.face(picture=(176, 300))  # the picture ends below the closed lips
    assert {int(i) for i in low.moments[0]} <= set(range(4))


def test_a_photo_gets_an_inside_where_it_opens() -> None:
    face = Film([0]).face()
    mouths = face.plan_mouths(np.zeros(60, int), units(face, [0] * 20 + [7] * 40))
    assert mouths.inside[:15].max() == 0
    assert mouths.inside[30:].min() == 1
    inputs = face.inputs(0, mouths, 40)
    assert inputs.reference.shape == (S, S, 3)
    assert np.ptp(inputs.reference[WINDOW][28:36, 48].astype(int)) > 20  # teeth and lips, no stretched seam


def test_what_is_held_of_a_film_does_not_grow_with_it() -> None:
    shots = np.repeat(np.arange(12), 5)
    film = Film(np.tile([0, 3, 6, 8, 10], 12), shots=shots)
    face = film.face()
    mouths = face.plan_mouths(np.arange(60), units(face, [5.0] * 60))
    for i in range(60):
        face.reference(face.in_film(i, film.frame(i)), i, mouths, i)
        assert len(face._film_views) <= 2
    held = [view.image for views in face._film_views.values() for view in views.values()]
    assert sum(image.nbytes for image in held) <= 2 * 5 * film.frame(0).nbytes
    assert len(film.read) == 60  # each shot's moments were read once


def test_a_drawing_that_equals_the_reference_leaves_it_bit_for_bit() -> None:
    film = Film([g for g in GAPS for _ in range(3)])
    face = film.face()
    mouths = face.plan_mouths(np.zeros(5, int), units(face, [6.0] * 5))
    plan = FramePlan(face, np.zeros(5, int), np.arange(5) / 25, np.arange(5) / 25, np.ones(5, np.float32))
    inputs = face.inputs(0, mouths, 2)
    image = film.frame(0)
    patch = FilmScalePaste(plan, mouths, 2, inputs.reference[WINDOW])(image, inputs.reference)
    alone = face.reference(face.in_film(0, image), 0, mouths, 2).pixels
    assert isinstance(patch, Patch)
    assert np.array_equal(patch.rgb, alone)
    brighter = inputs.reference.copy()
    brighter[80:90, 55:75] += 20
    assert (FilmScalePaste(plan, mouths, 2, inputs.reference[WINDOW])(image, brighter).rgb != alone).any()


def test_half_the_weight_is_half_the_change() -> None:
    film = Film(GAPS)
    face = film.face()
    mouths = face.plan_mouths(np.zeros(1, int), units(face, [8.0]))
    image, whole = film.frame(0), {}
    reference = face.inputs(0, mouths, 0).reference
    for weight in (1.0, 0.5):
        plan = FramePlan(face, np.zeros(1, int), np.zeros(1), np.zeros(1), np.full(1, weight, np.float32))
        whole[weight] = FilmScalePaste(plan, mouths, 0, reference[WINDOW])(image, reference).rgb.astype(int)
    own = image[face.in_film(0, image).box].astype(int)
    assert np.abs((whole[1.0] + own) / 2 - whole[0.5]).max() <= 1


def test_the_films_own_voice_tells_how_far_lips_go() -> None:
    rng = np.random.default_rng(3)
    gaps = np.maximum(np.convolve(rng.normal(0, 6, 204), np.ones(5) / 5, "valid"), 0)
    film = Film(np.round(gaps * 2) / 2)
    silent = film.face()
    spoken = film.face(own_forecast=units(silent, 0.5 * gaps))  # a forecast that goes half as far
    assert silent.articulation.trust == 0
    assert spoken.articulation.trust == 1
    target = spoken.plan_mouths(np.arange(200), units(silent, 0.5 * gaps)).target[:, 0]
    assert target.std() == pytest.approx(gaps.std(), rel=0.2)
    assert isinstance(spoken.scale, SpeakerScale)
