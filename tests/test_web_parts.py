"""The smaller parts of the page: whose turn it is, how long it takes, what a link holds, what scores mean."""

import pickle
from dataclasses import replace

import pytest

from syncdiff.errors import InputError
from syncdiff.job import NO_SYNCNET
from syncdiff.media import LIMITS
from syncdiff.options import PRESETS, SampleOptions
from syncdiff.results import Progress
from syncdiff.sync.scoring import Scores
from syncdiff.web import view_state, wrap_zero_gpu
from syncdiff.web.costs import presets, seconds_of
from syncdiff.web.eta import DurationModel, TimeLeft, in_words
from syncdiff.web.jobs import JobService
from syncdiff.web.launch import gpu_seconds
from syncdiff.web.share_links import Settings, parse_query, query
from tests.browsing import write_voice
from tests.fakes import FakePipeline, FakePreview, bad_input, write_video


def run_of(stages: dict[str, float], source: int, frames: int, steps: int) -> list[tuple[float, Progress]]:
    """A run as a pipeline tells it: (second, progress)."""
    total = {"finding the face": 2 * source, "drawing": frames * (steps + 1)}
    told, now = [], 0.0
    for stage, seconds in stages.items():
        for n in range(1, 11):
            now += seconds / 10
            told.append((now, Progress(stage, n * total.get(stage, 100) // 10, total.get(stage, 100))))
    return told


def test_the_time_left_is_right_where_the_voice_is_four_times_as_long_as_the_video() -> None:
    durations, options = DurationModel(), SampleOptions(steps=2)
    expected = durations.stages(100, 400, options)
    really = {stage: 1.5 * seconds for stage, seconds in expected.items()}  # a slower machine
    whole = sum(really.values())
    for lengths in ((4.0, 16.0), (None, None)):  # a program does not say how long its files are
        now, fractions, lefts = [0.0], [], {}
        time_left = TimeLeft(durations, options, *lengths, now=lambda now=now: now[0])
        for second, progress in run_of(really, 100, 400, 2):
            now[0] = second
            fraction, left = time_left(progress)
            fractions.append(fraction)
            lefts[progress.stage] = left / (whole - second) if whole - second > 1 else 1
            if progress.stage == "drawing":
                assert left == pytest.approx(whole - second, rel=0.4, abs=1)
        assert fractions == sorted(fractions)
        assert fractions[-1] == pytest.approx(1.0)
        assert time_left.source == 100
    assert time_left(Progress("a stage of tomorrow", 1, 10))[0] == pytest.approx(1.0)


def test_the_pace_learns_from_what_runs_really_take(tmp_path) -> None:
    durations, result = DurationModel(), FakePipeline(seconds=4.0).result(tmp_path / "out.mp4", SampleOptions(steps=2))
    assert durations.usual() is None
    two, best = SampleOptions(steps=2), SampleOptions(steps=8)
    guessed = durations.seconds(50, 100, two)
    slow = {stage: 10 * seconds for stage, seconds in durations.stages(50, 100, two).items()}
    for _ in range(12):
        durations.learn(replace(result, frames=100, seconds=slow), 50)
    assert durations.seconds(50, 100, two) == pytest.approx(10 * guessed, rel=0.01)
    assert durations.usual() == pytest.approx(sum(slow.values()))
    assert durations.seconds(50, 100, best) > durations.seconds(50, 100, two)
    both = replace(two, correct_offset=True)
    stages = durations.stages(100, 100, both)
    assert [*stages][2:5] == ["listening", "testing the offset", "drawing"]
    assert stages["testing the offset"] < stages["drawing"]
    tests = [durations.stages(*frames, both)["testing the offset"] for frames in ((9_000, 9_000), (9, 18_000))]
    assert tests[0] == tests[1]


def test_the_presets_say_what_each_costs_for_these_files() -> None:
    jobs = JobService(FakePipeline(), FakePreview())

    def costs(video, photo, sound, **options) -> list[str]:
        return [
            item["cost"] for item in presets(jobs, [video, photo, sound, None], SampleOptions(**options))["items"]
        ]

    assert len(set(costs(20.0, None, 20.0))) > 1
    assert costs(600.0, None, 4.0) == costs(600.0, None, 600.0) != costs(4.0, None, 600.0)
    assert costs(600.0, None, 4.0, tail="trim") != costs(600.0, None, 4.0)
    assert costs(None, 0, 60.0) == costs(None, 0, 60.0)
    assert seconds_of(["x", None, -3, 1e99]) == (None, LIMITS.seconds)  # from no page of ours


def test_time_in_words(subtests) -> None:
    for seconds, words in [
        (2, "a few seconds"),
        (31, "about 30 s"),
        (58, "about 1 min"),
        (170, "about 3 min"),
        (5400, "about 1.5 h"),
    ]:
        with subtests.test(seconds=seconds):
            assert in_words(seconds) == words


def test_a_link_brings_back_what_it_was_made_of(subtests) -> None:
    for settings, text in [
        (Settings("speaker-2", "speaker-2", SampleOptions(1, 7)), "example=speaker-2&preset=standard&seed=7"),
        (
            Settings("speaker-2", "speaker-1", SampleOptions(PRESETS["Slow"])),
            "face=speaker-2&voice=speaker-1&preset=slow&seed=0",
        ),
        (Settings(None, None, SampleOptions(5, 3)), "steps=5&seed=3"),
        (Settings("speaker-3", None, SampleOptions(2)), "face=speaker-3&steps=2&seed=0"),
        (Settings(options=SampleOptions(tail="trim")), "preset=standard&seed=0&tail=trim"),
        (
            Settings("speaker-1", "speaker-1", SampleOptions(correct_offset=True, label=False)),
            "example=speaker-1&preset=standard&seed=0&correct=yes&label=no",
        ),
    ]:
        with subtests.test(text):
            assert query(settings) == text
            assert parse_query(dict(pair.split("=") for pair in text.split("&"))) == settings


def test_an_address_that_asks_for_nothing_restores_nothing() -> None:
    assert parse_query({}) is None
    assert parse_query({"__theme": "dark", "deep_link": "x"}) is None


def test_a_bad_link_gets_a_sentence(subtests) -> None:
    for asked, sentence in [
        ({"example": "nobody"}, "asks for the example 'nobody': there is speaker-1, speaker-2 or speaker-3"),
        ({"face": "../../etc/passwd"}, "asks for the example '../../etc/passwd'"),
        ({"voice": "<script>" * 20}, r"asks for the example '(<script>){5}\.\.\.'"),
        ({"preset": "turbo"}, "asks for the preset 'turbo': there is standard"),
        ({"seed": "-1"}, "asks for seed '-1': give a whole number"),
        ({"seed": "9999999999"}, "The seed is 9999999999: choose 0 to"),
        ({"seed": "9" * 5000}, "give a whole number"),
        ({"steps": "0"}, "0 steps were asked for"),
        ({"steps": "²"}, "give a whole number"),
        ({"steps": ""}, "give a whole number"),
        ({"tail": "cut"}, "asks for the tail 'cut': there is keep or trim"),
        ({"label": "0"}, "asks for the label '0': there is yes or no"),
    ]:
        with subtests.test(sentence), pytest.raises(InputError, match=sentence):
            parse_query(asked)


def said(confidence: float | None, offset: int = 0, steady: bool = True) -> Scores:
    if confidence is None:
        return Scores("syncdiff-judge", reason="not scorable: the voice is silent")
    return Scores("syncdiff-judge", confidence, 1.0, offset, steady=steady)


def test_the_scores_in_words() -> None:
    for source, now, words in (
        (said(0.30), said(0.40), "good"),
        (said(0.30), said(0.28), "good"),
        (said(0.30), said(0.20), "fair"),
        (said(0.30), said(0.10), "poor"),
        (said(0.02), said(0.10), "not rated"),  # what beats nothing is not praised
        (said(0.20, steady=False), said(0.30), "not rated"),  # somebody else's voice, most likely
        (said(None), said(0.20), "not rated"),
        (said(0.30), said(None), "not scored"),
    ):
        assert view_state.verdict(source, now).startswith(f"Sync: {words}.")
    told = {view_state.verdict(said(0.30), said(confidence)) for confidence in (0.1, 0.2, 0.3, 0.4)}
    assert len(told) == 4


def test_an_offset_is_told_where_it_is_sure_and_offered_to_be_corrected(tmp_path, subtests) -> None:
    plain = FakePipeline().result(tmp_path / "out.mp4", SampleOptions())
    for source, now, options, earlier, words, correctable in [
        (said(0.30, 1), said(0.29, -1), {}, 0, [], False),  # nobody sees 40 ms, and the judge errs by as much
        (said(0.30), said(0.29, 4), {}, 0, ["In the result the lips come 160 ms late."], True),
        (said(0.30), said(0.29, -2), {}, 0, ["In the result the lips come 80 ms early."], True),
        (said(0.30), replace(said(0.29, 9), steady=False), {}, 0, [], False),
        (said(0.30), said(0.10, 9), {}, 0, [], False),  # a stranger's voice might fit as well
        (said(None), said(0.10, 9), {}, 0, ["In the result the lips come 360 ms late."], True),
        (said(0.30), said(None), {}, 0, [], False),
        (
            said(0.30),
            said(0.29),
            {"correct_offset": True},
            4,
            ["before that, the lips came 160 ms late"],
            False,
        ),
        (
            said(0.30),
            said(0.29, 2),
            {"correct_offset": True},
            0,
            ["lips come 80 ms late.", "corrected once already"],
            False,
        ),
    ]:
        changes = {"source_scores": source, "result_scores": now, "earlier_frames": earlier, "source_offset": -2.5}
        with subtests.test(source=source, now=now, options=options, earlier=earlier):
            told = view_state.in_step(replace(plain, options=SampleOptions(**options), **changes))
            assert "100 ms before" in told["words"].pop()  # of the film itself
            assert told["correctable"] is correctable
            assert len(told["words"]) == len(words)
            for sentence, part in zip(told["words"], words, strict=True):
                assert part in sentence


def test_lse_stands_under_its_own_name_where_syncnet_is_and_else_why_it_is_not(tmp_path) -> None:
    plain = FakePipeline().result(tmp_path / "out.mp4", SampleOptions())
    (ours,) = view_state.tables(plain)
    assert ours["title"] == "By syncdiff-judge"
    assert [row[0] for row in ours["rows"]] == ["Confidence", "Distance", "Offset"]
    assert view_state.judges(plain)[-1] == NO_SYNCNET
    assert view_state.judges(plain, "It is being fetched.")[-1] == "It is being fetched."
    name = "SyncNet v2, LSE on face tracks"
    short = Scores(name, reason="not scorable: no face is followed for long enough")
    told = replace(
        plain,
        source_lse=(short,),
        result_lse=(Scores(name, 7.251, 7.5, 0), Scores(name, 6.1, 8.0, 1), short),
        lse_needs=None,
    )
    lse, ours = view_state.tables(told)
    assert lse["rows"][:2] == [
        ["LSE-C", "higher is better", "–", "7.25 · 6.10 · –"],
        ["LSE-D", "lower is better", "–", "7.50 · 8.00 · –"],
    ]
    assert view_state.judges(told)[-1] == f"{name}: {short.reason}."
    nothing = replace(plain, source_scores=said(None), result_scores=said(None))
    assert view_state.tables(nothing) == []
    assert view_state.judges(nothing)[-1] == NO_SYNCNET


def test_a_link_says_truly_what_it_holds_and_what_is_still_to_be_added() -> None:
    def both(settings: Settings) -> tuple[str, str]:
        ready = view_state.ready(settings)
        return view_state.what_is_shared(settings), f"{ready['title']} {ready['message']} {ready['todo']}"

    shared, opened = both(Settings())
    assert "settings only" in shared
    assert "Add a face and a voice" in opened
    shared, opened = both(Settings(None, "speaker-1"))  # made with a face of one's own
    assert "the example voice" in shared
    assert "Your face" in shared
    assert "Add a face, then" in opened
    assert "Speaker" not in opened  # there is none
    shared, opened = both(Settings("speaker-1", "speaker-1"))
    assert "the same video" in shared
    assert "Speaker 1, by the river" in opened
    assert "Add" not in opened


def test_a_lent_gpu_is_asked_for_by_what_the_run_will_do(tmp_path) -> None:
    short, long = (write_voice(tmp_path / f"{n}.wav", n) for n in (2.0, 20.0))
    film = write_video(tmp_path / "film.mp4", 8.0)  # read whole, though the voice be short
    photo, out = tmp_path / "face.png", tmp_path / "out.mp4"

    def asked(face, voice, **options) -> int:
        return gpu_seconds(face, voice, out, SampleOptions(**options))

    assert 15 < asked(photo, short) < asked(film, short) < asked(film, long) < 60
    assert asked(photo, long, correct_offset=True) > asked(photo, long) + 3
    assert asked(photo, long, steps=8) > asked(photo, long)
    assert asked(film, tmp_path / "no.wav") == 10


def test_a_sentence_comes_out_of_the_process_that_has_the_gpu(tmp_path) -> None:
    def borrow(duration):
        assert duration is gpu_seconds

        def decorated(run):  # as on ZeroGPU: another process, out of which values come but no exceptions
            def elsewhere(*asked):
                try:
                    for item in run(*pickle.loads(pickle.dumps(asked))):
                        yield pickle.loads(pickle.dumps(item))
                except Exception as error:  # noqa: BLE001 -- as it does
                    raise RuntimeError(type(error).__name__) from None

            return elsewhere

        return decorated

    asked = (tmp_path / "face.mp4", tmp_path / "voice.wav", tmp_path / "out.mp4", SampleOptions())
    *_, result = wrap_zero_gpu(FakePipeline(), borrow)(*asked)
    assert result.video == asked[2]
    with pytest.raises(InputError, match=str(bad_input())):
        list(wrap_zero_gpu(FakePipeline(error=bad_input()), borrow)(*asked))
    pipe = FakePipeline()
    items = wrap_zero_gpu(pipe, borrow)(*asked)
    next(items)
    items.close()
    assert not pipe.folders[0].exists()
