"""What the tests of the page share: a page over a pipeline that draws nothing, a real browser, files, ways to wait."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import soundfile

from syncdiff import web
from tests.fakes import FakePipeline, FakePreview, write_video

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
         "--use-fake-ui-for-media-stream"]  # fmt: skip
SHOWN = "[data-state={}]:not([hidden])"
# Notes every state that the view shows, in order: one that is shown again is another entry.
STATES_SEEN = """
window.seen = [];
new MutationObserver(() => {
  const now = document.querySelector(".view [data-state]:not([hidden])")?.dataset.state ?? "none";
  if (now !== seen.at(-1)) seen.push(now);
}).observe(document, { attributes: true, childList: true, subtree: true, attributeFilter: ["hidden"] });
"""


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
def serve() -> Iterator[Callable[..., str]]:
    """Opens the page over a pipeline, as app.py does, and gives its address."""
    opened: list[gr.Blocks] = []

    def start(pipe: FakePipeline, look: FakePreview | None = None, **options) -> str:
        blocks = web.build_page(pipe, look or FakePreview())
        opened.append(blocks)
        told = web.launch_options() | {"server_port": None} | options
        return blocks.launch(prevent_thread_lock=True, quiet=True, **told)[1]

    start.opened = opened
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

    def open_page(
        url: str, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "reduce"
    ):  # three clips that play all the time would be the most of a test's work
        context = browser.new_context(
            viewport={"width": width, "height": height},
            permissions=["microphone", "clipboard-read", "clipboard-write"],
            color_scheme=scheme,
            reduced_motion=motion,
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        tab = context.new_page()
        tab.add_init_script(STATES_SEEN)
        tab.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
        tab.on("pageerror", lambda error: broken.append(str(error)))
        tab.on("console", lambda message: broken.append(message.text) if message.type == "error" else None)
        tab.goto(url)
        tab.wait_for_selector("#run")
        return tab

    open_page.expected = []  # how what may stand in the console begins
    yield open_page
    for tab in [tab for context in contexts for tab in context.pages]:
        tab.evaluate("0")  # what it has said until now arrives first
    errors = [message for message in broken if not message.startswith(tuple(open_page.expected))]
    for context in contexts:  # from here on requests that are still open fail, and say so
        context.close()
    assert hosts - {"127.0.0.1", ""} == set()
    assert errors == [], errors


def fill(tab, files: SimpleNamespace) -> None:
    """Give a face and a voice, and say that both agreed."""
    tab.set_input_files("#face input[type=file]", str(files.face))
    tab.set_input_files("#voice input[type=file]", str(files.voice))
    tab.wait_for_selector("#face video")
    tab.wait_for_selector("#voice .timestamps, #voice #waveform")
    tab.check("#agreed input")


def press(tab, button: str, then: str = "done") -> None:
    """Click, and wait until the view shows the state `then` because of it: an older one of that name is not enough."""
    before = tab.evaluate("seen.length")
    tab.click(button)
    tab.wait_for_function("([before, then]) => seen.length > before && seen.at(-1) === then", arg=[before, then])


def times(tab) -> list[float]:
    """Seconds at which the original and the result are."""
    return tab.evaluate(
        "['original', 'result'].map((name) => document.querySelector(`[data-part=${name}]`).currentTime)"
    )


def apart(tab) -> float:
    """Seconds between what the two videos show."""
    original, result = times(tab)
    return abs(original - result)


def sideways(tab) -> int:
    """Pixels by which the page is wider than the screen."""
    return tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
