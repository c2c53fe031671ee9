"""Events that fill the form: examples, links, and the faces found in a video."""

from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr

from syncdiff.errors import InputError
from syncdiff.options import SampleOptions
from syncdiff.web import view_state
from syncdiff.web.components import MAX_SLIDER_STEPS, Form
from syncdiff.web.events import ANSWERS, BROWSER, EVERY, NEWEST, PREVIEWS, PRIVATE, UNQUEUED, answer
from syncdiff.web.examples import recognise
from syncdiff.web.jobs import JobService, visitor_of
from syncdiff.web.share_links import parse_query


def connect_form(page: gr.Blocks, form: Form, view: gr.HTML) -> None:
    """Connect what fills the form: uploads, examples, presets, links. A new file empties the other slot of its step."""
    video, photo, sound, film = form.files
    for slot, other in ((video, photo), (photo, video), (sound, film), (film, sound)):
        slot.input(None, None, other, js="() => null", **BROWSER)

    for row, tab, parts in (
        (form.face_picks, "video", [video, photo, form.faces]),
        (form.voice_picks, "sound", [sound, film, form.voices]),
    ):
        pick = f"(row) => {{ {ANSWERS} return pick(row, row.picked, '{tab}'); }}"
        picked = row.click(None, row, parts, js=pick, **EVERY, **BROWSER)
        not_busy = f"() => (document.querySelector('#{row.elem_id} .picks').ariaBusy = null)"  # see arrived.js
        picked.then(None, None, None, js=not_busy, **EVERY, **BROWSER)
    form.label.input(None, form.label, form.unlabelled, js=answer("promise"), **BROWSER)
    form.presets.click(None, [form.presets, form.steps], form.steps, js="(row) => Number(row.chosen)", **BROWSER)
    form.random.click(None, None, form.seed, js="() => Math.floor(Math.random() * 2 ** 31)", **BROWSER)

    for where, parts in (
        ("face", [video, photo]),
        ("voice", [sound, film]),
        ("agreed", [form.agreed]),
        ("unlabelled", [form.unlabelled, form.label]),
    ):
        remove_outdated = f"(seen) => {{ {ANSWERS} return given('{where}', seen); }}"
        gr.on([part.change for part in parts], None, view, view, js=remove_outdated, **BROWSER)

    fill_from_link(page, form, view)


def fill_from_link(page: gr.Blocks, form: Form, view: gr.HTML) -> None:
    """Fill the form from the query string, except for what the visitor changed before the answer came."""

    def restore(request: gr.Request) -> dict[str, Any] | None:
        try:
            settings = parse_query(request.query_params)
        except InputError as sentence:
            return {"view": view_state.failed(str(sentence), "This link does not work")}
        if settings is None:
            return None
        link = {"face": settings.face, "voice": settings.voice, "turned": values(settings.options)}
        return link | {"most": MAX_SLIDER_STEPS, "view": view_state.ready(settings)}

    def values(options: SampleOptions) -> list:
        """In the order of `Form.settings`."""
        return [options.steps, options.seed, options.tail, options.correct_offset, options.label]

    defaults = gr.JSON(values(SampleOptions()), visible=False)
    link = gr.JSON(None, visible=False)
    loaded = page.load(restore, None, link, **UNQUEUED)
    shown = [view, form.face_picks, form.voice_picks, defaults, *form.files, *form.settings]
    filled = [form.video, form.sound, *form.settings, form.unlabelled, view]
    loaded = loaded.then(None, [link, *shown], filled, js=answer("link"), **BROWSER)
    loaded.then(None, None, None, js="() => (window.linking = false)", **BROWSER)


def connect_faces(jobs: JobService, form: Form) -> None:
    """Find the faces in a video or photo as soon as it is uploaded, and offer a choice where there are several."""
    found = gr.JSON({"of": ""}, visible=False)
    files = [form.video, form.photo]

    def find(video: str | None, photo: str | None, key: str, request: gr.Request) -> dict[str, Any]:
        face = video or photo
        if face is None or recognise(Path(face), "face"):
            return {"of": key, "note": "", "items": []}
        try:
            return view_state.faces(key, jobs.faces(face, visitor_of(request)))
        except gr.Error as error:
            return {"of": key, "note": unescape(error.message), "items": []}

    shown = [found, *files, form.found]
    changed = [part.change for part in files]
    gr.on(changed, None, shown, form.found, js=answer("faces"), **EVERY, **BROWSER)
    # An upload empties the other slot, which counts as a change too: the key changes once.
    key = gr.Textbox(visible="hidden", elem_id="face-key")
    gr.on(changed, None, files, key, js=answer("face_key"), **EVERY, **BROWSER)
    finding = key.change(find, [*files, key], found, **PREVIEWS, **NEWEST, **PRIVATE)
    finding.then(None, shown, form.found, js=answer("faces"), **EVERY, **BROWSER)
