"""Lip sync of redrawn clips by landmarks, on people that no network was trained on.

    python -m syncdiff.evaluation.evaluate DATA [SET ...] [--weights assets/weights] [--steps N] [--limit N]
                                           [--csv FILE]

For every prepared clip of the sets (see `prepare`) the mouth is redrawn three times - to its own voice, to another
person's, to silence - and mediapipe reads the lips of the result. r is the correlation of lip opening: with the clip's
own lips (matched), with the lips of the one who really spoke (foreign), and with the clip's own lips under the other's
voice (leak) and under silence, where it should be nothing. The model and the methods of `baselines` are measured alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.devices import best_device
from syncdiff.errors import InputError
from syncdiff.evaluation import baselines
from syncdiff.evaluation.baselines import Method, SourceClip, clips_of
from syncdiff.evaluation.input_sensitivity import evaluate_input_sensitivity
from syncdiff.evaluation.metrics import closure, jitter, lip_distance, psnr, read_lips, sharpness, ssim
from syncdiff.evaluation.paper_results import Table
from syncdiff.evaluation.protocol import evaluate_as_published
from syncdiff.evaluation.reports import print_rows, table, write_csv
from syncdiff.geometry.crops import WINDOW
from syncdiff.geometry.mouth_shape import SpeakerScale, lip_shape
from syncdiff.job import Job
from syncdiff.options import OPTIONS, SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import best_lag, correlation, lip_opening, lip_width, score
from syncdiff.training.data import ClipRecord
from syncdiff.training.lrs import own_device
from syncdiff.training.prepare import FPS
from syncdiff.training.sets import HELD_OUT
from syncdiff.weights.folders import COMPACT

CLOSING = 1  # index of the lip closing curve among the visemes of the corpus


def measure(make: Method, clip: SourceClip, record: ClipRecord, other: ClipRecord | None, judge) -> dict:
    """One row of the table: the clip redrawn to its own voice, to another person's, and to silence."""
    row, filmed = measure_own_voice(make, clip, record, judge), lip_opening(clip.points)
    n = min(len(record), len(other)) if other else 0
    if other and n >= 2 * FPS:
        row |= measure_foreign_voice(make, clip.first(n), other, judge)
    drawn = lip_opening(read_lips(make(clip, np.zeros_like(clip.sound))))
    return row | {"silence_move": float(drawn.std() / filmed.std()), "silence_r": correlation(drawn, filmed)}


def measure_own_voice(make: Method, clip: SourceClip, record: ClipRecord, judge) -> dict:
    """Columns of the clip redrawn to its own voice; see the module's head."""
    crops = make(clip, clip.sound)
    points = clip.points if crops is clip.crops else read_lips(crops)
    drawn, filmed = lip_opening(points), lip_opening(clip.points)
    lag = best_lag(drawn, filmed)
    row = {
        "matched_r": correlation(drawn, filmed),
        "best_lag": lag and lag.frames,
        "best_r": lag and lag.r,
        "width_r": correlation(lip_width(points), lip_width(clip.points)),
        "opening_ratio": float(drawn.std() / filmed.std()),
        "closure": None,
        "sharpness": sharpness(crops) / sharpness(clip.crops),
        "jitter": jitter(points) / jitter(clip.points),
        "PSNR": psnr(crops[:, *WINDOW], clip.crops[:, *WINDOW]) if crops is not clip.crops else None,
        "SSIM": ssim(crops, clip.crops),
        "LMD": lip_distance(points, clip.points),
    }
    if record.visemes is not None:
        reach = SpeakerScale.of(lip_shape(clip.points)).speaking().reach
        row["closure"] = closure(points, record.visemes[:, CLOSING], reach)
    if judge is not None:
        scores = score(crops, clip.sound, judge)
        row |= {"confidence": scores.confidence, "offset": scores.offset_frames}
    return row


def measure_foreign_voice(make: Method, clip: SourceClip, other: ClipRecord, judge) -> dict:
    """Columns of the clip redrawn to the beginning of another person's voice; see the module's head."""
    n = len(clip.crops)
    sound = other.samples[: n * SAMPLE_RATE // FPS]
    crops = make(clip, sound)
    drawn, spoken = lip_opening(read_lips(crops)), other.opening[:n]
    lag = best_lag(drawn, spoken)
    row = {"foreign_r": correlation(drawn, spoken), "foreign_best_r": lag and lag.r}
    row["leak_r"] = correlation(drawn, lip_opening(clip.points))
    if judge is not None:
        row["foreign_confidence"] = score(crops, sound, judge).confidence
    return row


def evaluate(methods: dict[str, Method], judge, data: Path, sets: tuple[str, ...], limit: int | None) -> Iterator[dict]:
    """Rows, clip by clip. The foreign voice is the next clip of another person in the same set."""
    for name in sets:
        records = clips_of(data, name)
        for i, record in list(enumerate(records))[:limit]:
            strangers = [r for r in records[i + 1 :] + records[:i] if r.identity != record.identity]
            clip = SourceClip.of(data, records, i)
            for method, make in methods.items():
                row = {"method": method, "set": name, "clip": record.name, "frames": len(record)}
                yield row | measure(make, clip, record, strangers[0] if strangers else None, judge)


def as_published(args: argparse.Namespace) -> str | None:
    """Run the paper's protocol; returns a sentence where it cannot be run."""
    if args.out is None:
        return "--protocol needs --out, a folder for what is drawn."
    choices = {"listed": args.list, "limit": args.limit, "others": args.beside}
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(own_device())
        pipe = SyncDiffPipeline.ready(args.weights)
        if args.table == "4":
            print(evaluate_input_sensitivity(pipe, args.data, args.out, **choices))
            return None
        choices |= {"corpus": args.corpus, "number": args.table, "read": args.read}
        choices |= {"voices": args.voices, "lips": args.lips, "batch": args.batch}
        options = OPTIONS[pipe.profile](label=False, **({} if args.steps is None else {"steps": args.steps}))
        job = Job(pipe, marking=False)  # what is drawn is scored, and PSNR would count the invisible mark
        print(evaluate_as_published(job, args.data, args.out, options, **choices))
    except InputError as sentence:
        return str(sentence)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=HELD_OUT)
    parser.add_argument("--weights", type=Path, default=COMPACT)
    parser.add_argument("--steps", type=int, help="as the weights' profile has it")
    parser.add_argument("--limit", type=int, help="clips per set")
    parser.add_argument("--alone", action="store_true", help="our model only, without the baselines")
    parser.add_argument("--csv", type=Path)
    ours = parser.add_argument_group("protocol", "the paper's own evaluation: see syncdiff/evaluation/protocol.py")
    ours.add_argument("--protocol", choices=("paper",), help="DATA is a folder of syncdiff.training.prepare_lrs")
    ours.add_argument("--out", type=Path, help="folder for what is drawn, and for the tables")
    ours.add_argument("--list", type=Path, metavar="FILE", help="names of the films, as LRS2's test.txt")
    ours.add_argument("--corpus", choices=("LRS2", "LRS3"), default="LRS2", help="whose published rows stand beside")
    ours.add_argument("--table", choices=get_args(Table), default="1", help="which of the paper's tables")
    ours.add_argument("--beside", type=Path, nargs="*", default=(), metavar="OUT", help="earlier runs, to compare with")
    ours.add_argument("--voices", nargs="*", choices=("foreign", "silence"), default=(), help="besides each film's own")
    ours.add_argument("--lips", action="store_true", help="also correlate lip openings, on the CPU")
    ours.add_argument("--batch", type=int, default=16, help="films drawn at once (default 16)")
    ours.add_argument("--read", metavar="NAME=FILE", help="what a lip reader made of the films in OUT/matched, for WER")
    args = parser.parse_args()
    if args.protocol:
        sys.exit(as_published(args))
    pipe = SyncDiffPipeline.ready(args.weights)
    options = SampleOptions(steps=args.steps or SampleOptions.steps)
    methods = {"syncdiff": baselines.drawn_by(pipe, options)}
    if not args.alone:
        methods |= {
            "warped mouth": baselines.warped_by(pipe),
            "left as it was": baselines.left_alone,
            "frozen mouth": baselines.frozen,
            "nearest mouth": baselines.nearest_by(pipe),
        }
    judge = (shipped := JudgeNet.shipped()) and shipped.to(best_device())
    rows = print_rows(evaluate(methods, judge, args.data, tuple(args.sets), args.limit))
    print(table(rows))
    write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
