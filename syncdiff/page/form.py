"""The form: three numbered steps, and what lies behind them. Only parts and their looks; `build` says what they do."""

import shutil
from dataclasses import dataclass
from html import escape

import gradio as gr

from syncdiff.media import LIMITS
from syncdiff.page.examples import ASSETS, examples, poster
from syncdiff.page.links import PRESETS, preset_of
from syncdiff.pipeline import SampleOptions
from syncdiff.provenance.label import TEXT

PAGE = ASSETS / "page"
CONSENT = "Everyone who is seen or heard has agreed to this"
LABEL = f"Label the video: “{TEXT}”"
UNLABELLED = "Leave it out: I will say so myself wherever I show it, since people have a right to know"
FIT = "Practise on this face first: an experiment without a measured gain, up to a minute longer"
TAILS = [("Keep the rest of the video as it is", "keep"), ("Cut the rest off", "trim")]


@dataclass(frozen=True)
class Form:
    """The parts that something happens to."""

    faces: gr.Tabs  # "video" or "photo"
    video: gr.Video
    photo: gr.Image
    face_note: gr.HTML
    found: gr.HTML  # the faces to choose from
    face_picks: gr.HTML
    voices: gr.Tabs  # "sound" or "film"
    sound: gr.Audio
    film: gr.Video
    voice_picks: gr.HTML
    preset: gr.Radio
    steps: gr.Slider
    seed: gr.Number
    tail: gr.Radio
    label: gr.Checkbox
    unlabelled: gr.Checkbox  # the promise without which the label stays
    fit: gr.Checkbox
    estimate: gr.HTML
    agreed: gr.Checkbox
    go: gr.Button
    test: gr.Button
    stop: gr.Button

    @property
    def files(self) -> list:
        """The four slots: a face as video or photo, a voice as sound or film."""
        return [self.video, self.photo, self.sound, self.film]


def build_form(began: str) -> Form:
    """The parts, laid out in the column they are built in. began: what the estimate says at first."""
    with gr.Column(elem_classes="step"):
        heading(1, "Face", limits())
        faces, video, photo = face()
        face_note = gr.HTML(elem_id="face-note")
        found = picks("Which face should speak?", [])
        face_picks = picks(
            "Faces to try", [{"key": e.key, "label": e.face_label, "poster": poster(e)} for e in examples().values()]
        )
    with gr.Column(elem_classes="step"):
        heading(2, "Voice", "Any language. Silence keeps the lips closed.")
        voices, sound, film = voice()
        voice_picks = picks("Voices to try", [{"key": e.key, "label": e.voice_label} for e in examples().values()])
    with gr.Column(elem_classes="step"):
        heading(3, "Make it speak")
        preset, estimate, agreed, go, test, stop = last_step(began)
        steps, seed, tail, label, unlabelled, fit = advanced()
    return Form(
        faces, video, photo, face_note, found, face_picks, voices, sound, film, voice_picks,
        preset, steps, seed, tail, label, unlabelled, fit, estimate, agreed, go, test, stop,
    )  # fmt: skip


def heading(number: int, name: str, hint: str = "") -> None:
    """A numbered step."""
    more = f"<p>{escape(hint)}</p>" if hint else ""
    gr.HTML(f'<h2><span class="step-number" aria-hidden="true">{number}</span>{name}</h2>{more}')


def limits() -> str:
    """What may be given, before anybody tries."""
    return (
        f"Looking roughly into the camera. Up to {LIMITS.seconds / 60:.0f} minutes, {LIMITS.bytes / 2**20:.0f} MB, "
        f"{LIMITS.pixels / 1e6:.0f} megapixels."
    )


def face() -> tuple[gr.Tabs, gr.Video, gr.Image]:
    """The face as a video or a photo. Gradio wants ffmpeg and ffprobe for webcam recordings. `format` stays None: else
    gradio would run ffmpeg on the raw upload before anyone has looked at it."""
    webcam = shutil.which("ffmpeg") and shutil.which("ffprobe")
    with gr.Tabs(elem_classes="choice") as tabs:
        with gr.Tab("Video", id="video"):
            video = gr.Video(
                sources=["upload", "webcam"] if webcam else ["upload"],
                include_audio=True,
                label="Face video",
                show_label=False,
                height=240,
                buttons=[],
                elem_id="face",
            )
        with gr.Tab("Photo", id="photo"):
            photo = gr.Image(
                sources=["upload"],
                type="filepath",
                image_mode=None,
                label="Face photo",
                show_label=False,
                height=240,
                buttons=[],
                elem_id="photo",
            )
    # gr.Image would open the upload to check it; only the pipeline's guarded reader may do that.
    photo.preprocess = lambda upload: upload.path if upload else None
    return tabs, video, photo


def voice() -> tuple[gr.Tabs, gr.Audio, gr.Video]:
    """The voice as a sound, a recording, or the sound of another video."""
    with gr.Tabs(elem_classes="choice") as tabs:
        with gr.Tab("Sound", id="sound"):
            sound = gr.Audio(
                sources=["upload", "microphone"],
                type="filepath",
                format=None,
                label="Voice",
                show_label=False,
                buttons=[],
                elem_id="voice",
            )
        with gr.Tab("From a video", id="film"):
            film = gr.Video(
                sources=["upload"],
                label="Video with the voice",
                show_label=False,
                height=150,
                buttons=[],
                elem_id="film",
            )
    return tabs, sound, film


def picks(label: str, items: list[dict]) -> gr.HTML:
    """A row of buttons; a click tells the key of the one that was picked."""
    return gr.HTML(
        {"label": label, "items": items},
        html_template='<div class="picks" role="group"></div>',
        js_on_load=(PAGE / "picks.js").read_text(),
        apply_default_css=False,
        visible=bool(items),
        elem_classes="pick-row",
    )


def last_step(began: str) -> tuple[gr.Radio, gr.HTML, gr.Checkbox, gr.Button, gr.Button, gr.Button]:
    """How well, and go."""
    preset = gr.Radio(
        list(PRESETS),
        value=preset_of(SampleOptions().steps),
        label="Quality",
        show_label=False,
        container=False,
        elem_id="preset",
    )
    estimate = gr.HTML(began, elem_id="estimate")
    agreed = gr.Checkbox(False, label=CONSENT, container=False, elem_classes="tick", elem_id="agreed")
    go = gr.Button("Make it speak", variant="primary", elem_id="run")
    test = gr.Button("Try one frame first", variant="secondary", elem_id="test")
    stop = gr.Button("Cancel", variant="secondary", visible=False, elem_id="cancel")
    return preset, estimate, agreed, go, test, stop


def advanced() -> tuple[gr.Slider, gr.Number, gr.Radio, gr.Checkbox, gr.Checkbox, gr.Checkbox]:
    """What most people never need."""
    default = SampleOptions()
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        steps = gr.Slider(
            1,
            SampleOptions.MAX_STEPS,
            default.steps,
            step=1,
            label="Steps a frame",
            info="More is slower",
            buttons=[],
        )
        # No limits here: gradio would stop the run before our sentence could be shown.
        seed = gr.Number(default.seed, label="Seed", info="The same seed makes the same video", precision=0)
        tail = gr.Radio(TAILS, value=default.tail, label="Where the voice is shorter than the video")
        fit = gr.Checkbox(default.fit, label=FIT, container=False, elem_classes="tick")
        label = gr.Checkbox(default.label, label=LABEL, container=False, elem_classes="tick", elem_id="label")
        unlabelled = gr.Checkbox(
            False, label=UNLABELLED, container=False, visible=False, elem_classes="tick", elem_id="unlabelled"
        )
    return steps, seed, tail, label, unlabelled, fit
