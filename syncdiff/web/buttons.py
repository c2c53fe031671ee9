"""What happens when a button of the page is pressed: a run, its end, one frame, one video of two."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr

from syncdiff.errors import InputError
from syncdiff.faces import Spot
from syncdiff.media.side_by_side import side_by_side
from syncdiff.options import SampleOptions
from syncdiff.results import Result
from syncdiff.web import view_state
from syncdiff.web.components import Form
from syncdiff.web.costs import seconds_of
from syncdiff.web.events import AGAIN, ARRIVED, BROWSER, HIDDEN, PREVIEWS, RUNS, answer
from syncdiff.web.examples import recognise
from syncdiff.web.jobs import (
    JobRequest,
    JobService,
    Running,
    UnfinishedError,
    Waiting,
    cache_folder,
    files_of,
    visitor_of,
)
from syncdiff.web.queue import Visitor
from syncdiff.web.share_links import Settings

RESULT_GONE = "This result is no longer on the server: results are deleted after about an hour."
REFRESH_SECONDS = 0.25  # seconds between two messages to the browser
IDLE = gr.update(visible=True), gr.update(visible=True), gr.update(visible=False)  # the buttons, as in answers.js


def run_and_stop(jobs: JobService, form: Form, view: gr.HTML, lengths: gr.JSON, syncnet: object) -> list:
    """The primary button, the complete examples, and Cancel. Returns the runs, as events."""
    answers = [view, form.go, form.test, form.stop]
    cancelled = gr.Checkbox(False, visible=False)

    def show(request: gr.Request, cancelled: bool, *values: Any) -> Iterator[tuple]:
        yield (gr.skip(),) * 4  # before anything is held: see `api.add_endpoints`
        if cancelled:  # before it began
            return
        asked = asked_for(*values)
        try:
            for seen in watched(jobs, asked, visitor_of(request), syncnet):
                yield seen, *(IDLE if seen["state"] == "done" else [gr.skip()] * 3)
        except gr.Error as error:  # said once, in the view
            yield view_state.failed(unescape(error.message), where=missing(asked)), *IDLE

    # A complete example fills the form before its run begins, and the button at an offset turns its correction on.
    picks = [cancelled, form.face_picks, form.voice_picks]
    pair = picks, [form.video, form.photo, form.faces, form.sound, form.film, form.voices], answer("pair")
    runs = []
    for trigger, fill in (
        (form.go.click, None),
        (view.click, pair),
        (view.submit, (None, form.correct, "() => true")),
    ):
        started = trigger(None, None, answers, js=answer("begin_run"), **AGAIN, **BROWSER)
        here = started.then(None, None, cancelled, js=ARRIVED, **AGAIN, **BROWSER)
        if fill:
            shown, filled, script = fill
            here = here.then(None, shown, filled, js=script, **AGAIN, **BROWSER)
        runs.append(here.then(show, [cancelled, *asks(form, lengths)], answers, **RUNS, **AGAIN, **HIDDEN))
        runs[-1].failure(None, [view, cancelled], answers, js=answer("ended"), **AGAIN, **BROWSER)
    # What is cancelled ends as if it had failed, so that it was cancelled is noted first.
    form.stop.click(None, None, [*answers, cancelled], js=answer("cancel"), **BROWSER)
    form.stop.click(None, cancels=runs, **BROWSER)
    return runs


def try_one_frame(jobs: JobService, form: Form, view: gr.HTML, lengths: gr.JSON) -> None:
    """The other button. What comes of it is seen only where it is still waited for: a run may have begun meanwhile,
    or another trial (see `trial` in answers.js)."""
    stale, tried = gr.Checkbox(False, visible=False), gr.JSON(visible=False)
    ticket, at = gr.Number(visible=False), gr.Number(visible=False)

    def try_out(request: gr.Request, stale: bool, ticket: int, at: float | None, *values: Any) -> dict[str, Any]:
        if stale:
            return {"state": "stale"}
        asked = replace(asked_for(*values), at=seconds_of([at, None, None, None])[0])
        try:
            return view_state.trial(jobs.trial(asked, visitor_of(request))) | {"ticket": ticket}
        except gr.Error as error:
            return view_state.failed(unescape(error.message), where=missing(asked)) | {"ticket": ticket}

    looking = form.test.click(None, None, [view, ticket, at], js=answer("begin_trial"), **AGAIN, **BROWSER)
    here = looking.then(None, None, stale, js=ARRIVED, **AGAIN, **BROWSER)
    trial = here.then(try_out, [stale, ticket, at, *asks(form, lengths)], tried, **PREVIEWS, **AGAIN, **HIDDEN)
    trial.success(None, [tried, view], view, js=answer("trial"), **AGAIN, **BROWSER)
    trial.failure(None, view, view, js=answer("failed_trial"), **AGAIN, **BROWSER)


def download_compared(view: gr.HTML) -> None:
    """The button that makes one video of the two; the browser names the result, which must lie in a folder of ours."""
    file = gr.JSON(visible=False)

    def make(event: gr.EventData) -> dict[str, Any]:
        named = Path(str(event.path))
        result = cache_folder() / named.parent.name / "syncdiff.mp4"
        if not named.parent.name.startswith("result-") or not result.is_file():
            return {"message": RESULT_GONE}
        made = result.with_name("compared.mp4")
        try:
            if not made.exists():
                side_by_side(result.with_name("syncdiff.source.mp4"), result, made)
        except InputError as sentence:
            return {"message": str(sentence)}
        return gr.FileData(path=str(made)).model_dump()

    made = view.download(make, None, file, **PREVIEWS, **HIDDEN)
    made.then(None, file, None, js="(file) => window.compared(file)", **BROWSER)


def asks(form: Form, lengths: gr.JSON) -> list:
    """What a button sends along, as `asked_for` takes it."""
    return [*form.files, form.agreed, *form.settings, form.unlabelled, form.found, lengths]


def asked_for(
    video: str | None,
    photo: str | None,
    sound: str | None,
    film: str | None,
    agreed: bool,
    steps: float | None,
    seed: float | None,
    tail: str | None,
    correct: bool,
    label: bool,
    unlabelled: bool,
    found: dict[str, Any],
    lengths: list[float | None],
) -> JobRequest:
    """The form as it stands when somebody presses a button."""
    options = {"steps": steps, "seed": seed, "tail": tail, "face": chosen_face(found)}
    options |= {"correct_offset": correct, "label": label}
    return JobRequest(video or photo, sound or film, agreed, options, seconds_of(lengths), unlabelled)


def chosen_face(found: dict[str, Any]) -> Spot | None:
    """The face that was picked in the row of those found; None where there is no choice."""
    try:
        return next(
            (Spot(*map(float, item["spot"])) for item in found["items"] if item["key"] == found["chosen"]), None
        )
    except (KeyError, TypeError, ValueError):  # not from our page
        return None


def missing(asked: JobRequest) -> str | None:
    """The part of the form without which nothing can begin."""
    try:
        files_of(asked)
    except UnfinishedError as unfinished:
        return unfinished.where
    return None


def watched(jobs: JobService, asked: JobRequest, visitor: Visitor, syncnet: object) -> Iterator[dict[str, Any]]:
    """One run as the view shows it, not oftener than every REFRESH_SECONDS seconds."""
    sent, preview = -REFRESH_SECONDS, None
    with closing(jobs.run(asked, visitor)) as items:
        for item in items:
            if isinstance(item, Result):
                yield view_state.done(item, write_report(item), settings_of(asked, item.options), preview, str(syncnet))
                return
            if isinstance(item, Running) and item.progress.preview is not None:
                preview = item.progress.preview
            if time.monotonic() - sent >= REFRESH_SECONDS:
                yield view_state.waiting(item) if isinstance(item, Waiting) else view_state.running(item, preview)
                sent = time.monotonic()


def settings_of(asked: JobRequest, options: SampleOptions) -> Settings:
    """What a link to this run may hold: examples by name, never a visitor's file."""
    face, voice = files_of(asked)
    return Settings(recognise(face, "face"), recognise(voice, "voice"), options)


def write_report(result: Result) -> Path:
    """The report beside the video, without the server's folders."""
    path = result.video.with_suffix(".json")
    path.write_text(json.dumps(view_state.public_report(result), indent=1))
    return path
