"""Frames -> what the original feeds SyncNet with -> its embeddings, in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice

import av
import cv2
import numpy as np
import torch

from syncdiff.sync.judge import FPS, WINDOW
from syncdiff.sync.syncnet_v2.network import SyncNet

SIDE = 224  # px
PIECE = 16  # windows embedded at once: 0.5 GB


def see(net: SyncNet, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """T pictures, uint8 [224,224,3] BGR each, at 25 fps -> pieces [n,1024] of all T-4 windows, as they are done."""
    stream = iter(pictures)
    held = list(islice(stream, WINDOW - 1))
    while fresh := list(islice(stream, PIECE)):
        held += fresh
        with torch.inference_mode():
            yield net.look(torch.from_numpy(np.stack(held)).permute(3, 0, 1, 2)[None].float())[0].numpy()
        held = held[-(WINDOW - 1) :]


def jpegs(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures [H,W,3] uint8 RGB of one video -> BGR, after a JPEG of about 1 kB each.

    The original's figures are made of such pictures: its ffmpeg writes the frames as JPEG without asking for a quality,
    and then 200 kbit/s is the aim, which the encoder misses in the first frames and nears by and by."""
    codec = None
    for number, picture in enumerate(pictures):
        if codec is None:
            codec = av.CodecContext.create("mjpeg", "w")
            codec.height, codec.width, codec.pix_fmt = *picture.shape[:2], "yuvj420p"
            codec.time_base, codec.framerate, codec.bit_rate = Fraction(1, FPS), FPS, 200_000
            codec.thread_count = 1  # several would share the rate in another way
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuvj420p")
        frame.pts = number
        for packet in codec.encode(frame):
            yield cv2.imdecode(np.frombuffer(bytes(packet), np.uint8), cv2.IMREAD_COLOR)


def squashed(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures of any size, whole -> [224,224,3]."""
    return (cv2.resize(picture, (SIDE, SIDE)) for picture in pictures)
