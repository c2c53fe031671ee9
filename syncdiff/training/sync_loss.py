"""The sync loss: contrastive, of the drawn mouth against the speech of its own row and of the other rows.

The paper names an explicit cross-modal contrastive loss as its future work; here it acts on the decoded one-step
estimate. The visual side takes the landmark network's features. Both sides are trained on true frames, of the half of
the people that the judge is not trained on, and are frozen while the denoiser is trained.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.training.data import FaceBatch, TalkingFaces
from syncdiff.training.landmark_net import LandmarkNet, train_or_load

SPACE, TEMPERATURE = 64, 0.1


class SyncMatcher(nn.Module):
    """The landmark network's last features [B, 128, 5, 6] and speech windows [B, K, D] -> InfoNCE loss, both ways."""

    def __init__(self, tokens: int, speech_width: int) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.Flatten(), nn.Linear(128 * 5 * 6, 256), nn.SiLU(), nn.Linear(256, SPACE))
        self.heard = nn.Sequential(
            nn.Flatten(), nn.Linear(tokens * speech_width, 256), nn.SiLU(), nn.Linear(256, SPACE)
        )

    def forward(self, features: Tensor, speech: Tensor) -> Tensor:
        """[B, 128, 5, 6] and [B, K, D], row by row of one moment -> the loss []."""
        video, audio = F.normalize(self.seen(features), dim=1), F.normalize(self.heard(speech), dim=1)
        logits, own = video @ audio.T / TEMPERATURE, torch.arange(len(video), device=video.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def train_matcher(
    faces: TalkingFaces, reader: LandmarkNet, out: Path, updates: int, tokens: int, speech_width: int, workers: int = 0
) -> SyncMatcher:
    """The matcher, trained on the frozen landmark network's features."""
    matcher = SyncMatcher(tokens, speech_width)

    def loss(windows: Tensor, batch: FaceBatch) -> Tensor:
        with torch.no_grad():
            features = reader(windows)[1][-1]
        return matcher(features, torch.from_numpy(batch.speech).to(windows.device))

    path = out / "matcher.pt"
    return train_or_load(matcher, path, faces, loss, updates, seed=8, rate=1e-3, decay=0.05, workers=workers)
