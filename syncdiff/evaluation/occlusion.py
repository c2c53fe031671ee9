"""Error rates of the occlusion check on people it was not trained on, with synthetic covers.

    python -m syncdiff.evaluation.occlusion DATA [--sets val-hdtf val-retalking ...] [--net FILE]

Prints, for every set, the share of clean frames that are left out and of covered ones that are found, frame by frame as
the product decides it: a cover lies over the middle of a clip, and the median over time is taken. Then the share found
for every kind of cover.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from syncdiff.evaluation.baselines import clips_of
from syncdiff.models.occlusion import GROWN, WEIGHTS, OcclusionNet, cover_probability, covered_frames, load, window_of
from syncdiff.training.covers import COVERS, covered
from syncdiff.training.data import load_crops

MAX_FRAMES = 60  # of every clip


def measure(root: Path, name: str, net: OcclusionNet) -> dict[str, tuple[int, int]]:
    """(frames found, frames there are) for "clean" and every kind of cover, over all clips of a prepared set.

    Every clip is judged once as it is and once with a cover of each kind over its middle third, where the cover stays
    the same and the head moves below it. Frames at the ends of a cover, which `covered_frames` adds, do not count.
    """
    rng, counts = np.random.default_rng(1), {kind: np.zeros(2, int) for kind in ("clean", *COVERS)}
    records = clips_of(root, name)
    pixels, starts = load_crops(root, records)
    for record, start in zip(records, starts, strict=False):
        crops = pixels[start : start + min(len(record), MAX_FRAMES)]
        run = np.zeros(len(crops), int)
        clean = cover_probability(net, [window_of(crop) for crop in crops])
        counts["clean"] += covered_frames(clean, run).sum(), len(crops)
        begin, end = len(crops) // 3, 2 * len(crops) // 3
        for kind in COVERS:
            state = rng.bit_generator.state
            windows = []
            for i in range(begin, end):
                rng.bit_generator.state = state  # the same cover in every frame
                windows.append(window_of(covered(rng, crops[i], record.points[i, :20], crops, kind)))
            probability = clean.copy()
            probability[begin:end] = cover_probability(net, windows)
            found = covered_frames(probability, run)
            inner = slice(begin + GROWN, end - GROWN)
            counts[kind] += found[inner].sum(), found[inner].size
    return {kind: (int(found), int(total)) for kind, (found, total) in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", help="prepared sets; by default those whose names begin with val-")
    parser.add_argument("--net", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    net = load(args.net)
    sets = args.sets or sorted(path.name for path in args.data.glob("val-*") if path.is_dir())
    rows = {name: measure(args.data, name, net) for name in sets}
    for name, counts in rows.items():
        found, total = np.sum([counts[kind] for kind in COVERS], axis=0)
        left, clean = counts["clean"]
        caught = f"covered ones found {100 * found / total:5.1f} % of {total}"
        print(f"{name:16} clean frames left out {100 * left / clean:5.1f} % of {clean}, {caught}")
    for kind in ("clean", *COVERS):
        found, total = np.sum([counts[kind] for counts in rows.values()], axis=0)
        print(f"{kind:16} {100 * found / total:5.1f} % of {total} frames count as covered")


if __name__ == "__main__":
    main()
