"""Drift over a minute of autoregressive drawing, ten seconds at a time, on people that no network was trained on.

    python -m syncdiff.evaluation.drift DATA [SET ...] [--weights assets/weights] [--steps N] [--seconds 60]

The first prepared clip of every set runs forward and back, as the pipeline plays it under a longer voice, and is
redrawn to the sentences of other held-out people, one after the other. A new chain of previous frames begins every
`sampler.LANE` frames, which bounds the errors that build up. Every figure is of one block of ten seconds, the mean over
the clips; without drift a column is constant.

sharpness   of the mouth, against the same frames of the source
colour      levels between the mean colour of the skin around the lips, inside the mask, and that of the source's
seam        levels of difference to the source in the pixels over which the paste fades in
joint       change from frame to frame where a new chain begins, over that elsewhere; 1 where nothing is to be seen
r           lip opening against the forecast that was asked for
jitter      second difference of landmarks against the source's
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.diffusion.sampler import LANE
from syncdiff.evaluation.baselines import SourceClip, clips_of, draw
from syncdiff.evaluation.metrics import colour_shift, jitter, joint, read_lips, seam, sharpness
from syncdiff.evaluation.reports import markdown, means, shown, write_csv
from syncdiff.generator import CompactGenerator
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.sync.scoring import correlation, lip_opening
from syncdiff.training.prepare import FPS
from syncdiff.training.sets import HELD_OUT
from syncdiff.weights.folders import COMPACT

BLOCK = 10 * FPS  # frames
FIGURES = ("sharpness", "colour", "seam", "joint", "r", "jitter")
LOUDNESS = 0.05  # root mean square that every sentence is brought to


def forward_and_back(clip: SourceClip, sound: np.ndarray) -> SourceClip:
    """The clip as long as the sound [N]; neither turning point is shown twice."""
    there_and_back = np.r_[0 : len(clip.crops), len(clip.crops) - 2 : 0 : -1]
    at = np.resize(there_and_back, len(sound) * FPS // SAMPLE_RATE)
    return SourceClip(clip.name, clip.crops[at], clip.points[at], sound)


def sentences(sounds: list[np.ndarray], seconds: float) -> np.ndarray:
    """Sounds int16 at 16 kHz one after the other, alike in loudness -> [N] float32; at the end the first again."""
    loud = [s * (LOUDNESS / max(np.sqrt(np.mean(np.square(s, dtype=np.float64))), 1.0)) for s in sounds]
    return np.resize(np.concatenate(loud), round(seconds * SAMPLE_RATE)).astype(np.float32)


def measure(made: np.ndarray, clip: SourceClip, points: np.ndarray, asked: np.ndarray) -> list[dict]:
    """One row of FIGURES a block.

    Args:
        made: [T, S, S, 3] what was drawn in the place of the clip's crops; `points` its landmarks.
        asked: [T] forecast of the lip opening, in any unit.
    """
    rows = []
    for start in range(0, len(made) - BLOCK + 1, BLOCK):
        block = slice(start, start + BLOCK)
        drawn, filmed = made[block], clip.crops[block]
        rows.append({
            "sharpness": sharpness(drawn) / sharpness(filmed),
            "colour": colour_shift(drawn, filmed),
            "seam": seam(drawn, filmed),
            "joint": joint(drawn, np.arange(start, start + BLOCK) % LANE == 0),
            "r": correlation(lip_opening(points[block]), asked[block]),
            "jitter": jitter(points[block]) / jitter(clip.points[block]),
        })  # fmt: skip
    return rows


def drift(generator: CompactGenerator, data: Path, sets: tuple[str, ...], seconds: float, steps: int) -> Iterator[dict]:
    """Rows: clip, block, FIGURES."""
    people = {name: clips_of(data, name) for name in sets}
    for records in people.values():
        record = records[0]
        others = [r.sound for some in people.values() for r in some if r.identity != record.identity]
        sound = sentences(others or [record.sound], seconds)
        clip = forward_and_back(SourceClip.of(data, records, 0), sound)
        asked = generator.encode(sound).lips_at(torch.from_numpy(clip.plan.middles)).numpy()[:, 0]
        made = draw(generator, clip, sound, steps)
        for block, row in enumerate(measure(made, clip, read_lips(made), asked)):
            yield {"clip": clip.name, "from": block * BLOCK // FPS} | row


def table(rows: list[dict]) -> str:
    """Markdown: the mean over the clips, block by block."""
    lines = []
    for start in dict.fromkeys(r["from"] for r in rows):
        here = [r for r in rows if r["from"] == start]
        lines.append([f"{start} to {start + BLOCK // FPS}", *means(here, FIGURES)])
    return markdown([f"seconds ({len({r['clip'] for r in rows})} clips)", *FIGURES], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=HELD_OUT)
    parser.add_argument("--weights", type=Path, default=COMPACT)
    parser.add_argument("--steps", type=int, default=SampleOptions.steps)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    generator = cast(CompactGenerator, SyncDiffPipeline.ready(args.weights).generator())
    rows = shown(drift(generator, args.data, tuple(args.sets), args.seconds, args.steps))
    print(table(rows))
    write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
