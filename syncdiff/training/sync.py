"""The sync loss: does this mouth go with this sound, rather than with the sounds of the other rows?

What the paper names as its future work: an explicit cross-modal contrastive loss on the one-step estimate, decoded. The
mouth's side stands on the lip reader's features; both sides learn on true frames, from the half of the people that the
judge does not see, and stand still while the denoiser learns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff import codec
from syncdiff.training.data import TalkingFaces
from syncdiff.training.reader import LipReader

SPACE, TEMPERATURE = 64, 0.1


class SyncMatcher(nn.Module):
    """The reader's last features [B, 128, 5, 6] and speech windows [B, K, D] -> InfoNCE loss, both ways."""

    def __init__(self, tokens: int, speech_width: int) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.Flatten(), nn.Linear(128 * 5 * 6, 256), nn.SiLU(), nn.Linear(256, SPACE))
        self.heard = nn.Sequential(
            nn.Flatten(), nn.Linear(tokens * speech_width, 256), nn.SiLU(), nn.Linear(256, SPACE)
        )

    def forward(self, features: Tensor, speech: Tensor) -> Tensor:
        seen, heard = F.normalize(self.seen(features), dim=1), F.normalize(self.heard(speech), dim=1)
        logits, own = seen @ heard.T / TEMPERATURE, torch.arange(len(seen), device=seen.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def train_matcher(faces: TalkingFaces, reader: LipReader, out: Path, updates: int, tokens: int) -> SyncMatcher:
    """Train on true frames, or read OUT/matcher.pt; frozen."""
    path, batch = out / "matcher.pt", faces.batch(64, np.random.default_rng([8, 0]))
    matcher = SyncMatcher(tokens, batch.speech.shape[2])
    if path.exists():
        matcher.load_state_dict(torch.load(path, weights_only=True))
    else:
        optimizer = torch.optim.AdamW(matcher.parameters(), 1e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, updates)
        for update in range(1, updates + 1):
            x = F.pixel_shuffle(codec.encode(batch.clean), codec.FACTOR)
            x = x + torch.randn_like(x) * torch.rand(len(x), 1, 1, 1) * 0.2
            with torch.no_grad():
                features = reader(x)[1][-1]
            loss = matcher(features, torch.from_numpy(batch.speech))
            optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
            if update % 100 == 0:
                print(f"matcher {update}: {loss.item():.3f} of {np.log(64):.3f}", flush=True)
            batch = faces.batch(64, np.random.default_rng([8, update]))
        torch.save(matcher.state_dict(), path)
    return matcher.eval().requires_grad_(False)
