"""Named endpoints for programs. Their docstrings are the public documentation, also of the MCP tools."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from syncdiff.options import SampleOptions
from syncdiff.results import Result
from syncdiff.web import verify_tab
from syncdiff.web.eta import in_words
from syncdiff.web.jobs import JobRequest, JobService, Waiting, visitor_of
from syncdiff.web.view_state import public_report

PROGRESS = gr.Progress()  # gradio looks for one among a function's defaults


def add_endpoints(jobs: JobService) -> None:
    """Add /sync and /verify, as for `gradio_client.Client(url).predict(face=..., voice=..., api_name="/sync")`.

    Gradio shows programs only the first line of an argument's description.

    Gradio 6.31 stores an iterator when it has yielded once (`call_process_api`), and a cancel closes only what is
    stored. An iterator cancelled in its first step stays suspended, with its files and its place in the queue, until it
    is garbage-collected. So every generator that gradio calls yields once before it holds anything.
    """

    def sync(
        face: str,
        voice: str,
        steps: int | None,
        seed: int | None,
        consent: bool,
        tail: str | None,
        correct: bool | None,
        label: bool | None,
        request: gr.Request,
        which: int | None = None,  # the default; gradio's clients treat a component's None as a missing value
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[tuple[Any, Any]]:
        """Lip synchronisation: redraw the mouth in a video (or photo) of a face so that it speaks a given voice.

        Use it to dub or re-voice a talking head. Takes longer than the video lasts on two CPU cores. Everything
        outside the mouth, the frame rate and the size stay as they are. Returns the finished mp4 and a report: frames
        redrawn, spans left as they were and why, sync scores before and after, seconds for each stage.

        Args:
            face: video (mp4, mov, mkv, webm, avi, ts) or photo (png, jpeg, webp) that shows a face, up to 10 minutes.
            voice: sound file (wav, mp3, flac, ogg, m4a, aac), or a video whose sound is the voice, in any language.
            steps: denoising steps a frame, 1 to 50; 1 by default. More is slower.
            seed: 0 to 2147483647; the same seed makes the same video.
            consent: true if everyone seen or heard has agreed to this use; required.
            tail: where the voice is shorter than the video, keep (the default) or trim the rest of it.
            correct: true to correct lips that would come early or late; adds a short test pass.
            label: false leaves the label in the corner out, and promises to say that AI was used wherever it is shown.
            which: the face to redraw where there are several, 0 the largest; by default the largest that can be.
        """
        yield gr.skip(), gr.skip()
        options = {"steps": steps, "seed": seed, "tail": tail, "correct_offset": correct, "label": label}
        job = JobRequest(face, voice, consent, options | {"face": which})
        with closing(jobs.run(job, visitor_of(request))) as items:
            for item in items:
                if isinstance(item, Result):
                    if item.source is not None:  # a program does not get it
                        item.source.unlink(missing_ok=True)
                    yield str(item.video), public_report(item)
                    return
                if isinstance(item, Waiting):
                    when = "" if item.seconds is None else f", {in_words(item.seconds)}"
                    progress(None, desc=f"waiting, {item.ahead} ahead{when}")
                else:
                    progress(item.fraction, desc=f"{item.progress.stage}, {in_words(item.left)} left")
                yield gr.skip(), gr.skip()  # here a client's cancel takes effect

    default = SampleOptions()
    with gr.Row(visible=False):
        inputs = [
            gr.File(label="face"),
            gr.File(label="voice"),
            gr.Number(default.steps, label="steps", precision=0),
            gr.Number(default.seed, label="seed", precision=0),
            gr.Checkbox(False, label="consent"),
            gr.Textbox(default.tail, label="tail"),  # not a gr.Radio: SampleOptions has the better error
            gr.Checkbox(default.correct_offset, label="correct"),
            gr.Checkbox(default.label, label="label"),
            gr.Number(None, label="which", precision=0),
        ]
        outputs = [gr.File(label="video"), gr.JSON(label="report")]
        gr.Button("sync").click(sync, inputs, outputs, api_name="sync", concurrency_id="runs", concurrency_limit=None)
        video, report = gr.File(label="video"), gr.JSON(label="report")
        gr.Button("verify").click(
            verify_tab.verify, video, report, api_name="verify", concurrency_id="checks", concurrency_limit=None
        )
