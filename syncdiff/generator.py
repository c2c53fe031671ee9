"""The compact profile's way of drawing: the mouth's window of an upright face crop, lanes of frames side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from diffusers import DDIMScheduler

from syncdiff.conditioning import CropFile, FaceClip, GeneratorStep, Scene
from syncdiff.devices import autocast
from syncdiff.diffusion import sampler
from syncdiff.faces import FaceTrack
from syncdiff.geometry import crops
from syncdiff.geometry.crops import WINDOW
from syncdiff.media import Clip, Patch
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder, SpeechFeatures, listen

PREVIOUS = 0.4  # strength of the previous drawn frame: chosen when, at full, errors grew (docs/training-log.md)


class CompactGenerator:
    """Draws any chunk of a job on its own."""

    side = crops.S
    finder = "mediapipe"
    upright = True  # its crops are those that the judge looks at and the invisible mark lies in
    cut = staticmethod(crops.cut)

    def __init__(self, denoiser: Denoiser, speech: SpeechEncoder, scheduler: DDIMScheduler) -> None:
        self.denoiser, self.speech, self.scheduler = denoiser, speech, scheduler

    def align(self, clip: Clip, track: FaceTrack) -> np.ndarray:
        return crops.align(track, clip.times)

    def face_clip(self, track: FaceTrack, to_frame: np.ndarray, cut_out: CropFile) -> FaceClip:
        return FaceClip.of(track, to_frame, cut_out)

    def listen(self, samples: np.ndarray) -> SpeechFeatures:
        return listen(self.speech, samples)

    def paste(self, image: np.ndarray, crop: np.ndarray, scene: Scene, i: int, shape: np.ndarray) -> Patch:
        """What was drawn for output frame `i`, its own mouth bent to that shape [SHAPE], in the frame [H, W, 3]."""
        bend = scene.face_clip.bend(scene.indices[i], shape)
        return crops.paste(image, crop, scene.matrix(i), scene.weight[i], bend)

    def draw_chunk(
        self, scene: Scene, heard: SpeechFeatures, start: int, *, steps: int, seed: int
    ) -> Iterator[GeneratorStep]:
        """Draw the mouths of the chunk that begins at output frame `start` (see `sampler.draw_frames`)."""
        device, tokens, mask = self.denoiser.device, self.denoiser.config.tokens, pixel_codec.latent_mask()
        face_clip = scene.face_clip

        @lru_cache(maxsize=1)  # every step of a frame is told the same
        def told(frames) -> Conditioning:
            seen = pixel_codec.encode(scene.windows(frames)) * (1 - mask)
            when = torch.from_numpy(scene.middles[list(frames)])
            lips = face_clip.lips(heard.lips_at(when).numpy())
            shown = list(zip(scene.indices[list(frames)], lips[:, 0], strict=True))
            identity = pixel_codec.encode(np.stack([face_clip.hint(i, wanted)[WINDOW] for i, wanted in shown]))
            region = pixel_codec.spread(np.stack([face_clip.region(i, wanted)[WINDOW] for i, wanted in shown]))
            nothing, speech = torch.zeros_like(seen), heard.window(when, tokens)
            return Conditioning(seen, identity, nothing, speech, torch.from_numpy(lips), region)

        def denoise(noisy, timestep, frames, previous):
            noisy = noisy.to(device, memory_format=torch.channels_last)
            with torch.inference_mode(), autocast(device):
                drawn = self.denoiser(noisy, timestep, replace(told(frames), previous=previous).to(device))
            return drawn.float().cpu()

        def complete(clean, frames):
            return PREVIOUS * (clean.clamp(-1, 1) * mask + told(frames).masked)

        shape = (pixel_codec.CHANNELS, pixel_codec.HEIGHT, pixel_codec.WIDTH)
        for part in sampler.draw_frames(
            scene.wanted, start, denoise, complete, shape, self.scheduler, steps=steps, seed=seed
        ):
            shown = len(part.frames) if part.finished else 1
            drawn = scene.complete(part.frames[:shown], pixel_codec.decode(part.clean[:shown]))
            if part.finished:
                yield GeneratorStep(part.frames, drawn[0], drawn, told(part.frames).lips[:, 0].numpy())
            else:
                yield GeneratorStep(part.frames, drawn[0])
