"""Accuracy of the judge: prints the table of docs/judge.md.

    python -m syncdiff.evaluation.judge_table SHARDS WEIGHTS --sets NAME ...

Clips prepared by `syncdiff.training.prepare`, of people that nothing was trained on. Each is scored with its own sound,
with its own sound moved by -5 .. +5 frames, with the next clip's sound, and with its first frame held still.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from syncdiff.evaluation.baselines import clips_of
from syncdiff.evaluation.reports import markdown
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import FRAME_SAMPLES, WINDOW, Judge, Scores, score
from syncdiff.training.data import load_crops

SHIFTS = range(-5, 6)
HEAD = ("set", "clips", "own offset 0 / within 1", "planted -5..5 found: exact / within 1 / from the clip's own",
        "confidence matched / foreign / frozen", "matched above foreign", "distance matched / foreign")  # fmt: skip


@dataclass(frozen=True)
class Examined:
    """One clip's scores with its own sound, another clip's, and its first frame held still."""

    matched: Scores
    foreign: Scores
    frozen: Scores
    planted: tuple[int, ...]  # offset found for the sound made -5 .. +5 frames late


class CachedJudge:
    """A judge that embeds one clip's mouths once, for any number of sounds."""

    def __init__(self, judge: Judge, mouths: np.ndarray) -> None:
        self.name, self.crop_mouth, self.embed_audio = judge.name, judge.crop_mouth, judge.embed_audio
        self._embeddings = judge.embed_video(mouths)

    def embed_video(self, mouths: Iterable[np.ndarray]) -> np.ndarray:
        """The embeddings [W, D] of as many mouths as are given, which must be the clip's first."""
        return self._embeddings[: sum(1 for _ in mouths) - WINDOW + 1]


def examine(crops: np.ndarray, sound: np.ndarray, other: np.ndarray, judge: Judge) -> Examined | None:
    """Crops [T,S,S,3], their sound and another clip's; None where the clip cannot be scored with either."""
    T = min(len(crops), len(sound) // FRAME_SAMPLES)  # every sound below is as long: all see the same windows
    crops, sound, other = crops[:T], sound[: T * FRAME_SAMPLES], other[: T * FRAME_SAMPLES]
    cached = CachedJudge(judge, np.stack([judge.crop_mouth(crop) for crop in crops]))
    matched, foreign = score(crops, sound, cached), score(crops, other, cached)
    if not (matched.scorable and foreign.scorable):
        return None
    still = np.broadcast_to(crops[:1], crops.shape)
    moved = [score(crops, delay(sound, frames), cached).offset_frames for frames in SHIFTS]
    planted = tuple(offset for offset in moved if offset is not None)
    return Examined(matched, foreign, score(still, sound, judge), planted)


def delay(sound: np.ndarray, frames: int) -> np.ndarray:
    """Sound [N] -> [N] some frames later (earlier if negative), silence where there is none."""
    by = frames * FRAME_SAMPLES
    return np.pad(sound, (by, 0))[: len(sound)] if by >= 0 else np.pad(sound, (0, -by))[-by:]


def row(name: str, clips: Sequence[Examined]) -> list[str]:
    """One row of the table."""
    if not clips:
        return [name, "0", "not scorable", *"----"]
    own = np.array([clip.matched.offset_frames for clip in clips])
    planted, found = -np.array(SHIFTS), np.array([clip.planted for clip in clips])
    error, moved = np.abs(found - planted), found - own[:, None] == planted
    confidence = {kind: np.array([getattr(clip, kind).confidence for clip in clips])
                  for kind in ("matched", "foreign", "frozen")}  # fmt: skip
    above = (confidence["matched"][:, None] > confidence["foreign"]).mean()
    distance = np.mean([(c.matched.distance or 0.0, c.foreign.distance or 0.0) for c in clips], axis=0)
    return [
        name, str(len(clips)), f"{(own == 0).mean():.0%} / {(np.abs(own) <= 1).mean():.0%}",
        f"{(error == 0).mean():.0%} / {(error <= 1).mean():.0%} / {moved.mean():.0%}",
        " / ".join(f"{values.mean():.3f}" for values in confidence.values()), f"{above:.0%}",
        f"{distance[0]:.3f} / {distance[1]:.3f}",
    ]  # fmt: skip


def examine_set(shards: Path, name: str, judge: Judge) -> list[Examined]:
    """Every clip of a prepared set that can be scored."""
    records = clips_of(shards, name)
    pixels, starts = load_crops(shards, records)
    sounds = [record.samples for record in records]
    clips = []
    for i, sound in enumerate(sounds):
        crops = pixels[starts[i] : starts[i + 1]]
        other = np.resize(sounds[(i + 1) % len(sounds)], len(crops) * FRAME_SAMPLES)
        if examined := examine(crops, sound, other, judge):
            clips.append(examined)
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--sets", nargs="+", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    judge = JudgeNet.load(args.weights)
    sets = {name: examine_set(args.shards, name, judge) for name in args.sets}
    if len(sets) > 1:
        sets["all"] = [clip for clips in sets.values() for clip in clips]
    print(markdown(HEAD, [row(name, clips) for name, clips in sets.items()]))


if __name__ == "__main__":
    main()
