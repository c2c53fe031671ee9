"""Whatever fills the form: picks, links, and the faces found in a video."""

from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr

from syncdiff.errors import InputError
from syncdiff.options import SampleOptions
from syncdiff.web import view_state
from syncdiff.web.components import MOST_STEPS, Form
from syncdiff.web.events import AGAIN, ANSWERS, BROWSER, HIDDEN, NEWEST, NOW, PREVIEWS, answer
from syncdiff.web.examples import recognise
from syncdiff.web.jobs import JobService, visitor_of
from syncdiff.web.share_links import restored


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


def look_at_faces(jobs: JobService, form: Form) -> None:
    """Who is in the picture, as soon as it is there; a choice where there are several."""
    looked = gr.JSON({"of": ""}, visible=False)
    files = [form.video, form.photo]

    def look(video: str | None, photo: str | None, key: str, request: gr.Request) -> dict[str, Any]:
        face = video or photo
        if face is None or recognise(Path(face), "face"):
            return {"of": key, "note": "", "items": []}
        try:
            return view_state.faces(key, jobs.faces(face, visitor_of(request)))
        except gr.Error as error:
            return {"of": key, "note": unescape(error.message), "items": []}

    shown = [looked, *files, form.found]
    changed = [part.change for part in files]
    gr.on(changed, None, shown, form.found, js=answer("faces"), **AGAIN, **BROWSER)
    # An upload empties the other slot, which counts as a change too: the key changes once.
    key = gr.Textbox(visible="hidden", elem_id="face-key")
    gr.on(changed, None, files, key, js=answer("face_key"), **AGAIN, **BROWSER)
    found = key.change(look, [*files, key], looked, **PREVIEWS, **NEWEST, **HIDDEN)
    found.then(None, shown, form.found, js=answer("faces"), **AGAIN, **BROWSER)
