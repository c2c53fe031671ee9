"""Train the speech encoder: distilled from Whisper on many voices, and trained to forecast the lips that speak.

    python -m syncdiff.training.distill DATA OUT --teacher MODEL.bin [--start FOLDER] [--steps 3000]

One student with three kinds of target on its 50 Hz features: the teacher's states (all voices) and the animation curves
of the synthetic faces, through linear heads that are dropped afterwards, and lip shapes, through the forecast that the
encoder keeps. Few people are filmed. So small heads on the teacher's states (`lip_heads`) are trained on the filmed
people, and the mean of their forecasts is the target for every voice; measured lips are a second target where there are
any. The student's input is augmented (speed and pitch, noise, tones, reverberation, equaliser, band limit) and now and
then silent, with lips at rest as the target; the teacher's input is clean. --start begins with the weights of another
encoder as far as they fit. Resumable: OUT/state.pt holds everything; a batch's seed is its number. The learning rate
falls only in the last fifth, so that --steps may be raised on the way.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.audio import SAMPLE_RATE
from syncdiff.audio.mel import HOP, log_mel
from syncdiff.devices import autocast, best_device
from syncdiff.geometry.mouth_shape import SHAPE, SpeakerScale
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.progress import mapped
from syncdiff.training.data import ClipRecord, load_set
from syncdiff.training.lip_heads import (
    DISTANCE_WEIGHTS,
    HEADS,
    LipTrack,
    correlation_loss,
    fit_head,
    forecast,
    per_frame,
)
from syncdiff.training.loop import Average, Run
from syncdiff.training.prepare import FPS
from syncdiff.training.sets import PERSON_WEIGHT, SPEECH_SHARE
from syncdiff.training.teacher import RATE, teacher_in

POSITIONS = 200  # states of one piece of the teacher's input: four seconds
COMPONENTS, TARGETS = 300, 96  # principal components of the teacher's states: the heads' input, the student's target
SILENT = 0.05  # share of the segments whose sound is removed
SECONDS, BATCH = 3.2, 16  # of a segment; segments of an update
CURVES = 15  # animation curves of the synthetic faces


@dataclass(frozen=True)
class TrainingClip:
    """A recording with its targets."""

    record: ClipRecord
    teacher_states: np.ndarray  # [T50, TARGETS] float16
    teacher_forecast: np.ndarray  # [T25, SHAPE] lip shapes by the heads on the teacher's states
    measured_lips: np.ndarray | None  # [T25, SHAPE] of filmed people


class TeacherStates:
    """The teacher's states of a recording, as principal components: [T50, COMPONENTS] float16, scaled to be about 1.

    The teacher encodes pieces of four seconds. Its states carry their position in the piece, which no student could
    know (it was most of the variance), so the mean state at each position is subtracted. That mean and the components
    are of many voices end to end: were every recording cut from its beginning, every piece would begin with the silence
    before a sentence, and the mean would hold it (lip opening of strangers filmed in a laboratory: r 0.53 instead of
    0.66). Both are kept in `folder`, as are the states, one file a set.
    """

    def __init__(self, teacher: Path, voices: list[ClipRecord], folder: Path) -> None:
        self.encode, self.folder = teacher_in(teacher), folder
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "basis.npz").exists():
            stream = np.concatenate([record.sound for record in voices])
            pieces = np.stack([piece for piece in self._pieces(stream) if len(piece) == POSITIONS])
            mean = pieces.mean(0)
            rows = (pieces - mean).reshape(-1, mean.shape[1])
            variance, basis = np.linalg.eigh(rows.T @ rows / len(rows))
            basis, variance = basis[:, ::-1][:, :COMPONENTS], variance[::-1][:COMPONENTS]
            np.savez(folder / "basis.npz", mean=mean, basis=basis / np.sqrt(variance.mean()))
        with np.load(folder / "basis.npz") as file:
            self.mean, self.basis = file["mean"], file["basis"]

    def _pieces(self, sound: np.ndarray) -> list[np.ndarray]:
        pieces = torch.from_numpy(sound / np.float32(32768)).split(POSITIONS * 2 * HOP)
        return [self.encode(piece).numpy() for piece in pieces if len(piece) > HOP * 20]

    def of(self, record: ClipRecord) -> np.ndarray:
        """Of one recording."""
        pieces = [(piece - self.mean[: len(piece)]) @ self.basis for piece in self._pieces(record.sound)]
        missing = len(record.sound) // HOP // 2 - sum(map(len, pieces))
        return np.pad(np.concatenate(pieces), ((0, max(0, missing)), (0, 0)), mode="edge").astype(np.float16)

    def of_set(self, records: list[ClipRecord]) -> list[np.ndarray]:
        """Of all recordings of one set, in the same order."""
        path = self.folder / f"{records[0].set}.npz"
        names = [record.name for record in records]
        if path.exists():
            with np.load(path) as file:
                if file["names"].tolist() == names:
                    return np.split(file["rows"], file["ends"][:-1])
        rows = [self.of(record) for record in records]
        np.savez(path, names=names, rows=np.concatenate(rows), ends=np.cumsum([len(r) for r in rows]))
        return rows


def lip_shapes(records: list[ClipRecord]) -> list[np.ndarray]:
    """Lip shapes [T, SHAPE] of every clip in its speaker's units, -1..2; all clips of a speaker set the units."""
    shapes = {
        who: np.concatenate([r.shape[r.good] for r in records if (r.set, r.identity) == who])
        for who in dict.fromkeys((r.set, r.identity) for r in records)
    }
    scales = {who: SpeakerScale.of(own) for who, own in shapes.items()}
    return [np.clip(scales[r.set, r.identity].units(r.shape), -1, 2).astype(np.float32) for r in records]


def lip_tracks(records: list[ClipRecord], states: list[np.ndarray]) -> tuple[list[LipTrack], dict[str, float]]:
    """Filmed people's clips with their states [T50, D], and each person's weight in the training of a head.

    Where a set has no identities, all its clips count as one person's.
    """
    tracks, weight = [], {}
    for record, lips, clip_states in zip(records, lip_shapes(records), states, strict=True):
        who = record.set if record.identity == record.name else f"{record.set} {record.identity}"
        tracks.append(LipTrack(per_frame(clip_states, len(lips)), lips, record.good, who))
        weight[who] = PERSON_WEIGHT[record.set]
    return tracks, weight


def training_clips(data: Path, teacher: Path, folder: Path) -> list[TrainingClip]:
    """All recordings of the prepared sets with their targets; states and heads of the teacher are kept in `folder`."""
    sets = {name: records for name in SPEECH_SHARE if (records := load_set(data, name))}
    voices = [r for name, records in sets.items() for r in (records if name in PERSON_WEIGHT else records[::8])]
    teacher_states = TeacherStates(teacher, voices, folder)
    clips = [pair for records in sets.values() for pair in zip(records, teacher_states.of_set(records), strict=True)]
    filmed = [(record, states) for record, states in clips if record.set in PERSON_WEIGHT]
    tracks, weight = lip_tracks(*map(list, zip(*filmed, strict=True)))
    heads = _heads(tracks, weight, folder / "heads.pt")
    lips = {(record.set, record.name): track.lips for (record, _), track in zip(filmed, tracks, strict=True)}
    return [
        TrainingClip(
            record, states[:, :TARGETS].copy(), forecast(heads, per_frame(states, len(states) // 2)),
            lips.get((record.set, record.name)),
        )
        for record, states in clips
    ]  # fmt: skip


def _heads(tracks: list[LipTrack], weight: dict[str, float], path: Path) -> Sequence[nn.Module]:
    if not path.exists():
        torch.save([fit_head(kind, tracks, weight, i).state_dict() for i, kind in enumerate(HEADS)], path)
    heads = [kind(COMPONENTS).to(best_device()).eval() for kind in HEADS]
    for head, state in zip(heads, torch.load(path, weights_only=True, map_location="cpu"), strict=True):
        head.load_state_dict(state)
    return heads


def augment(sound: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a synthetic room, noise (white to brown, or another voice) and held tones as of music; [N] float32 each."""
    out = sound
    if rng.random() < 0.4:  # a room: decaying noise after a direct path
        decay = rng.uniform(0.02, 0.2)
        tail = rng.standard_normal(int(SAMPLE_RATE * decay * 2)).astype(np.float32)
        tail *= np.exp(-np.arange(len(tail)) / (SAMPLE_RATE * decay / 3)) * rng.uniform(0.01, 0.05)
        tail[0] = 1
        size = len(out) + len(tail)
        out = np.fft.irfft(np.fft.rfft(out, size) * np.fft.rfft(tail, size), size)[: len(out)].astype(np.float32)
    if rng.random() < 0.6:
        if rng.random() < 0.3:
            noise = other
        else:
            spectrum = np.fft.rfft(rng.standard_normal(len(out)))
            noise = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** rng.uniform(0, 1), len(out))
        snr = rng.uniform(5, 35) + (8 if noise is other else 0)
        level = np.sqrt((out**2).mean() / ((noise**2).mean() + 1e-12)) * 10 ** (-snr / 20)
        out = out + (level * noise).astype(np.float32)
    if rng.random() < 0.2:
        out = out + _tones(len(out), rng) * np.float32(np.sqrt((out**2).mean()) * 10 ** (-rng.uniform(8, 30) / 20))
    return out


def _tones(size: int, rng: np.random.Generator) -> np.ndarray:
    """Chords of three notes with overtones, changing every 0.3 to 1 s, of mean square about 1."""
    out, at = np.zeros(size, np.float32), 0
    while at < size:
        n = min(size - at, int(rng.uniform(0.3, 1.0) * SAMPLE_RATE))
        t = np.arange(n) / SAMPLE_RATE
        for note in 110 * 2 ** (rng.integers(0, 36, 3) / 12):
            for k in range(1, 5):
                out[at : at + n] += (np.sin(2 * np.pi * k * note * t + rng.uniform(0, 6)) / k).astype(np.float32)
        at += n
    return out / np.float32(np.sqrt((out**2).mean()) + 1e-6)


def equalise(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """A random smooth equaliser and band limits on log mel [B, M, T]: microphones, telephones and codecs."""
    knots = torch.from_numpy(rng.normal(0, 0.08, (len(mel), 1, 6)).astype(np.float32))
    mel = mel + F.interpolate(knots, mel.shape[1], mode="linear", align_corners=True).transpose(1, 2)
    for i in np.flatnonzero(rng.random(len(mel)) < 0.2):
        mel[i, int(rng.integers(50, 78)) :] = -1
    for i in np.flatnonzero(rng.random(len(mel)) < 0.15):
        mel[i, : int(rng.integers(3, 12))] = -1
    return mel


@dataclass(frozen=True)
class Batch:
    """Segments of sound with their targets; masks are 1 where the target counts."""

    mel: Tensor  # [B, M, T100]
    teacher_states: Tensor  # [B, T50, TARGETS]
    has_sound: Tensor  # [B, T50] mask
    teacher_forecast: Tensor  # [B, T25, SHAPE], zeros (at rest) where the segment is silent
    measured_lips: Tensor  # [B, T25, SHAPE]
    is_measured: Tensor  # [B, T25] mask
    curves: Tensor  # [B, T25, CURVES]
    has_curves: Tensor  # [B, T25] mask

    def to(self, device: torch.device) -> Batch:
        """As `Tensor.to`, of all of them."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class Segments:
    """Random segments of sound with their targets: sets by their shares in sets.toml, people with equal chances."""

    def __init__(self, clips: list[TrainingClip]) -> None:
        self.clips = clips
        people: dict[str, dict[str, list[int]]] = {name: {} for name in SPEECH_SHARE}
        for i, clip in enumerate(clips):
            people[clip.record.set].setdefault(clip.record.identity, []).append(i)
        self.people = {name: list(clips_of.values()) for name, clips_of in people.items() if clips_of}
        share = np.array([SPEECH_SHARE[name] for name in self.people])
        self.share = share / share.sum()

    def batch(self, rng: np.random.Generator) -> Batch:
        """BATCH segments; the generator decides all of it."""
        n50 = int(SECONDS * RATE)
        n25 = n50 // 2
        mels = []
        targets = {name: np.zeros((BATCH, *shape), np.float32) for name, shape in (
            ("teacher_states", (n50, TARGETS)), ("has_sound", (n50,)), ("teacher_forecast", (n25, SHAPE)),
            ("measured_lips", (n25, SHAPE)), ("is_measured", (n25,)), ("curves", (n25, CURVES)), ("has_curves", (n25,)),
        )}  # fmt: skip
        for row, name in enumerate(rng.choice(list(self.people), BATCH, p=self.share)):
            people = self.people[name]
            clip = self.clips[int(rng.choice(people[int(rng.integers(len(people)))]))]
            record, speed = clip.record, float(np.exp(rng.uniform(-0.18, 0.18)))
            total = len(record.sound) / SAMPLE_RATE
            start = rng.uniform(0, max(0.0, total - SECONDS * speed))
            sound = _stretch(record.sound, start, speed)
            if rng.random() < SILENT:
                noise = rng.normal(0, rng.choice([0, 1e-4, 1e-3]), len(sound)).astype(np.float32)
                mels.append(log_mel(torch.from_numpy(noise)))
                continue
            other = self.clips[int(rng.integers(len(self.clips)))].record.sound
            other = np.resize(other, len(sound)) / np.float32(32768)
            mels.append(log_mel(torch.from_numpy(augment(sound, other, rng))))
            when = start + (np.arange(n50) + 0.5) / RATE * speed
            targets["teacher_states"][row] = _interpolated(when * RATE, clip.teacher_states)
            targets["has_sound"][row] = when < total
            middles = (start + (np.arange(n25) + 0.5) / FPS * speed) * FPS - 0.5
            targets["teacher_forecast"][row] = _interpolated(middles, clip.teacher_forecast)
            if clip.measured_lips is not None:
                targets["measured_lips"][row] = _interpolated(middles, clip.measured_lips)
                targets["is_measured"][row] = _interpolated(middles, record.good[:, None])[:, 0] == 1
            if record.visemes is not None:
                targets["curves"][row], targets["has_curves"][row] = _interpolated(middles, record.visemes), 1
        return Batch(equalise(torch.stack(mels), rng), **{name: torch.from_numpy(a) for name, a in targets.items()})


def _stretch(sound: np.ndarray, start: float, speed: float) -> np.ndarray:
    """SECONDS of int16 sound from `start` s on, played `speed` times as fast (and as high), float32; silence after."""
    where = (start + np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE * speed) * SAMPLE_RATE
    first, last = int(where[0]), int(where[-1]) + 2
    part = sound[first:last]
    return np.interp(where - first, np.arange(len(part)), part, 0, 0).astype(np.float32) / 32768


def _interpolated(where: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows [T, C] at fractional indices [t], by linear interpolation with repeated edges -> [t, C] float32."""
    where = np.clip(where, 0, len(rows) - 1)
    low = np.minimum(where.astype(int), max(0, len(rows) - 2))
    mix = (where - low)[:, None].astype(np.float32)
    return rows[low].astype(np.float32) * (1 - mix) + rows[np.minimum(low + 1, len(rows) - 1)].astype(np.float32) * mix


def losses(encoder: SpeechEncoder, heads: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
    """By the names that log.csv has: teacher's states, teacher's forecast ("told"), measured lips ("filmed"), curves.

    Squared error of the states; smooth L1 and 1 - r of the lips; Huber of the curves.
    """
    distance_weights = DISTANCE_WEIGHTS.to(batch.mel.device)
    features = encoder(batch.mel).float()
    error = ((heads["teacher"](features) - batch.teacher_states) ** 2).mean(-1)
    terms = {"teacher": (error * batch.has_sound).sum() / batch.has_sound.sum().clamp_min(1)}
    lips = encoder.lips(features).float().unflatten(1, (-1, 2)).mean(2)  # 50 Hz -> 25 Hz
    spoken = batch.has_sound.unflatten(1, (-1, 2)).amin(2)
    voiced = (spoken.sum(1) > 0).float()
    forecast_mask = spoken + (1 - voiced)[:, None]  # a silent segment counts whole: its lips are at rest
    for name, target, mask in (
        ("told", batch.teacher_forecast, forecast_mask),
        ("filmed", batch.measured_lips, batch.is_measured * spoken),
    ):
        error = F.smooth_l1_loss(lips, target, reduction="none", beta=0.5) @ distance_weights
        rows = (mask.sum(1) > 0).float() * voiced
        decorrelation = correlation_loss(lips, target, mask) @ distance_weights
        terms[name] = 3 * (error * mask).sum() / mask.sum().clamp_min(1)
        terms[name] = terms[name] + (decorrelation * rows).sum() / rows.sum().clamp_min(1)
    curves, mask = heads["curves"](features.unflatten(1, (-1, 2)).mean(2)), batch.has_curves * spoken
    error = F.huber_loss(curves, batch.curves, reduction="none", delta=0.2).sum(-1) * batch.has_curves * spoken
    terms["curves"] = error.sum() / mask.sum().clamp_min(1)
    return terms


WEIGHTS = {"teacher": 1.0, "told": 6.0, "filmed": 0.5, "curves": 1.0}


def load_matching_weights(encoder: SpeechEncoder, folder: Path) -> None:
    """Load another encoder's weights as far as names and shapes match; new blocks begin with a small scale."""
    known = {name: weight for path in folder.glob("*.safetensors") for name, weight in load_file(path).items()}
    state = encoder.state_dict()
    state.update({name: value for name, value in known.items() if name in state and value.shape == state[name].shape})
    for name, value in state.items():
        if name.endswith(".scale") and name not in known:
            value.fill_(0.02)
    encoder.load_state_dict(state)


def train(
    data: Path,
    out: Path,
    teacher: Path,
    steps: int,
    start: Path | None = None,
    lr: float = 1e-3,
    save_every: int = 100,
    weights: dict[str, float] = WEIGHTS,
    *,
    hours: float = math.inf,
    until: float = math.inf,
    workers: int = 1,
) -> SpeechEncoder:
    """Train to `steps` updates or for `hours`, resuming OUT/state.pt; returns the moving average, saved in OUT/speech.

    Args:
        until: when to stop for now, by time.time(); the same call goes on later.
        workers: threads that make batches.
    """
    device = best_device()
    segments = Segments(training_clips(data, teacher, out / "teacher"))
    torch.manual_seed(0)
    model = SpeechEncoder()
    if start:
        load_matching_weights(model, start)
    width = model.config["width"]
    heads = nn.ModuleDict({"teacher": nn.Linear(width, TARGETS), "curves": nn.Linear(width, CURVES)})
    model.to(device), heads.to(device)  # pyright: ignore[reportArgumentType]
    average = Average(model, 0.995)
    params = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(params, lr, weight_decay=0.02, betas=(0.9, 0.98))
    run = Run(out, {"model": model, "heads": heads, "average": average, "optimizer": optimizer})
    run.resume()

    def save() -> None:
        run.save()
        average.module.save_pretrained(out / "speech")

    def make(number: int) -> Batch:
        return segments.batch(np.random.default_rng([number]))

    batches = mapped(make, range(run.update, steps), workers)
    while run.update < steps and run.seconds < hours * 3600 and time.time() < until:
        done = max(run.update / steps, run.seconds / (hours * 3600))
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (run.update + 1) / 100, 5 * (1 - done))
        batch = next(batches).to(device)
        with autocast(device):
            parts = losses(model, heads, batch)
        optimizer.zero_grad()
        torch.stack([weights[k] * v for k, v in parts.items()]).sum().backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        run.step(BATCH, {name: part.item() for name, part in parts.items()})
        average.step(model, run.update)
        if run.update % save_every == 0:
            save()
    batches.close()
    save()
    return average.module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="an encoder to begin with: assets/weights/speech")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default 0.001)")
    parser.add_argument("--only-teacher", action="store_true", help="no lips, for the ablation: not the product's")
    args = parser.parse_args()
    weights = {name: weight * (name == "teacher") for name, weight in WEIGHTS.items()} if args.only_teacher else WEIGHTS
    train(args.data, args.out, args.teacher, args.steps, args.start, args.lr, weights=weights)


if __name__ == "__main__":
    main()
