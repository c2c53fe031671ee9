"""Lip shapes predicted from log mel, the teacher's states and our features, on people that no network was trained on.

    python -m syncdiff.evaluation.probe DATA [SET ...] [--speech assets/weights/speech] [--csv FILE]
                                             [--teacher MODEL.bin --cache FOLDER]

Log mel, the teacher's states and our features are each given to the same convolutional head (`training.lip_heads`),
trained on the filmed people of training. Beside them stands the forecast that our encoder makes itself, with nothing
fitted here. r is taken clip by clip on held-out people, at lag 0 and at the clip's best lag within two frames: some
films are off by that much. "late" is where a parabola through the mean r at lags -1, 0 and 1 has its peak, in frames;
"spread" is how far the forecast's opening moves against the true lips (ratio of standard deviations in the talker's own
units): what `mouth_shape.calibrate_forecast` makes up for. Our encoder has heard the training clips before, the teacher
has not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from syncdiff.audio.mel import log_mel
from syncdiff.devices import best_device
from syncdiff.evaluation.reports import markdown, places, write_csv
from syncdiff.geometry.mouth_shape import SpeakerScale
from syncdiff.models.speech_encoder import SpeechEncoder, encode_speech, speech_features
from syncdiff.sync.scoring import correlation
from syncdiff.training.data import ClipRecord, load_set
from syncdiff.training.distill import TeacherStates, lip_tracks
from syncdiff.training.lip_heads import ConvHead, fit_head, forecast, per_frame
from syncdiff.training.prepare import FPS
from syncdiff.training.sets import GROUPS, PERSON_WEIGHT, SPEECH_SHARE
from syncdiff.weights.folders import COMPACT

STRANGERS = tuple(name for group in GROUPS.values() for name in group)
LAGS = 2  # frames to either side
OPENING, WIDTH = 0, 3  # places in a lip shape (`mouth_shape.SPANS`)
LOG_MEL, TEACHER, OURS, FORECAST = "log mel", "teacher", "ours", "our forecast, no fit"


@dataclass(frozen=True)
class Read:
    """How well one clip's lips were predicted."""

    features: str
    set: str
    clip: str
    what: str  # opening or width
    lags: tuple[float, ...]  # r at -LAGS .. LAGS frames; positive: the prediction runs late
    spread: float  # standard deviation of the forecast over that of the lips

    @property
    def r(self) -> float:
        """At lag 0."""
        return self.lags[LAGS]


def mel_steps(record: ClipRecord) -> np.ndarray:
    """Log mel [T50, 160] of a clip, two of its frames side by side."""
    mel = log_mel(torch.from_numpy(record.samples)).numpy()
    steps = mel.shape[1] // 2
    return mel[:, : 2 * steps].reshape(len(mel), steps, 2).transpose(1, 0, 2).reshape(steps, -1)


def read(features: str, record: ClipRecord, lips: np.ndarray) -> list[Read]:
    """A forecast [T, SHAPE] against the clip's own lips; a clip whose lips or forecast do not move gives no row."""
    true = SpeakerScale.of(record.shape).units(record.shape)
    rows = []
    for what, place, seen in (("opening", OPENING, record.opening), ("width", WIDTH, record.width)):
        predicted, n = lips[:, place], len(seen)
        found = [
            correlation(predicted[max(0, lag) : n + min(0, lag)], seen[max(0, -lag) : n + min(0, -lag)])
            for lag in range(-LAGS, LAGS + 1)
        ]
        lags = [r for r in found if r is not None]
        if len(lags) == len(found):
            spread = float(predicted.std() / max(np.nanstd(true[:, place]), 1e-6))
            rows.append(Read(features, record.set, record.name, what, tuple(lags), spread))
    return rows


def probe(
    name: str, states: Iterable[np.ndarray], train: list[ClipRecord], test: list[ClipRecord], steps: int = 500
) -> list[Read]:
    """Features [T50, D] of all clips (train, then test) through a head that learned from train: rows of test."""
    given = list(states)
    size = np.concatenate(given[: len(train)]).std()
    given = [x.astype(np.float32) / size for x in given]
    head = fit_head(ConvHead, *lip_tracks(train, given[: len(train)]), steps=steps)
    heard = zip(test, given[len(train) :], strict=True)
    return [row for r, x in heard for row in read(name, r, forecast([head], per_frame(x, len(r))))]


def forecast_rows(encoder: SpeechEncoder, test: list[ClipRecord]) -> list[Read]:
    """The encoder's own forecast, at every frame's middle."""
    rows = []
    for record in test:
        middles = (torch.arange(len(record), dtype=torch.float64) + 0.5) / FPS
        lips = speech_features(encoder, record.samples).lips_at(middles).numpy()
        rows += read(FORECAST, record, lips)
    return rows


def late(rows: list[Read]) -> float | None:
    """Frames by which the predictions run late: the peak of a parabola through their mean r at lags -1, 0 and 1."""
    before, at, after = np.mean([row.lags for row in rows], 0)[LAGS - 1 : LAGS + 2]
    bend = before - 2 * at + after
    return float((before - after) / 2 / bend) if bend < 0 else None


def table(rows: list[Read]) -> str:
    """Markdown: r (at the best lag), means over clips, per set, per group of several sets and over all."""
    kinds = list(dict.fromkeys(r.features for r in rows))
    lines = []
    for what in ("opening", "width"):
        for place, some in places(r.set for r in rows).items():
            here = [r for r in rows if r.what == what and r.set in some]
            cells = [_cell([r for r in here if r.features == kind]) for kind in kinds]
            last = [r for r in here if r.features == kinds[-1]]
            found = late(last) if last else None
            cells.append("-" if found is None else f"{found:+.2f}")
            cells.append(f"{np.mean([r.spread for r in last]):.2f}" if last else "-")
            lines.append([what, place, len({(r.set, r.clip) for r in here}), *cells])
    return markdown(["lip", "people", "clips", *kinds, "late", "spread"], lines)


def _cell(rows: list[Read]) -> str:
    return f"{np.mean([r.r for r in rows]):.2f} ({np.mean([max(r.lags) for r in rows]):.2f})" if rows else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=STRANGERS)
    parser.add_argument("--speech", type=Path, default=COMPACT / "speech")
    parser.add_argument("--teacher", type=Path, metavar="MODEL.bin")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where the teacher's states are kept: OUT/teacher")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    if args.teacher and not args.cache:
        parser.error("--teacher needs --cache, a folder for its states (distill's OUT/teacher)")
    encoder = SpeechEncoder.from_pretrained(args.speech).to(best_device()).eval()  # pyright: ignore[reportArgumentType]
    train = [r for name in PERSON_WEIGHT for r in load_set(args.data, name)]
    test = [r for name in args.sets for r in load_set(args.data, name)]
    if not train or not test:
        sys.exit(f"{args.data} holds no prepared clips of {', '.join(PERSON_WEIGHT)} or of {', '.join(args.sets)}.")
    both = [*train, *test]
    kinds: dict[str, Iterable[np.ndarray]] = {LOG_MEL: map(mel_steps, both)}
    if args.teacher:
        heard = [name for name in SPEECH_SHARE if name not in PERSON_WEIGHT]
        voices = [*train, *(r for name in heard for r in load_set(args.data, name)[::8])]
        kinds[TEACHER] = map(TeacherStates(args.teacher, voices, args.cache).of, both)
    kinds[OURS] = (encode_speech(encoder, r.samples).numpy() for r in both)
    rows = [row for name, states in kinds.items() for row in probe(name, states, train, test)]
    rows += forecast_rows(encoder, test)
    print(table(rows))
    write_csv(args.csv, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
