"""Estimated time of each preset, for the files in the form."""

from dataclasses import replace
from typing import Any, Literal

import gradio as gr

from syncdiff.media import LIMITS
from syncdiff.options import PRESETS, SampleOptions
from syncdiff.web.components import PAGE, Form
from syncdiff.web.eta import DEFAULT_FPS, DEFAULT_SECONDS, in_words
from syncdiff.web.events import BROWSER, EVERY, NEWEST, UNQUEUED, answer
from syncdiff.web.jobs import JobService


def show_costs(form: Form, jobs: JobService, lengths: gr.JSON, runs: list) -> None:
    """Show the estimated time on each preset. The browser measures its files: the server opens none for it.

    lengths: component for the seconds of the four slots. runs: events after which the estimates are renewed."""

    def estimate(lengths: list[float | None], tail: Literal["keep", "trim"], correct: bool) -> dict[str, Any]:
        row = presets(jobs, lengths, SampleOptions(tail=tail, correct_offset=correct))
        return row | {"of": [lengths, tail, correct]}

    costs = gr.JSON(visible=False)
    measured = gr.on(
        [part.change for part in form.files], None, form.files, lengths, js=(PAGE / "lengths.js").read_text(),
        **NEWEST, **BROWSER,
    )  # fmt: skip
    options = [form.tail, form.correct]
    for trigger in (measured.then, *(part.change for part in options), *(run.then for run in runs)):
        estimated = trigger(estimate, [lengths, *options], costs, **EVERY, **UNQUEUED)
        shown = [costs, form.presets, form.steps, lengths, *options]
        estimated.then(None, shown, form.presets, js=answer("costs"), **EVERY, **BROWSER)
    form.steps.change(None, [form.presets, form.steps], form.presets, js=answer("marks"), **BROWSER)


def presets(jobs: JobService, lengths: list[float | None], options: SampleOptions) -> dict[str, Any]:
    """The row of presets, with the estimated time of each for files of these seconds (video, photo, sound, film)."""
    video, voice = seconds_of(lengths)
    frames = DEFAULT_FPS * (video or 0.0)
    shown = voice if voice and options.tail == "trim" else max(voice or DEFAULT_SECONDS, video or 0.0)
    items = [
        {
            "key": str(steps),
            "label": name,
            "hint": f"{steps} step{'' if steps == 1 else 's'}",
            "cost": in_words(jobs.durations.seconds(frames, DEFAULT_FPS * shown, replace(options, steps=steps))),
        }
        for name, steps in PRESETS.items()
    ]
    of = f"{shown:.0f} s of video" if voice else f"{DEFAULT_SECONDS:.0f} s of voice"
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
