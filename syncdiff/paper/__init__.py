"""The paper itself: its network, its picture of a face, its way of drawing. Facts and their sources: docs/paper.md.

denoiser  the U-Net, its schedule, VQ-f4        frames  the square that is generated, and the mask in it
generator    one job: frame after frame, each seeing the one generated before
"""

from syncdiff.paper.denoiser import VQ_F4, VQ_F4_AT, PaperDenoiser, Priors, paper_schedule, to_latents, to_pixels, vq_f4
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
    "masked",
    "paper_schedule",
    "paste_frame",
    "place_frames",
    "to_latents",
    "to_pixels",
    "to_square",
    "vq_f4",
]
