"""faces against known answers: made-up people on known paths, heads pasted at known places, projected heads."""

import weakref
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from syncdiff.errors import InputError
from syncdiff.faces import MISSING, OK, OUTSIDE, SMALL, TURNED, FaceTrack, Gap, choose, make_track, track_faces
from syncdiff.faces.detection import Detection
from syncdiff.faces.face_alignment_backend import WEIGHTS
from syncdiff.faces.head_pose import _HEAD, _INDEX, yaw_of
from syncdiff.faces.mediapipe_backend import face_scorer
from syncdiff.faces.orientation import find_turn
from syncdiff.faces.track import LIPS
from syncdiff.faces.tracker import SceneCuts, follow
from syncdiff.progress import finished
from tests.heads import SIDE, background, heads, paste_head

NAN = float("nan")


def face(x: float, y: float, eyes: float = 60, yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """478 points [478, 2] of the mean head, `eyes` px between the outer eye corners, turned by known angles."""
    points = np.zeros((478, 3))
    grid = np.random.default_rng(0).uniform((-0.7, -0.6, 0), (0.7, 1.2, 0), (478, 3))
    points[:] = grid
    points[list(_INDEX[478])] = _HEAD
    return (project(points, yaw, pitch, roll) * eyes + (x, y)).astype(np.float32)


def project(points: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turn points [P, 3] (x right, y down, z away; the nose points to -z) and look at them from far away."""
    (sy, sp, sr), (cy, cp, cr) = np.sin(np.radians([yaw, pitch, roll])), np.cos(np.radians([yaw, pitch, roll]))
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])  # yaw > 0 moves the nose to the right: x = -sin * z
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (points @ (tilt @ nod @ turn).T)[:, :2]


def still(frames: int, **changes: np.ndarray | None) -> np.ndarray:
    """[frames, 478, 2]: one face that does not move, but for the rows in `changes`: f12=None is unseen in frame 12."""
    points = np.stack([face(300, 200)] * frames)
    for key, value in changes.items():
        points[int(key[1:])] = NAN if value is None else value
    return points


# ---- pose


def test_yaw_of_a_projected_head_is_found(subtests) -> None:
    for yaw in [-75, -50, -20, 0, 5, 30, 51, 80]:
        for pitch, roll in [(0, 0), (15, 0), (0, 40), (-10, -25)]:
            with subtests.test(yaw=yaw, pitch=pitch, roll=roll):
                points = face(100, 100, yaw=yaw, pitch=pitch, roll=roll)
                assert yaw_of(points[None])[0] == pytest.approx(yaw, abs=0.01)


def test_yaw_of_68_points_is_the_same() -> None:
    points = np.zeros((1, 68, 2), np.float32)
    points[0, list(_INDEX[68])] = project(_HEAD, 33, 0, 12) * 80 + 200
    assert yaw_of(points)[0] == pytest.approx(33, abs=0.01)


# ---- track: states, gaps, weights, runs


def test_states_follow_size_and_yaw() -> None:
    rows = [face(0, 0, 60), face(0, 0, 15.5), face(0, 0, 16.5), face(0, 0, 60, yaw=-55), face(0, 0, 60, yaw=45)]
    rows += [face(0, 0, 17, yaw=45)]  # foreshortened to 12 px, but the head is large enough
    track = make_track(np.stack(rows))
    assert track.state.tolist() == [OK, SMALL, OK, TURNED, OK, OK]


def test_a_face_is_given_up_when_it_is_half_out_of_the_picture() -> None:
    points = np.stack([face(x, 100, 60) for x in range(0, 420, 20)])  # all of it within about 45 px of x
    points[:, LIPS[478]] = [[(x, 120)] for x in range(0, 420, 20)]
    track = make_track(points, picture=(300, 400))
    assert (track.state == OUTSIDE).tolist() == [x < 20 or x > 380 for x in range(0, 420, 20)]
    assert set(make_track(points).state) == {OK}
    assert track.gaps(np.arange(21) / 25)[0] == Gap(0, 0.04, "the face is half out of the picture")
    with pytest.raises(InputError, match="half out of the picture in every frame"):
        choose([make_track(points[:1], picture=(300, 400))])
    cut_off = face(100, 100, 60)  # above the lips, which are a small part of the points
    for count in (1, 2):
        lips = cut_off.copy()
        lips[list(LIPS[478][:count]), 1] = 301
        assert make_track(lips[None], picture=(300, 400)).state.tolist() == [OUTSIDE if count == 2 else OK]


def test_short_drop_outs_are_bridged_along_a_straight_line_and_long_ones_are_gaps() -> None:
    points = np.stack([face(300 + 8 * t, 200) for t in range(30)])
    unseen = points.copy()
    unseen[5:8] = NAN
    unseen[15:19] = NAN
    track = make_track(unseen)
    assert np.flatnonzero(track.state).tolist() == [15, 16, 17, 18]
    np.testing.assert_allclose(track.points[5:8], points[5:8], atol=1e-3)
    assert np.isnan(track.points[15:19]).all()


def test_nothing_is_bridged_across_a_cut() -> None:
    track = make_track(still(10, f4=None, f5=None), scene_cuts=[5])
    assert np.flatnonzero(track.state == MISSING).tolist() == [4, 5]


def test_gaps_are_told_in_seconds_of_a_variable_rate() -> None:
    times = np.array([0, 0.1, 0.15, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    turned = face(300, 200, yaw=60)
    track = make_track(still(10, f0=turned, f3=None, f4=None, f5=None, f6=None, f8=None, f9=None))
    assert track.gaps(times) == (
        Gap(0.0, 0.1, "the face is turned away"),
        Gap(0.4, 0.8, "no face"),
        Gap(0.9, 1.1, "no face"),
    )


def test_a_whole_clip_without_gaps_or_with_nothing_else() -> None:
    assert make_track(still(3)).gaps(np.arange(3) / 25) == ()
    small = make_track(np.stack([face(0, 0, 9)] * 3))
    assert small.gaps(np.arange(3) / 25) == (Gap(0.0, 0.12, "the face is too small"),)
    assert small.weight(np.arange(3) / 25).tolist() == [0, 0, 0]


def test_weights_fade_towards_gaps_only() -> None:
    times = np.arange(40) / 25
    unseen = {f"f{t}": None for t in range(15, 25)}
    weight = make_track(still(40, **unseen)).weight(times)
    assert weight.dtype == np.float32
    assert (weight[15:25] == 0).all()
    assert (weight[:10] == 1).all()  # no fade at the clip's own ends
    assert (weight[30:] == 1).all()
    assert (np.diff(weight[9:16]) < 0).all()
    np.testing.assert_allclose(weight, weight[::-1], atol=1e-6)
    assert 0 < weight[14] < 0.1
    assert weight[12] == pytest.approx(0.5, abs=0.01)  # the middle of frame 12 is 0.1 s from the gap


def test_weights_know_no_fade_where_the_picture_is_cut() -> None:
    times = np.arange(40) / 25
    unseen = {f"f{t}": None for t in range(15, 25)}
    weight = make_track(still(40, **unseen), scene_cuts=[15, 25]).weight(times)
    assert np.unique(weight[:15]).tolist() == np.unique(weight[25:]).tolist() == [1.0]


def test_runs_end_at_gaps_and_cuts() -> None:
    track = make_track(still(14, f5=None, f6=None, f7=None, f8=None), scene_cuts=[3], jumps=[11])
    run = track.run.tolist()
    assert run[5:9] == [-1] * 4
    parts = [run[:3], run[3:5], run[9:11], run[11:]]
    assert all(len(set(part)) == 1 for part in parts)
    assert len({part[0] for part in parts}) == 4


def test_times_of_another_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="10 frames"):
        make_track(still(10)).gaps(np.arange(9) / 25)


# ---- choose


def test_choose_takes_the_largest_or_the_one_asked_for() -> None:
    large, small = make_track(still(5)), make_track(np.stack([face(0, 0, 20)] * 5))
    assert choose([large, small]) is large
    assert choose([large, small], 1) is small
    never = make_track(np.stack([face(0, 0, 90, yaw=70)] * 5))
    assert choose([never, small]) is small  # the larger one cannot be redrawn in any frame


def test_choose_says_in_one_sentence_what_is_wrong(subtests) -> None:
    for tracks, index, sentence in [
        ([], None, "No face was found"),
        ([still(5)], 1, "Face 1 was asked for, but only 1 found: choose 0"),
        ([still(5)], -1, "Face -1 was asked for"),
        ([np.stack([face(0, 0, 12)] * 5)], None, "too small in every frame: at most 12.0 pixels .* 16 are needed"),
        ([np.stack([face(0, 0, 60, yaw=-63)] * 5)], 0, "turned away in every frame: by 63 degrees .* up to 50 can"),
    ]:
        with subtests.test(sentence), pytest.raises(InputError, match=sentence):
            choose([make_track(points) for points in tracks], index)


# ---- follow, with a detector that knows the truth


class Oracle:
    """A detector for made-up people. Each: frame -> x, y, eye distance, or None; a later one hides an earlier one."""

    def __init__(self, *paths: Callable[[int], tuple[float, float, float] | None]) -> None:
        self.paths, self.searches = paths, 0

    def visible(self, image: np.ndarray) -> list[Detection]:
        t = int(image[0, 0, 0])
        shown: list[Detection] = []
        for i, path in enumerate(self.paths):
            if (place := path(t)) is None:
                continue
            x, y, eyes = place
            appearance = np.full(108, 40.0 * i, np.float32)
            detection = Detection(face(x, y, eyes), appearance)
            shown = [s for s in shown if np.hypot(*(s.centre - detection.centre)) > 0.6 * detection.size]
            shown.append(detection)
        return shown

    def redetect(self, image: np.ndarray, seen: Detection) -> Detection | None:
        near = [s for s in self.visible(image) if np.hypot(*(s.centre - seen.centre)) < 0.5 * seen.size]
        return min(near, key=lambda s: np.hypot(*(s.centre - seen.centre)), default=None)

    def detect(self, image: np.ndarray, known: list[Detection], *, closely: bool) -> list[Detection]:
        self.searches += 1
        return self.visible(image)


def numbered(frames: int) -> Iterator[np.ndarray]:
    """Grey pictures whose corner tells the frame's number."""
    for t in range(frames):
        image = np.full((400, 1000, 3), 99, np.uint8)
        image[0, 0] = t
        yield image


def seen_at(track: FaceTrack) -> np.ndarray:
    """[T] x of the middle between the eyes."""
    return track.points[:, [33, 263], 0].mean(1)


def test_two_people_who_cross_keep_their_names() -> None:
    front, back = (lambda t: (100 + 8 * t, 200, 60)), (lambda t: (900 - 8 * t, 210, 50))
    tracks = finished(follow(numbered(100), Oracle(back, front)))
    assert len(tracks) == 2
    np.testing.assert_allclose(seen_at(tracks[0]), 100 + 8 * np.arange(100), atol=1)
    assert (tracks[0].state == OK).all()
    away = np.flatnonzero(tracks[1].state == MISSING)
    assert 4 < len(away) < 14
    assert 50 in away
    kept = tracks[1].state == OK
    np.testing.assert_allclose(seen_at(tracks[1])[kept], (900 - 8 * np.arange(100))[kept], atol=1)
    assert tracks[0].cuts == tracks[1].cuts == ()


def test_who_comes_back_after_long_is_the_same_person_if_place_and_size_fit() -> None:
    path = lambda t: None if 30 <= t < 90 else (300, 200, 60)  # noqa: E731
    (track,) = finished(follow(numbered(120), Oracle(path)))
    assert track.gaps(np.arange(120) / 25) == (Gap(1.2, 3.6, "no face"),)


def test_who_looks_otherwise_is_somebody_else() -> None:
    first, second = (lambda t: (300, 200, 60) if t < 30 else None), (lambda t: (300, 200, 60) if t >= 90 else None)
    assert len(finished(follow(numbered(120), Oracle(first, second)))) == 2


def shot_change(appearance: Callable[[int], np.ndarray], away: float = 0.0) -> list[FaceTrack]:
    """Tracks of a face that stays, or moves by `away` px, where the picture around it changes: in frame 20."""

    class Webcam(Oracle):
        def visible(self, image: np.ndarray) -> list[Detection]:
            t = int(image[0, 0, 0])
            return [Detection(face(300 + away * (t >= 20), 200, 60), appearance(t))]

    def slides() -> Iterator[np.ndarray]:
        for t in range(40):
            image = background(1 + (t >= 20), 400, 1000)
            image[0, 0] = t
            yield image

    return finished(follow(slides(), Webcam()))


def changed(cells: tuple[slice, slice], by: float) -> Callable[[int], np.ndarray]:
    """An appearance whose cells change in frame 20."""
    looks = np.full((2, 6, 6, 3), 100, np.float32)
    looks[1, *cells] += by
    return lambda t: looks[int(t >= 20)].ravel()


def test_a_webcam_beside_slides_is_one_person() -> None:
    for cells in ((slice(0, 1), slice(None)), (slice(None), slice(0, 1)), (slice(None), slice(5, 6))):
        for away in (0, 400):  # its window stays, or goes to another corner
            (track,) = shot_change(changed(cells, 80), away)  # the slide shows beside the head
            assert (track.state == OK).all()
            assert track.cuts == (20,)
    (moved,) = shot_change(changed((slice(None), slice(None)), 3), away=150)  # a jump cut
    assert (moved.state == OK).all()


def test_a_mirrored_shot_and_a_light_that_goes_out_are_the_same_person() -> None:
    half_lit = np.full((6, 6, 3), 100, np.float32)
    half_lit[:, 3:] += 12
    shots = np.stack([half_lit, half_lit[:, ::-1]])
    for away in (0, 400):
        (track,) = shot_change(lambda t: shots[int(t >= 20)].ravel(), away)
        assert (track.state == OK).all()
        assert track.cuts == (20,)
    dark = changed((slice(None), slice(None)), -60)
    (track,) = shot_change(dark, away=0.5)
    assert (track.state == OK).all()
    assert len(shot_change(dark, away=5)) == 2


def test_another_person_in_the_same_place_is_another_person_and_named_so() -> None:
    slide, head = changed((slice(0, 1), slice(None)), 80), changed((slice(1, None), slice(1, 5)), 4.5)
    assert len(shot_change(lambda t: slide(t) + head(t) - 100, away=400)) == 2
    tracks = shot_change(changed((slice(1, None), slice(1, 5)), 9), away=5)
    assert len(tracks) == 2
    assert [gap.reason for gap in choose(tracks).gaps(np.arange(40) / 25)] == ["only another person is in view"]
    assert [gap.reason for gap in tracks[0].gaps(np.arange(40) / 25)] == ["no face"]


def test_a_jump_is_a_cut_of_this_face_only() -> None:
    jumper, other = (lambda t: (300 + 70 * (t >= 20), 200, 60)), (lambda t: (800, 300, 60))
    tracks = finished(follow(numbered(40), Oracle(jumper, other)))
    assert sorted(track.cuts for track in tracks) == [(), (20,)]
    assert all((track.state == OK).all() for track in tracks)


def test_a_quick_but_steady_walk_is_no_jump() -> None:
    (track,) = finished(follow(numbered(40), Oracle(lambda t: (100 + 18 * t, 200, 60))))
    assert track.cuts == ()


def test_scenes_know_cuts_from_flashes_and_from_motion() -> None:
    shots = [background(seed, 180, 320) for seed in (0, 1)]
    panning = background(2, 180, 640)
    scenes = SceneCuts()
    clip = [shots[0]] * 10 + [shots[1]] * 10 + [np.clip(shots[1] + 90.0, 0, 255).astype(np.uint8)] * 2 + [shots[1]] * 8
    clip += [panning[:, 4 * t : 4 * t + 320] for t in range(40)]
    for t, image in enumerate(clip):
        scenes.changed(t, image)
    assert scenes.cuts == [10, 30]


def test_a_flash_is_bridged() -> None:
    def images() -> Iterator[np.ndarray]:
        for t, image in enumerate(numbered(30)):
            if t == 12:
                image[1:] = 250
            yield image

    oracle = Oracle(lambda t: None if t == 12 else (300, 200, 60))
    (track,) = finished(follow(images(), oracle))
    assert track.cuts == ()
    assert (track.state == OK).all()


def test_false_alarms_go_and_the_largest_comes_first() -> None:
    flash, small, large = (
        (lambda t: (700, 80, 300) if 10 <= t < 13 else None),
        (lambda t: (100, 200, 30)),
        (lambda t: (400, 200, 50)),
    )
    tracks = finished(follow(numbered(30), Oracle(flash, small, large)))
    assert [round(track.size / 30) for track in tracks] == [50, 30]


def test_a_photo_is_a_clip_of_one_frame() -> None:
    (track,) = finished(follow(numbered(1), Oracle(lambda t: (300, 200, 60))))
    assert track.state.tolist() == [OK]


def test_a_clip_without_frames_has_no_faces() -> None:
    assert finished(follow(iter(()), Oracle())) == []


def test_people_in_view_are_not_searched_for_in_every_frame() -> None:
    oracle = Oracle(lambda t: (300, 200, 60))
    finished(follow(numbered(100), oracle))
    assert oracle.searches <= 20 + 12


def test_frames_are_counted_and_let_go() -> None:
    living: list[weakref.ref] = []

    def images() -> Iterator[np.ndarray]:
        for image in numbered(30):
            living.append(weakref.ref(image))
            yield image

    done = []
    for count in follow(images(), Oracle(lambda t: (300, 200, 60))):
        done.append(count)
        assert sum(ref() is not None for ref in living) <= 3
    assert done == list(range(1, 31))


def test_closing_the_generator_closes_the_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    from syncdiff.faces import mediapipe_backend

    closed = []
    leave = mediapipe_backend.MediapipeDetector.__exit__
    monkeypatch.setattr(
        mediapipe_backend.MediapipeDetector, "__exit__", lambda self, *e: (closed.append(self), leave(self, *e))[1]
    )
    tracking = track_faces(numbered(10))
    next(tracking)
    assert not closed
    tracking.close()
    assert len(closed) == 1
    with pytest.raises(ValueError, match="already None"):
        closed[0]._mesh.close()


# ---- mediapipe's nets on heads at known places


def scene(frames: int, draw: Callable[[int, np.ndarray], None], seed: int = 0) -> Iterator[np.ndarray]:
    for t in range(frames):
        image = background(seed)
        draw(t, image)
        yield image


def reference(head: np.ndarray) -> np.ndarray:
    """[478, 2] px in a head's own picture, seen twice as large in the middle of a frame."""
    image = background(3)
    paste_head(image, head, 480, 200, 2)
    (track,) = finished(track_faces([image]))
    return (track.points[0] - (480, 200)) / 2


def test_a_head_is_found_where_it_was_put_and_as_large() -> None:
    head = heads()[0]
    for x, y, scale in [(40, 30, 1.2), (700, 180, 2.6), (1000, 500, 0.8)]:
        (track,) = finished(track_faces(scene(3, lambda t, image: paste_head(image, head[0], x, y, scale))))  # noqa: B023
        assert (track.state == OK).all()
        error = np.linalg.norm(track.points[-1] - (reference(head[0]) * scale + (x, y)), axis=1)
        assert error.mean() < 0.02 * SIDE * scale


def test_two_heads_one_away_for_a_known_time() -> None:
    a, b = heads()

    def draw(t: int, image: np.ndarray) -> None:
        if not 20 <= t < 35:
            paste_head(image, a[t], 150 + 2 * t, 200, 2)
        if not 40 <= t < 42:  # a drop-out that is bridged
            paste_head(image, b[t], 800, 250, 1.4)

    first, second = finished(track_faces(scene(60, draw)))
    times = np.arange(60) / 25
    assert first.gaps(times) == (Gap(0.8, 1.4, "no face"),)
    assert second.gaps(times) == ()
    assert (seen_at(first)[first.state == OK] < 640).all()
    assert (seen_at(second) > 640).all()


def test_heads_that_cross_keep_their_names() -> None:
    a, b = heads()

    def draw(t: int, image: np.ndarray) -> None:
        paste_head(image, b[t], 900 - 14 * t, 230, 1.6)
        paste_head(image, a[t], 100 + 12 * t, 200, 2.2)

    first, second = finished(track_faces(scene(60, draw)))
    assert (first.state == OK).all()
    x = 100 + 12 * np.arange(60) + 1.1 * SIDE
    assert np.abs(seen_at(first) - x).max() < 0.3 * SIDE * 2.2
    gone = np.flatnonzero(second.state == MISSING)
    assert 0 < len(gone) < 35
    assert seen_at(second)[0] > 900
    assert seen_at(second)[-1] < 320


def test_a_scene_cut_is_known_and_whoever_returns_is_recognised() -> None:
    a, b = heads()

    def shots() -> Iterator[np.ndarray]:
        yield from scene(20, lambda t, image: paste_head(image, a[t], 300, 200, 2), seed=0)
        yield from scene(20, lambda t, image: paste_head(image, b[t], 320, 180, 2), seed=1)
        yield from scene(20, lambda t, image: paste_head(image, a[t], 700, 100, 2.5), seed=2)

    tracks = finished(track_faces(shots()))
    assert len(tracks) == 2
    assert all(track.cuts == (20, 40) for track in tracks)
    assert tracks[0].gaps(np.arange(60) / 25) == (Gap(0.8, 1.6, "no face"),)
    assert np.unique(tracks[0].weight(np.arange(60) / 25)).tolist() == [0, 1]
    assert len(set(tracks[0].run[tracks[0].run >= 0])) == 2


def test_a_face_too_small_for_the_short_range_net_is_found() -> None:
    head = heads()[0]
    (track,) = finished(track_faces(scene(12, lambda t, image: paste_head(image, head[t], 600 + 2 * t, 300, 0.4))))
    assert (track.state == OK).all()
    eyes = np.linalg.norm(track.points[0, 263] - track.points[0, 33])
    assert 20 < eyes < 45


@pytest.mark.parametrize(("quarters", "clockwise"), [(0, 0), (1, 90), (2, 180), (3, 270)])
def test_a_film_on_its_head_or_side_is_turned_until_heads_stand_upright(quarters: int, clockwise: int) -> None:
    image = background(5, 480, 480)
    paste_head(image, heads()[0][0], 120, 120, 1.5)
    with face_scorer() as score:
        assert find_turn([np.ascontiguousarray(np.rot90(image, quarters))] * 2, score) == clockwise
        assert find_turn([background(5, 480, 480)], score) == 0


def test_a_mirrored_face_looks_the_other_way() -> None:
    head = heads()[0]
    plain = list(scene(1, lambda t, image: paste_head(image, head[20], 500, 200, 2)))
    (track,), (mirrored,) = (
        finished(track_faces(images)) for images in (plain, [np.ascontiguousarray(plain[0][:, ::-1])])
    )
    assert mirrored.yaw[0] == pytest.approx(-track.yaw[0], abs=3)
    middle = lambda t: t.points[0].mean(0)  # noqa: E731
    assert middle(mirrored) == pytest.approx((1280 - middle(track)[0], middle(track)[1]), abs=4)


def test_no_head_no_track() -> None:
    assert finished(track_faces(scene(6, lambda t, image: None))) == []


def test_very_small_pictures_do_no_harm() -> None:
    assert finished(track_faces(np.zeros((3, 8, 6, 3), np.uint8))) == []


# ---- face-alignment, through its own classes


def test_missing_weights_are_named_and_nothing_is_downloaded(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"needs s3fd-619a316812.pth and 2DFAN4-11f355bf06.pth.tar .*TORCH_HOME"):
        finished(track_faces(numbered(1), backend="face-alignment"))
    with pytest.raises(ValueError, match="choose 'mediapipe' or 'face-alignment'"):
        finished(track_faces(numbered(1), backend="dlib"))


def random_weight(key: str, shape: tuple[int, ...]):
    """Keeps signals at their size through a net; S3FD as it draws itself would see faces everywhere, this nowhere."""
    import torch

    if len(shape) < 2:
        value = torch.full(shape, 1.0 if key.endswith(("weight", "running_var")) else 0.0)
        if key.endswith("_mbox_conf.bias"):
            value[-1] = -1000
        return value
    return torch.randn(shape) * torch.Size(shape[1:]).numel() ** -0.5


def test_face_alignment_through_its_own_classes(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba
    import torch

    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)  # read when face_alignment is imported; else 15 s
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    from syncdiff.faces.face_alignment_backend import FaceAlignmentDetector, load_face_alignment

    with torch.device("meta"):
        shapes = {name: net.state_dict() for name, net in [(WEIGHTS[0], s3fd()), (WEIGHTS[1], FAN(4))]}
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name, tensors in shapes.items():
        values = {key: random_weight(key, x.shape) for key, x in tensors.items()}
        torch.save(values, folder / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("kaiming_uniform_", "uniform_"):  # the files overwrite what these would draw, 46 million numbers
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    alignment = load_face_alignment()
    image = background(0, 360, 800)
    assert FaceAlignmentDetector(alignment).detect(image[:64, :64], [], closely=True) == []
    for name in folder.iterdir():
        name.unlink()

    shown: list[tuple[int, ...]] = []

    def detect(picture: np.ndarray) -> list[np.ndarray]:
        shown.append(picture.shape)
        return [np.array([120, 60, 200, 160, 0.99])]  # in the picture shrunk to 640 px

    monkeypatch.setattr(alignment.face_detector, "detect_from_image", detect)
    (track,) = finished(follow([image], FaceAlignmentDetector(alignment)))
    assert shown == [(288, 640, 3)]
    np.testing.assert_allclose(track.boxes, [[150, 75, 250, 200]])
    assert track.points.shape == (1, 68, 2)
    inside = (track.points > track.boxes[:, None, :2] - 80) & (track.points < track.boxes[:, None, 2:] + 80)
    assert inside.all()  # FAN looks at a square around the box


def test_the_boxes_of_a_track_are_bridged_as_its_points() -> None:
    points = np.zeros((5, 68, 2), np.float32)
    points[:, list(_INDEX[68])] = _HEAD[:, :2] * 60 + 100
    boxes = np.stack([np.array([10, 20, 110, 140], np.float32) + 4 * t for t in range(5)])
    unseen, gone = points.copy(), boxes.copy()
    unseen[2], gone[2] = NAN, NAN
    track = make_track(unseen, boxes=gone)
    np.testing.assert_allclose(track.boxes, boxes)
    assert (track.state == OK).all()


def test_looks_do_not_depend_on_place_size_or_tilt() -> None:
    from syncdiff.faces.detection import appearance_distance, appearance_of

    picture = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 12, 3)).astype(np.uint8), (200, 200))
    corners = np.array([[60, 70], [140, 70], [100, 130]], np.float32)
    matrix = cv2.getRotationMatrix2D((100, 100), 25, 1.7)
    matrix[:, 2] += (80, 60)
    moved = cv2.warpAffine(picture, matrix, (400, 400))
    there = corners @ matrix[:, :2].T + matrix[:, 2]
    assert appearance_distance(appearance_of(picture, corners), appearance_of(moved, there)) < 1.5
    assert appearance_distance(appearance_of(picture, corners), appearance_of(picture[::-1].copy(), corners)) > 10
