"""The page: a pipeline in, a gradio page out.

Arranges the parts and passes files to the pipeline; what a run shows (progress, both videos, scores) is drawn by
assets/view.html, view.js and style.css from one dict. Knows nothing of media, faces or networks.
"""

import base64
import io
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from syncdiff.media import LIMITS, InputError
from syncdiff.pipeline import Progress, Result, SampleOptions
from syncdiff.scores import Scores

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EXAMPLES = ASSETS / "examples"
REFRESH = 0.25  # seconds between two messages to the browser
PREVIEW = 480  # longer side of the preview in pixels
WHAT = "Give a face video a new voice: its lips are redrawn to speak it, and both videos are scored."
OUR_FAULT = "Something went wrong on our side and was noted. Your files are untouched: please try once more."

# Roughly what each stage takes of the whole, at the default steps on two CPU cores. Only the bar and the time left lean
# on it.
SHARES = {"reading": 0.05, "finding the face": 0.12, "listening": 0.02, "drawing": 0.70, "scoring": 0.11}

ONE = {"concurrency_id": "draw", "concurrency_limit": 1}  # page and endpoint share one place
HIDDEN = {"api_visibility": "private", "show_progress": "hidden"}
PROGRESS = gr.Progress()  # gradio looks for one among a function's defaults
Pipeline = Callable[[Path, Path, Path, SampleOptions], Generator[Progress | Result, None, None]]

log = logging.getLogger(__name__)


class Clock:
    """How far a run is, and how long it still takes. Time comes in seconds from `now`."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now, self.start, self.fraction = now, now(), 0.0

    def __call__(self, progress: Progress) -> tuple[float, float | None]:
        """(fraction of the whole 0..1, never falling; seconds left, None while it is too early to tell)."""
        before = 0.0
        for stage, share in SHARES.items():
            if stage == progress.stage:
                before += share * min(1.0, progress.done / max(1, progress.total))
                break
            before += share
        self.fraction = max(self.fraction, min(before, 1.0))
        spent = self.now() - self.start
        left = spent / self.fraction - spent if self.fraction > 0.05 and spent > 2 else None
        return self.fraction, left


def in_words(seconds: float | None) -> str:
    """Time left, as roughly as it is known."""
    if seconds is None:
        return ""
    if seconds < 5:
        return "a few seconds left"
    if seconds < 55:
        return f"about {5 * round(seconds / 5)} s left"
    return f"about {max(1, round(seconds / 60))} min left"


def picture(image: np.ndarray | None) -> str | None:
    """uint8 [H,W,3] -> a small JPEG as a data URL: nothing is written to disk for a preview."""
    if image is None:
        return None
    small = Image.fromarray(image)
    small.thumbnail((PREVIEW, PREVIEW))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def running_view(progress: Progress, fraction: float, left: float | None, preview: np.ndarray | None) -> dict[str, Any]:
    stage = progress.stage[:1].upper() + progress.stage[1:]
    return {
        "state": "running",
        "stage": stage,
        "percent": int(100 * fraction),
        "left": in_words(left),
        "preview": picture(preview),
    }


def done_view(result: Result) -> dict[str, Any]:
    def scores(s: Scores) -> dict[str, Any]:
        return {
            name: getattr(s, name) for name in ("judge", "confidence", "distance", "offset_frames", "curve", "reason")
        }

    untouched = [
        f"{gap.start:.1f} to {gap.end:.1f} s is left as it was: {gap.reason}." for gap in result.passed_through
    ]
    made = (
        f"{result.redrawn} of {result.frames} frames redrawn in {sum(result.seconds.values()):.1f} s: "
        f"steps {result.options.steps}, seed {result.options.seed}."
    )
    return {
        "state": "done",
        "result": gr.FileData(path=str(result.video)).model_dump(),
        "source": gr.FileData(path=str(result.source)).model_dump(),
        "scores": [scores(result.source_scores), scores(result.result_scores)],
        "gaps": [[gap.start, gap.end] for gap in result.passed_through],
        "notes": [*result.notes, *untouched, made],
    }


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """What a visitor may read: the sentence of an InputError, or one calm sentence while the log has the rest."""
    try:
        yield
    except InputError as error:
        raise gr.Error(escape(str(error), quote=False), print_exception=False) from None  # a toast would render markup
    except Exception:
        log.exception("a run failed")
        raise gr.Error(OUR_FAULT, print_exception=False) from None


def given(path: str | None, missing: str) -> Path:
    if not path:
        raise InputError(missing)
    return Path(path)


def run(
    pipe: Pipeline, face: str | None, voice: str | None, steps: float | None, seed: float | None
) -> Iterator[Progress | Result]:
    """One request in a fresh private folder, which is thrown away unless a Result comes of it. Raises gr.Error only."""
    folder = Path(tempfile.mkdtemp(prefix="result-", dir=cache_folder()))
    finished = False
    try:
        with errors_as_sentences():
            turned = {"steps": steps, "seed": seed}  # a field that was emptied stays at its default
            options = SampleOptions(**{name: int(value) for name, value in turned.items() if value is not None})
            face = given(face, "There is no face yet: add a video or a photo.")
            voice = given(voice, "There is no voice yet: add a sound file or record one.")
            with closing(pipe(face, voice, folder / "syncdiff.mp4", options)) as items:
                for item in items:
                    finished = isinstance(item, Result)
                    yield item
    finally:
        if not finished:
            shutil.rmtree(folder, ignore_errors=True)


def cache_folder() -> Path:
    """Gradio's cache: the only place it serves files from, and sweeps by `delete_cache`."""
    folder = Path(get_upload_folder())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def examples() -> list[dict[str, str]]:
    """What assets/examples/examples.json lists: [{"label", "face", "voice"}], file names beside it."""
    index = EXAMPLES / "examples.json"
    return json.loads(index.read_text()) if index.is_file() else []


def limits() -> str:
    return (
        f"Up to {LIMITS.seconds / 60:.0f} minutes, {LIMITS.bytes / 2**20:.0f} MB and {LIMITS.pixels / 1e6:.0f} "
        "megapixels a file, in any common format, even one that your browser cannot show. "
        "Best with a face that looks roughly into the camera. "
        "Use only faces and voices that you are allowed to use."
    )


def buttons(*, running: bool) -> tuple[dict, dict]:
    """Updates of the primary button and of Cancel: one of them is seen at a time."""
    return gr.update(visible=not running), gr.update(visible=running)


def build_page(pipe: Pipeline) -> gr.Blocks:
    """The page over one loaded pipeline."""
    default = SampleOptions()

    def show(
        video: str | None, photo: str | None, voice: str | None, steps: float | None, seed: float | None
    ) -> Iterator[tuple]:
        clock, sent, preview = Clock(), -REFRESH, None
        try:
            with closing(run(pipe, video or photo, voice, steps, seed)) as items:
                for item in items:
                    if isinstance(item, Result):
                        yield done_view(item), *buttons(running=False)
                        continue
                    preview = preview if item.preview is None else item.preview
                    fraction, left = clock(item)
                    if time.monotonic() - sent >= REFRESH:
                        yield running_view(item, fraction, left, preview), gr.skip(), gr.skip()
                        sent = time.monotonic()
        except gr.Error as error:  # the toast goes away, the view keeps the sentence
            yield {"state": "error", "message": unescape(error.message)}, *buttons(running=False)
            raise

    def answer(
        face: str, voice: str, steps: float | None, seed: float | None, progress: gr.Progress = PROGRESS
    ) -> Iterator[tuple]:
        """Redraw the lips of a face video (or photo) so that they speak a voice; returns the video and its report."""
        with closing(run(pipe, face, voice, steps, seed)) as items:
            for item in items:
                if isinstance(item, Result):
                    yield str(item.video), {k: v for k, v in item.report().items() if k not in ("video", "source")}
                else:
                    progress((item.done, item.total), desc=item.stage)
                    yield gr.skip(), gr.skip()  # where a client's cancel takes hold

    with gr.Blocks(title="syncdiff", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(f"<h1>syncdiff</h1><p>{WHAT}</p>", elem_id="head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_id="inputs"):
                video, photo, voice = face_and_voice()
                gr.Markdown(limits(), elem_id="limits")
                with gr.Row():
                    steps = gr.Slider(
                        1,
                        SampleOptions.MAX_STEPS,
                        default.steps,
                        step=1,
                        label="Steps",
                        info="More is slower",
                        scale=3,
                        min_width=160,
                    )
                    seed = gr.Number(
                        default.seed,
                        label="Seed",
                        info="Same seed, same video",
                        precision=0,  # no limits here: gradio would stop the run before our sentence could be shown
                        scale=2,
                        min_width=120,
                    )
                go = gr.Button("Make it speak", variant="primary", elem_id="run")
                stop = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
            with gr.Column(scale=7, min_width=300, elem_id="side"):
                view = gr.HTML(
                    {"state": "empty"},
                    html_template=(ASSETS / "view.html").read_text(),
                    js_on_load=(ASSETS / "view.js").read_text(),
                    apply_default_css=False,
                    elem_id="view",
                )
                offered = offer(video, voice)

        quiet = {"outputs": [view, go, stop], "queue": False, **HIDDEN}
        runs = []
        for trigger in (go.click, *offered):
            started = trigger(lambda: ({"state": "waiting"}, *buttons(running=True)), **quiet)
            inputs, outputs = [video, photo, voice, steps, seed], [view, go, stop]
            runs.append(started.then(show, inputs, outputs, **ONE, **HIDDEN))
        stop.click(lambda: ({"state": "empty"}, *buttons(running=False)), cancels=runs, **quiet)
        endpoint(answer, default)
    return page.queue(max_size=16, default_concurrency_limit=1)


def face_and_voice() -> tuple[gr.Video, gr.Image, gr.Audio]:
    """The inputs. Gradio wants ffmpeg and ffprobe for webcam recordings. `format` stays None: else gradio would run
    ffmpeg on the raw upload before anyone has looked at it."""
    webcam = shutil.which("ffmpeg") and shutil.which("ffprobe")
    with gr.Tabs():
        with gr.Tab("Face video"):
            video = gr.Video(
                sources=["upload", "webcam"] if webcam else ["upload"],
                include_audio=True,
                label="Face",
                show_label=False,
                height=260,
                buttons=[],
                elem_id="face",
            )
        with gr.Tab("or a photo"):
            photo = gr.Image(
                sources=["upload"],
                type="filepath",
                image_mode=None,
                label="Face",
                show_label=False,
                height=260,
                buttons=[],
                elem_id="photo",
            )
    # gr.Image would open the upload to check it; only the pipeline's guarded reader may do that.
    photo.preprocess = lambda upload: upload.path if upload else None
    voice = gr.Audio(
        sources=["upload", "microphone"], type="filepath", format=None, label="Voice", buttons=[], elem_id="voice"
    )
    # One face at a time: the newest counts.
    for one, other in ((video, photo), (photo, video)):
        one.input(None, None, other, js="() => null", api_visibility="private")
    return video, photo, voice


def offer(video: gr.Video, voice: gr.Audio) -> list[Callable[..., Any]]:
    """The examples as buttons; returns the events after which a run should start (none without examples)."""
    listed = examples()
    if not listed:
        return []
    shown = gr.Examples(
        [[str(EXAMPLES / example["face"]), str(EXAMPLES / example["voice"])] for example in listed],
        [video, voice],
        label="Or try one of these, with one click",
        example_labels=[example["label"] for example in listed],
        cache_examples=False,
        api_visibility="private",
    )
    return [shown.load_input_event.then]


def endpoint(answer: Callable[..., Any], default: SampleOptions) -> None:
    """The same run for programs: `gradio_client.Client(url).predict(face, voice, steps, seed, api_name="/sync")`."""
    with gr.Row(visible=False):
        face, voice = gr.File(label="face"), gr.File(label="voice")
        steps, seed = (
            gr.Number(default.steps, label="steps", precision=0),
            gr.Number(default.seed, label="seed", precision=0),
        )
        video, report = gr.File(label="video"), gr.JSON(label="report")
        gr.Button("sync").click(answer, [face, voice, steps, seed], [video, report], api_name="sync", **ONE)


def launch_options() -> dict[str, Any]:
    """What `launch` is told: this machine only, port GRADIO_SERVER_PORT or 7860; on a Space, where its proxy looks."""
    everyone = "0.0.0.0"  # noqa: S104 -- inside a Space's container
    return {
        "server_name": os.environ.get("GRADIO_SERVER_NAME", everyone if "SPACE_ID" in os.environ else "127.0.0.1"),
        "server_port": int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        "theme": gr.themes.Base(
            primary_hue=gr.themes.colors.indigo,
            neutral_hue=gr.themes.colors.slate,
            radius_size=gr.themes.sizes.radius_lg,
            font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        ).set(
            body_background_fill="*neutral_50",
            body_text_color_subdued="*neutral_600",
            body_text_color_subdued_dark="*neutral_300",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_hover="*primary_700",
            block_info_text_color="*neutral_600",
            block_info_text_color_dark="*neutral_300",
        ),
        "css_paths": ASSETS / "style.css",
        "max_file_size": LIMITS.bytes,
        "share": False,
        "strict_cors": True,
        "show_error": False,
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "footer_links": ["api"],
    }
