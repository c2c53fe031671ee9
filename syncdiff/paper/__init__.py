"""The model of the SyncDiff paper. What it states and what was inferred, with sources: docs/paper.md.

denoiser   the U-Net, its noise schedule, VQ-f4 latents
avhubert   the speech encoder
frames     the square that is generated, and the mask in it
generator  autoregressive generation, frame after frame
released   networks by others, from files that are given
"""

from syncdiff.paper.denoiser import (
    VQ_F4,
    VQ_F4_AT,
    PaperDenoiser,
    Priors,
    few_step_schedule,
    paper_schedule,
    sampling_schedule,
    to_latents,
    to_pixels,
)
from syncdiff.paper.frames import SIDE, face_boxes, masked, place_frames, to_square
from syncdiff.paper.frames import cut as cut_frame
from syncdiff.paper.frames import paste as paste_frame
from syncdiff.paper.generator import PaperGenerator

__all__ = [
    "SIDE",
    "VQ_F4",
    "VQ_F4_AT",
    "PaperDenoiser",
    "PaperGenerator",
    "Priors",
    "cut_frame",
    "face_boxes",
    "few_step_schedule",
    "masked",
    "paper_schedule",
    "paste_frame",
    "place_frames",
    "sampling_schedule",
    "to_latents",
    "to_pixels",
    "to_square",
]
