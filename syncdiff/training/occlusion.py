"""Train the network that finds covered mouths, on prepared clips with synthetic covers.

    python -m syncdiff.training.occlusion DATA OUT [--sets addresses grid-more ...] [--passes 10] [--ship]

OUT/samples.npz keeps the covered and clear pictures for the next run, OUT/occlusion.safetensors is the network; --ship
copies it into assets/weights. `python -m syncdiff.evaluation.occlusion` measures it on other people.
"""

from __future__ import annotations

import argparse
import shutil
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn import functional as F

from syncdiff.models.occlusion import WEIGHTS, OcclusionNet, window_of
from syncdiff.training.covers import augmented, clear, covered
from syncdiff.training.data import load_set

SETS = {"puppets": 3, "rendered": 3, "addresses": 60, "grid-more": 25, "grid-s1": 1}  # frames taken of every clip
VERSIONS = 3  # of every frame with the mouth clear, and as many with it covered
BATCH = 128


def lip_frames(root: Path, name: str, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Random frames, `frames` of every clip of a set: crops [N, S, S, 3] uint8 and outer lips [N, 20, 2] crop px."""
    rng, crops, lips = np.random.default_rng(0), [], []
    for record in load_set(root, name):
        if record.points is None:
            continue
        chosen = set(rng.choice(len(record), min(frames, len(record)), replace=False).tolist())
        with av.open(str(root / name / f"{record.name}.mp4")) as container:
            for i, frame in enumerate(islice(container.decode(video=0), max(chosen) + 1)):
                if i in chosen and (record.good is None or record.good[i]):
                    crops.append(frame.to_ndarray(format="rgb24"))
                    lips.append(record.points[i, :20])
    return np.stack(crops), np.stack(lips)


def make_samples(root: Path, sets: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Windows [N, 40, 48, 3] uint8 and whether each is covered [N] bool."""
    rng = np.random.default_rng(0)
    parts = [lip_frames(root, name, frames) for name, frames in sets.items()]
    crops, lips = (np.concatenate(each) for each in zip(*parts, strict=True))
    others = crops[rng.choice(len(crops), min(400, len(crops)), replace=False)]
    windows, labels = [], []
    for crop, points in zip(crops, lips, strict=True):
        for label, make in ((False, clear), (True, covered)):
            for _ in range(VERSIONS):
                windows.append(window_of(augmented(rng, make(rng, crop, points, others))))
                labels.append(label)
    return np.stack(windows), np.array(labels)


def train(windows: np.ndarray, labels: np.ndarray, passes: int) -> OcclusionNet:
    """AdamW with a one-cycle rate, `passes` times over the samples, mirrored and shifted in brightness at random.

    Args:
        windows: [N, 40, 48, 3] uint8.
        labels: [N] bool, whether each is covered.
    """
    torch.manual_seed(0)
    rng, net = np.random.default_rng(0), OcclusionNet()
    net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    batches = len(windows) // BATCH
    steps = passes * batches
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        if step % batches == 0:
            order, total = rng.permutation(len(windows)), 0.0
        rows = order[step % batches * BATCH :][:BATCH]
        pixels = torch.from_numpy(windows[rows]).permute(0, 3, 1, 2) / 127.5 - 1
        if rng.random() < 0.5:
            pixels = pixels.flip(3)
        pixels = pixels * (1 + 0.1 * torch.randn(len(rows), 1, 1, 1)) + 0.1 * torch.randn(len(rows), 3, 1, 1)
        loss = F.binary_cross_entropy_with_logits(net(pixels), torch.from_numpy(labels[rows]).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
        if (step + 1) % batches == 0:
            print(f"pass {(step + 1) // batches}: loss {total / batches:.3f}", flush=True)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--ship", action="store_true", help="copy the network into assets/weights")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cache, target = args.out / "samples.npz", args.out / "occlusion.safetensors"
    if not cache.exists():
        windows, labels = make_samples(args.data, {name: SETS.get(name, 10) for name in args.sets})
        np.savez(cache, windows=windows, labels=labels)
    with np.load(cache) as samples:
        windows, labels = samples["windows"], samples["labels"]
    net = train(windows, labels, args.passes)
    net.save(target, {"samples": len(windows), "passes": args.passes, "sets": args.sets})
    print(f"{target}: {len(windows)} samples")
    if args.ship:
        WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, WEIGHTS)


if __name__ == "__main__":
    main()
