"""S3FD (Zhang et al. 2017) as SyncNet's authors run it, for their own file of weights.

It is not face-alignment's S3FD: here fc6 is dilated by 6 and padded by 6 (there 1 and 3), the third pooling rounds up
(there down), and the picture is RGB (there BGR). The two files hold different weights, and their boxes differ.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.weights import load_strictly, read_tensors

FILE = "sfd_face.pth"
MEAN = np.array([123, 117, 104], np.float32)  # R, G, B
MIN_SCORE, MAX_IOU = 0.05, 0.3  # of a candidate; of two boxes that are both kept
_CHANNELS = 3, 64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0  # 0 is a pooling
_SOURCES = {15: "L2Norm3_3", 22: "L2Norm4_3", 29: "L2Norm5_3"}  # layers of vgg whose output is also a detector's input


class _L2Norm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) * self.weight[:, None, None]


class S3FD(nn.Module):
    """The face detector; boxes are x0 y0 x1 y1 px and a score 0..1. Key names are the released file's."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last, *rest = _CHANNELS
        for number, channels in enumerate(rest):
            if channels:
                layers += [nn.Conv2d(last, channels, 3, padding=1), nn.ReLU()]
                last = channels
            else:
                layers.append(nn.MaxPool2d(2, ceil_mode=number == 9))
        layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]
        self.vgg = nn.ModuleList(layers)
        extras = (1024, 256, 1, 1), (256, 512, 3, 2), (512, 128, 1, 1), (128, 256, 3, 2)
        self.extras = nn.ModuleList(nn.Conv2d(a, b, size, stride, size // 2) for a, b, size, stride in extras)
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = _L2Norm(256), _L2Norm(512), _L2Norm(512)
        widths = 256, 512, 512, 1024, 512, 256
        self.loc = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in widths)
        self.conf = nn.ModuleList(nn.Conv2d(width, 4 if i == 0 else 2, 3, padding=1) for i, width in enumerate(widths))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures [1, 3, H, W] -> boxes [A, 4] px and scores [A] of all anchors."""
        maps = []
        for i, layer in enumerate(self.vgg):
            x = layer(x)
            if i in _SOURCES:
                maps.append(getattr(self, _SOURCES[i])(x))
        maps.append(x)
        for first, second in zip(self.extras[::2], self.extras[1::2], strict=True):
            x = F.relu(second(F.relu(first(x))))
            maps.append(x)
        boxes, scores = [], []
        for level, (features, loc, conf) in enumerate(zip(maps, self.loc, self.conf, strict=True)):
            stride, logits = 2 ** (level + 2), conf(features)
            face, other = logits[0, -1], logits[0, :-1].amax(0)  # the finest level has three backgrounds
            rows, columns = torch.meshgrid(*map(torch.arange, face.shape), indexing="ij")
            anchors = (torch.stack([columns, rows]) + 0.5) * stride
            centres = anchors + 0.1 * loc(features)[0, :2] * 4 * stride
            halves = 2 * stride * torch.exp(0.2 * loc(features)[0, 2:])
            boxes.append(torch.cat([centres - halves, centres + halves]).flatten(1).T)
            scores.append(torch.sigmoid(face - other).flatten())
        return torch.cat(boxes), torch.cat(scores)

    @torch.inference_mode()
    def detect_from_image(self, image: np.ndarray) -> np.ndarray:
        """RGB [H, W, 3] uint8 -> boxes [N, 5] after non-maximum suppression, highest score first."""
        x = torch.from_numpy(image.astype(np.float32) - MEAN).permute(2, 0, 1)[None]
        boxes, scores = (found.numpy() for found in self(x))
        order = np.argsort(-scores, kind="stable")
        order, kept = order[scores[order] > MIN_SCORE], []
        while len(order):
            best, order = order[0], order[1:]
            kept.append(best)
            corner = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
            common = np.clip(corner, 0, None).prod(1)
            areas = [(boxes[i, 2:] - boxes[i, :2]).prod(-1) for i in (best, order)]
            order = order[common <= MAX_IOU * (areas[0] + areas[1] - common)]
        return np.concatenate([boxes[kept], scores[kept, None]], 1)


def find_original() -> Path | None:
    """The file that SYNCDIFF_S3FD names, or sfd_face.pth in torch's folder of checkpoints; None where neither is."""
    named = os.environ.get("SYNCDIFF_S3FD")
    path = Path(named) if named else Path(torch.hub.get_dir()) / "checkpoints" / FILE
    return path if named or path.is_file() else None


def read_original(path: Path) -> S3FD:
    """The released weights. Raises CheckpointError for a file with other keys or shapes."""
    with torch.device("meta"):
        net = S3FD()
    load_strictly(net, read_tensors(path), path, assign=True)
    return net.eval()
