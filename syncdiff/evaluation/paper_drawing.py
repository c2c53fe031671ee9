"""Redrawing films for the paper's evaluation: in batches with the paper's model, one by one with the compact one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
import soundfile
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.conditioning import FramePlan
from syncdiff.devices import autocast
from syncdiff.errors import InputError
from syncdiff.job import Job
from syncdiff.options import SampleOptions
from syncdiff.paper.denoiser import Priors, to_latents, to_pixels
from syncdiff.paper.frames import paste_square
from syncdiff.paper.generator import FaceFrames, PaperGenerator
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.results import Result
from syncdiff.sync.syncnet_v2.face_windows import ACCURATE
from syncdiff.training.lrs import Film, PreparedFilm, Utterance, write_whole
from syncdiff.training.prepare import FPS, read_sound

SILENCE_RMS = 10 ** (-50 / 20)  # of the noise used as silence, full scale 1: a voice below -55 dB would be refused
Voice = Literal["matched", "foreign", "silence"]


@dataclass(frozen=True)
class Task:
    """A film to be redrawn to a voice."""

    film: PreparedFilm
    voice: Voice
    stranger: PreparedFilm | None  # the film whose voice is the foreign one
    path: Path  # of the result; NAME.drawn.npy beside it has the mask of the drawn frames

    def sound(self, own: np.ndarray) -> np.ndarray:
        """[N] float32 at 16 kHz. Raises InputError."""
        if self.voice == "matched":
            return own
        if self.voice == "silence" or self.stranger is None:
            return np.random.default_rng(0).normal(0, SILENCE_RMS, len(own)).astype(np.float32)
        return sound_of(self.stranger.read().utterance)


def drawn_mask(path: Path) -> np.ndarray:
    """[T] bool, which frames of a redrawn film were drawn."""
    return np.load(path.with_suffix(".drawn.npy"))


def draw_together(pipe: SyncDiffPipeline, tasks: Sequence[Task], options: SampleOptions) -> dict[str, str]:
    """Redraw several films in one batch, with the paper's model. Returns the reasons of those that failed, by name."""
    generator, ready, failed = cast(PaperGenerator, pipe.generator()), [], {}
    for task in tasks:
        try:
            film = task.film.read().film()
            ready.append((task, film, task.sound(film.sound)))
        except InputError as sentence:
            failed[task.film.name] = str(sentence)
    if not ready:
        return failed
    plans = [_plan(film, sound) for _, film, sound in ready]
    speech = [generator.encode(sound) for _, _, sound in ready]
    sources = (film.images[: len(plan)] for (_, film, _), plan in zip(ready, plans, strict=True))
    redrawn = [[image.copy() for image in images] for images in sources]
    for n, i, square in generator.generate_together(plans, speech, steps=options.steps, seed=options.seed):
        paste_square(redrawn[n][i], square, plans[n].matrix(i), float(plans[n].weight[i])).apply(redrawn[n][i])
    for (task, _, sound), plan, images in zip(ready, plans, redrawn, strict=True):
        _write_result(task, plan.to_redraw, lambda path, i=images, s=sound: write_film(path, i, s))
    return failed


def _plan(film: Film, sound: np.ndarray) -> FramePlan:
    """Every frame with a face box is redrawn, up to the end of the voice."""
    T = max(1, min(len(film.frames), len(sound) * FPS // SAMPLE_RATE))
    usable = np.asarray(np.isfinite(film.boxes).all(1))
    times = np.arange(T) / FPS
    face = FaceFrames(film.frames, film.to_frame, film.boxes, usable)
    return FramePlan(face, np.arange(T), times, times + 0.5 / FPS, usable[:T].astype(np.float32))


def draw_by_job(job: Job, task: Task, options: SampleOptions) -> dict[str, str]:
    """Redraw one film by a job, as a visitor's. Returns the reason where it failed, by name."""
    try:
        own = task.film.read().utterance.video
        with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
            voice = own if task.voice == "matched" else Path(folder) / "voice.wav"
            if task.voice != "matched":
                soundfile.write(voice, task.sound(sound_of(task.film.read().utterance)), SAMPLE_RATE)
            *_, last = job(own, voice, Path(folder) / "made.mp4", options)
            result = cast(Result, last)
            times = np.arange(result.frames) / FPS + 0.5 / FPS
            undrawn = [(gap.start <= times) & (times < gap.end) for gap in result.passed_through]
            mask = ~np.any(undrawn, axis=0) if undrawn else np.ones(len(times), bool)
            _write_result(task, mask, lambda path: path.write_bytes(Path(result.video).read_bytes()))
    except InputError as sentence:
        return {task.film.name: str(sentence)}
    return {}


def _write_result(task: Task, mask: np.ndarray, write: Callable[[Path], object]) -> None:
    """Write the mask and then the film: where the film exists both are whole, also after a run that was killed."""
    write_whole(task.path.with_suffix(".drawn.npy"), lambda path: np.save(path, mask))
    write_whole(task.path, write)


def write_film(path: Path, images: Sequence[np.ndarray], sound: np.ndarray) -> None:
    """RGB frames, T of [H, W, 3] uint8, at 25 fps and sound [N] at 16 kHz -> mp4: H.264 at CRF 10, AAC."""
    height, width = (side - side % 2 for side in images[0].shape[:2])
    with av.open(str(path), "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=FPS, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p", interpolation=ACCURATE)))
        for start in range(0, len(sound), 1024):
            part = np.ascontiguousarray(sound[None, start : start + 1024], np.float32)
            block = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            out.mux(audio.encode(block))
        for stream in (video, audio):
            out.mux(stream.encode())


@torch.inference_mode()
def estimate(pipe: SyncDiffPipeline, frames: Sequence[int], batch: int, steps: int) -> float:
    """Hours to draw films of these lengths, shortest first, `batch` at once: measured on one frame of a batch."""
    rows, config = min(batch, len(frames)), pipe.denoiser.config
    latents, pose = torch.zeros(rows, 3, 64, 64), torch.zeros(rows, 3 * config["previous"], 64, 64)
    speech = torch.zeros(rows, config["tokens"], pipe.speech.config["width"])
    priors = Priors(latents, latents, pose, speech).to(pipe.device)
    seconds = []
    for _ in range(2):  # the first is to warm up
        began = time.perf_counter()
        with autocast(pipe.device):
            pipe.denoiser(priors.masked, torch.full((rows,), 999, device=pipe.device), priors)
            _wait(pipe.device)
            step = time.perf_counter() - began
            to_latents(pipe.vae, to_pixels(pipe.vae, priors.masked))
            _wait(pipe.device)
        # A frame is decoded once and encoded twice: the masked one, and what was generated.
        seconds.append(steps * step + 2 * (time.perf_counter() - began - step))
    together = sum(sorted(frames)[min(i + batch, len(frames)) - 1] for i in range(0, len(frames), batch))
    return together * seconds[-1] / 3600


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sound_of(utterance: Utterance) -> np.ndarray:
    """[N] float32 at 16 kHz of a film. Raises InputError where it has none."""
    sound = read_sound(utterance.video)
    if sound is None:
        raise InputError(f"{utterance.video} has no sound.")
    return sound
