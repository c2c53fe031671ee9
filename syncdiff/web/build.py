"""The page: the form, the view beside it, and what happens when somebody touches them.

An answer may arrive after its question was changed. So every answer carries the key of what was asked (a file's path, a
ticket's number), and the browser drops those that answer something else: see `assets/page/answers.js`."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from syncdiff.errors import InputError
from syncdiff.faces import Spot
from syncdiff.media import LIMITS
from syncdiff.media.side_by_side import side_by_side
from syncdiff.options import SampleOptions
from syncdiff.preview import Preview
from syncdiff.results import Result
from syncdiff.web import view_state
from syncdiff.web.api import add_endpoints
from syncdiff.web.components import MOST_STEPS, PAGE, WHAT, Form, build_form
from syncdiff.web.eta import RATE, USUAL, in_words
from syncdiff.web.examples import ASSETS, DOCUMENTS, EXAMPLES, examples, poster, recognise
from syncdiff.web.jobs import (
    KEPT,
    JobRequest,
    JobService,
    Runner,
    Running,
    UnfinishedError,
    Waiting,
    cache_folder,
    files_of,
    visitor_of,
)
from syncdiff.web.middleware import Page
from syncdiff.web.queue import Visitor
from syncdiff.web.share_links import PRESETS, Settings, restored
from syncdiff.web.verify_tab import build_check

GONE = "This result is no longer on the server: results are deleted after about an hour."
ANSWERS = (PAGE / "answers.js").read_text()
ARRIVED = (PAGE / "arrived.js").read_text()
REFRESH = 0.25  # seconds between two messages to the browser
RUNS = {"concurrency_id": "runs", "concurrency_limit": None}  # the lines are ours (see queue), not gradio's
SCRIPTS = ("player.js", "timeline.js", "history.js", "view.js")
LOOKS = {"concurrency_id": "looks", "concurrency_limit": None}
AGAIN = {"trigger_mode": "multiple"}  # gradio's "once" drops what is pressed before the last answer is all there
NEWEST = {"trigger_mode": "always_last"}
HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
NOW: dict[str, Any] = {"queue": False, **HIDDEN}
IDLE = gr.update(visible=True), gr.update(visible=True), gr.update(visible=False)  # the buttons, as in answers.js
BROWSER: dict[str, Any] = {"api_visibility": "private"}  # no server is asked


def build_page(run_job: Runner, look: Preview, syncnet: object = "") -> gr.Blocks:
    """The page over one job runner. syncnet: its str() says at any moment why SyncNet's scores are missing."""
    desk = JobService(run_job, look)
    gr.set_static_paths(EXAMPLES)  # a slot may hold an example where it lies: see `components.as_file`
    with Page(title="syncdiff", analytics_enabled=False, delete_cache=(600, KEPT)) as page:
        gr.HTML(f"<h1>syncdiff</h1><p>{WHAT}</p>", elem_id="head")
        with gr.Tabs(elem_id="rooms"):
            with gr.Tab("Make a video"), gr.Row(equal_height=False, elem_id="columns"):
                with gr.Column(scale=4, min_width=300, elem_id="inputs"):
                    form = build_form(presets(desk, [None] * 4, SampleOptions()))
                with gr.Column(scale=7, min_width=300, elem_id="side"):
                    view = build_view()
            with gr.Tab("Check a video"):
                build_check()
        gr.HTML((PAGE / "foot.html").read_text().replace("LINKS", links()), elem_id="foot")
        fill_in(page, form, view)
        look_at_faces(desk, form)
        lengths = gr.JSON([None] * 4, visible=False)
        show_costs(form, desk, lengths, run_and_stop(desk, form, view, lengths, syncnet))
        try_one_frame(desk, form, view, lengths)
        download_compared(view)
        add_endpoints(desk)
    return page.queue(max_size=64, default_concurrency_limit=4, api_open=False)


def links() -> str:
    """Paper, model card, licence and credits; on a Space also the code, which lies beside the page."""
    found = {"Paper": "https://arxiv.org/abs/2503.13371"}
    if space := os.environ.get("SPACE_ID"):
        base = f"https://huggingface.co/spaces/{space}/blob/main/"
        found |= {"Code": base.replace("/blob/main/", "/tree/main")}
    else:
        base = f"gradio_api/file={ASSETS.parent}/"
    found |= {name: f"{base}{file}" for name, file in DOCUMENTS.items()}
    return " · ".join(
        f'<a href="{escape(url)}" target="_blank" rel="noopener">{name}</a>' for name, url in found.items()
    )


def build_view() -> gr.HTML:
    """The right-hand side; it shows whatever dict of `views` it is given."""
    script = "\n".join((PAGE / name).read_text() for name in SCRIPTS)
    offered = [
        {"key": e.key, "label": e.label, "poster": poster(e), "clip": e.compared.exists() and str(e.compared)}
        for e in examples().values()
    ]
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

    for row, tab, parts in (
        (form.face_picks, "video", [video, photo, form.faces]),
        (form.voice_picks, "sound", [sound, film, form.voices]),
    ):
        taken = f"(row) => {{ {ANSWERS} return pick(row, row.picked, '{tab}'); }}"
        picked = row.click(None, row, parts, js=taken, **AGAIN, **BROWSER)
        at_rest = f"() => (document.querySelector('#{row.elem_id} .picks').ariaBusy = null)"  # see arrived.js
        picked.then(None, None, None, js=at_rest, **AGAIN, **BROWSER)
    form.label.input(None, form.label, form.unlabelled, js=answer("promise"), **BROWSER)
    form.presets.click(None, [form.presets, form.steps], form.steps, js="(row) => Number(row.chosen)", **BROWSER)
    form.random.click(None, None, form.seed, js="() => Math.floor(Math.random() * 2 ** 31)", **BROWSER)

    for where, parts in (
        ("face", [video, photo]),
        ("voice", [sound, film]),
        ("agreed", [form.agreed]),
        ("unlabelled", [form.unlabelled, form.label]),
    ):
        given = f"(seen) => {{ {ANSWERS} return given('{where}', seen); }}"
        gr.on([part.change for part in parts], None, view, view, js=given, **BROWSER)

    fill_from_link(page, form, view)


def fill_from_link(page: gr.Blocks, form: Form, view: gr.HTML) -> None:
    """What the page's address asks for, in every part of the form that nobody has touched before the answer came."""

    def restore(request: gr.Request) -> dict[str, Any] | None:
        try:
            settings = restored(request.query_params)
        except InputError as sentence:
            return {"view": view_state.failed(str(sentence), "This link does not work")}
        if settings is None:
            return None
        options = settings.options
        turned = [options.steps, options.seed, options.tail, options.correct_offset, options.label]
        asked = {"face": settings.face, "voice": settings.voice, "turned": turned, "most": MOST_STEPS}
        return asked | {"view": view_state.ready(settings)}

    usual = SampleOptions()
    began = gr.JSON([usual.steps, usual.seed, usual.tail, usual.correct_offset, usual.label], visible=False)
    asked = gr.JSON(None, visible=False)
    loaded = page.load(restore, None, asked, **NOW)
    shown = [view, form.face_picks, form.voice_picks, began, *form.files, *form.settings]
    filled = [form.video, form.sound, *form.settings, form.unlabelled, view]
    loaded = loaded.then(None, [asked, *shown], filled, js=answer("link"), **BROWSER)
    loaded.then(None, None, None, js="() => (window.linking = false)", **BROWSER)


def show_costs(form: Form, desk: JobService, lengths: gr.JSON, runs: list) -> None:
    """On the presets stands what a run should take. The browser measures its files: nothing is opened here."""

    def tell(lengths: list[float | None], tail: Literal["keep", "trim"], correct: bool) -> dict[str, Any]:
        row = presets(desk, lengths, SampleOptions(tail=tail, correct_offset=correct))
        return row | {"of": [lengths, tail, correct]}

    costs = gr.JSON(visible=False)
    measured = gr.on(
        [part.change for part in form.files], None, form.files, lengths, js=(PAGE / "lengths.js").read_text(),
        **NEWEST, **BROWSER,
    )  # fmt: skip
    turned = [form.tail, form.correct]
    for happens in (measured.then, *(part.change for part in turned), *(run.then for run in runs)):
        told = happens(tell, [lengths, *turned], costs, **AGAIN, **NOW)
        told.then(
            None, [costs, form.presets, form.steps, lengths, *turned], form.presets, js=answer("costs"), **AGAIN,
            **BROWSER,
        )  # fmt: skip
    form.steps.change(None, [form.presets, form.steps], form.presets, js=answer("marks"), **BROWSER)


def presets(desk: JobService, lengths: list[float | None], options: SampleOptions) -> dict[str, Any]:
    """The row of presets: what each costs for files of these seconds (video, photo, sound, film)."""
    video, voice = seconds_of(lengths)
    shown = voice if voice and options.tail == "trim" else max(voice or USUAL, video or 0.0)
    items = [
        {
            "key": str(steps),
            "label": name,
            "hint": f"{steps} step{'' if steps == 1 else 's'}",
            "cost": in_words(desk.pace.seconds(RATE * (video or 0.0), RATE * shown, replace(options, steps=steps))),
        }
        for name, steps in PRESETS.items()
    ]
    of = f"{shown:.0f} s of video" if voice else f"{USUAL:.0f} s of voice"
    return {
        "label": "Quality",
        "note": f"Time for {of}. More steps: no better, as measured.",
        "items": items,
        "chosen": str(options.steps),
    }


def seconds_of(lengths: list[float | None]) -> tuple[float | None, float | None]:
    """(video, photo, sound, film) as a browser measured them -> seconds of face and voice; a photo is 0."""
    video, photo, sound, film = (
        min(float(one), LIMITS.seconds) if isinstance(one, int | float) and one >= 0 else None for one in lengths
    )
    return (0.0 if photo is not None else video), sound or film


def answer(name: str) -> str:
    """A function of `answers.js`, as a browser step."""
    return f"(...values) => {{ {ANSWERS} return {name}(...values); }}"


def look_at_faces(desk: JobService, form: Form) -> None:
    """Who is in the picture, as soon as it is there; a choice where there are several."""
    looked = gr.JSON({"of": ""}, visible=False)
    files = [form.video, form.photo]

    def look(video: str | None, photo: str | None, key: str, request: gr.Request) -> dict[str, Any]:
        face = video or photo
        if face is None or recognise(Path(face), "face"):
            return {"of": key, "note": "", "items": []}
        try:
            return view_state.faces(key, desk.faces(face, visitor_of(request)))
        except gr.Error as error:
            return {"of": key, "note": unescape(error.message), "items": []}

    shown = [looked, *files, form.found]
    changed = [part.change for part in files]
    gr.on(changed, None, shown, form.found, js=answer("faces"), **AGAIN, **BROWSER)
    # An upload empties the other slot, which counts as a change too: the key changes once.
    key = gr.Textbox(visible="hidden", elem_id="face-key")
    gr.on(changed, None, files, key, js=answer("face_key"), **AGAIN, **BROWSER)
    found = key.change(look, [*files, key], looked, **LOOKS, **NEWEST, **HIDDEN)
    found.then(None, shown, form.found, js=answer("faces"), **AGAIN, **BROWSER)


def asks(form: Form, lengths: gr.JSON) -> list:
    """What a button sends along, as `asked_for` takes it."""
    return [*form.files, form.agreed, *form.settings, form.unlabelled, form.found, lengths]


def run_and_stop(desk: JobService, form: Form, view: gr.HTML, lengths: gr.JSON, syncnet: object) -> list:
    """The primary button, the complete examples, and Cancel. Returns the runs, as events."""
    answers = [view, form.go, form.test, form.stop]
    cancelled = gr.Checkbox(False, visible=False)

    def show(request: gr.Request, cancelled: bool, *values: Any) -> Iterator[tuple]:
        yield (gr.skip(),) * 4  # before anything is held: see `api.add_endpoints`
        if cancelled:  # before it began
            return
        asked = asked_for(*values)
        try:
            for seen in watched(desk, asked, visitor_of(request), syncnet):
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


def try_one_frame(desk: JobService, form: Form, view: gr.HTML, lengths: gr.JSON) -> None:
    """The other button. What comes of it is seen only where it is still waited for: a run may have begun meanwhile,
    or another trial (see `trial` in answers.js)."""
    stale, tried = gr.Checkbox(False, visible=False), gr.JSON(visible=False)
    ticket, at = gr.Number(visible=False), gr.Number(visible=False)

    def try_out(request: gr.Request, stale: bool, ticket: int, at: float | None, *values: Any) -> dict[str, Any]:
        if stale:
            return {"state": "stale"}
        asked = replace(asked_for(*values), at=seconds_of([at, None, None, None])[0])
        try:
            return view_state.trial(desk.trial(asked, visitor_of(request))) | {"ticket": ticket}
        except gr.Error as error:
            return view_state.failed(unescape(error.message), where=missing(asked)) | {"ticket": ticket}

    looking = form.test.click(None, None, [view, ticket, at], js=answer("begin_trial"), **AGAIN, **BROWSER)
    here = looking.then(None, None, stale, js=ARRIVED, **AGAIN, **BROWSER)
    trial = here.then(try_out, [stale, ticket, at, *asks(form, lengths)], tried, **LOOKS, **AGAIN, **HIDDEN)
    trial.success(None, [tried, view], view, js=answer("trial"), **AGAIN, **BROWSER)
    trial.failure(None, view, view, js=answer("failed_trial"), **AGAIN, **BROWSER)


def download_compared(view: gr.HTML) -> None:
    """The button that makes one video of the two; the browser names the result, which must lie in a folder of ours."""
    file = gr.JSON(visible=False)

    def make(event: gr.EventData) -> dict[str, Any]:
        named = Path(str(event.path))
        result = cache_folder() / named.parent.name / "syncdiff.mp4"
        if not named.parent.name.startswith("result-") or not result.is_file():
            return {"message": GONE}
        made = result.with_name("compared.mp4")
        try:
            if not made.exists():
                side_by_side(result.with_name("syncdiff.source.mp4"), result, made)
        except InputError as sentence:
            return {"message": str(sentence)}
        return gr.FileData(path=str(made)).model_dump()

    made = view.download(make, None, file, **LOOKS, **HIDDEN)
    made.then(None, file, None, js="(file) => window.compared(file)", **BROWSER)


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


def watched(desk: JobService, asked: JobRequest, visitor: Visitor, syncnet: object) -> Iterator[dict[str, Any]]:
    """One run as the view shows it, not oftener than every REFRESH seconds."""
    sent, preview = -REFRESH, None
    with closing(desk.run(asked, visitor)) as items:
        for item in items:
            if isinstance(item, Result):
                yield view_state.done(item, write_report(item), settings_of(asked, item.options), preview, str(syncnet))
                return
            if isinstance(item, Running) and item.progress.preview is not None:
                preview = item.progress.preview
            if time.monotonic() - sent >= REFRESH:
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
