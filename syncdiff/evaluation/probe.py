"""How much of the lips can be read off what is heard? A linear map, and our forecast, on people never trained on.

    python -m syncdiff.evaluation.probe DATA [SET ...] [--speech assets/weights/speech] [--csv FILE]
                                           [--teacher MODEL.bin --cache FOLDER]

Log mel, the teacher's states and our features are each given to the same ridge regression: six moments within 0.12 s of
a frame (`distill.around`) -> the talker's lip opening and width. It is fitted on some of the training clips, with the
weights of `distill.MAP_SHARE`; how strong its penalty is, too, is found there, by cross-validation over people (over
clips, where a set is one person). Beside it stands the forecast that our encoder makes itself, with nothing fitted
here. r is taken clip by clip on held-out people, at lag 0 and at the clip's best lag within five frames: some films are
off by that much. The last column is how far the forecast's opening moves against the true lips (ratio of standard
deviations in the talker's own units): what `lips.calibrate_forecast` makes up for.

Our encoder has heard the training clips before, the teacher has not: the penalty found on them is too weak for our
features rather than too strong.
"""

from __future__ import annotations

import argparse
import csv
import sys
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from syncdiff.audio.mel import log_mel
from syncdiff.evaluation.metrics import GROUPS
from syncdiff.geometry.mouth_shape import SpeakerScale
from syncdiff.models.speech_encoder import SpeechEncoder, encode_speech, speech_features
from syncdiff.sync.scoring import best_lag, correlation
from syncdiff.training.data import ClipRecord, load_set
from syncdiff.training.distill import MAP_SHARE, VOICE_SETS, around, lip_shapes, teach
from syncdiff.training.prepare import FPS
from syncdiff.weights.folders import COMPACT

SETS = tuple(name for group in GROUPS.values() for name in group)
CLIPS = 150  # of a training set: more people, not more minutes, would tell more
FOLDS = 4
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # per frame, in units of the features' mean square
OPENING, WIDTH = 0, 3  # places in a lip shape (`lips.SPANS`)
LOG_MEL, TEACHER, OURS, FORECAST = "log mel", "teacher", "ours", "our forecast, no fit"


@dataclass(frozen=True)
class Read:
    """What was read of one clip's lips."""

    features: str
    set: str
    clip: str
    what: str  # opening or width
    r: float | None
    best_r: float | None
    best_lag: int | None  # frames; positive: what was read runs late
    spread: float | None = None  # standard deviation of the forecast over that of the lips


def ridge(gram: np.ndarray, moment: np.ndarray, penalty: float) -> np.ndarray:
    """[D, D], [D, Y] per frame, the last feature a one -> the map [D, Y]; the one is not penalised."""
    whole = torch.from_numpy(gram).double()
    diagonal = whole.diagonal()[:-1]
    diagonal += penalty * diagonal.mean()
    root = torch.linalg.cholesky(whole)  # half the work of a general solver: the teacher's D is 4,609
    return torch.cholesky_solve(torch.from_numpy(moment).double(), root).float().numpy()


def fit_map(clips: list[tuple[np.ndarray, np.ndarray]], sets: list[str], people: list[str]) -> tuple[np.ndarray, float]:
    """Ridge regression with the penalty that reads best the people it was not fitted on; the map and that penalty.

    Args:
        clips: features [T, D], the last a one, and lips [T, 2] of every training clip.
        sets, people: of every clip; a set of one person is cut by clips. A set's frames weigh MAP_SHARE together.
    """
    one = {name: len({p for s, p in zip(sets, people, strict=True) if s == name}) == 1 for name in set(sets)}
    keys = [f"clip {i}" if one[s] else p for i, (s, p) in enumerate(zip(sets, people, strict=True))]
    fold = np.array([zlib.crc32(key.encode()) % FOLDS for key in keys])
    frames = {name: sum(len(x) for (x, _), s in zip(clips, sets, strict=True) if s == name) for name in set(sets)}
    shares = sum(MAP_SHARE[name] for name in frames)
    size = clips[0][0].shape[1]
    gram, moment = np.zeros((FOLDS, size, size), np.float32), np.zeros((FOLDS, size, 2), np.float32)
    for (x, y), name, k in zip(clips, sets, fold, strict=True):
        weight = MAP_SHARE[name] / frames[name] / shares
        gram[k] += weight * (x.T @ x)
        moment[k] += weight * (x.T @ y)
    whole, wanted = gram.sum(0), moment.sum(0)
    found = np.zeros(len(PENALTIES))
    for k in range(FOLDS):
        left_out = [clip for clip, f in zip(clips, fold, strict=True) if f == k]
        for i, penalty in enumerate(PENALTIES):
            weights = ridge(whole - gram[k], wanted - moment[k], penalty)
            found[i] += sum(correlation((x @ weights)[:, 0], y[:, 0]) or 0.0 for x, y in left_out)
    penalty = PENALTIES[int(found.argmax())]
    return ridge(whole, wanted, penalty), penalty


def read(features: str, record: ClipRecord, opening: np.ndarray, width: np.ndarray) -> list[Read]:
    """Two series [T] against the clip's own lips."""
    rows = []
    for what, series, true in (("opening", opening, record.opening), ("width", width, record.width)):
        lag = best_lag(series, true)
        r = correlation(series, true)
        rows.append(Read(features, record.set, record.name, what, r, lag and lag.r, lag and lag.frames))
    return rows


def mel_steps(record: ClipRecord) -> np.ndarray:
    """Log mel [T50, 160] of a clip, two of its frames side by side."""
    mel = log_mel(torch.from_numpy(record.sound / np.float32(32768))).numpy()
    steps = mel.shape[1] // 2
    return mel[:, : 2 * steps].reshape(len(mel), steps, 2).transpose(1, 0, 2).reshape(steps, -1)


def forecast(encoder: SpeechEncoder, record: ClipRecord) -> np.ndarray:
    """The product's own forecast [T, SHAPE] at a clip's frames, in a talker's units."""
    middles = (torch.arange(len(record), dtype=torch.float64) + 0.5) / FPS
    return speech_features(encoder, record.sound / np.float32(32768)).lips_at(middles).numpy()


def probe(
    kinds: dict[str, Iterable[np.ndarray]], train: list[ClipRecord], test: list[ClipRecord]
) -> Iterable[tuple[str, float, list[Read]]]:
    """For every kind of features [T50, D] of all clips (train, then test): its name, penalty, and rows of the test."""
    lips = [shape[:, [OPENING, WIDTH]] for shape in lip_shapes(train)]
    for name, states in kinds.items():
        steps = iter(states)
        clips = []
        for record, y in zip(train, lips, strict=True):
            seen = np.isfinite(y).all(1)
            clips.append((around(next(steps), len(record))[seen], y[seen]))
        weights, penalty = fit_map(clips, [r.set for r in train], [r.identity for r in train])
        rows = [row for r in test for row in read(name, r, *(around(next(steps), len(r)) @ weights).T)]
        yield name, penalty, rows


def forecast_rows(encoder: SpeechEncoder, test: list[ClipRecord]) -> list[Read]:
    """The forecast's rows, with its spread."""
    rows = []
    for record in test:
        told, true = forecast(encoder, record), SpeakerScale.of(record.shape).units(record.shape)
        for place, row in zip((OPENING, WIDTH), read(FORECAST, record, told[:, OPENING], told[:, WIDTH]), strict=True):
            rows.append(Read(**asdict(row) | {"spread": float(told[:, place].std() / np.nanstd(true[:, place]))}))
    return rows


def table(rows: list[Read]) -> str:
    """Markdown: r (at the best lag), means over clips, per set, per group of several sets and over all."""
    kinds = list(dict.fromkeys(r.features for r in rows))
    sets = list(dict.fromkeys(r.set for r in rows))
    places = {name: [name] for name in sets}
    places |= {name: group for name, group in GROUPS.items() if sum(s in group for s in sets) > 1}
    places["all"] = sets
    lines = [f"| lip | people | clips | {' | '.join(kinds)} | spread |", "|---" * (len(kinds) + 4) + "|"]
    for what in ("opening", "width"):
        for place, some in places.items():
            here = [r for r in rows if r.what == what and r.set in some]
            cells = [_cell([r for r in here if r.features == kind]) for kind in kinds]
            spread = [r.spread for r in here if r.spread is not None]
            clips = len({(r.set, r.clip) for r in here})
            cells.append(f"{np.mean(spread):.2f}" if spread else "-")
            lines.append(f"| {what} | {place} | {clips} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: list[Read]) -> str:
    r, best = ([getattr(row, k) for row in rows if getattr(row, k) is not None] for k in ("r", "best_r"))
    return f"{np.mean(r):.2f} ({np.mean(best):.2f})" if r else "-"


def demand(rows: list[Read]) -> str:
    """What was asked of our features, and whether they do it: a linear probe of them beats one of the teacher's."""
    sentences = []
    for name, sets in {**GROUPS, "all": {r.set for r in rows}}.items():
        ours, teacher = (
            [r.r for r in rows if r.features == kind and r.what == "opening" and r.set in sets and r.r is not None]
            for kind in (OURS, TEACHER)
        )
        if ours and teacher:
            apart = np.mean(ours) - np.mean(teacher)
            does = "beat" if apart > 0 else "do NOT beat"
            sentences.append(f"{name}: ours {does} the teacher's ({np.mean(ours):.3f} and {np.mean(teacher):.3f}).")
    return "Lip opening, lag 0. " + " ".join(sentences) if sentences else "Without --teacher nothing is compared to it."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--speech", type=Path, default=COMPACT / "speech")
    parser.add_argument("--teacher", type=Path, metavar="MODEL.bin")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where the teacher's states are kept")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    if args.teacher and not args.cache:
        parser.error("--teacher needs --cache, a folder for its states")
    encoder = SpeechEncoder.from_pretrained(args.speech).eval()
    train = [r for name in MAP_SHARE for r in _spread_out(load_set(args.data, name))]
    test = [r for name in args.sets for r in load_set(args.data, name)]
    if not train or not test:
        sys.exit(f"{args.data} holds no prepared clips of {', '.join(MAP_SHARE)} or of {', '.join(args.sets)}.")
    records = [*train, *test]
    kinds: dict[str, Iterable[np.ndarray]] = {LOG_MEL: (mel_steps(r) for r in records)}
    if args.teacher:
        args.cache.mkdir(parents=True, exist_ok=True)
        voices = [r for name in VOICE_SETS for r in _spread_out(load_set(args.data, name))]  # for the mean of states
        heard = [*records, *voices]
        clips = zlib.crc32(" ".join(f"{r.set}/{r.name} {len(r.sound)}" for r in heard).encode())
        kinds[TEACHER] = teach(heard, args.teacher, args.cache / f"teacher-{clips:08x}.npy")
    kinds[OURS] = (encode_speech(encoder, r.sound / np.float32(32768)).numpy() for r in records)
    rows = []
    for name, penalty, found in probe(kinds, train, test):
        print(f"{name}: penalty {penalty:g} a frame, found on {len(train)} training clips", file=sys.stderr, flush=True)
        rows += found
    rows += forecast_rows(encoder, test)
    print(table(rows), demand(rows), sep="\n\n")
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


def _spread_out(records: list[ClipRecord]) -> list[ClipRecord]:
    """At most CLIPS of a set's clips, evenly over it."""
    return [records[i] for i in np.unique(np.linspace(0, len(records) - 1, CLIPS).astype(int))] if records else []


if __name__ == "__main__":
    main()
