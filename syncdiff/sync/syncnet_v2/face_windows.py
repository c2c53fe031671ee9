"""Frames -> JPEG pictures, as the original makes them -> SyncNet's embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice

import av
import av.video
import cv2
import numpy as np
import torch
from av.video.reformatter import Interpolation

from syncdiff.sync.scoring import FPS, WINDOW
from syncdiff.sync.syncnet_v2.network import SyncNet

SIDE = 224  # px
BATCH = 16  # windows embedded at once: 0.5 GB
ACCURATE = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP)
_VALUES = np.arange(256)
# Limited range (16..235, chroma 16..240) -> the full range that JPEG has: Y, U, V.
_EXPANDED = [
    np.clip(np.rint((_VALUES - zero) * 255 / span + base), 0, 255).astype(np.uint8)
    for zero, span, base in ((16, 219, 0), (128, 224, 128), (128, 224, 128))
]


def embed_video(net: SyncNet, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """T pictures, uint8 [224,224,3] BGR each, at 25 fps -> embeddings of all T-4 windows, in batches [n,1024]."""
    stream = iter(pictures)
    frames = list(islice(stream, WINDOW - 1))
    while fresh := list(islice(stream, BATCH)):
        frames += fresh
        with torch.inference_mode():
            windows = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None].float()
            yield net.forward_lip(windows.to(net.device))[0].cpu().numpy()
        frames = frames[-(WINDOW - 1) :]


def jpeg_round_trip(pictures: Iterable[np.ndarray | av.VideoFrame]) -> Iterator[np.ndarray]:
    """Pictures of one video, decoded frames or uint8 RGB [H,W,3] -> BGR, after a JPEG of about 1 kB each.

    The original's scores are made of such pictures: its ffmpeg writes the frames as JPEG at its default of 200 kbit/s,
    which the encoder overshoots in the first frames. A decoded frame's own planes are encoded, only their range
    expanded: the pictures are then those of ffmpeg 5, bit for bit, on the shipped examples. By way of RGB they differed
    by 1.7 levels in the mean, with a bias of -2.3, -0.7 and -1.8 in B, G and R.
    """
    codec = None
    for number, picture in enumerate(pictures):
        if isinstance(picture, np.ndarray):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")  # noqa: PLW2901
        frame = full_range(picture)
        if codec is None:
            codec = av.CodecContext.create("mjpeg", "w")
            codec.height, codec.width, codec.pix_fmt = frame.height, frame.width, "yuvj420p"
            codec.time_base, codec.framerate, codec.bit_rate = Fraction(1, FPS), FPS, 200_000  # pyright: ignore[reportAttributeAccessIssue]
            codec.thread_count = 1  # several would share the rate in another way
        frame.pts = number
        for packet in codec.encode(frame):
            yield cv2.imdecode(np.frombuffer(bytes(packet), np.uint8), cv2.IMREAD_COLOR)


def full_range(frame: av.VideoFrame) -> av.VideoFrame:
    """A frame in any format -> yuvj420p with planes of 0..255; the conversion matrix stays, as in ffmpeg's own."""
    full = frame.format.name.startswith("yuvj") or (frame.color_range == 2 and frame.format.name.startswith("yuv"))
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuvj420p" if full else "yuv420p", interpolation=ACCURATE)
    out = av.VideoFrame(frame.width, frame.height, "yuvj420p")
    for source, target, expanded in zip(frame.planes, out.planes, _EXPANDED, strict=True):
        values = np.frombuffer(source, np.uint8).reshape(source.height, source.line_size)[:, : source.width]  # pyright: ignore[reportCallIssue, reportArgumentType] -- a plane is a buffer
        padded = np.zeros((target.height, target.line_size), np.uint8)
        padded[:, : target.width] = values if full else expanded[values]
        target.update(padded.tobytes())
    return out


def resized(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Whole pictures of any size, stretched to [224,224,3]."""
    return (cv2.resize(picture, (SIDE, SIDE)) for picture in pictures)
