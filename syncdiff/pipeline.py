"""The diffusion pipeline: components, loading and saving, and redrawing the mouths of prepared crops.

Files, tracking, writing, scoring and signing are the job's (`syncdiff.job`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ModelMixin, VQModel
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.utils import BaseOutput

from syncdiff.conditioning import FramePlan
from syncdiff.devices import half_type, limit_threads
from syncdiff.errors import InputError
from syncdiff.generator import CompactGenerator, FaceGenerator, drawn_frames
from syncdiff.late_imports import without_compiler
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.options import OPTIONS, Profile
from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import PaperDenoiser
from syncdiff.paper.generator import PaperGenerator
from syncdiff.weights.folders import COMPACT, profile_of, read_network, read_schedule

Attention = Literal["auto", "sdpa", "xformers"]

NETWORKS: dict[Profile, dict[str, type[ModelMixin]]] = {  # by the name of their sub-folder
    "compact": {"denoiser": Denoiser, "speech": SpeechEncoder},
    "paper": {"denoiser": PaperDenoiser, "speech": AVHubert, "vae": VQModel},
}


@dataclass
class SyncDiffOutput(BaseOutput):
    """Output of SyncDiffPipeline."""

    crops: np.ndarray  # [T', side, side, 3] uint8, one for every frame of the plan


class SyncDiffPipeline(DiffusionPipeline):
    """SyncDiff's components: denoiser, speech encoder, scheduler and, for the paper's profile, the autoencoder.

    The components decide the profile: with an autoencoder it is the paper's, without one it is the compact model.

    Args:
        denoiser: the U-Net with its conditioning inputs.
        speech: the speech encoder.
        scheduler: the noise schedule and its DDIM steps.
        vae: VQ-f4 of the paper's profile.
    """

    _optional_components = ["vae"]  # noqa: RUF012 -- diffusers' own name and type

    def __init__(
        self,
        denoiser: Denoiser | PaperDenoiser,
        speech: SpeechEncoder | AVHubert,
        scheduler: DDIMScheduler,
        vae: VQModel | None = None,
    ) -> None:
        super().__init__()
        denoiser.to(memory_format=torch.channels_last)  # convolutions on a CPU are faster this way  # pyright: ignore[reportCallIssue] -- diffusers hides torch's signature
        with without_compiler():
            self.register_modules(denoiser=denoiser, speech=speech, scheduler=scheduler, vae=vae)
        self.attention = "sdpa"

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path = COMPACT) -> SyncDiffPipeline:
        """Load a folder that save_pretrained wrote, by default the shipped compact model.

        Raises InputError where there is none, CheckpointError where a file in it is not what it says."""
        folder = Path(pretrained_model_name_or_path)
        parts = {name: read_network(kind, folder / name) for name, kind in NETWORKS[profile_of(folder)].items()}
        return cls(**parts, scheduler=read_schedule(folder / "scheduler"))  # pyright: ignore[reportArgumentType] -- NETWORKS says which class

    @classmethod
    def ready(cls, folder: str | Path = COMPACT, attention: Attention = "auto") -> SyncDiffPipeline:
        """`from_pretrained`, moved to the GPU where there is one, with the attention kernel that was asked for."""
        limit_threads()
        pipe = cls.from_pretrained(folder)
        if torch.cuda.is_available() and not os.environ.get("SPACES_ZERO_GPU"):  # ZeroGPU lends a GPU for single calls
            pipe.to("cuda")
        pipe.set_attention(attention)
        return pipe

    def set_attention(self, attention: Attention) -> None:
        """Choose the attention kernel; `self.attention` then says which one runs.

        "auto" takes xformers where it is installed and a GPU is in use, else torch's scaled_dot_product_attention.
        Raises InputError where xformers was asked for and cannot run.
        """
        if attention not in ("auto", "sdpa", "xformers"):
            raise InputError(f"The attention option is {attention!r}: choose auto, sdpa or xformers.")
        installed = find_spec("xformers") is not None
        if attention == "xformers" and not (installed and self.device.type == "cuda"):
            why = "it is not installed (pip install 'syncdiff[gpu]')" if not installed else "it has no CPU operator"
            raise InputError(f"xformers cannot be used here: {why}. Choose auto or sdpa.")
        if attention != "sdpa" and installed and self.device.type == "cuda":
            try:
                # set_attention_backend("xformers") changes nothing in diffusers' U-Nets.
                self.denoiser.unet.enable_xformers_memory_efficient_attention()
            except Exception as error:  # it tries the operator out, which fails in many ways, by build
                if attention == "xformers":
                    raise InputError(f"xformers cannot be used here: {error}. Choose auto or sdpa.") from error
            else:
                self.attention = "xformers"
                return
        self.denoiser.unet.set_attn_processor(AttnProcessor2_0())
        self.attention = "sdpa"

    @property
    def running(self) -> dict[str, str]:
        """How the networks run: profile, device, precision, attention."""
        dtype = half_type(self.device) or torch.float32
        return {
            "profile": self.profile,
            "device": self.device.type,
            "precision": str(dtype).removeprefix("torch."),
            "attention": self.attention,
        }

    @property
    def profile(self) -> Profile:
        """Which of the two models this is."""
        return "compact" if self.vae is None else "paper"

    def generator(self) -> FaceGenerator:
        """A generator for one job with these components."""
        if self.vae is None:
            return CompactGenerator(self.denoiser, self.speech, self.scheduler)
        return PaperGenerator(self.denoiser, self.speech, self.vae, self.scheduler)

    def __call__(
        self, plan: FramePlan, audio: np.ndarray, *, num_inference_steps: int | None = None, seed: int = 0
    ) -> SyncDiffOutput:
        """Redraw the mouths of a face's crops so that they speak `audio`.

        Args:
            plan: the face's crops, and the source frame of every output frame.
            audio: [N] float32 at 16 kHz, -1..1, from the first output frame on.
            num_inference_steps: denoising steps a frame; the profile's own number where None.
            seed: the same seed gives the same crops.

        Returns:
            SyncDiffOutput; frames that the plan leaves alone are the source's own crops.
        """
        steps = OPTIONS[self.profile]().steps if num_inference_steps is None else num_inference_steps
        generator = self.generator()
        speech = generator.encode(audio)
        crops = np.stack([plan.face.crops[i] for i in plan.indices])
        for i, frame in drawn_frames(generator, plan, speech, steps=steps, seed=seed):
            crops[i] = frame.crop
        return SyncDiffOutput(crops=crops)
