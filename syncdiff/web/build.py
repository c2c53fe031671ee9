"""The page: the form, the view beside it, and what happens when somebody touches them."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr

from syncdiff.errors import InputError
from syncdiff.faces import Spot
from syncdiff.options import SampleOptions
from syncdiff.preview import Preview
from syncdiff.results import Result
from syncdiff.web import view_state
from syncdiff.web.api import add_endpoints
from syncdiff.web.components import PAGE, Form, build_form
from syncdiff.web.eta import Clock, estimate
from syncdiff.web.examples import examples, poster, recognise
from syncdiff.web.jobs import KEPT, JobRequest, JobService, Runner, Waiting, files_of, visitor_of
from syncdiff.web.middleware import Page
from syncdiff.web.queue import Visitor
from syncdiff.web.share_links import PRESETS, Settings, preset_of, restored
from syncdiff.web.verify_tab import build_check

WHAT = "Give a face a new voice. Its lips are redrawn to speak it, and both videos are scored."
TOO_MANY = "Too many people are here, or the connection broke: please try once more."
COMING = "Your files are still on their way. It begins as soon as they are here."
ARRIVED = (PAGE / "arrived.js").read_text()
LOOKING = {"state": "looking"}
REFRESH = 0.25  # seconds between two messages to the browser
RUNS = {"concurrency_id": "runs", "concurrency_limit": None}  # the lines are ours (see queue), not gradio's
LOOKS = {"concurrency_id": "looks", "concurrency_limit": None}
AGAIN = {"trigger_mode": "multiple"}  # gradio's "once" drops what is pressed before the last answer is all there
HIDDEN = {"api_visibility": "private", "show_progress": "hidden"}
NOW = {"queue": False, **HIDDEN}
BROWSER = {"api_visibility": "private"}  # no server is asked


def build_page(run_job: Runner, look: Preview) -> gr.Blocks:
    """The page over one job runner."""
    desk = JobService(run_job, look)
    with Page(title="syncdiff", analytics_enabled=False, delete_cache=(600, KEPT)) as page:
        gr.HTML(f"<h1>syncdiff</h1><p>{WHAT}</p>", elem_id="head")
        with gr.Tabs(elem_id="rooms"):
            with gr.Tab("Make a video"), gr.Row(equal_height=False, elem_id="columns"):
                with gr.Column(scale=4, min_width=300, elem_id="inputs"):
                    form = build_form(told(desk, None, None, SampleOptions()))
                with gr.Column(scale=7, min_width=300, elem_id="side"):
                    view = build_view()
            with gr.Tab("Check a video"):
                build_check()
        gr.HTML(f"<p>{privacy()}</p>", elem_id="foot")
        fill_in(page, form, view)
        chosen = look_at_faces(desk, form)
        tell_the_time(form, desk, run_and_stop(desk, form, view, chosen))
        try_one_frame(desk, form, view, chosen)
        add_endpoints(desk)
    return page.queue(max_size=64, default_concurrency_limit=4, api_open=False)


def privacy() -> str:
    """What becomes of the files."""
    return "Files stay on this machine, serve this one video and are deleted after about an hour."


def build_view() -> gr.HTML:
    """The right-hand side; it shows whatever dict of `views` it is given."""
    script = "\n".join((PAGE / name).read_text() for name in ("player.js", "timeline.js", "view.js"))
    offered = [{"key": e.key, "label": e.label, "poster": poster(e)} for e in examples().values()]
    return gr.HTML(
        view_state.EMPTY,
        offered=offered,
        html_template=(PAGE / "view.html").read_text(),
        js_on_load=script,
        apply_default_css=False,
        elem_id="view",
    )


def fill_in(page: gr.Blocks, form: Form, view: gr.HTML) -> None:
    """Whatever fills the form: a pick, a link, and the rule that the newest of two faces or voices counts."""
    video, photo, sound, film = form.files
    for one, other in ((video, photo), (photo, video), (sound, film), (film, sound)):
        one.input(None, None, other, js="() => null", **BROWSER)

    def take_face(event: gr.EventData) -> tuple:
        return str(examples()[event.key].face), None, gr.Tabs(selected="video")

    def take_voice(event: gr.EventData) -> tuple:
        return str(examples()[event.key].voice), None, gr.Tabs(selected="sound")

    settled(form.face_picks, form.face_picks.click(take_face, None, [video, photo, form.faces], **NOW))
    settled(form.voice_picks, form.voice_picks.click(take_voice, None, [sound, film, form.voices], **NOW))
    form.label.input(lambda on: gr.update(visible=not on, value=False), form.label, form.unlabelled, **NOW)
    form.preset.input(lambda name: PRESETS[name], form.preset, form.steps, **NOW)
    form.steps.input(preset_of, form.steps, form.preset, **NOW)

    for where, parts in (("face", [video, photo]), ("voice", [sound, film]), ("agreed", [form.agreed])):
        found = f"(seen) => seen.where === '{where}' ? {{state: 'empty'}} : seen"  # what was asked for is there
        gr.on([part.change for part in parts], None, view, view, js=found, **BROWSER)

    filled = [*form.files, form.preset, *form.settings, form.unlabelled]

    def restore(request: gr.Request) -> list:
        try:
            settings = restored(request.query_params)
        except InputError as sentence:
            return [*[gr.skip()] * len(filled), view_state.failed(str(sentence), "This link cannot be followed")]
        if settings is None:
            return [gr.skip()] * (len(filled) + 1)
        return [*values_of(settings), view_state.ready(settings)]

    page.load(restore, None, [*filled, view], **NOW)


def settled(row: gr.HTML, picked: Any) -> None:
    """A pick of this row was answered: what it brought is there (see `arrived.js`). Another row's may be coming yet."""
    picked.then(
        None, None, None, js=f"() => (document.querySelector('#{row.elem_id} .picks').ariaBusy = null)", **BROWSER
    )


def values_of(settings: Settings) -> list:
    """What the form holds after a link: files, preset, settings, and the promise, which no link can make."""
    face = str(examples()[settings.face].face) if settings.face else None
    voice = str(examples()[settings.voice].voice) if settings.voice else None
    options = settings.options
    turned = [options.steps, options.seed, options.tail, options.correct_offset, options.label]
    return [face, None, voice, None, preset_of(options.steps), *turned, gr.update(visible=not options.label)]


def tell_the_time(form: Form, desk: JobService, runs: list) -> None:
    """Under the presets stands what a run should take. The browser knows how long its files are: nothing is opened."""

    def tell(lengths: list[float | None], steps: float | None, correct: bool) -> str:
        video, photo, sound, film = lengths
        seen, voice = 0.0 if photo is not None else video, sound or film
        return told(desk, seen, voice, SampleOptions(whole(steps) or SampleOptions().steps, correct_offset=correct))

    lengths = gr.JSON([None] * 4, visible=False)
    measured = gr.on(
        [part.change for part in form.files],
        None,
        form.files,
        lengths,
        js=(PAGE / "lengths.js").read_text(),
        trigger_mode="always_last",
        **BROWSER,
    )
    turned = [form.steps, form.correct]
    for happens in (measured.then, *(part.change for part in turned), *(run.then for run in runs)):
        happens(tell, [lengths, *turned], form.estimate, **NOW)


def told(desk: JobService, video: float | None, voice: float | None, options: SampleOptions) -> str:
    """The estimate as it stands on the page."""
    return f"<p>{estimate(desk.pace, video, voice, options)}</p>"


def look_at_faces(desk: JobService, form: Form) -> gr.State:
    """Who is in the picture, as soon as it is there; a choice where there are several. Returns the chosen Spot."""
    spots, chosen = gr.State([]), gr.State(None)
    answers = [form.face_note, form.found, spots, chosen]
    nobody = {"label": "", "items": []}

    def look(video: str | None, photo: str | None, request: gr.Request) -> tuple:
        face = video or photo
        if face is None or recognise(Path(face), "face"):
            return "", gr.update(value=nobody, visible=False), [], None
        try:
            found = desk.faces(face, visitor_of(request))
        except gr.Error as error:
            return f"<p>{error.message}</p>", gr.update(value=nobody, visible=False), [], None
        many = len(found) > 1
        shown = gr.update(value=view_state.faces(found) if many else nobody, visible=many)
        return (
            f"<p>{view_state.about_faces(found)}</p>",
            shown,
            [one.spot for one in found],
            found[0].spot if many else None,
        )

    def choose(event: gr.EventData, shown: dict[str, Any], spots: list) -> tuple:
        return shown | {"chosen": event.key}, spots[int(event.key)]

    gr.on(
        [form.video.change, form.photo.change],
        look,
        [form.video, form.photo],
        answers,
        **LOOKS,
        trigger_mode="always_last",
        **HIDDEN,
    )
    settled(form.found, form.found.click(choose, [form.found, spots], [form.found, chosen], **NOW))
    return chosen


def buttons(*, running: bool) -> tuple[dict, dict, dict]:
    """Updates of the two buttons that begin something and of Cancel: either those or this is seen."""
    return gr.update(visible=not running), gr.update(visible=not running), gr.update(visible=running)


def asks(form: Form, chosen: gr.State) -> list:
    """What a button sends along, as `asked_for` takes it."""
    return [*form.files, form.agreed, *form.settings, form.unlabelled, chosen]


def run_and_stop(desk: JobService, form: Form, view: gr.HTML, chosen: gr.State) -> list:
    """The primary button, the complete examples, and Cancel. Returns the runs, as events."""
    answers = [view, form.go, form.test, form.stop]
    cancelled = gr.Checkbox(False, visible=False)

    def begin(coming: bool) -> tuple:
        return {"state": "waiting", "message": COMING if coming else ""}, *buttons(running=True), False

    def show(request: gr.Request, cancelled: bool, *values: Any) -> Iterator[tuple]:
        if cancelled:  # before it began
            yield (gr.skip(),) * 4
            return
        asked = asked_for(*values)
        try:
            for seen in watched(desk, asked, visitor_of(request)):
                yield seen, *(buttons(running=False) if seen["state"] == "done" else [gr.skip()] * 3)
        except gr.Error as error:
            where = missing(asked)
            yield view_state.failed(unescape(error.message), where=where), *buttons(running=False)
            if not where:  # something went wrong: the toast goes away, the view keeps the sentence
                raise

    def take(event: gr.EventData) -> list:
        example = examples()[event.key]
        return [str(example.face), None, str(example.voice), None, gr.Tabs(selected="video"), gr.Tabs(selected="sound")]

    def ended(seen: dict[str, Any], cancelled: bool) -> tuple:
        """A run that ended without a word of ours: cancelled, gradio itself was full, or the connection broke."""
        if cancelled:
            seen = view_state.EMPTY
        elif seen["state"] in ("waiting", "running"):
            seen = view_state.failed(TOO_MANY)
        return seen, *buttons(running=False)

    picked = view.click(take, None, [*form.files, form.faces, form.voices], **NOW)
    corrected = view.submit(lambda: True, None, form.correct, **NOW)  # the button beside an offset that was found
    runs = []
    for trigger in (form.go.click, picked.then, corrected.then):
        started = trigger(begin, cancelled, [*answers, cancelled], js="() => [coming()]", **NOW)
        here = started.then(None, None, cancelled, js=ARRIVED, **AGAIN, **BROWSER)
        runs.append(here.then(show, [cancelled, *asks(form, chosen)], answers, **RUNS, **AGAIN, **HIDDEN))
        runs[-1].failure(ended, [view, cancelled], answers, **NOW)
    # Noted in the browser, at once: what is cancelled ends as if it had failed, its last pictures still on the way.
    form.stop.click(None, None, cancelled, js="() => Boolean(window.asked++ || true)", **BROWSER)
    form.stop.click(lambda: (view_state.EMPTY, *buttons(running=False)), None, answers, cancels=runs, **NOW)
    return runs


def try_one_frame(desk: JobService, form: Form, view: gr.HTML, chosen: gr.State) -> None:
    """The other button. What comes of it is seen only where it is still waited for: a run may have begun meanwhile."""
    stale, tried = gr.Checkbox(False, visible=False), gr.JSON(visible=False)

    def try_out(request: gr.Request, stale: bool, *values: Any) -> dict[str, Any]:
        if stale:
            return LOOKING
        asked = asked_for(*values)
        try:
            return view_state.trial(desk.trial(asked, visitor_of(request)))
        except gr.Error as error:
            return view_state.failed(unescape(error.message), where=missing(asked))

    still = "(tried, seen) => seen.state === 'looking' ? tried : seen"
    looking = form.test.click(lambda: LOOKING, None, view, **NOW)
    here = looking.then(None, None, stale, js=ARRIVED, **AGAIN, **BROWSER)
    trial = here.then(try_out, [stale, *asks(form, chosen)], tried, **LOOKS, **AGAIN, **HIDDEN)
    failed = trial.failure(lambda: view_state.failed(TOO_MANY), None, tried, **NOW)
    for answered in (trial.success, failed.then):
        answered(None, [tried, view], view, js=still, **BROWSER)


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
    face: Spot | None,
) -> JobRequest:
    """The form as it stands when somebody presses a button."""
    options = {"steps": whole(steps), "seed": whole(seed), "tail": tail, "face": face}
    options |= {"correct_offset": correct}
    return JobRequest(video or photo, sound or film, agreed, options | {"label": label or not unlabelled})


def missing(asked: JobRequest) -> str | None:
    """The part of the form without which nothing can begin."""
    try:
        files_of(asked)
    except InputError:
        return "agreed" if asked.face and asked.voice else "voice" if asked.face else "face"
    return None


def whole(number: float | None) -> int | None:
    """A field that was emptied stays at its default."""
    return None if number is None else int(number)


def watched(desk: JobService, asked: JobRequest, visitor: Visitor) -> Iterator[dict[str, Any]]:
    """One run as the view shows it, not oftener than every REFRESH seconds."""
    clock, sent, preview = None, -REFRESH, None
    with closing(desk.run(asked, visitor)) as items:
        for item in items:
            if isinstance(item, Result):
                yield view_state.done(item, write_report(item), settings_of(asked, item.options))
                return
            due = time.monotonic() - sent >= REFRESH
            if isinstance(item, Waiting):
                seen = view_state.waiting(item)
            else:
                clock = clock or Clock(desk.pace.stages(100, asked.chosen()))
                fraction, left = clock(item)
                preview = preview if item.preview is None else item.preview
                if not due:
                    continue
                seen = view_state.running(item, fraction, left, preview)
            if due:
                yield seen
                sent = time.monotonic()


def settings_of(asked: JobRequest, options: SampleOptions) -> Settings:
    """What a link to this run may hold: examples by name, never a visitor's file."""
    face, voice = recognise(Path(asked.face), "face"), recognise(Path(asked.voice), "voice")
    return Settings(face, voice, options)


def write_report(result: Result) -> Path:
    """The report beside the video, without the server's folders."""
    path = result.video.with_suffix(".json")
    path.write_text(json.dumps(view_state.public_report(result), indent=1))
    return path
