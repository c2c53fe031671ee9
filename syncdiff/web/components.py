"""The form: three numbered steps, and what lies behind them. Only parts and their looks; `build` says what they do."""

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
WHAT = "Give a face a new voice. Its lips are redrawn to speak it, and both videos are scored."
CONSENT = "Everyone seen or heard in this video has agreed to it"
LABEL = f"Label the video: “{TEXT}”"
UNLABELLED = "No label: wherever I show the video I will say that its lips were redrawn by AI"
CORRECT = "Correct lips that come early or late (adds a short test pass)"
MOST_STEPS = max(8, *PRESETS.values())  # on the slider; links and programs may ask for more
TAILS = [("Keep the rest of the video as it is", "keep"), ("Cut the rest off", "trim")]


@dataclass(frozen=True)
class Form:
    """The parts that something happens to."""

    faces: gr.Tabs  # "video" or "photo"
    video: gr.Video
    photo: gr.Image
    found: gr.HTML  # the faces to choose from
    face_picks: gr.HTML
    voices: gr.Tabs  # "sound" or "film"
    sound: gr.Audio
    film: gr.Video
    voice_picks: gr.HTML
    presets: gr.HTML  # buttons beside the slider
    steps: gr.Slider
    seed: gr.Number
    random: gr.Button
    tail: gr.Radio
    correct: gr.Checkbox
    label: gr.Checkbox
    unlabelled: gr.Checkbox  # the promise without which the label stays
    agreed: gr.Checkbox
    go: gr.Button
    test: gr.Button
    stop: gr.Button

    @property
    def files(self) -> list:
        """The four slots: a face as video or photo, a voice as sound or film."""
        return [self.video, self.photo, self.sound, self.film]

    @property
    def settings(self) -> list:
        """What a link can set beside the files."""
        return [self.steps, self.seed, self.tail, self.correct, self.label]


def build_form(presets: dict[str, Any]) -> Form:
    """The parts, laid out in the column they are built in. presets: what the row of presets shows at first."""
    with gr.Column(elem_classes="step"):
        heading(1, "Face", limits())
        parts = face()
    with gr.Column(elem_classes="step"):
        heading(2, "Voice", "Speech in any language.")
        parts |= voice()
    with gr.Column(elem_classes="step"):
        heading(3, "Make it speak")
        parts |= how_well(presets)
    parts |= begin() | advanced()
    return Form(**parts)


def heading(number: int, name: str, hint: str = "") -> None:
    """A numbered step."""
    more = f"<p>{escape(hint)}</p>" if hint else ""
    gr.HTML(f'<h2><span class="step-number" aria-hidden="true">{number}</span>{name}</h2>{more}')


def limits() -> str:
    """What may be given, before anybody tries."""
    return (
        f"Facing the camera. Up to {LIMITS.seconds / 60:.0f} minutes, {LIMITS.bytes / 2**20:.0f} MB, "
        f"{LIMITS.pixels / 1e6:.0f} MP."
    )


def face() -> dict[str, Any]:
    """The face as a video or a photo. Gradio wants ffmpeg and ffprobe for webcam recordings."""
    webcam = bool(shutil.which("ffmpeg") and shutil.which("ffprobe"))
    faces, video, photo = either(
        ("video", "Video", lambda: video_slot("Face video", "face", webcam=webcam)), ("photo", "Photo", photo_slot)
    )
    found = picks("", [], "faces-found")
    offered = [
        {"key": e.key, "label": e.face_label, "poster": poster(e), "file": as_file(e.face)} for e in examples().values()
    ]
    face_picks = picks("Faces to try", offered, "face-picks")
    return {
        "faces": faces, "video": video, "photo": photo, "found": found, "face_picks": face_picks,
    }  # fmt: skip


def voice() -> dict[str, Any]:
    """The voice as a sound, a recording, or the sound of another video."""
    voices, sound, film = either(
        ("sound", "Sound", sound_slot),
        ("film", "From a video", lambda: video_slot("Video with the voice", "film", height=146)),
    )
    offered = [{"key": e.key, "label": e.voice_label, "file": as_file(e.voice)} for e in examples().values()]
    voice_picks = picks("Voices to try", offered, "voice-picks")
    return {"voices": voices, "sound": sound, "film": film, "voice_picks": voice_picks}


def as_file(path: Path) -> dict[str, Any]:
    """An example's file as a slot holds it: with it the browser fills the slot, and asks no server."""
    return gr.FileData(path=str(path), orig_name=path.name).model_dump()


def either(*ways: tuple[str, str, Callable[[], Any]]) -> tuple:
    """Tabs, one for each way to give a file: (id, name, what makes its slot). Returns the tabs and the slots."""
    slots = []
    with gr.Tabs(elem_classes="choice") as tabs:
        for key, name, slot in ways:
            with gr.Tab(name, id=key):
                slots.append(slot())
    return tabs, *slots


def video_slot(label: str, elem_id: str, height: int = 160, *, webcam: bool = False) -> gr.Video:
    """`format` stays None: else gradio would run ffmpeg on the raw upload before anyone has looked at it."""
    sources: list[Literal["upload", "webcam"]] = ["upload", "webcam"] if webcam else ["upload"]
    return gr.Video(
        sources=sources, include_audio=True, label=label, show_label=False, height=height, buttons=[], elem_id=elem_id
    )


def photo_slot() -> gr.Image:
    """gr.Image would open the upload to check it; only the pipeline's guarded reader may do that."""
    photo = gr.Image(
        sources=["upload"], type="filepath", image_mode=None, label="Face photo", show_label=False, height=160,
        buttons=[], elem_id="photo",
    )  # fmt: skip
    photo.preprocess = lambda upload: upload.path if upload else None  # pyright: ignore[reportAttributeAccessIssue]
    return photo


def sound_slot() -> gr.Audio:
    """A file or a recording, handed on as it is."""
    return gr.Audio(
        sources=["upload", "microphone"], type="filepath", format=None, label="Voice", show_label=False, buttons=[],
        elem_id="voice",
    )  # fmt: skip


def picks(label: str, items: list[dict], elem_id: str, **more: Any) -> gr.HTML:
    """A row of buttons; a click notes in its value the key of the one that was picked. more: of the value, such as
    `chosen`."""
    return gr.HTML(
        {"label": label, "items": items, **more},
        html_template='<div class="picks" role="group"></div>',
        js_on_load=(PAGE / "picks.js").read_text(),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="pick-row",
    )


def how_well(presets: dict[str, Any]) -> dict[str, Any]:
    """What is chosen before it begins: steps a frame, with the presets as marks."""
    row = picks(elem_id="preset", **presets)
    steps = gr.Slider(
        1, MOST_STEPS, SampleOptions().steps, step=1, label="Steps a frame", show_label=False, container=False,
        buttons=[], elem_id="steps",
    )  # fmt: skip
    steps.preprocess = lambda value: value  # what is out of range gets our sentence, not gradio's  # pyright: ignore[reportAttributeAccessIssue]
    return {"steps": steps, "presets": row}


def begin() -> dict[str, Any]:
    """The consent, the primary button and its neighbours, which stay in sight: the tick is seen by whoever presses."""
    with gr.Column(elem_id="begin"):
        agreed = tick(CONSENT, on=False, elem_id="agreed")
        with gr.Row():
            return {
                "agreed": agreed,
                "go": gr.Button("Make it speak", variant="primary", scale=3, elem_id="run"),
                "test": gr.Button("Try one frame", variant="secondary", scale=2, elem_id="test"),
                "stop": gr.Button("Cancel", variant="secondary", visible=False, elem_id="cancel"),
            }


def advanced() -> dict[str, Any]:
    """What most people never need."""
    default = SampleOptions()
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row(elem_id="seed-row"):
            # No limits here: gradio would stop the run before our sentence could be shown.
            seed = gr.Number(
                default.seed, label="Seed", info="The same seed makes the same video", scale=3, elem_id="seed"
            )
            random = gr.Button("Random", scale=1, min_width=90, elem_id="random")
        return {
            "seed": seed,
            "random": random,
            "tail": gr.Radio(TAILS, value=default.tail, label="Where the voice is shorter than the video"),
            "correct": tick(CORRECT, on=default.correct_offset, elem_id="correct"),
            "label": tick(LABEL, on=default.label, elem_id="label"),
            "unlabelled": tick(UNLABELLED, on=False, elem_id="unlabelled", visible=False),
        }


def tick(label: str, *, on: bool, elem_id: str, visible: bool = True) -> gr.Checkbox:
    """Something to agree to, or to turn on."""
    return gr.Checkbox(on, label=label, container=False, visible=visible, elem_classes="tick", elem_id=elem_id)
