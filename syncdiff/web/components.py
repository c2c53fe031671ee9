"""The components of the form, in three numbered steps. Their events are in `buttons`, `costs` and `form_filling`."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from syncdiff.media import LIMITS
from syncdiff.options import PRESETS, SampleOptions
from syncdiff.provenance.label import TEXT
from syncdiff.web.examples import ASSETS, examples, poster

PAGE = ASSETS / "page"
TAGLINE = "Give a face a new voice. Its lips are redrawn to speak it, and both videos are scored."
CONSENT = "Everyone seen or heard in this video has agreed to it"
LABEL = f"Label the video: “{TEXT}”"
UNLABELLED = "No label: wherever I show the video I will say that its lips were redrawn by AI"
CORRECT = "Correct lips that come early or late (adds a short test pass)"
MAX_SLIDER_STEPS = max(8, *PRESETS.values())  # links and programs may ask for more
TAILS = [("Keep the rest of the video as it is", "keep"), ("Cut the rest off", "trim")]


@dataclass(frozen=True)
class Form:
    """The components that events read or change."""

    faces: gr.Tabs  # "video" or "photo"
    video: gr.Video
    photo: gr.Image
    found: gr.HTML  # buttons: the faces found in the video
    face_picks: gr.HTML  # buttons: example faces
    voices: gr.Tabs  # "sound" or "film"
    sound: gr.Audio
    film: gr.Video
    voice_picks: gr.HTML  # buttons: example voices
    presets: gr.HTML  # buttons beside the slider
    steps: gr.Slider
    seed: gr.Number
    random: gr.Button
    tail: gr.Radio
    correct: gr.Checkbox
    label: gr.Checkbox
    unlabelled: gr.Checkbox  # the promise that is required to leave the label out
    agreed: gr.Checkbox  # the consent
    go: gr.Button
    test: gr.Button
    stop: gr.Button

    @property
    def files(self) -> list:
        """The four slots for files: video and photo of the face, sound and film of the voice."""
        return [self.video, self.photo, self.sound, self.film]

    @property
    def settings(self) -> list:
        """The options that a link can set."""
        return [self.steps, self.seed, self.tail, self.correct, self.label]


def build_form(presets: dict[str, Any]) -> Form:
    """Build the form in the current column. presets: first value of the row of presets, from `costs.presets`."""
    with gr.Column(elem_classes="step"):
        heading(1, "Face", limits())
        parts = face()
    with gr.Column(elem_classes="step"):
        heading(2, "Voice", "Speech in any language.")
        parts |= voice()
    with gr.Column(elem_classes="step"):
        heading(3, "Make it speak")
        parts |= quality(presets)
    parts |= start() | advanced()
    return Form(**parts)


def heading(number: int, name: str, hint: str = "") -> None:
    """The heading of a numbered step."""
    more = f"<p>{escape(hint)}</p>" if hint else ""
    gr.HTML(f'<h2><span class="step-number" aria-hidden="true">{number}</span>{name}</h2>{more}')


def limits() -> str:
    """The limits of the face's file, in words."""
    return (
        f"Facing the camera. Up to {LIMITS.seconds / 60:.0f} minutes, {LIMITS.bytes / 2**20:.0f} MB, "
        f"{LIMITS.pixels / 1e6:.0f} MP."
    )


def face() -> dict[str, Any]:
    """The face as a video or a photo. The webcam is offered where gradio finds ffmpeg and ffprobe, which it needs."""
    webcam = bool(shutil.which("ffmpeg") and shutil.which("ffprobe"))
    faces, video, photo = slot_tabs(
        ("video", "Video", lambda: video_slot("Face video", "face", webcam=webcam)), ("photo", "Photo", photo_slot)
    )
    found = button_row("", [], "faces-found")
    offered = [
        {"key": e.key, "label": e.face_label, "poster": poster(e), "file": as_file(e.face)} for e in examples().values()
    ]
    face_picks = button_row("Faces to try", offered, "face-picks")
    return {"faces": faces, "video": video, "photo": photo, "found": found, "face_picks": face_picks}


def voice() -> dict[str, Any]:
    """The voice as a sound, a recording, or the sound of another video."""
    voices, sound, film = slot_tabs(
        ("sound", "Sound", sound_slot),
        ("film", "From a video", lambda: video_slot("Video with the voice", "film", height=146)),
    )
    offered = [{"key": e.key, "label": e.voice_label, "file": as_file(e.voice)} for e in examples().values()]
    voice_picks = button_row("Voices to try", offered, "voice-picks")
    return {"voices": voices, "sound": sound, "film": film, "voice_picks": voice_picks}


def as_file(path: Path) -> dict[str, Any]:
    """An example's file as the value of a slot, with which the browser fills the slot without asking the server."""
    return gr.FileData(path=str(path), orig_name=path.name).model_dump()


def slot_tabs(*ways: tuple[str, str, Callable[[], Any]]) -> tuple:
    """Tabs with one slot each: (id, name, function that makes the slot). Returns the tabs and the slots."""
    slots = []
    with gr.Tabs(elem_classes="choice") as tabs:
        for key, name, make_slot in ways:
            with gr.Tab(name, id=key):
                slots.append(make_slot())
    return tabs, *slots


def video_slot(label: str, elem_id: str, height: int = 160, *, webcam: bool = False) -> gr.Video:
    """A slot for a video. `format` stays None: else gradio would run ffmpeg on the unchecked upload."""
    sources: list[Literal["upload", "webcam"]] = ["upload", "webcam"] if webcam else ["upload"]
    return gr.Video(
        sources=sources, include_audio=True, label=label, show_label=False, height=height, buttons=[], elem_id=elem_id
    )


def photo_slot() -> gr.Image:
    """A slot for a photo. gr.Image would open the unchecked upload, so its preprocess is replaced."""
    photo = gr.Image(
        sources=["upload"], type="filepath", image_mode=None, label="Face photo", show_label=False, height=160,
        buttons=[], elem_id="photo",
    )  # fmt: skip
    photo.preprocess = lambda upload: upload.path if upload else None  # pyright: ignore[reportAttributeAccessIssue]
    return photo


def sound_slot() -> gr.Audio:
    """A slot for a sound file or a recording, which gradio does not convert."""
    return gr.Audio(
        sources=["upload", "microphone"], type="filepath", format=None, label="Voice", show_label=False, buttons=[],
        elem_id="voice",
    )  # fmt: skip


def button_row(label: str, items: list[dict], elem_id: str, **value: Any) -> gr.HTML:
    """A row of buttons; a click stores the key of its item in the component's value. value: more fields of it."""
    return gr.HTML(
        {"label": label, "items": items, **value},
        html_template='<div class="picks" role="group"></div>',
        js_on_load=(PAGE / "picks.js").read_text(),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="pick-row",
    )


def quality(presets: dict[str, Any]) -> dict[str, Any]:
    """Steps a frame: a slider, and buttons for the presets."""
    row = button_row(elem_id="preset", **presets)
    steps = gr.Slider(
        1, MAX_SLIDER_STEPS, SampleOptions().steps, step=1, label="Steps a frame", show_label=False, container=False,
        buttons=[], elem_id="steps",
    )  # fmt: skip
    steps.preprocess = lambda value: value  # SampleOptions checks the range, not gradio  # pyright: ignore[reportAttributeAccessIssue]
    return {"steps": steps, "presets": row}


def start() -> dict[str, Any]:
    """The consent and the buttons, in one block that stays in sight."""
    with gr.Column(elem_id="begin"):
        agreed = checkbox(CONSENT, on=False, elem_id="agreed")
        with gr.Row():
            return {
                "agreed": agreed,
                "go": gr.Button("Make it speak", variant="primary", scale=3, elem_id="run"),
                "test": gr.Button("Try one frame", variant="secondary", scale=2, elem_id="test"),
                "stop": gr.Button("Cancel", variant="secondary", visible=False, elem_id="cancel"),
            }


def advanced() -> dict[str, Any]:
    """Options that most people do not need."""
    default = SampleOptions()
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row(elem_id="seed-row"):
            # Without limits: gradio would stop the run before the sentence of SampleOptions.
            seed = gr.Number(
                default.seed, label="Seed", info="The same seed makes the same video", scale=3, elem_id="seed"
            )
            random = gr.Button("Random", scale=1, min_width=90, elem_id="random")
        return {
            "seed": seed,
            "random": random,
            "tail": gr.Radio(TAILS, value=default.tail, label="Where the voice is shorter than the video"),
            "correct": checkbox(CORRECT, on=default.correct_offset, elem_id="correct"),
            "label": checkbox(LABEL, on=default.label, elem_id="label"),
            "unlabelled": checkbox(UNLABELLED, on=False, elem_id="unlabelled", visible=False),
        }


def checkbox(label: str, *, on: bool, elem_id: str, visible: bool = True) -> gr.Checkbox:
    """A checkbox in the page's style."""
    return gr.Checkbox(on, label=label, container=False, visible=visible, elem_classes="tick", elem_id=elem_id)
