"""The page in a real browser, over a pipeline that keeps the contract and draws nothing."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file

from syncdiff import page
from syncdiff.media import LIMITS, InputError
from syncdiff.pipeline import Progress, SampleOptions
from syncdiff.weights import COMPACT
from tests.fakes import FakePipeline, write_video

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
         "--use-fake-ui-for-media-stream"]  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
SHOWN = "[data-state={}]:not([hidden])"


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def write_voice(path: Path, seconds: float = 1.5) -> Path:
    t = np.arange(round(seconds * 48000)) / 48000
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * 180 * t)).astype(np.float32), 48000)
    return path


@pytest.fixture
def files(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(face=write_video(tmp_path / "face.mp4"), voice=write_voice(tmp_path / "voice.wav"))


@pytest.fixture
def serve() -> Iterator[Callable[[FakePipeline], str]]:
    """Opens the page over a pipeline, as app.py does, and gives its address."""
    opened: list[gr.Blocks] = []

    def start(pipe: FakePipeline) -> str:
        blocks = page.build_page(pipe)
        opened.append(blocks)
        return blocks.launch(prevent_thread_lock=True, quiet=True, **page.launch_options() | {"server_port": None})[1]

    yield start
    for blocks in opened:
        blocks.close(verbose=False)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    from playwright.sync_api import sync_playwright

    microphone = write_voice(tmp_path_factory.mktemp("microphone") / "voice.wav", 5.0)
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={microphone}"]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """Opens an address in a fresh browser profile; fails the test if the page called a foreign host or broke."""
    contexts, hosts, broken = [], set(), []

    def open_page(url: str, width: int = 1280, height: int = 900):
        context = browser.new_context(viewport={"width": width, "height": height}, permissions=["microphone"])
        context.set_default_timeout(40_000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
        tab.on("pageerror", lambda error: broken.append(str(error)))
        tab.on("console", lambda message: broken.append(message.text) if message.type == "error" else None)
        tab.goto(url)
        tab.wait_for_selector("#run")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert hosts - {"127.0.0.1", ""} == set()
    assert broken == []


def fill(tab, files: SimpleNamespace) -> None:
    tab.set_input_files("#face input[type=file]", str(files.face))
    tab.set_input_files("#voice input[type=file]", str(files.voice))
    tab.wait_for_selector("#face video")
    tab.wait_for_selector("#voice .timestamps, #voice #waveform")


def times(tab) -> list[float]:
    return tab.evaluate("[...document.querySelectorAll('.view video')].map(v => v.currentTime)")


def apart(tab) -> float:
    """Seconds between what the two videos show."""
    original, result = times(tab)
    return abs(original - result)


def sideways(tab) -> int:
    """Pixels by which the page is wider than the screen."""
    return tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.browser
def test_original_and_result_play_in_step(serve, visit, files) -> None:
    pipe = FakePipeline(seconds=6.0)
    tab = visit(serve(pipe))
    fill(tab, files)
    tab.click("#run")
    tab.wait_for_selector(SHOWN.format("done"))
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

    text = tab.inner_text(SHOWN.format("done"))
    for words in ("3.20", "5.60", "80 ms, sound early", "syncdiff-judge", "0.4 to 0.7 s", "runs forward and back"):
        assert words in text
    assert "LSE" not in text
    assert tab.locator(".curve").count() == 2
    with tab.expect_download() as download:
        tab.click("[data-part=download]")
    assert Path(download.value.path()).read_bytes() == pipe.calls[0][2].read_bytes()


@pytest.mark.browser
def test_progress_then_cancel_then_again(serve, visit, files, private_temp) -> None:
    pipe = FakePipeline(steps=24, pause=0.05)
    tab = visit(serve(pipe))
    fill(tab, files)
    tab.click("#run")
    tab.wait_for_selector("[data-part=preview]:not([hidden])")
    assert tab.inner_text("[data-part=stage]") == "Drawing"
    assert tab.inner_text("[data-part=percent]").endswith(" %")
    tab.wait_for_selector("[data-part=left]:has-text('left')")
    tab.click("#cancel")
    assert wait_for(lambda: not pipe.folders[0].exists(), 1.0)
    tab.wait_for_selector(SHOWN.format("empty"))
    assert not list((private_temp / "gradio").glob("result-*"))
    assert pipe.finished == 0

    pipe.pause = 0.0
    tab.click("#run")
    tab.wait_for_selector(SHOWN.format("done"))
    assert pipe.finished == 1
    assert tab.is_visible("#run")
    assert not tab.is_visible("#cancel")


@pytest.mark.browser
def test_an_example_runs_with_one_click(serve, visit, tmp_path, monkeypatch) -> None:
    write_video(tmp_path / "head.mp4")
    write_voice(tmp_path / "words.wav")
    listed = [{"label": "A head that says words", "face": "head.mp4", "voice": "words.wav"}]
    (tmp_path / "examples.json").write_text(json.dumps(listed))
    monkeypatch.setattr(page, "EXAMPLES", tmp_path)
    pipe = FakePipeline()
    tab = visit(serve(pipe))
    tab.get_by_text("A head that says words").click()
    tab.wait_for_selector(SHOWN.format("done"))
    assert [path.name for path in pipe.calls[0][:2]] == ["head.mp4", "words.wav"]


@pytest.mark.browser
def test_a_closed_tab_stops_its_run(serve, visit, files) -> None:
    pipe = FakePipeline(steps=200, pause=0.05)
    tab = visit(serve(pipe))
    fill(tab, files)
    tab.click("#run")
    tab.wait_for_selector(SHOWN.format("running"))
    tab.close()
    assert wait_for(lambda: not pipe.folders[0].exists(), 5.0)
    assert pipe.finished == 0


@pytest.mark.browser
def test_errors_are_sentences(serve, visit, files, private_temp, caplog) -> None:
    pipe = FakePipeline(error=InputError("No face in <b>face.mp4</b> & none in sight."))
    tab = visit(serve(pipe))
    tab.click("#run")
    tab.wait_for_selector("[data-part=message]:has-text('add a video or a photo')")

    fill(tab, files)
    tab.click("#run")
    sentence = "No face in <b>face.mp4</b> & none in sight."
    tab.get_by_test_id("toast-body").filter(has_text=sentence).wait_for()
    assert tab.inner_text("[data-part=message]") == sentence

    pipe.error = RuntimeError("a secret of the server")
    with caplog.at_level(logging.ERROR):
        tab.click("#run")
        tab.wait_for_selector("[data-part=message]:has-text('on our side')")
    assert "a secret of the server" in caplog.text
    assert "secret" not in tab.content()
    assert tab.is_visible("#run")
    assert not any(folder.exists() for folder in pipe.folders)
    assert not list((private_temp / "gradio").glob("result-*"))


@pytest.mark.browser
def test_voice_from_the_microphone(serve, visit, files) -> None:
    pipe = FakePipeline()
    tab = visit(serve(pipe))
    tab.set_input_files("#face input[type=file]", str(files.face))
    tab.get_by_label("Record audio").click()
    tab.locator("#voice").get_by_role("button", name="Record", exact=True).click()
    time.sleep(1.2)
    tab.locator("#voice").get_by_role("button", name="Stop", exact=True).click()
    tab.wait_for_selector("#voice #waveform")
    tab.click("#run")
    tab.wait_for_selector(SHOWN.format("done"))
    recorded, rate = soundfile.read(pipe.calls[0][1])
    assert len(recorded) / rate > 0.5
    assert np.abs(recorded).max() > 0.01


@pytest.mark.browser
def test_a_photo_takes_the_place_of_the_video_on_a_phone(serve, visit, files, tmp_path) -> None:
    pipe = FakePipeline()
    tab = visit(serve(pipe), width=390, height=844)
    assert sideways(tab) == 0
    fill(tab, files)
    tab.get_by_role("tab", name="photo").click()
    photo = tmp_path / "face.png"
    page.Image.new("RGB", (64, 64)).save(photo)
    tab.set_input_files("#photo input[type=file]", str(photo))
    tab.wait_for_selector("#photo img")
    tab.click("#run")
    tab.wait_for_selector(SHOWN.format("done"))
    assert pipe.calls[0][0].suffix == ".png"
    assert sideways(tab) == 0


def test_the_endpoint_answers_a_program(serve, files, tmp_path) -> None:
    pipe = FakePipeline()
    client = Client(serve(pipe), verbose=False, download_files=tmp_path / "downloads")
    video, report = client.predict(handle_file(files.face), handle_file(files.voice), 2, 7, api_name="/sync")
    assert Path(video).read_bytes() == pipe.calls[0][2].read_bytes()
    assert report["frames"] == 50
    assert "gradio" not in json.dumps(report)  # the server's folders are nobody's business
    assert pipe.calls[0][3] == SampleOptions(steps=2, seed=7)
    client.predict(handle_file(files.face), handle_file(files.voice), None, None, api_name="/sync")
    assert pipe.calls[1][3] == SampleOptions()

    pipe.error = InputError("The voice lasts 0.1 s; it needs 0.3 s.")
    with pytest.raises(Exception, match=r"The voice lasts 0\.1 s; it needs 0\.3 s\."):
        client.predict(handle_file(files.face), handle_file(files.voice), 2, 7, api_name="/sync")


def test_a_program_can_cancel(serve, files) -> None:
    pipe = FakePipeline(steps=200, pause=0.05)
    job = Client(serve(pipe), verbose=False).submit(
        handle_file(files.face), handle_file(files.voice), 2, 7, api_name="/sync"
    )
    assert wait_for(lambda: len(pipe.folders) == 1)
    job.cancel()
    assert wait_for(lambda: not pipe.folders[0].exists(), 2.0)


def test_no_foreign_file_gets_in_or_out(serve, tmp_path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    pipe = FakePipeline()
    url = serve(pipe)
    assert httpx.get(f"{url}gradio_api/file={secret}").status_code == 403
    named = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{url}gradio_api/call/sync", json={"data": [named, named, 4, 0]}).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/sync/{event}").text
    assert "event: error" in answer
    assert pipe.calls == []


def test_recordings_from_a_webcam_only_where_gradio_can_treat_them(monkeypatch) -> None:
    for tools, sources in ((("ffmpeg", "ffprobe"), ["upload", "webcam"]), (("ffmpeg",), ["upload"]), ((), ["upload"])):
        monkeypatch.setattr(page.shutil, "which", lambda name, tools=tools: name if name in tools else None)
        videos = [block for block in page.build_page(FakePipeline()).blocks.values() if isinstance(block, gr.Video)]
        assert [video.sources for video in videos] == [sources]
        assert [video.format for video in videos] == [None]  # else gradio's ffmpeg reads the raw upload first


def test_limits_stand_on_the_page_and_at_the_door() -> None:
    assert f"{LIMITS.bytes / 2**20:.0f} MB" in page.limits()
    assert f"{LIMITS.seconds / 60:.0f} minutes" in page.limits()
    options = page.launch_options()
    assert options["max_file_size"] == LIMITS.bytes
    assert not options["share"]
    assert not options["show_error"]


@pytest.mark.weights
@pytest.mark.skipif(not (COMPACT / "model_index.json").exists(), reason="no shipped weights: app.py was NOT started")
def test_app_opens_the_page_and_takes_its_folder_with_it(private_temp) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    environment.pop("GRADIO_TEMP_DIR", None)
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment)
    try:

        def up() -> bool:
            assert app.poll() is None, "app.py ended by itself"
            try:
                return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
            except httpx.TransportError:
                return False

        assert wait_for(up, 180.0)
        assert list(private_temp.glob("syncdiff-*"))
        app.terminate()
        app.wait(60)
        assert not list(private_temp.glob("syncdiff-*"))
    finally:
        app.kill()
        app.wait()


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, ("127.0.0.1", 7860)),
        ({"GRADIO_SERVER_PORT": "9000"}, ("127.0.0.1", 9000)),
        ({"SPACE_ID": "somebody/syncdiff"}, ("0.0.0.0", 7860)),
        ({"SPACE_ID": "somebody/syncdiff", "GRADIO_SERVER_NAME": "10.0.0.1"}, ("10.0.0.1", 7860)),
    ],
)
def test_only_this_machine_is_served_except_on_a_space(monkeypatch, environment, address) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = page.launch_options()
    assert (options["server_name"], options["server_port"]) == address


def test_the_clock_never_runs_backwards_and_finds_the_end() -> None:
    now = [0.0]
    clock = page.Clock(lambda: now[0])
    fractions = []
    for stage, share in page.SHARES.items():
        for n in range(1, 11):
            now[0] += share * 4.0  # 40 s in all, spread as SHARES has it
            fraction, left = clock(Progress(stage, n, 10, None))
            fractions.append(fraction)
            assert left is None or left == pytest.approx(40 - now[0], abs=0.01)
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert clock(Progress("reading", 1, 10, None))[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (2, "a few seconds left"),
        (31, "about 30 s left"),
        (58, "about 1 min left"),
        (170, "about 3 min left"),
    ],
)
def test_time_left_in_words(seconds: float | None, words: str) -> None:
    assert page.in_words(seconds) == words
