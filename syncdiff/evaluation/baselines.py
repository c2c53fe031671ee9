"""Methods for `evaluate`: our model and baselines.

A method takes a filmed clip and a sound and returns the clip's crops speaking it. The baselines are the video left as
it was, one mouth held all the time, the clip's own mouth from the moment whose sound is most similar, and the reference
alone (warped to the forecast, no network). All are pasted as the product pastes (without the invisible mark).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from syncdiff.audio import SAMPLE_RATE
from syncdiff.conditioning import BuildInputs, FaceClip, FramePlan, warped_inputs
from syncdiff.evaluation.metrics import read_lips
from syncdiff.faces.head_pose import yaw_of
from syncdiff.generator import CompactGenerator, drawn_frames
from syncdiff.geometry.crops import paste_crop
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import speech_features
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.training.data import ClipRecord, load_crops, load_set
from syncdiff.training.prepare import FPS

MIN_GAP = 15  # frames between a frame and the one whose mouth it may be given
UPRIGHT = np.eye(2, 3, dtype=np.float32)  # prepared crops are their own frames


@dataclass(frozen=True)
class SourceClip:
    """A prepared clip as it was filmed."""

    name: str
    crops: np.ndarray  # [T, S, S, 3] uint8
    points: np.ndarray  # [T, 478, 2] crop px
    sound: np.ndarray  # [N] float32
    build: BuildInputs = warped_inputs  # of its conditioning; another for a network that was trained otherwise

    @classmethod
    def of(cls, data: Path, records: list[ClipRecord], index: int) -> SourceClip:
        """One of the records of a prepared set; its landmarks are read anew."""
        (crops, starts), record = load_crops(data, records), records[index]
        pixels = np.array(crops[starts[index] : starts[index + 1]])
        return cls(f"{record.set}/{record.name}", pixels, read_lips(pixels), record.samples)

    def first(self, frames: int) -> SourceClip:
        """The clip cut to its first `frames` frames and their sound."""
        sound = self.sound[: frames * SAMPLE_RATE // FPS]
        return replace(self, crops=self.crops[:frames], points=self.points[:frames], sound=sound)

    @property
    def plan(self) -> FramePlan:
        """Every frame in which the face was found, to be redrawn."""
        times, usable = np.arange(len(self.crops)) / FPS, np.isfinite(self.points[:, 0, 0])
        still = np.tile(UPRIGHT, (len(self.crops), 1, 1))
        shots = np.zeros(len(usable), int)
        face_clip = FaceClip(self.crops, still, self.points, yaw_of(self.points), usable, shots, build=self.build)
        return FramePlan(face_clip, np.arange(len(self.crops)), times, times + 0.5 / FPS, usable.astype(np.float32))

    def plan_for(self, pipe: SyncDiffPipeline | CompactGenerator) -> FramePlan:
        """The same with the articulation learnt from the clip's own sound, as a job does."""
        plan, features = self.plan, speech_features(pipe.speech, self.sound)
        return replace(plan, face=replace(plan.face, own_forecast=CompactGenerator.forecast(features, plan.middles)))


def clips_of(data: Path, name: str) -> list[ClipRecord]:
    """The records of a prepared set. Raises SystemExit with a sentence where there are none."""
    if records := load_set(data, name):
        return records
    raise SystemExit(f"{data / name} holds no prepared clips: make them with syncdiff.training.prepare.")


Method = Callable[[SourceClip, np.ndarray], np.ndarray]  # a clip and a sound [N] -> crops [T, S, S, 3] that speak it


def drawn_by(pipe: SyncDiffPipeline, options: SampleOptions) -> Method:
    """The shipped model."""
    return lambda clip, sound: draw(cast(CompactGenerator, pipe.generator()), clip, sound, options.steps, options.seed)


def draw(
    generator: CompactGenerator, clip: SourceClip, sound: np.ndarray, steps: int, seed: int = 0, *, whole: bool = False
) -> np.ndarray:
    """The clip's crops [T, S, S, 3] with its mouth redrawn to a sound [N], pasted as the product pastes it.

    The product adds the difference between a crop and its reference to the reference at the film's scale. A network
    that saw another reference is pasted `whole`: else the warped lips, which it did not draw, would show.
    """
    plan, speech, out = clip.plan_for(generator), generator.encode(sound), clip.crops.copy()
    for i, frame in drawn_frames(generator, plan, speech, steps=steps, seed=seed):
        patch = paste_crop(out[i], frame.crop, UPRIGHT) if whole else frame.patch(clip.crops[i], frame.crop)
        patch.apply(out[i])
    return out


class Regressor(nn.Module):
    """A Denoiser that was trained with L1 to draw the frame in one evaluation: no noise, no previous frame.

    Wav2Lip's shape (a frame without its mouth, another frame of the person, a window of speech -> the frame) in our
    network's size and on our data, so that what is compared is diffusion against regression.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.config, self.device = denoiser, denoiser.config, denoiser.device

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Conditioning) -> Tensor:
        """As `Denoiser`, [B, C, h, w], but neither the noise nor the previous frame is used."""
        zeros = torch.zeros_like(noisy)
        return self.denoiser(zeros, timestep, replace(condition, previous=zeros))


def left_alone(clip: SourceClip, _sound: np.ndarray) -> np.ndarray:
    """The clip's crops [T, S, S, 3] as they were, whatever the sound."""
    return clip.crops


def frozen(clip: SourceClip, _sound: np.ndarray) -> np.ndarray:
    """[T, S, S, 3] with the mouth of one frame held, whatever the sound."""
    held = clip.crops[clip.plan.face.open_frame]
    return pasted_crops(np.broadcast_to(held, clip.crops.shape), clip.crops)


def nearest_by(pipe: SyncDiffPipeline) -> Method:
    """The clip's own mouth from the moment whose speech features are nearest."""

    def make(clip: SourceClip, sound: np.ndarray) -> np.ndarray:
        times = clip.plan.middles
        own, new = (_windows(pipe, s, times) for s in (clip.sound, sound))
        return pasted_crops(clip.crops[nearest_moments(own, new, min(MIN_GAP, len(times) // 3))], clip.crops)

    return make


def warped_by(pipe: SyncDiffPipeline) -> Method:
    """The reference alone, without the network: the mouth warped to the forecast shape."""

    def make(clip: SourceClip, sound: np.ndarray) -> np.ndarray:
        plan, out = clip.plan_for(pipe), clip.crops.copy()
        forecast = CompactGenerator.forecast(speech_features(pipe.speech, sound), plan.middles)
        mouths = plan.face.plan_mouths(plan.indices, forecast)
        for i in np.flatnonzero(plan.to_redraw):
            out[i] = plan.face.inputs(int(plan.indices[i]), mouths, i).reference
        return out

    return make


def nearest_moments(own: np.ndarray, new: np.ndarray, min_gap: int) -> np.ndarray:
    """Features [T, D] of a clip and of another sound -> [T] the clip's nearest frame, at least `min_gap` frames away.

    In batches: memory grows with the clip, not with its square."""
    nearest, i = [], torch.arange(len(own))
    for part in i.split(256):
        distance = torch.cdist(torch.from_numpy(new)[part], torch.from_numpy(own))
        nearest.append(distance.masked_fill((part[:, None] - i).abs() < min_gap, torch.inf).argmin(1))
    return torch.cat(nearest).numpy()


def _windows(pipe: SyncDiffPipeline, sound: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Speech features [T, 5 * D] around every time [T], s."""
    return speech_features(pipe.speech, sound).window(torch.from_numpy(times), 5).flatten(1).numpy()


def pasted_crops(drawn: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """The mouths of drawn crops [T, S, S, 3] in other crops, by the product's feathered paste."""
    out = crops.copy()
    for image, crop in zip(out, drawn, strict=True):
        paste_crop(image, crop, UPRIGHT).apply(image)
    return out
