"""How well lip shapes are predicted from audio features, on people that no network was trained on.

    python -m syncdiff.evaluation.probe DATA [SET ...] [--speech assets/weights/speech] [--csv FILE]
                                             [--teacher MODEL.bin --cache FOLDER]

For log mel, the teacher's states and our features the same convolutional head (`training.lip_heads`) is trained on the
filmed people of training. The last column is our encoder's own forecast, with nothing fitted here. r is computed clip
by clip on held-out people, at lag 0 and at the clip's best lag within two frames: some films are off by that much.
"late" is the peak of a parabola through the mean r at lags -1, 0 and 1, in frames. "spread" is the ratio of the
standard deviations of forecast and measured lips, in the speaker's units; `mouth_shape.calibrate_forecast` corrects it.
Our encoder was trained on the training clips too, the teacher was not.
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
from syncdiff.evaluation.reports import markdown, set_groups, write_csv
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
OPENING, WIDTH = 0, 3  # indices in a lip shape (`mouth_shape.SPANS`)
LOG_MEL, TEACHER, OURS, FORECAST = "log mel", "teacher", "ours", "our forecast, no fit"


@dataclass(frozen=True)
class ClipResult:
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


def compare(features: str, record: ClipRecord, lips: np.ndarray) -> list[ClipResult]:
    """A forecast [T, SHAPE] against the clip's measured lips; no row where either does not move."""
    true = SpeakerScale.of(record.shape).units(record.shape)
    rows = []
    for what, index, measured in (("opening", OPENING, record.opening), ("width", WIDTH, record.width)):
        predicted, n = lips[:, index], len(measured)
        correlations = [
            correlation(predicted[max(0, lag) : n + min(0, lag)], measured[max(0, -lag) : n + min(0, -lag)])
            for lag in range(-LAGS, LAGS + 1)
        ]
        lags = [r for r in correlations if r is not None]
        if len(lags) == len(correlations):
            spread = float(predicted.std() / max(np.nanstd(true[:, index]), 1e-6))
            rows.append(ClipResult(features, record.set, record.name, what, tuple(lags), spread))
    return rows


def probe(
    name: str, features: Iterable[np.ndarray], train: list[ClipRecord], test: list[ClipRecord], steps: int = 500
) -> list[ClipResult]:
    """Features [T50, D] of all clips, train before test -> rows of test, by a head that is trained on train."""
    clips = list(features)
    scale = np.concatenate(clips[: len(train)]).std()
    clips = [x.astype(np.float32) / scale for x in clips]
    head = fit_head(ConvHead, *lip_tracks(train, clips[: len(train)]), steps=steps)
    tested = zip(test, clips[len(train) :], strict=True)
    return [row for record, x in tested for row in compare(name, record, forecast([head], per_frame(x, len(record))))]


def forecast_rows(encoder: SpeechEncoder, test: list[ClipRecord]) -> list[ClipResult]:
    """Rows of the encoder's own forecast, at every frame's middle."""
    rows = []
    for record in test:
        middles = (torch.arange(len(record), dtype=torch.float64) + 0.5) / FPS
        lips = speech_features(encoder, record.samples).lips_at(middles).numpy()
        rows += compare(FORECAST, record, lips)
    return rows


def late(rows: list[ClipResult]) -> float | None:
    """Frames by which the predictions run late: the peak of a parabola through their mean r at lags -1, 0 and 1."""
    before, centre, after = np.mean([row.lags for row in rows], 0)[LAGS - 1 : LAGS + 2]
    curvature = before - 2 * centre + after
    return float((before - after) / 2 / curvature) if curvature < 0 else None


def table(rows: list[ClipResult]) -> str:
    """Markdown: r (at the best lag), means over clips, per set, per group of several sets and over all."""
    kinds = list(dict.fromkeys(r.features for r in rows))
    lines = []
    for what in ("opening", "width"):
        for name, sets in set_groups(r.set for r in rows).items():
            chosen = [r for r in rows if r.what == what and r.set in sets]
            cells = [_cell([r for r in chosen if r.features == kind]) for kind in kinds]
            last = [r for r in chosen if r.features == kinds[-1]]
            lateness = late(last) if last else None
            cells.append("-" if lateness is None else f"{lateness:+.2f}")
            cells.append(f"{np.mean([r.spread for r in last]):.2f}" if last else "-")
            lines.append([what, name, len({(r.set, r.clip) for r in chosen}), *cells])
    return markdown(["lip", "people", "clips", *kinds, "late", "spread"], lines)


def _cell(rows: list[ClipResult]) -> str:
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
        sound_sets = [name for name in SPEECH_SHARE if name not in PERSON_WEIGHT]
        voices = [*train, *(r for name in sound_sets for r in load_set(args.data, name)[::8])]
        kinds[TEACHER] = map(TeacherStates(args.teacher, voices, args.cache).of, both)
    kinds[OURS] = (encode_speech(encoder, r.samples).numpy() for r in both)
    rows = [row for name, features in kinds.items() for row in probe(name, features, train, test)]
    rows += forecast_rows(encoder, test)
    print(table(rows))
    write_csv(args.csv, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
