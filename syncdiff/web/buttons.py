"""Events of the page's buttons: a run and its cancelling, a trial of one frame, a video of original and result."""

import json
import time
from collections.abc import Callable, Iterator
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
from syncdiff.web.events import BROWSER, EVERY, PREVIEWS, PRIVATE, RUNS, WAIT_FOR_FILES, answer
from syncdiff.web.examples import recognise
from syncdiff.web.jobs import JobRequest, JobService, Running, UnfinishedError, Waiting, cache_folder, visitor_of
from syncdiff.web.queue import Visitor
from syncdiff.web.share_links import Settings

RESULT_GONE = "This result is no longer on the server: results are deleted after about an hour."
REFRESH_SECONDS = 0.25  # seconds between two messages to the browser
IDLE = gr.update(visible=True), gr.update(visible=True), gr.update(visible=False)  # go, test, stop; as in answers.js


def connect_run(
    jobs: JobService, form: Form, view: gr.HTML, lengths: gr.JSON, lse_needs: Callable[[], str]
) -> list:
    """Connect the primary button, the complete examples, and Cancel. Returns the events of the runs."""
    outputs = [view, form.go, form.test, form.stop]
    cancelled = gr.Checkbox(False, visible=False)

    def run(request: gr.Request, cancelled: bool, *values: Any) -> Iterator[tuple]:
        yield (gr.skip(),) * 4  # before anything is held: see `api.add_endpoints`
        if cancelled:  # before it began
            return
        job = job_request(*values)
        try:
            for state in run_states(jobs, job, visitor_of(request), lse_needs):
                yield state, *(IDLE if state["state"] == "done" else [gr.skip()] * 3)
        except gr.Error as error:  # shown in the view, not as gradio's toast
            yield view_state.failed(unescape(error.message), where=missing_part(job)), *IDLE

    # A complete example fills the form before its run begins; the button beside an offset turns its correction on.
    row_values = [cancelled, form.face_picks, form.voice_picks]
    slots = [form.video, form.photo, form.faces, form.sound, form.film, form.voices]
    runs = []
    for trigger, fill in (
        (form.go.click, None),
        (view.click, (row_values, slots, answer("pair"))),
        (view.submit, (None, form.correct, "() => true")),
    ):
        event = trigger(None, None, outputs, js=answer("begin_run"), **EVERY, **BROWSER)
        event = event.then(None, None, cancelled, js=WAIT_FOR_FILES, **EVERY, **BROWSER)
        if fill:
            shown, filled, script = fill
            event = event.then(None, shown, filled, js=script, **EVERY, **BROWSER)
        runs.append(event.then(run, [cancelled, *form_inputs(form, lengths)], outputs, **RUNS, **EVERY, **PRIVATE))
        runs[-1].failure(None, [view, cancelled], outputs, js=answer("ended"), **EVERY, **BROWSER)
    # A cancelled run triggers `failure`, so `cancelled` is set first.
    form.stop.click(None, None, [*outputs, cancelled], js=answer("cancel"), **BROWSER)
    form.stop.click(None, cancels=runs, **BROWSER)
    return runs


def connect_trial(jobs: JobService, form: Form, view: gr.HTML, lengths: gr.JSON) -> None:
    """Connect the button that tries one frame.

    Its outcome is shown only while the view still waits for it: a run or another trial may have begun meanwhile (see
    `trial` in answers.js)."""
    stale, tried = gr.Checkbox(False, visible=False), gr.JSON(visible=False)
    ticket, at = gr.Number(visible=False), gr.Number(visible=False)

    def try_frame(request: gr.Request, stale: bool, ticket: int, at: float | None, *values: Any) -> dict[str, Any]:
        if stale:
            return {"state": "stale"}
        job = replace(job_request(*values), at=seconds_of([at, None, None, None])[0])
        try:
            return view_state.trial(jobs.trial(job, visitor_of(request))) | {"ticket": ticket}
        except gr.Error as error:
            return view_state.failed(unescape(error.message), where=missing_part(job)) | {"ticket": ticket}

    event = form.test.click(None, None, [view, ticket, at], js=answer("begin_trial"), **EVERY, **BROWSER)
    event = event.then(None, None, stale, js=WAIT_FOR_FILES, **EVERY, **BROWSER)
    inputs = [stale, ticket, at, *form_inputs(form, lengths)]
    event = event.then(try_frame, inputs, tried, **PREVIEWS, **EVERY, **PRIVATE)
    event.success(None, [tried, view], view, js=answer("trial"), **EVERY, **BROWSER)
    event.failure(None, view, view, js=answer("failed_trial"), **EVERY, **BROWSER)


def connect_comparison(view: gr.HTML) -> None:
    """Connect the button that downloads original and result in one video.

    The browser names the result, which must be in a folder that a run made."""
    file = gr.JSON(visible=False)

    def make(event: gr.EventData) -> dict[str, Any]:
        folder = Path(str(event.path)).parent.name
        result = cache_folder() / folder / "syncdiff.mp4"
        if not folder.startswith("result-") or not result.is_file():
            return {"message": RESULT_GONE}
        compared = result.with_name("compared.mp4")
        try:
            if not compared.exists():
                side_by_side(result.with_name("syncdiff.source.mp4"), result, compared)
        except InputError as sentence:
            return {"message": str(sentence)}
        return gr.FileData(path=str(compared)).model_dump()

    made = view.download(make, None, file, **PREVIEWS, **PRIVATE)
    made.then(None, file, None, js="(file) => window.compared(file)", **BROWSER)


def form_inputs(form: Form, lengths: gr.JSON) -> list:
    """The components whose values `job_request` takes, in its order."""
    return [*form.files, form.agreed, *form.settings, form.unlabelled, form.found, lengths]


def job_request(
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
    """The request that the form makes at this moment."""
    options = {"steps": steps, "seed": seed, "tail": tail, "face": chosen_face(found)}
    options |= {"correct_offset": correct, "label": label}
    return JobRequest(video or photo, sound or film, agreed, options, seconds_of(lengths), unlabelled)


def chosen_face(found: dict[str, Any]) -> Spot | None:
    """The face that was chosen among those found; None where there is no choice."""
    try:
        return next(
            (Spot(*map(float, item["spot"])) for item in found["items"] if item["key"] == found["chosen"]), None
        )
    except (KeyError, TypeError, ValueError):  # not from our page
        return None


def missing_part(job: JobRequest) -> str | None:
    """Id of the part of the form that must be filled in first; None where nothing is missing."""
    try:
        job.files()
    except UnfinishedError as unfinished:
        return unfinished.where
    return None


def run_states(
    jobs: JobService, job: JobRequest, visitor: Visitor, lse_needs: Callable[[], str]
) -> Iterator[dict[str, Any]]:
    """States of the view during one run, at most one every REFRESH_SECONDS."""
    sent, preview = -REFRESH_SECONDS, None
    with closing(jobs.run(job, visitor)) as items:
        for item in items:
            if isinstance(item, Result):
                report, settings = write_report(item), settings_of(job, item.options)
                yield view_state.done(item, report, settings, preview, lse_needs())
                return
            if isinstance(item, Running) and item.progress.preview is not None:
                preview = item.progress.preview
            if time.monotonic() - sent >= REFRESH_SECONDS:
                yield view_state.waiting(item) if isinstance(item, Waiting) else view_state.running(item, preview)
                sent = time.monotonic()


def settings_of(job: JobRequest, options: SampleOptions) -> Settings:
    """The settings in a link to this run: examples by name, never a visitor's file."""
    face, voice = job.files()
    return Settings(recognise(face, "face"), recognise(voice, "voice"), options)


def write_report(result: Result) -> Path:
    """Write the public report beside the video; returns its path."""
    path = result.video.with_suffix(".json")
    path.write_text(json.dumps(view_state.public_report(result), indent=1))
    return path
