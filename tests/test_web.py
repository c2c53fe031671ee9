"""The page in a real browser, over a pipeline that keeps the contract and draws nothing."""

import json
import logging
import threading
import time
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from syncdiff.errors import InputError
from syncdiff.options import SampleOptions
from tests.browsing import (  # noqa: F401 -- fixtures
    SHOWN,
    apart,
    browser,
    files,
    fill,
    press,
    serve,
    sideways,
    times,
    visit,
    wait_for,
    write_voice,
)  # fmt: skip
from tests.fakes import FakePipeline, FakePreview, write_recording, write_video

ROOT = Path(__file__).resolve().parent.parent
# Calls of requestAnimationFrame within three frames, after the player was told ten times that it begins.
FRAMES_ASKED = """new Promise((done) => {
  const real = window.requestAnimationFrame;
  let asked = 0;
  for (let n = 0; n < 10; n++) document.querySelector('[data-part=result]').dispatchEvent(new Event('play'));
  window.requestAnimationFrame = (next) => (asked++, real(next));
  real(() => real(() => real(() => { window.requestAnimationFrame = real; done(asked); })));
})"""


@pytest.mark.browser
def test_original_and_result_play_in_step_and_can_be_looked_at(serve, visit, files) -> None:
    pipe = FakePipeline(seconds=6.0)
    tab = visit(serve(pipe))
    fill(tab, files)
    press(tab, "#run")
    assert pipe.calls[0][3] == SampleOptions()

    tab.click("[data-part=play]")
    assert wait_for(lambda: times(tab)[1] > 0.5)
    tab.evaluate("document.querySelector('[data-part=original]').currentTime = 0")  # whatever gets it out of step
    assert wait_for(lambda: apart(tab) < 0.1 and 0.5 < times(tab)[1] < 5.5)
    tab.click("[data-part=play]")
    assert wait_for(lambda: apart(tab) < 0.02)
    stopped = times(tab)
    time.sleep(0.3)
    assert times(tab) == stopped
    tab.locator("[data-part=seek]").fill("1.6")
    assert times(tab) == pytest.approx([1.6, 1.6], abs=0.05)

    tab.wait_for_selector("[data-part=chart]:not([hidden])")
    assert tab.locator(".curve").count() == 2
    left = tab.locator("[data-part=strip] .left")
    assert float(left.get_attribute("x")) == pytest.approx(400 / 6, abs=2)  # 0.4 s of 6 s, in thousandths
    strip = tab.locator("[data-part=strip]").bounding_box()
    for second, told in (
        (0.55, "the face is turned away"),
        (1.2, "1.2 s · redrawn, voice silent · "),
        (1.5, "1.5 s · redrawn · original "),
    ):
        tab.mouse.move(strip["x"] + second / 6 * strip["width"], strip["y"] + 3)
        assert told in tab.inner_text("[data-part=readout]")

    assert not tab.is_visible("[data-part=original]")  # the result comes first, and alone
    assert tab.locator("[data-part=result]").bounding_box()["width"] > 600
    tab.click("[data-part=over]")
    original, result = (tab.locator(f"[data-part={name}]").bounding_box() for name in ("original", "result"))
    assert original == pytest.approx(result, abs=1)
    tab.locator("[data-part=wipe]").fill("25")
    clip = "getComputedStyle(document.querySelector('[data-part=result]').parentElement).clipPath"
    assert tab.evaluate(clip) == "inset(0px 0px 0px 25%)"
    tab.click("[data-part=aside]")
    assert tab.evaluate(clip) == "none"
    heard = "['original', 'result'].filter((name) => !document.querySelector(`[data-part=${name}]`).muted)"
    for name in ("original", "result"):
        tab.select_option("[data-part=sound]", name)
        assert tab.evaluate(heard) == [name]
    tab.click("[data-part=full]")
    assert wait_for(lambda: tab.evaluate("document.fullscreenElement?.dataset.part") == "frame")
    tab.click("[data-part=full]")
    assert wait_for(lambda: tab.evaluate("document.fullscreenElement") is None)

    tab.select_option("[data-part=speed]", "0.5")
    tab.click("[data-part=loop]")
    tab.locator("[data-part=seek]").fill("5.8")
    tab.click("[data-part=play]")
    assert wait_for(lambda: 0.05 < times(tab)[1] < 5.5)  # it went on from the beginning
    assert tab.evaluate("document.querySelector('[data-part=result]').playbackRate") == 0.5
    # However often it began again, one frame asks for one next frame, and none where it has stopped.
    assert tab.evaluate(FRAMES_ASKED) < 10
    tab.click("[data-part=play]")
    assert wait_for(lambda: tab.evaluate(FRAMES_ASKED.replace("'play'", "'nothing'")) == 0)

    text = tab.inner_text(SHOWN.format("done"))
    assert "Sync: good." in text
    assert "3.20" not in text  # the figures are there for whoever asks
    tab.click(".view summary")
    text = tab.inner_text(SHOWN.format("done"))
    assert tab.locator(".scores tbody th").all_inner_texts()[0].startswith("Confidence")
    for words in ("3.20", "5.60", "sound 40 ms early", "syncdiff-judge", "runs forward and back", "LSE-C", "CPU"):
        assert words in text
    with tab.expect_download() as download:
        tab.click("[data-part=report]")
    report = json.loads(Path(download.value.path()).read_text())
    assert report["frames"] == 150
    assert "gradio" not in json.dumps(report)
    with tab.expect_download() as download:
        tab.click("[data-part=download]")
    assert Path(download.value.path()).read_bytes() == pipe.calls[0][2].read_bytes()
    with tab.expect_download() as download:
        tab.click("[data-part=compared]")
    with av.open(download.value.path()) as both:
        video = both.streams.video[0]
        assert (video.width, video.height) == (640, 180)
        assert both.streams.audio


@pytest.mark.browser
def test_progress_then_cancel_then_again_then_a_closed_tab(serve, visit, files, private_temp) -> None:
    pipe = FakePipeline(steps=24, pause=0.05)
    tab = visit(serve(pipe))
    fill(tab, files)
    tab.click("#run")
    tab.wait_for_selector("[data-part=preview]:not([hidden])")
    assert tab.inner_text("[data-part=stage]") == "Drawing"
    assert tab.inner_text("[data-part=percent]").endswith(" %")
    tab.wait_for_selector("[data-part=left]:has-text('left')")
    tab.click("#cancel")
    assert wait_for(lambda: not pipe.folders[0].exists())
    assert wait_for(lambda: tab.is_visible("#run"))
    assert wait_for(lambda: not list((private_temp / "gradio").glob("result-*")))
    assert pipe.finished == 0

    pipe.pause = 0.0
    before = tab.evaluate("seen.length")
    tab.dblclick("#run")  # one run, which the second click does not cancel
    tab.wait_for_function("(before) => seen.length > before && seen.at(-1) === 'done'", arg=before)
    assert pipe.finished == 1
    assert len(pipe.calls) == 2
    assert tab.is_visible("#run")
    assert not tab.is_visible("#cancel")

    pipe.steps, pipe.pause = 200, 0.05
    press(tab, "#run", "running")
    tab.close()  # which stops it too
    assert wait_for(lambda: not pipe.folders[-1].exists())
    assert pipe.finished == 1


@pytest.mark.browser
def test_errors_are_sentences(serve, visit, files, private_temp, caplog) -> None:
    pipe = FakePipeline(error=InputError("No face in <b>face.mp4</b> & none in sight."))
    tab = visit(serve(pipe))
    press(tab, "#run", "error")
    assert tab.locator("#face.wanted").count() == 1

    tab.set_input_files("#face input[type=file]", __file__)
    tab.wait_for_selector(".toast-body")
    assert "video/" not in tab.inner_text(".toast-body")  # gradio's list of MIME types

    fill(tab, files)
    press(tab, "#run", "error")
    sentence = "No face in <b>face.mp4</b> & none in sight."
    assert tab.inner_text("[data-part=message]") == sentence
    assert tab.locator(".view, .toast-body").filter(has_text=sentence).count() == 1  # said once
    assert tab.is_visible(".offered button")
    for steps in ("0", "-3", "99", ""):  # answered with a sentence, or with the nearest or usual number
        tab.fill("#steps input[type=number]", steps)
        press(tab, "#run", "error")
        said = tab.inner_text(SHOWN.format("error") + " [data-part=message]")
        assert "steps" in said or said == sentence

    pipe.error = RuntimeError("a secret of the server")
    with caplog.at_level(logging.ERROR):
        press(tab, "#run", "error")
    assert "a secret of the server" in caplog.text
    assert "secret" not in tab.content()
    assert tab.is_visible("#run")
    assert not any(folder.exists() for folder in pipe.folders)
    assert not list((private_temp / "gradio").glob("result-*"))


@pytest.mark.browser
def test_all_is_in_sight_whatever_was_given_and_a_face_can_be_trimmed(serve, visit, files, tmp_path) -> None:
    pipe = FakePipeline()
    url = serve(pipe, FakePreview(people=3))
    tab = visit(url, motion="no-preference")
    clips = "[...document.querySelectorAll('.offered video')].map((v) => v.muted && !v.paused && v.currentTime > 0)"
    assert wait_for(lambda: tab.evaluate(clips) == [True] * 3)  # before any click
    tab.evaluate("document.querySelectorAll('.offered video').forEach((v) => v.pause())")
    for given in (False, True):
        if given:
            fill(tab, files)
            tab.wait_for_selector("[aria-pressed]:has-text('Face 3')")
            tab.evaluate("scrollTo(0, 0)")
        for width, height in ((1366, 768), (390, 844), (1280, 900)):
            tab.set_viewport_size({"width": width, "height": height})
            if not given:
                assert all(example.is_visible() for example in tab.locator(".offered button").all())
            consent, box = (tab.locator(part).bounding_box() for part in ("#agreed", "#run"))
            assert consent["y"] + consent["height"] <= box["y"]  # the tick is not under the button
            assert box["y"] + box["height"] <= height
    steps, bar = (tab.locator(part).bounding_box() for part in ("#steps", "#begin"))
    assert steps["y"] + steps["height"] <= bar["y"]  # nor the slider, where all fits

    tab.click("#face [aria-label='Trim video to selection']")
    tab.wait_for_selector("#face button:has-text('Trim')")
    face, cut = (tab.locator(part).bounding_box() for part in ("#face", "#face button:has-text('Trim')"))
    assert cut["y"] + cut["height"] <= face["y"] + face["height"]
    end = tab.locator("#face .handle.right").bounding_box()
    tab.mouse.move(end["x"] + 1, end["y"] + 10)
    tab.mouse.down()
    tab.mouse.move(face["x"] + face["width"] / 2, end["y"] + 10, steps=3)
    tab.mouse.up()
    tab.click("#face button:has-text('Trim')")
    press(tab, "#run")  # which waits for what is being cut
    with av.open(str(pipe.calls[0][0])) as container:
        assert 0.5 < container.duration / 1e6 < 1.5  # of 2 s

    # A recording without a length, as browsers make them: there is no time to show, until all of it was read.
    tab.click("#face [aria-label='Clear']")
    tab.evaluate("""() => {
        window.times = [];
        const look = () => {  // at what is painted
            const time = document.querySelector("#face .time");
            if (time && getComputedStyle(time).visibility === "visible") times.push(time.textContent);
            requestAnimationFrame(look);
        };
        look();
    }""")
    tab.set_input_files("#face input[type=file]", str(write_recording(tmp_path / "recording.webm")))
    tab.wait_for_selector("#face video[data-timed]")
    assert wait_for(lambda: tab.evaluate("times.length > 0"))
    assert not [told for told in tab.evaluate("times") if "NaN" in told]

    head = httpx.get(url).text
    assert head.count("og:title") == 1  # what another site shows for a link to the page
    picture = head.split('og:image" content="')[1].split('"')[0]
    assert httpx.get(picture).headers["content-type"] == "image/jpeg"


@pytest.mark.browser
def test_whoever_presses_before_the_files_are_there_is_not_sent_away(serve, visit, files) -> None:
    pipe, held = FakePipeline(), []
    visit.expected += ["Failed to load resource: the server responded with a status of 404 (Not Found)", "Response"]
    tab = visit(serve(pipe))

    def hold(route) -> None:  # playwright takes no builtin
        held.append(route)

    press(tab, "#run", "error")
    tab.route("**/gradio_api/upload?**", hold)  # (gradio asks how far it is, and is told 404)
    tab.set_input_files("#face input[type=file]", str(files.face))
    tab.set_input_files("#voice input[type=file]", str(files.voice))
    tab.check("#agreed input")
    for _ in range(2):  # again after Cancel: one run comes of it
        press(tab, "#run", "waiting")
        tab.click("#cancel")
        assert wait_for(lambda: tab.is_visible("#run"))
    press(tab, "#run", "waiting")
    assert tab.inner_text("[data-part=turn]")  # what is waited for
    for upload in held:
        upload.continue_()
    tab.wait_for_selector(SHOWN.format("done"))
    assert len(pipe.calls) == 1


@pytest.mark.browser
def test_what_is_missing_is_pointed_at_and_what_is_turned_is_told_and_done(serve, visit, files) -> None:
    pipe = FakePipeline()
    tab = visit(serve(pipe))
    for missing, give in (
        ("#face", lambda: tab.locator(".pick-row >> text=Speaker 1").click()),
        ("#voice", lambda: tab.set_input_files("#voice input[type=file]", str(files.voice))),
        ("#agreed", lambda: tab.check("#agreed input")),
    ):
        press(tab, "#run", "error")
        assert tab.locator(".wanted").count() == 1
        assert tab.locator(f"{missing}.wanted").count() == 1
        if missing == "#agreed":
            tab.wait_for_function("document.activeElement.closest('#agreed') !== null")
        give()
        tab.wait_for_selector(SHOWN.format("error"), state="hidden")
        assert tab.locator(".wanted").count() == 0

    before = tab.inner_text("#preset")  # the costs follow the files, and the slider its marks
    tab.locator(".pick-row >> text=By the river").click()
    assert wait_for(lambda: tab.inner_text("#preset") != before)
    tab.locator("#preset >> text=Slow").click()
    assert wait_for(lambda: tab.input_value("#steps input[type=number]") == "4")
    tab.fill("#steps input[type=number]", "1")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#preset [aria-pressed=true]:has-text('Standard')")

    tab.click("#advanced button")
    assert tab.is_checked("#label input")
    assert not tab.is_visible("#unlabelled")
    tab.uncheck("#label input")
    tab.wait_for_selector("#unlabelled")
    press(tab, "#run", "error")  # the label goes only with a promise, and the page says so
    assert tab.locator("#unlabelled.wanted").count() == 1
    assert pipe.calls == []
    tab.check("#unlabelled input")
    tab.click("#random")
    press(tab, "#run")
    assert not pipe.calls[0][3].label
    assert pipe.calls[0][3].seed > 0


@pytest.mark.browser
def test_a_finished_result_outlives_a_cancelled_run_and_a_reload(serve, visit) -> None:
    pipe = FakePipeline()
    visit.expected += ["AbortError", "Unexpected error Connection errored out."]  # gradio says so at a reload
    tab = visit(serve(pipe))
    press(tab, ".offered button >> nth=0")
    first = tab.get_attribute("[data-part=result]", "src")
    assert not tab.is_visible("[data-part=against]")  # there is no other yet
    tab.locator(".picks >> text=Slow").click()
    press(tab, "#run")
    assert tab.locator(".past button").count() == 2
    tab.select_option("[data-part=against]", first)  # result against result
    assert tab.get_attribute("[data-part=original]", "src") == first
    assert tab.is_visible("[data-part=original]")
    pipe.steps, pipe.pause = 200, 0.05
    press(tab, "#run", "running")
    press(tab, ".past button >> nth=1")  # looked at while the next one is made
    time.sleep(0.5)
    assert tab.get_attribute("[data-part=result]", "src") == first
    tab.click("#cancel")
    assert wait_for(lambda: tab.is_visible("#run") and tab.is_visible(SHOWN.format("done")))
    tab.reload()
    tab.wait_for_selector(SHOWN.format("done"))
    assert tab.locator(".past button").count() == 2
    assert wait_for(lambda: tab.evaluate("document.querySelector('[data-part=result]').videoWidth") == 320)
    assert len(pipe.calls) == 3


@pytest.mark.browser
def test_what_was_chosen_last_stays_however_late_an_answer_comes(serve, visit, files, tmp_path) -> None:
    pipe, look, held = FakePipeline(), FakePreview(people=3), []
    visit.expected += ["Failed to load resource: the server responded with a status of 404 (Not Found)", "Response"]
    tab = visit(serve(pipe, look))
    # a face chosen while the file is looked at again, as after every upload of gradio's
    fill(tab, files)
    tab.wait_for_selector("[aria-pressed=true]:has-text('Face 1')")
    tab.get_by_text("Face 3").click()
    time.sleep(1.0)
    assert tab.is_visible("[aria-pressed=true]:has-text('Face 3')")
    assert len(look.looked) == 1
    # another file, whose faces are found late: those of the old one are gone at once
    look.free.clear()
    other = write_video(tmp_path / "other.mp4", colour=(90, 90, 90))
    tab.click("#face [aria-label='Clear']")
    tab.set_input_files("#face input[type=file]", str(other))
    assert wait_for(lambda: not tab.get_by_text("Face 3").is_visible())
    # an example picked while the faces of the other file are still looked for
    tab.locator(".pick-row >> text=Speaker 2").click()
    assert wait_for(lambda: not tab.evaluate("coming()"))
    look.free.set()
    assert wait_for(lambda: len(look.looked) == 2)
    time.sleep(0.5)
    assert not tab.get_by_text("Face 3").is_visible()

    # an example picked during an upload
    def hold(route) -> None:
        held.append(route)

    tab.click("#face [aria-label='Clear']")
    tab.route("**/gradio_api/upload?**", hold)
    tab.set_input_files("#face input[type=file]", str(other))
    assert wait_for(lambda: tab.evaluate("coming()") and len(held) == 1)
    tab.locator(".pick-row >> text=Speaker 3").click()
    held[0].continue_()
    assert wait_for(lambda: not tab.evaluate("coming()"))
    press(tab, "#run")
    assert [call[0].name for call in pipe.calls] == ["speaker-3.mp4"]


@pytest.mark.browser
def test_a_voice_from_the_microphone_and_lips_that_come_late_are_corrected_with_one_click(serve, visit, files) -> None:
    pipe = FakePipeline()
    tab = visit(serve(pipe))
    tab.set_input_files("#face input[type=file]", str(files.face))
    tab.check("#agreed input")
    tab.get_by_label("Record audio").click()
    tab.locator("#voice").get_by_role("button", name="Record", exact=True).click()
    time.sleep(1.2)
    tab.locator("#voice").get_by_role("button", name="Stop", exact=True).click()
    tab.wait_for_selector("#voice #waveform")
    press(tab, "#run")
    recorded, rate = soundfile.read(pipe.calls[0][1])
    assert len(recorded) / rate > 0.5
    assert np.abs(recorded).max() > 0.01

    pipe.offset = 4
    press(tab, "#run")
    assert "160 ms late" in tab.inner_text("[data-part=offset]")
    press(tab, "[data-part=correct]")
    assert "160 ms late" in tab.inner_text("[data-part=offset]")  # before it was corrected
    assert [call[3].correct_offset for call in pipe.calls] == [False, False, True]
    assert not tab.is_visible("[data-part=correct]")
    assert tab.input_value("[data-part=link]").endswith("&correct=yes")
    tab.click("#advanced button")
    assert tab.is_checked("#correct input")  # and can be turned off again


@pytest.mark.browser
def test_on_a_phone_a_photo_takes_the_place_of_the_video_and_the_result_is_handed_on(
    serve, visit, files, tmp_path
) -> None:
    pipe = FakePipeline()
    visit.expected += ["AbortError", "Unexpected error Connection errored out."]  # gradio says so at a reload
    tab = visit(serve(pipe), width=390, height=844)
    assert sideways(tab) == 0
    fill(tab, files)
    tab.get_by_role("tab", name="photo").click()
    photo = tmp_path / "face.png"
    Image.new("RGB", (64, 64)).save(photo)
    tab.set_input_files("#photo input[type=file]", str(photo))
    tab.wait_for_selector("#photo img")
    press(tab, "#run")
    assert pipe.calls[0][0].suffix == ".png"
    assert sideways(tab) == 0
    assert not tab.is_visible("[data-part=send]")
    tab.add_init_script("""
        navigator.canShare = () => true;
        navigator.share = async ({ files }) => { window.handed = [files[0].name, files[0].type, files[0].size]; };
    """)
    tab.reload()  # the result stays
    tab.click("[data-part=send]")
    assert wait_for(lambda: tab.evaluate("window.handed") is not None)
    assert tab.evaluate("window.handed") == ["syncdiff.mp4", "video/mp4", pipe.calls[0][2].stat().st_size]


@pytest.mark.browser
def test_whoever_comes_second_is_told_so_and_is_next(serve, visit) -> None:
    pipe = FakePipeline(steps=200, pause=0.05)
    url = serve(pipe)
    first, second = visit(url), visit(url)
    first.locator(".offered button").first.click()
    first.wait_for_selector(SHOWN.format("running"))
    second.locator(".offered button").nth(1).click()
    second.wait_for_function("/ahead/.test(document.querySelector('[data-part=turn]').textContent)")
    pipe.pause = 0.0
    first.click("#cancel")
    second.wait_for_selector(SHOWN.format("done"))
    assert [path.name for path in (call[0] for call in pipe.calls)] == ["speaker-1.mp4", "speaker-2.mp4"]
    assert wait_for(lambda: first.is_visible("#run"))


@pytest.mark.browser
def test_a_full_queue_is_said_a_slow_trial_takes_nothing_away_and_any_video_can_be_checked(
    serve, visit, files, tmp_path, monkeypatch
) -> None:
    pipe, look = FakePipeline(), FakePreview()
    tab = visit(serve(pipe, look))
    visit.expected.append("Failed to load resource: the server responded with a status of 503 (Service Unavailable)")
    serve.opened[-1]._queue.max_size = 0  # as if as many as it can hold were there
    for button in (".offered button >> nth=0", "#test"):
        press(tab, button, "error")
        assert "once more" in tab.inner_text("[data-part=message]")
        assert tab.is_visible("#run")
    serve.opened[-1]._queue.max_size = None

    look.free.clear()
    tab.click("#test")
    assert wait_for(lambda: len(look.tried) == 1)
    press(tab, "#run")
    look.free.set()
    tab.click("#test")  # one at a time: when this one is seen, the first is long over
    tab.wait_for_selector(SHOWN.format("trial"))
    states = tab.evaluate("window.seen")
    assert states[states.index("done") :] == ["done", "looking", "trial"]
    press(tab, ".past button")
    assert len(pipe.calls) == 1

    # any video can be checked, and no verdict stands under another
    tab.get_by_role("tab", name="Check a video").click()
    tab.set_input_files("#suspect input[type=file]", str(files.face))
    tab.wait_for_selector("#found li >> nth=2")
    assert tab.locator("#found li").count() == 3  # label, mark, note
    assert len(tab.inner_text("#found h2")) > 20
    tab.click("#suspect [aria-label='Clear']")
    assert wait_for(lambda: not tab.is_visible("#found h2"))
    ended = threading.Event()

    def endless(_video):
        try:
            while True:
                yield 0.5
                time.sleep(0.05)
        finally:
            ended.set()

    monkeypatch.setattr("syncdiff.web.verify_tab.verifying", endless)
    tab.set_input_files("#suspect input[type=file]", str(write_video(tmp_path / "other.mp4")))
    tab.wait_for_selector("#found h2:has-text('Looking … 50 %')")
    tab.close()
    assert wait_for(ended.is_set)  # else its place in the line of checks would be lost
