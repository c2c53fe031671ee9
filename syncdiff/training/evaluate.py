"""How well do the lips follow? Landmarks decide, on people the model has never seen.

    python -m syncdiff.training.evaluate DATA [SET ...] [--weights assets/weights] [--steps 4] [--limit N] [--csv FILE]

For every prepared clip of the sets (see `prepare`) the mouth is drawn three times - with its own voice, with another
person's, with silence - and mediapipe reads the lips of the drawn crops. r is the correlation of lip opening: with the
clip's own lips (matched), with the lips of the one who really spoke (foreign), with the clip's own lips again (silence,
where it should be nothing). "as it was" is the unedited video under the foreign voice: what a model must beat.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from syncdiff import codec
from syncdiff.crops import mouth_mask
from syncdiff.faces.pose import yaw_of
from syncdiff.lips import lip_shape
from syncdiff.pipeline import SampleOptions, SyncDiffPipeline
from syncdiff.sampler import LANE, LANES
from syncdiff.scene import Scene, Sitter
from syncdiff.scores import best_lag, correlation, lip_opening, lip_width
from syncdiff.speech import listen
from syncdiff.training.data import ClipRecord, load_crops, load_set
from syncdiff.training.objective import LIP_BOX
from syncdiff.training.prepare import FPS, SAMPLE_RATE
from syncdiff.weights import COMPACT

SETS = ("val-grid-multi", "val-voxceleb2", "val-hdtf", "val-elospheres", "val-retalking")


def draw(
    pipe: SyncDiffPipeline, crops: np.ndarray, points: np.ndarray, sound: np.ndarray, options: SampleOptions
) -> np.ndarray:
    """Crops [T, S, S, 3] with landmarks [T, 478, 2] in crop px -> the same with their mouths drawn to the sound [N]."""
    times = np.arange(len(crops)) / FPS
    everything = np.ones(len(crops), np.float32)
    still = np.tile(np.eye(2, 3), (len(crops), 1, 1))
    sitter = Sitter(crops, still, lip_shape(points), yaw_of(points), everything > 0)
    scene = Scene(sitter, np.arange(len(crops)), times, times + 0.5 / FPS, everything)
    heard, out = listen(pipe.speech, sound), crops.copy()
    for start in range(0, len(crops), LANE * LANES):
        for part in pipe.draw_chunk(scene, heard, start, options):
            if part.finished:
                masked = mouth_mask()[None, ..., None]
                drawn = scene.complete(part.frames, codec.decode(part.clean))
                out[list(part.frames)] = np.where(masked, drawn, crops[list(part.frames)])
    return out


def read_lips(crops: np.ndarray) -> np.ndarray:
    """FaceMesh points [T, 478, 2] of crops, crop px; frames without a face repeat the last."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    rows: list[np.ndarray] = []
    with FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=True) as mesh:
        for crop in crops:
            image = cv2.copyMakeBorder(cv2.resize(crop, None, fx=2, fy=2), 96, 32, 64, 64, cv2.BORDER_REPLICATE)
            found = mesh.process(image).multi_face_landmarks
            if found:
                points = np.array([(p.x * image.shape[1], p.y * image.shape[0]) for p in found[0].landmark])
                rows.append((points - (64, 96)) / 2)
            else:
                rows.append(rows[-1] if rows else np.full((478, 2), np.nan))
    return np.stack(rows)


def sharpness(crops: np.ndarray) -> float:
    """Mean energy of the Laplacian in the mouth box."""
    boxes = crops[:, LIP_BOX[0], LIP_BOX[1]]
    return float(np.mean([cv2.Laplacian(cv2.cvtColor(b, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var() for b in boxes]) ** 0.5)


def jitter(points: np.ndarray) -> float:
    """Mean absolute second difference of the inner lips over time, px."""
    return float(np.abs(np.diff(points[:, (13, 14, 78, 308)], 2, axis=0)).mean())


def evaluate_clip(
    pipe: SyncDiffPipeline, crops: np.ndarray, record: ClipRecord, other: ClipRecord | None, options: SampleOptions
) -> dict:
    """One row of the table; see the module's head for the columns."""
    sound = record.sound.astype(np.float32) / 32768
    truth = read_lips(crops)
    opening = lip_opening(truth)
    row: dict[str, object] = {"set": record.set, "clip": record.name, "frames": len(record)}

    own = draw(pipe, crops, truth, sound, options)
    points = read_lips(own)
    drawn = lip_opening(points)
    lag = best_lag(drawn, opening)
    row |= {
        "matched_r": correlation(drawn, opening),
        "best_lag": lag.frames if lag else None,
        "best_r": lag.r if lag else None,
    }
    row["width_r"] = correlation(lip_width(points), lip_width(truth))
    row["opening_ratio"] = float(drawn.std() / opening.std())
    row["sharpness"] = sharpness(own) / sharpness(crops)
    row["jitter"] = jitter(points) / jitter(truth)

    n = min(len(record), len(other)) if other else 0
    if n >= 2 * FPS:
        foreign = other.sound.astype(np.float32) / 32768
        drawn = lip_opening(read_lips(draw(pipe, crops[:n], truth[:n], foreign[: n * SAMPLE_RATE // FPS], options)))
        spoken = other.opening[:n]
        lag = best_lag(drawn, spoken)
        row |= {"foreign_r": correlation(drawn, spoken), "foreign_best_r": lag.r if lag else None}
        lag = best_lag(opening[:n], spoken)
        row |= {"as_it_was_r": correlation(opening[:n], spoken), "as_it_was_best_r": lag.r if lag else None}

    drawn = lip_opening(read_lips(draw(pipe, crops, truth, np.zeros_like(sound), options)))
    row |= {"silence_move": float(drawn.std() / opening.std()), "silence_r": correlation(drawn, opening)}
    return row


def evaluate(
    pipe: SyncDiffPipeline, data: Path, sets: tuple[str, ...], options: SampleOptions, limit: int | None
) -> Iterator[dict]:
    """Rows, clip by clip. The foreign voice is the next clip of another person in the same set."""
    for name in sets:
        records = load_set(data, name)
        if not records:
            raise SystemExit(f"{data / name} holds no prepared clips: make them with syncdiff.training.prepare.")
        crops, starts = load_crops(data, records)
        for i, record in list(enumerate(records))[:limit]:
            strangers = [r for r in records[i + 1 :] + records[:i] if r.identity != record.identity]
            other = strangers[0] if strangers else None
            yield evaluate_clip(pipe, np.array(crops[starts[i] : starts[i + 1]]), record, other, options)


def table(rows: list[dict]) -> str:
    """Markdown: the mean of every column, per set and over all clips."""
    columns = [c for c in dict.fromkeys(c for r in rows for c in r) if c not in ("set", "clip", "frames")]
    lines = ["| set | clips | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name in (*dict.fromkeys(r["set"] for r in rows), "all"):
        here = [r for r in rows if name in (r["set"], "all")]
        means = [[r[c] for r in here if r.get(c) is not None] for c in columns]
        lines.append(f"| {name} | {len(here)} | " + " | ".join(f"{np.mean(m):.2f}" if m else "-" for m in means) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--weights", type=Path, default=COMPACT)
    parser.add_argument("--steps", type=int, default=SampleOptions.steps)
    parser.add_argument("--limit", type=int, help="clips per set")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    pipe = SyncDiffPipeline.from_pretrained(args.weights)
    rows = []
    for row in evaluate(pipe, args.data, tuple(args.sets), SampleOptions(steps=args.steps), args.limit):
        rows.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, file=sys.stderr, flush=True)
    print(table(rows))
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
