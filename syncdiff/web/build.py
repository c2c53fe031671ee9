"""The page: its parts, laid out, and what acts on them."""

import os
from html import escape

import gradio as gr

from syncdiff.options import SampleOptions
from syncdiff.preview import Preview
from syncdiff.web import view_state
from syncdiff.web.api import add_endpoints
from syncdiff.web.buttons import download_compared, run_and_stop, try_one_frame
from syncdiff.web.components import PAGE, WHAT, build_form
from syncdiff.web.costs import presets, show_costs
from syncdiff.web.examples import ASSETS, DOCUMENTS, EXAMPLES, examples, poster
from syncdiff.web.form_filling import fill_in, look_at_faces
from syncdiff.web.jobs import KEPT_SECONDS, JobService, Runner
from syncdiff.web.middleware import Page
from syncdiff.web.verify_tab import build_check

SCRIPTS = ("player.js", "timeline.js", "history.js", "view.js")


def build_page(run_job: Runner, preview: Preview, syncnet: object = "") -> gr.Blocks:
    """The page over one job runner. syncnet: its str() says at any moment why SyncNet's scores are missing."""
    jobs = JobService(run_job, preview)
    gr.set_static_paths(EXAMPLES)  # a slot may hold an example where it lies: see `components.as_file`
    with Page(title="syncdiff", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as page:
        gr.HTML(f"<h1>syncdiff</h1><p>{WHAT}</p>", elem_id="head")
        with gr.Tabs(elem_id="rooms"):
            with gr.Tab("Make a video"), gr.Row(equal_height=False, elem_id="columns"):
                with gr.Column(scale=4, min_width=300, elem_id="inputs"):
                    form = build_form(presets(jobs, [None] * 4, SampleOptions()))
                with gr.Column(scale=7, min_width=300, elem_id="side"):
                    view = build_view()
            with gr.Tab("Check a video"):
                build_check()
        gr.HTML((PAGE / "foot.html").read_text().replace("LINKS", links()), elem_id="foot")
        fill_in(page, form, view)
        look_at_faces(jobs, form)
        lengths = gr.JSON([None] * 4, visible=False)
        show_costs(form, jobs, lengths, run_and_stop(jobs, form, view, lengths, syncnet))
        try_one_frame(jobs, form, view, lengths)
        download_compared(view)
        add_endpoints(jobs)
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
