"""The smaller parts of the page: whose turn it is, how long it takes, what a link holds, what scores mean."""

import pickle
from dataclasses import replace

import pytest

from syncdiff.errors import InputError
from syncdiff.job import NO_SYNCNET
from syncdiff.options import SampleOptions
from syncdiff.results import Progress
from syncdiff.sync.scoring import Scores
from syncdiff.web import view_state, wrap_zero_gpu
from syncdiff.web.eta import Clock, Pace, estimate, in_words
from syncdiff.web.launch import gpu_seconds
from syncdiff.web.share_links import PRESETS, Settings, query, restored
from tests.browsing import write_voice
from tests.fakes import FakePipeline, bad_input, write_video


def test_the_clock_never_runs_backwards_and_finds_the_end() -> None:
    now = [0.0]
    stages = {"reading": 2.0, "finding the face": 5.0, "listening": 1.0, "drawing": 28.0, "scoring": 4.0}
    clock, fractions = Clock(stages, lambda: now[0]), []
    for stage, seconds in stages.items():
        for n in range(1, 11):
            now[0] += seconds / 10
            fraction, left = clock(Progress(stage, n, 10))
            fractions.append(fraction)
            assert left is None or left == pytest.approx(40 - now[0], abs=0.01)
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert clock(Progress("reading", 1, 10))[0] == pytest.approx(1.0)
    assert clock(Progress("a stage of tomorrow", 1, 10))[0] == pytest.approx(1.0)


def test_the_pace_learns_from_what_runs_really_take(tmp_path) -> None:
    pace, result = Pace(), FakePipeline(seconds=4.0).result(tmp_path / "out.mp4", SampleOptions(steps=2))
    assert pace.usual() is None
    two, best = SampleOptions(steps=2), SampleOptions(steps=8)
    guessed = pace.seconds(100, two)
    slow = {stage: 10 * seconds for stage, seconds in pace.stages(100, two).items()}
    for _ in range(12):
        pace.learn(replace(result, frames=100, seconds=slow))
    assert pace.seconds(100, two) == pytest.approx(10 * guessed, rel=0.01)
    assert pace.usual() == pytest.approx(sum(slow.values()))
    assert pace.seconds(100, best) > pace.seconds(100, two)
    both = replace(two, correct_offset=True)
    assert [*pace.stages(100, both)][2:5] == ["listening", "testing the offset", "drawing"]
    assert pace.stages(100, both)["testing the offset"] < pace.stages(100, two)["drawing"]
    assert (
        pace.stages(9_000, both)["testing the offset"] == pace.stages(18_000, both)["testing the offset"]
    )  # it hears the beginning


def test_the_estimate_is_as_long_as_the_longer_of_the_two() -> None:
    pace, usual = Pace(), SampleOptions()
    assert estimate(pace, 4.0, 10.0, usual) == estimate(pace, 0.0, 10.0, usual) == estimate(pace, 10.0, 4.0, usual)
    assert estimate(pace, None, 10.0, usual).startswith("10 s of video should take ")
    assert estimate(pace, 4.0, None, usual).startswith("Each second of voice takes ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2, "a few seconds"), (31, "about 30 s"), (58, "about 1 min"), (170, "about 3 min"), (5400, "about 1.5 h")],
)
def test_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings("malik", "malik", SampleOptions(2, 7)), "example=malik&preset=standard&seed=7"),
        (Settings("malik", "ines", SampleOptions(PRESETS["Best"])), "face=malik&voice=ines&preset=best&seed=0"),
        (Settings(None, None, SampleOptions(5, 3)), "steps=5&seed=3"),
        (Settings("tomas", None, SampleOptions(1)), "face=tomas&preset=draft&seed=0"),
        (Settings(options=SampleOptions(tail="trim")), "preset=standard&seed=0&tail=trim"),
        (
            Settings("ines", "ines", SampleOptions(correct_offset=True, label=False)),
            "example=ines&preset=standard&seed=0&correct=yes&label=no",
        ),
    ],
)
def test_a_link_brings_back_what_it_was_made_of(settings: Settings, text: str) -> None:
    assert query(settings) == text
    assert restored(dict(pair.split("=") for pair in text.split("&"))) == settings


def test_an_address_that_asks_for_nothing_restores_nothing() -> None:
    assert restored({}) is None
    assert restored({"__theme": "dark", "deep_link": "x"}) is None


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"example": "nobody"}, "asks for the example 'nobody': there is ines, malik or tomas"),
        ({"face": "../../etc/passwd"}, "asks for the example '../../etc/passwd'"),
        ({"voice": "<script>" * 20}, r"asks for the example '(<script>){5}\.\.\.'"),
        ({"preset": "turbo"}, "asks for the preset 'turbo': there is draft, standard or best"),
        ({"seed": "-1"}, "asks for seed '-1': give a whole number"),
        ({"seed": "9999999999"}, "The seed is 9999999999: choose 0 to"),
        ({"seed": "9" * 5000}, "give a whole number"),
        ({"steps": "0"}, "0 steps were asked for"),
        ({"steps": "²"}, "give a whole number"),
        ({"steps": ""}, "give a whole number"),
        ({"tail": "cut"}, "asks for the tail 'cut': there is keep or trim"),
        ({"label": "0"}, "asks for the label '0': there is yes or no"),
        ({"label": "<b>"}, "asks for the label '<b>': there is yes or no"),
    ],
)
def test_a_bad_link_gets_a_sentence(asked: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        restored(asked)


def said(confidence: float | None, offset: int = 0) -> Scores:
    if confidence is None:
        return Scores("syncdiff-judge", reason="not scorable: the voice is silent")
    return Scores("syncdiff-judge", confidence, 1.0, offset, steady=True)


@pytest.mark.parametrize(
    ("source", "now", "words"),
    [
        (said(0.30), said(0.28), "as closely as they followed the old one."),
        (said(0.30), said(0.20), "but more loosely than they followed the old one."),
        (said(0.30), said(0.10), "hardly follow the new voice"),
        (said(0.02), said(0.10), "Even in the original hardly any sync can be made out"),
        (said(None), said(0.20), "nothing to compare with, so the figures stand alone: the voice is silent."),
        (said(0.30), said(None), "cannot be told: the voice is silent."),
    ],
)
def test_the_scores_in_words(source: Scores, now: Scores, words: str) -> None:
    assert words in view_state.verdict(source, now)


@pytest.mark.parametrize(
    ("source", "now", "options", "earlier", "words", "correctable"),
    [
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
            ["as the model drew them, the lips came 160 ms l"],
            False,
        ),
        (said(0.30), said(0.29, 2), {"correct_offset": True}, 0, ["lips come 80 ms late.", "corrected once"], False),
        (said(0.30, -3), said(0.29), {}, 0, ["In the original the lips come 120 ms early. That does not carry"], False),
    ],
)
def test_an_offset_is_told_where_it_is_sure_and_offered_to_be_corrected(
    tmp_path, source, now, options, earlier, words, correctable
) -> None:
    plain = FakePipeline().result(tmp_path / "out.mp4", SampleOptions(**options))
    told = view_state.in_step(replace(plain, source_scores=source, result_scores=now, earlier_frames=earlier))
    assert told["correctable"] is correctable
    assert len(told["words"]) == len(words)
    for sentence, part in zip(told["words"], words, strict=True):
        assert part in sentence


def test_lse_stands_under_its_own_name_where_syncnet_is_and_else_how_to_get_it(tmp_path) -> None:
    plain = FakePipeline().result(tmp_path / "out.mp4", SampleOptions())
    assert [row[0] for row in view_state.table(plain)] == ["Confidence", "Distance", "Offset"]
    assert view_state.judges(plain)[-1] == NO_SYNCNET
    name = "SyncNet v2, LSE on face tracks"
    short = Scores(name, reason="not scorable: no face is followed for long enough")
    told = replace(
        plain,
        source_lse=(short,),
        result_lse=(Scores(name, 7.251, 7.5, 0), Scores(name, 6.1, 8.0, 1), short),
        lse_needs=None,
    )
    assert view_state.table(told)[3:] == [
        ("LSE-C", "higher is better", "–", "7.25 · 6.10 · –"),
        ("LSE-D", "lower is better", "–", "7.50 · 8.00 · –"),
    ]
    assert view_state.judges(told)[1:] == [f"LSE-C and LSE-D are by {name}.", f"{name}: {short.reason}."]
    nothing = replace(plain, source_scores=said(None), result_scores=said(None))
    assert view_state.table(nothing) == []
    assert view_state.judges(nothing) == [NO_SYNCNET]


def test_a_link_never_holds_a_visitors_file() -> None:
    told = view_state.what_is_shared(Settings())
    assert told == "The link holds the settings only. Your face and your voice and this video stay here."
    told = view_state.what_is_shared(Settings("ines", None))
    assert told == "The link holds the example and the settings. Your voice and this video stay here."
    assert "whoever opens it can make the same video" in view_state.what_is_shared(Settings("ines", "ines"))


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
