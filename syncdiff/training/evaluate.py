"""How well do the lips follow? Landmarks decide, on people the model has never seen.

    python -m syncdiff.training.evaluate DATA [SET ...] [--weights assets/weights] [--steps 2] [--limit N] [--csv FILE]
                                              [--regressor FOLDER] [--sheet FILE.png]

For every prepared clip of the sets (see `prepare`) the mouth is made three times - to its own voice, to another
person's, to silence - and mediapipe reads the lips of what was made. r is the correlation of lip opening: with the
clip's own lips (matched), with the lips of the one who really spoke (foreign), with the clip's own lips again (silence,
where it should be nothing). Several makers do this in turn: our model, and what it must beat - the video left as it
was, one mouth held all the time, the clip's own mouth from the moment that sounds most alike, and a regressor of
Wav2Lip's shape where its weights are given. All that is drawn is pasted as the product pastes it (without the invisible
mark). Two tables come out: the README's, with the aims beside, and everything.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from syncdiff import sampler
from syncdiff.compact import CompactArtist
from syncdiff.crops import paste
from syncdiff.denoiser import Condition, Denoiser
from syncdiff.faces.pose import yaw_of
from syncdiff.fit import fit
from syncdiff.job import OPTIONS, SampleOptions
from syncdiff.lips import Talker, lip_shape
from syncdiff.media import InputError
from syncdiff.objective import Objective
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.progress import finished
from syncdiff.scene import Scene, Sitter
from syncdiff.scores import best_lag, correlation, lip_opening, lip_width, score
from syncdiff.speech import listen
from syncdiff.training.data import ClipRecord, load_crops, load_set
from syncdiff.training.measures import GROUPS, closure, jitter, lip_distance, psnr, read_lips, sharpness, ssim
from syncdiff.training.prepare import FPS, SAMPLE_RATE
from syncdiff.training.protocol import evaluate_as_published
from syncdiff.weights import COMPACT

SETS = ("val-grid-multi", "val-voxceleb2", "val-hdtf", "val-elospheres", "val-retalking", "val-rendered")
APART = 15  # frames between a frame and the one whose mouth it may be given
CLOSING = 1  # place of the lip closing curve among the visemes of the corpus
UPRIGHT = np.eye(2, 3, dtype=np.float32)  # prepared crops are their own frames
LOOKS = 10  # frames of a clip on the contact sheet
OURS, LEFT, FROZEN, NEAREST, REGRESSOR = "syncdiff", "left as it was", "frozen mouth", "nearest mouth", "L1 regressor"


@dataclass(frozen=True)
class Filmed:
    """A clip as it is."""

    name: str
    crops: np.ndarray  # [T, S, S, 3] uint8
    points: np.ndarray  # [T, 478, 2] crop px
    sound: np.ndarray  # [N] float32

    def first(self, frames: int) -> Filmed:
        return Filmed(self.name, self.crops[:frames], self.points[:frames], self.sound[: frames * SAMPLE_RATE // FPS])

    @property
    def scene(self) -> Scene:
        """Every frame in which the face was found, to be redrawn."""
        times, seen = np.arange(len(self.crops)) / FPS, np.isfinite(self.points[:, 0, 0])
        still = np.tile(UPRIGHT, (len(self.crops), 1, 1))
        sitter = Sitter(self.crops, still, self.points, yaw_of(self.points), seen)
        return Scene(sitter, np.arange(len(self.crops)), times, times + 0.5 / FPS, seen.astype(np.float32))


Maker = Callable[[Filmed, np.ndarray], np.ndarray]  # a clip and a sound [N] -> crops [T, S, S, 3] that speak it


def drawn_by(pipe: SyncDiffPipeline, options: SampleOptions) -> Maker:
    """Our model; fitted to each clip first, with the clip's own sound, where the options say so."""
    fitted: dict[str, CompactArtist] = {}  # of the clip at hand

    def artist_for(clip: Filmed) -> CompactArtist:
        if not options.fit:
            return pipe.artist()
        if clip.name not in fitted:
            fitted.clear()
            heard = listen(pipe.speech, clip.sound)
            practice = fit(pipe.denoiser, Objective(pipe.scheduler), clip.scene.sitter, clip.scene.middles, heard)
            fitted[clip.name] = CompactArtist(finished(practice), pipe.speech, pipe.scheduler)
        return fitted[clip.name]

    return lambda clip, sound: draw(artist_for(clip), clip, sound, options.steps, options.seed)


def draw(artist: CompactArtist, clip: Filmed, sound: np.ndarray, steps: int, seed: int = 0) -> np.ndarray:
    """The clip's crops [T, S, S, 3] with its mouth drawn to a sound [N], chunk by chunk as the pipeline does it."""
    scene, heard, out = clip.scene, artist.listen(sound), clip.crops.copy()
    for start in range(0, len(out), sampler.LANE * sampler.LANES):
        for stroke in artist.draw_chunk(scene, heard, start, steps=steps, seed=seed):
            if stroke.crops is not None:
                out[list(stroke.frames)] = stroke.crops
    return pasted(out, clip.crops)


class Regressor(nn.Module):
    """A Denoiser that was trained with L1 to draw the frame in one evaluation: no noise, no previous frame.

    Wav2Lip's shape (a frame without its mouth, another frame of the person, a window of speech -> the frame) in our
    network's size and on our data, so that what is compared is diffusion against regression.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.config, self.device = denoiser, denoiser.config, denoiser.device

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        nothing = torch.zeros_like(noisy)
        return self.denoiser(nothing, timestep, replace(condition, previous=nothing))


def regressed_by(pipe: SyncDiffPipeline, folder: Path) -> Maker:
    """One evaluation at the schedule's last timestep, with the pipeline's speech and hints."""
    if not (folder / "config.json").exists():
        raise SystemExit(f"{folder} holds no weights (config.json): --regressor takes the folder that train wrote.")
    artist = CompactArtist(Regressor(Denoiser.from_pretrained(folder).eval()), pipe.speech, pipe.scheduler)
    return lambda clip, sound: draw(artist, clip, sound, steps=1)


def left_alone(clip: Filmed, _sound: np.ndarray) -> np.ndarray:
    """The video as it was."""
    return clip.crops


def frozen(clip: Filmed, _sound: np.ndarray) -> np.ndarray:
    """The identity frame's mouth in every frame."""
    who = clip.crops[clip.scene.sitter.identity]
    return pasted(np.broadcast_to(who, clip.crops.shape), clip.crops)


def nearest_by(pipe: SyncDiffPipeline) -> Maker:
    """The clip's own mouth from another moment, the one whose sound our speech encoder finds most alike."""

    def make(clip: Filmed, sound: np.ndarray) -> np.ndarray:
        times = clip.scene.middles
        own, new = (_windows(pipe, s, times) for s in (clip.sound, sound))
        return pasted(clip.crops[most_alike(own, new, min(APART, len(times) // 3))], clip.crops)

    return make


def most_alike(own: np.ndarray, new: np.ndarray, apart: int) -> np.ndarray:
    """Features [T, D] of a clip and of another sound -> [T] which moment of the clip is nearest, `apart` or more away.

    A few moments at a time: memory grows with the clip, not with its square."""
    found, i = [], torch.arange(len(own))
    for part in i.split(256):
        distance = torch.cdist(torch.from_numpy(new)[part], torch.from_numpy(own))
        found.append(distance.masked_fill((part[:, None] - i).abs() < apart, torch.inf).argmin(1))
    return torch.cat(found).numpy()


def _windows(pipe: SyncDiffPipeline, sound: np.ndarray, times: np.ndarray) -> np.ndarray:
    return listen(pipe.speech, sound).window(torch.from_numpy(times), 5).flatten(1).numpy()


def pasted(made: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Mouths [T, S, S, 3] in the crops around them, by the product's own paste: feathered, in the skin's colour."""
    out = around.copy()
    for image, crop in zip(out, made, strict=True):
        patch = paste(image, crop, UPRIGHT)
        image[patch.y : patch.y + patch.rgb.shape[0], patch.x : patch.x + patch.rgb.shape[1]] = patch.rgb
    return out


class Sheet:
    """For looking at: two rows of pictures a clip, as it was filmed and as it was made to its own voice."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def watching(self, make: Maker) -> Maker:
        """The same maker, its first picture of every clip's own voice kept."""

        def watched(clip: Filmed, sound: np.ndarray) -> np.ndarray:
            made = make(clip, sound)
            if sound is clip.sound:
                at = np.linspace(0, len(made) - 1, LOOKS).round().astype(int)
                rows = [np.concatenate(list(crops[at]), axis=1) for crops in (clip.crops, made)]
                cv2.putText(rows[0], clip.name, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0))
                self.rows += rows
            return made

        return watched

    def write(self, path: Path) -> None:
        """As PNG."""
        if not cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(self.rows), cv2.COLOR_RGB2BGR)):
            raise SystemExit(f"The contact sheet cannot be written to {path}: give a name ending in .png.")


def measure(make: Maker, clip: Filmed, record: ClipRecord, other: ClipRecord | None, judge) -> dict:
    """One row of the table; see the module's head for the columns."""
    opening, row = lip_opening(clip.points), {}
    own = make(clip, clip.sound)
    points = clip.points if own is clip.crops else read_lips(own)
    made = lip_opening(points)
    lag = best_lag(made, opening)
    row |= {
        "matched_r": correlation(made, opening),
        "best_lag": lag and lag.frames,
        "best_r": lag and lag.r,
        "width_r": correlation(lip_width(points), lip_width(clip.points)),
        "opening_ratio": float(made.std() / opening.std()),
        "closure": None,
        "sharpness": sharpness(own) / sharpness(clip.crops),
        "jitter": jitter(points) / jitter(clip.points),
        "PSNR": psnr(own, clip.crops) if own is not clip.crops else None,
        "SSIM": ssim(own, clip.crops),
        "LMD": lip_distance(points, clip.points),
    }
    if record.visemes is not None:
        reach = Talker.of(lip_shape(clip.points)).speaking().reach
        row["closure"] = closure(points, record.visemes[:, CLOSING], reach)
    if judge is not None:
        said = score(own, clip.sound, judge)
        row |= {"confidence": said.confidence, "offset": said.offset_frames}

    n = min(len(record), len(other)) if other else 0
    if n >= 2 * FPS:
        foreign = (other.sound.astype(np.float32) / 32768)[: n * SAMPLE_RATE // FPS]
        crops = make(clip.first(n), foreign)
        made, spoken = lip_opening(read_lips(crops)), other.opening[:n]
        lag = best_lag(made, spoken)
        row |= {"foreign_r": correlation(made, spoken), "foreign_best_r": lag and lag.r}
        if judge is not None:
            row["foreign_confidence"] = score(crops, foreign, judge).confidence

    made = lip_opening(read_lips(make(clip, np.zeros_like(clip.sound))))
    return row | {"silence_move": float(made.std() / opening.std()), "silence_r": correlation(made, opening)}


def evaluate(makers: dict[str, Maker], judge, data: Path, sets: tuple[str, ...], limit: int | None) -> Iterator[dict]:
    """Rows, clip by clip. The foreign voice is the next clip of another person in the same set."""
    for name in sets:
        records = load_set(data, name)
        if not records:
            raise SystemExit(f"{data / name} holds no prepared clips: make them with syncdiff.training.prepare.")
        crops, starts = load_crops(data, records)
        for i, record in list(enumerate(records))[:limit]:
            strangers = [r for r in records[i + 1 :] + records[:i] if r.identity != record.identity]
            pixels = np.array(crops[starts[i] : starts[i + 1]])
            clip = Filmed(f"{name}/{record.name}", pixels, read_lips(pixels), record.sound.astype(np.float32) / 32768)
            for maker, make in makers.items():
                row = {"maker": maker, "set": name, "clip": record.name, "frames": len(record)}
                yield row | measure(make, clip, record, strangers[0] if strangers else None, judge)


def table(rows: list[dict]) -> str:
    """Markdown: the mean of every column, per maker, per set, per group of several sets, and over all clips."""
    columns = [c for c in dict.fromkeys(c for r in rows for c in r) if c not in ("maker", "set", "clip", "frames")]
    lines = ["| maker | set | clips | " + " | ".join(columns) + " |", "|---" * (len(columns) + 3) + "|"]
    sets = list(dict.fromkeys(r["set"] for r in rows))
    places = {name: [name] for name in sets}
    places |= {name: group for name, group in GROUPS.items() if sum(s in group for s in sets) > 1}
    places["all"] = sets
    for maker in dict.fromkeys(r["maker"] for r in rows):
        for name, some in places.items():
            here = [r for r in rows if r["maker"] == maker and r["set"] in some]
            means = (_mean(here, c) for c in columns)
            cells = " | ".join("-" if m is None else f"{m:.2f}" for m in means)
            lines.append(f"| {maker} | {name} | {len(here)} | {cells} |")
    return "\n".join(lines)


def _mean(rows: list[dict], column: str) -> float | None:
    known = [r[column] for r in rows if r.get(column) is not None]
    return float(np.mean(known)) if known else None


# The README's table: what stands in a row, how its cells are written - {maker.column}, a mean over clips - and the aim.
HEADLINE = (
    ("own voice: r with the true lips (at the best lag)", "{ours.matched_r} ({ours.best_r})", "0.85 / 0.50 (0.65)"),
    ("the same for the L1 regressor; nearest mouth; frozen mouth",
     "{regressor.matched_r}; {nearest.matched_r}; {frozen.matched_r}", "less than ours"),
    ("clips whose best lag is 0 or 1 frame", "{on_time}", "all"),
    ("another's voice: r with the lips that spoke it (the video left as it was)",
     "{ours.foreign_r} ({left.foreign_r})", "0.75 / -"),
    ("the same at the best lag", "{ours.foreign_best_r} ({left.foreign_best_r})", "- / 0.55"),
    ("silence: movement against the source's; r with the source's lips",
     "{ours.silence_move:%}; {ours.silence_r}", "25 %; 0.15"),
    ("how far the lips open against the truth", "{ours.opening_ratio:%}", "-"),
    ("sharpness of the mouth / jitter against the source", "{ours.sharpness} / {ours.jitter}", "0.90 / 1.2"),
    ("PSNR / SSIM / LMD against the true mouth", "{ours.PSNR} dB / {ours.SSIM} / {ours.LMD} px", "-"),
    ("confidence of our own judge: own voice (filmed); another's (the video left as it was)",
     "{ours.confidence} ({left.confidence}); {ours.foreign_confidence} ({left.foreign_confidence})", "-"),
)  # fmt: skip
ALIASES = {"ours": OURS, "left": LEFT, "frozen": FROZEN, "nearest": NEAREST, "regressor": REGRESSOR}


@dataclass(frozen=True)
class _Means:
    """Means of one maker's rows, as `str.format` asks for them: {x.column} in two places, {x.column:%} in percent."""

    rows: list[dict]

    def __getattr__(self, column: str) -> _Figure:
        return _Figure(_mean(self.rows, column))


@dataclass(frozen=True)
class _Figure:
    value: float | None

    def __format__(self, how: str) -> str:
        if self.value is None:
            return "-"
        return f"{100 * self.value:.0f} %" if how == "%" else f"{self.value:.2f}"


def headline(rows: list[dict]) -> str:
    """Markdown: our model over the groups of people, beside the aims and what it must beat."""
    groups = {name: [r for r in rows if r["set"] in sets] for name, sets in GROUPS.items()}
    ours = {name: [r for r in here if r["maker"] == OURS] for name, here in groups.items()}
    lines = [
        "| | " + " | ".join(f"{name} ({len(here)} clips)" for name, here in ours.items()) + " | aim GRID / ordinary |",
        "|---" * (len(groups) + 2) + "|",
    ]
    for title, cell, aim in HEADLINE:
        cells = []
        for name, here in groups.items():
            lags = [r["best_lag"] for r in ours[name] if r["best_lag"] is not None]
            values: dict[str, Any] = {k: _Means([r for r in here if r["maker"] == v]) for k, v in ALIASES.items()}
            values["on_time"] = f"{sum(abs(lag) <= 1 for lag in lags)} of {len(lags)}" if lags else "-"
            cells.append(cell.format(**values))
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {aim} |")
    return "\n".join(lines)


def as_published(args: argparse.Namespace) -> str | None:
    """Run the protocol; what stands in its way, in words."""
    if args.out is None:
        return "--protocol needs --out, a folder for what is drawn."
    choices = {"listed": args.list, "corpus": args.corpus, "limit": args.limit, "finder": args.boxes, "read": args.read}
    choices |= {"number": args.table, "others": args.beside}
    try:
        pipe = SyncDiffPipeline.ready(args.weights)
        options = OPTIONS[pipe.profile](label=False, **({} if args.steps is None else {"steps": args.steps}))
        print(evaluate_as_published(pipe, args.data, args.out, options, **choices))
    except InputError as sentence:
        return str(sentence)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--weights", type=Path, default=COMPACT)
    parser.add_argument("--steps", type=int, help="as the weights' profile has it")
    parser.add_argument("--limit", type=int, help="clips per set")
    parser.add_argument("--fit", action="store_true", help="also our model fitted to each clip first (a minute a clip)")
    parser.add_argument("--alone", action="store_true", help="our model only, without the baselines")
    parser.add_argument("--regressor", type=Path, metavar="FOLDER", help="weights of the L1 baseline: see Regressor")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="a contact sheet of filmed and drawn frames")
    parser.add_argument("--csv", type=Path)
    ours = parser.add_argument_group("protocol", "the paper's own evaluation: see syncdiff/training/protocol.py")
    ours.add_argument("--protocol", choices=("paper",), help="DATA is LRS2, LRS3 or a folder of films of one face")
    ours.add_argument("--out", type=Path, help="folder for what is drawn, and for the tables")
    ours.add_argument("--list", type=Path, metavar="FILE", help="names of the films, as LRS2's test.txt")
    ours.add_argument("--corpus", choices=("LRS2", "LRS3"), default="LRS2", help="whose published rows stand beside")
    ours.add_argument("--table", choices=("1", "2", "3", "5", "6"), default="1", help="which of the paper's tables")
    ours.add_argument("--beside", type=Path, nargs="*", default=(), metavar="OUT", help="earlier runs, to compare with")
    ours.add_argument("--boxes", choices=("face-alignment", "mediapipe"), default="face-alignment")
    ours.add_argument("--read", metavar="NAME=FILE", help="what a lip reader made of the films in OUT/matched, for WER")
    args = parser.parse_args()
    if args.protocol:
        sys.exit(as_published(args))
    pipe, sheet = SyncDiffPipeline.from_pretrained(args.weights), Sheet()
    makers = {OURS: sheet.watching(drawn_by(pipe, SampleOptions(steps=args.steps or SampleOptions.steps)))}
    if args.fit:
        fitting = SampleOptions(steps=args.steps or SampleOptions.steps, fit=True)
        makers["syncdiff, fitted on this very clip"] = drawn_by(pipe, fitting)
    if args.regressor:
        makers[REGRESSOR] = regressed_by(pipe, args.regressor)
    if not args.alone:
        makers |= {LEFT: left_alone, FROZEN: frozen, NEAREST: nearest_by(pipe)}
    rows = []
    for row in evaluate(makers, pipe.judge, args.data, tuple(args.sets), args.limit):
        rows.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, file=sys.stderr, flush=True)
    print(headline(rows), table(rows), sep="\n\n")
    if args.sheet:
        sheet.write(args.sheet)
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
