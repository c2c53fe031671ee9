"""The second tab: was a video's mouth redrawn here? Asks `syncdiff.provenance` and shows its sentences."""

import time
from collections.abc import Iterator
from html import escape, unescape
from typing import Any

import gradio as gr

from syncdiff import provenance
from syncdiff.errors import InputError
from syncdiff.progress import adapted
from syncdiff.web.components import video_slot
from syncdiff.web.jobs import LOOK_AGAIN, errors_as_sentences, in_turn, visitor_of
from syncdiff.web.queue import Queue

WHAT = (
    "Give any video, and read what its makers left in it: the visible label, the invisible mark in the mouth, and the "
    "signed note in the file."
)
LINE = Queue(12, 2, 4, "videos being checked")


def build_check() -> None:
    """The tab's parts, and what they do: a file is looked at as soon as it is there."""
    with gr.Column(elem_id="check"):
        gr.HTML(f"<p>{WHAT}</p>")
        video = video_slot("Video to check", "suspect")
        answer = gr.HTML(elem_id="found")
    video.change(
        watched, video, answer, concurrency_id="checks", concurrency_limit=None,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def watched(video: str | None, request: gr.Request) -> Iterator[str]:
    """How far it is, and then what was found, as markup."""
    if video is None:
        yield ""
        return
    try:
        with errors_as_sentences(), LINE.place(visitor_of(request)) as place:
            while place.ahead:
                yield card("<p>Others come first …</p>")
                time.sleep(LOOK_AGAIN)
            steps = provenance.verifying(video)
            found = yield from adapted(steps, lambda part: card(f"<p>Looking … {100 * part:.0f} %</p>"))
        yield card(in_markup(found))
    except gr.Error as error:
        yield card(f"<h2>This did not work</h2><p>{escape(unescape(error.message))}</p>")


def card(inside: str) -> str:
    """A card as in the view."""
    return f'<div class="view"><div class="card" role="status">{inside}</div></div>'


def in_markup(found: provenance.Verification) -> str:
    """The verdict, and what it rests on."""
    rows = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.sentences)
    return f"<h2>{escape(found.verdict)}</h2><ul>{rows}</ul>"


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
        with in_turn(LINE, visitor_of(request)):
            return provenance.verify(video).report()
