"""Builds the page: lays its components out and connects their events."""

import os
from collections.abc import Callable
from html import escape

import gradio as gr

from syncdiff.options import SampleOptions
from syncdiff.preview import Preview
from syncdiff.web import view_state
from syncdiff.web.api import add_endpoints
from syncdiff.web.buttons import connect_comparison, connect_run, connect_trial
from syncdiff.web.components import PAGE, TAGLINE, build_form
from syncdiff.web.costs import presets, show_costs
from syncdiff.web.examples import ASSETS, DOCUMENTS, EXAMPLES, examples, poster
from syncdiff.web.form_filling import connect_faces, connect_form
from syncdiff.web.jobs import KEPT_SECONDS, JobService, Runner
from syncdiff.web.middleware import Page
from syncdiff.web.verify_tab import build_verify_tab

SCRIPTS = ("player.js", "timeline.js", "history.js", "view.js")


def build_page(run_job: Runner, preview: Preview, lse_needs: Callable[[], str] = lambda: "") -> gr.Blocks:
    """The page over one job runner. lse_needs: says at any moment why SyncNet's scores are missing."""
    jobs = JobService(run_job, preview)
    gr.set_static_paths(EXAMPLES)  # examples are served from their folder: see `components.as_file`
    with Page(title="syncdiff", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as page:
        gr.HTML(f"<h1>syncdiff</h1><p>{TAGLINE}</p>", elem_id="head")
        with gr.Tabs(elem_id="rooms"):
            with gr.Tab("Make a video"), gr.Row(equal_height=False, elem_id="columns"):
                with gr.Column(scale=4, min_width=300, elem_id="inputs"):
                    form = build_form(presets(jobs, [None] * 4, SampleOptions()))
                with gr.Column(scale=7, min_width=300, elem_id="side"):
                    view = build_view()
            with gr.Tab("Check a video"):
                build_verify_tab()
        gr.HTML((PAGE / "foot.html").read_text().replace("LINKS", links()), elem_id="foot")
        connect_form(page, form, view)
        connect_faces(jobs, form)
        lengths = gr.JSON([None] * 4, visible=False)  # seconds of the files in the four slots
        show_costs(form, jobs, lengths, connect_run(jobs, form, view, lengths, lse_needs))
        connect_trial(jobs, form, view, lengths)
        connect_comparison(view)
        add_endpoints(jobs)
    return page.queue(max_size=64, default_concurrency_limit=4, api_open=False)


def links() -> str:
    """HTML links to paper, model card, licence and credits, and on a Space to the code."""
    urls = {"Paper": "https://arxiv.org/abs/2503.13371"}
    if space := os.environ.get("SPACE_ID"):
        base = f"https://huggingface.co/spaces/{space}/blob/main/"
        urls |= {"Code": base.replace("/blob/main/", "/tree/main")}
    else:
        base = f"gradio_api/file={ASSETS.parent}/"
    urls |= {name: f"{base}{file}" for name, file in DOCUMENTS.items()}
    return " · ".join(
        f'<a href="{escape(url)}" target="_blank" rel="noopener">{name}</a>' for name, url in urls.items()
    )


def build_view() -> gr.HTML:
    """The right-hand side, which draws a dict of `view_state`."""
    script = "\n".join((PAGE / name).read_text() for name in SCRIPTS)
    offers = [
        {"key": e.key, "label": e.label, "poster": poster(e), "clip": e.compared.exists() and str(e.compared)}
        for e in examples().values()
    ]
    return gr.HTML(
        view_state.EMPTY,
        offered=offers,
        html_template=(PAGE / "view.html").read_text(),
        js_on_load=script,
        apply_default_css=False,
        elem_id="view",
    )
