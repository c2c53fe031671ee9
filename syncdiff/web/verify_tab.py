"""The second tab: label, watermark and manifest of any video, by `syncdiff.provenance`."""

import time
from collections.abc import Iterator
from html import unescape
from typing import Any

import gradio as gr

from syncdiff.errors import InputError
from syncdiff.progress import adapted
from syncdiff.provenance.verify import verify as verify_file
from syncdiff.provenance.verify import verifying
from syncdiff.web.components import PAGE, video_slot
from syncdiff.web.jobs import POLL_SECONDS, errors_as_sentences, in_turn, visitor_of
from syncdiff.web.queue import Queue

WHAT = (
    "Was a video's mouth redrawn here? Give any video to look for the visible label, the invisible mark in the mouth, "
    "and the signed note in the file."
)
CHECK_QUEUE = Queue(12, 2, 4, "videos being checked")


def build_verify_tab() -> None:
    """Build the tab. A video is checked as soon as it is uploaded."""
    with gr.Column(elem_id="check"):
        gr.HTML(f"<p>{WHAT}</p>")
        video = video_slot("Video to check", "suspect")
        answer = gr.HTML(
            {"of": None}, html_template='<div class="view"></div>', js_on_load=(PAGE / "check.js").read_text(),
            apply_default_css=False, elem_id="found",
        )  # fmt: skip
    key = gr.Textbox(visible=False)
    # The browser stores at once which video is meant, and drops answers about another.
    begun = video.change(None, video, [answer, key], js=BEGIN, api_visibility="private", trigger_mode="multiple")
    begun.then(
        check, [video, key], answer, concurrency_id="checks", concurrency_limit=None, trigger_mode="multiple",
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip


BEGIN = """(video) => {
  const of = (window.suspect = video?.path ?? video?.video?.path ?? null);
  return [{ of, title: of ? "Looking …" : "", sentences: [] }, of];
}"""


def check(video: str | None, key: str | None, request: gr.Request) -> Iterator[dict[str, Any]]:
    """Cards with the progress, then one with the outcome. key: the browser's path of the video."""
    yield gr.skip()  # before anything is held: see `api.add_endpoints`
    if video is None:
        return
    try:
        with errors_as_sentences(), CHECK_QUEUE.place(visitor_of(request)) as place:
            while place.ahead:
                yield card(key, "Others come first …")
                time.sleep(POLL_SECONDS)
            steps = verifying(video)
            found = yield from adapted(steps, lambda done: card(key, f"Looking … {100 * done:.0f} %"))
        yield card(key, found.verdict, *found.sentences)
    except gr.Error as error:
        yield card(key, "This did not work", unescape(error.message))


def card(key: str | None, title: str, *sentences: str) -> dict[str, Any]:
    """The dict that `assets/page/check.js` draws."""
    return {"of": key, "title": title, "sentences": sentences}


def verify(video: str, request: gr.Request) -> dict[str, Any]:
    """Tell whether a video's lips were redrawn by AI with syncdiff, and what in the file says so.

    Reads the visible label, the invisible watermark in the mouth and the signed C2PA note back from any video file.
    Returns a verdict in words, one sentence for each of the three, and the figures behind them. That nothing is found
    does not prove that a video is genuine.

    Args:
        video: any video file, up to 10 minutes and 200 MB.
    """
    with errors_as_sentences():
        if not video:
            raise InputError("There is no video yet: upload one.")
        with in_turn(CHECK_QUEUE, visitor_of(request)):
            return verify_file(video).report()
