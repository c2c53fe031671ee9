"""Train the speech encoder: distilled from Whisper on many voices, made facial-informative by what lips did to them.

    python -m syncdiff.training.distill DATA OUT --teacher MODEL.bin [--steps 3000]

One student, four kinds of target on its 50 Hz features. Two through linear heads that are thrown away afterwards: the
teacher's states (all voices) and the animation curves of the synthetic faces. The shape of the lips through the
forecast that the encoder keeps (a style a set, since puppets, rendered heads and people move differently). And which
mouth of many goes with this moment's sound: the audio-visual contrastive loss, in both directions, against other
moments and other talkers. The student hears the sound augmented (speed, noise, reverberation, equaliser, band limit)
or, now and then, gone: then the lips rest. The teacher heard it clean.

Only one filmed talker is cleared for training, so what people's lips do with other voices is not there to be seen. It
is estimated: by the linear map from the teacher's states to the lips that were filmed, which carries over to strangers
better than anything the student finds by itself in one person. The student learns to say the same of every voice.
Resumable: OUT/state.pt holds everything; a batch's seed is its number.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.audio import SAMPLE_RATE
from syncdiff.audio.mel import HOP, log_mel
from syncdiff.geometry.mouth_shape import SHAPE, SpeakerScale
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training.data import ClipRecord, load_set
from syncdiff.training.prepare import FPS
from syncdiff.training.teacher import RATE, teacher_in

FACE_SETS, VOICE_SETS = ("grid-s1", "rendered", "puppets"), ("speech",)
SHARE = {"grid-s1": 0.2, "rendered": 0.2, "puppets": 0.25, "speech": 0.35}  # of a batch's segments
PIECE = 4 * SAMPLE_RATE  # samples the teacher hears at a time
COMPONENTS = 96  # principal components of the teacher's states
OFFSETS, RIDGE = (-6, -3, -1, 1, 3, 6), 0.1  # of the map: steps of 20 ms around a frame; penalty per frame
MAP_SHARE = {"grid-s1": 1.0, "rendered": 0.1}  # weight of a set's frames in it
SILENT = 0.05  # share of the face segments whose sound is taken away
MOMENTS, SPAN = 8, 5  # of the contrastive loss: moments of each segment, and frames of mouth at each
TEMPERATURE = 0.07
SECONDS, BATCH = 3.2, 16


class Heads(nn.Module):
    """What training alone needs: linear heads for the teacher's states and the curves, the contrastive loss's space."""

    def __init__(self, width: int, teacher: int, space: int = 64) -> None:
        super().__init__()
        self.teacher = nn.Linear(width, teacher)
        self.visemes = nn.Linear(width, 15)
        self.heard = nn.Conv1d(width, space, 2 * SPAN, stride=2, padding=SPAN - 1)  # 50 Hz -> 25 Hz, SPAN frames wide
        self.seen = nn.Sequential(nn.Linear(SPAN * SHAPE, 128), nn.GELU(), nn.Linear(128, space))


def teach(records: list[ClipRecord], teacher: Path, cache: Path) -> list[np.ndarray]:
    """The teacher's states [T50, layers * D] float16 for every record, kept in `cache` (one file).

    The teacher hears pieces of four seconds, and the mean state at each position in a piece is taken off: its
    states carry their position in the recording, which no student could hear (it was most of the variance).
    """
    lengths = [len(r.sound) // HOP // 2 for r in records]
    if not cache.exists():
        hear, width = teacher_in(teacher), 0
        states = []
        for record in records:
            sound = torch.from_numpy(record.sound / np.float32(32768))
            pieces = [hear(p)[list(hear.taken)] for p in sound.split(PIECE) if len(p) > HOP * 20]
            states.append([torch.cat(list(p), dim=-1).numpy() for p in pieces])
            width = states[-1][0].shape[1]
        total, count = np.zeros((PIECE // HOP // 2, width)), np.zeros((PIECE // HOP // 2, 1))
        for piece in (p for clip in states for p in clip):
            total[: len(piece)] += piece
            count[: len(piece)] += 1
        mean = (total / np.maximum(count, 1)).astype(np.float32)
        rows = [np.concatenate([p - mean[: len(p)] for p in clip]).astype(np.float16) for clip in states]
        rows = [
            np.pad(r, ((0, max(0, n - len(r))), (0, 0)), mode="edge")[:n] for r, n in zip(rows, lengths, strict=True)
        ]
        np.save(cache, np.concatenate(rows))
    flat = np.load(cache, mmap_mode="r")
    assert sum(lengths) == len(flat), "the teacher's cache belongs to other clips: delete it"
    return np.split(flat, np.cumsum(lengths)[:-1])


def lip_shapes(records: list[ClipRecord]) -> list[np.ndarray]:
    """Lip shape over time [T, SHAPE] in the talker's own units, -1..2; everything seen of a talker tells the units."""
    talkers = {
        who: SpeakerScale.of(np.concatenate([r.shape for r in records if (r.set, r.identity) == who]))
        for who in dict.fromkeys((r.set, r.identity) for r in records)
    }
    return [np.clip(talkers[r.set, r.identity].units(r.shape), -1, 2).astype(np.float32) for r in records]


def people_map(
    records: list[ClipRecord], states: list[np.ndarray], shapes: dict[int, np.ndarray], path: Path
) -> np.ndarray:
    """Ridge regression from the teacher's states around a frame to people's lip shape [OFFSETS * D + 1, SHAPE]."""
    if not path.exists():
        gram = moment = 0.0
        for name, share in MAP_SHARE.items():
            here = [i for i, r in enumerate(records) if r.set == name]
            weight = share / sum(len(records[i]) for i in here)
            for some in np.array_split(here, max(1, len(here) // 20)):
                x = np.concatenate([around(states[i], len(records[i])) for i in some])
                y = np.concatenate([shapes[i] for i in some])
                gram, moment = gram + weight * x.T @ x, moment + weight * x.T @ y
        np.save(path, np.linalg.solve(gram + RIDGE * np.eye(len(gram), dtype=np.float32), moment))
    return np.load(path)


def around(states: np.ndarray, frames: int) -> np.ndarray:
    """States [T50, D] -> [frames, OFFSETS * D + 1]: those around the middle of every 25 Hz frame, and a one."""
    at = (np.arange(frames) + 0.5) / FPS * RATE - 0.5
    states = states.astype(np.float32)
    columns = []
    for offset in OFFSETS:
        where = np.clip(at + offset, 0, len(states) - 1)
        low = np.minimum(where.astype(int), max(0, len(states) - 2))
        mix = (where - low)[:, None].astype(np.float32)
        columns.append(states[low] * (1 - mix) + states[np.minimum(low + 1, len(states) - 1)] * mix)
    return np.concatenate([*columns, np.ones((frames, 1), np.float32)], axis=1)


def augment(sound: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise (white to brown, or another voice) at 0 to 30 dB, and a synthetic room; [N] float32 in and out."""
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
            noise = others
        else:
            spectrum = np.fft.rfft(rng.standard_normal(len(out)))
            noise = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** rng.uniform(0, 1), len(out))
        snr = rng.uniform(5, 35) + (8 if noise is others else 0)
        level = np.sqrt((out**2).mean() / ((noise**2).mean() + 1e-12)) * 10 ** (-snr / 20)
        out = out + (level * noise).astype(np.float32)
    return out


def equalise(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """A random smooth equaliser and band limit on log mel [B, M, T]: microphones and codecs."""
    knots = torch.from_numpy(rng.normal(0, 0.06, (len(mel), 1, 6)).astype(np.float32))
    mel = mel + F.interpolate(knots, mel.shape[1], mode="linear", align_corners=True).transpose(1, 2)
    for i in np.flatnonzero(rng.random(len(mel)) < 0.15):
        mel[i, int(rng.integers(50, 78)) :] = -1
    return mel


@dataclass(frozen=True)
class Mouth:
    """What the lips do to one row of a batch."""

    row: int
    style: int
    shapes: Tensor  # [T25, SHAPE]
    curves: Tensor | None = None  # [T25, 15] of synthetic faces
    seen: bool = True  # or estimated by the people map


@dataclass(frozen=True)
class Batch:
    mel: Tensor  # [B, M, T100]
    teacher: Tensor  # [B, T50, COMPONENTS]
    valid: Tensor  # [B, T50] 1 where there is sound
    mouths: list[Mouth]


class Segments:
    """Random stretches of sound with their targets."""

    def __init__(
        self, records: list[ClipRecord], states: list[np.ndarray], shapes: dict[int, np.ndarray], people: np.ndarray
    ) -> None:
        self.records, self.states, self.shapes = records, states, shapes
        self.people = [around(s, len(r)) @ people for r, s in zip(records, states, strict=True)]
        self.by_set = {s: [i for i, r in enumerate(records) if r.set == s] for s in SHARE}
        sample = np.concatenate([s[::50] for s in states]).astype(np.float32)
        self.mean = sample.mean(0)
        basis = np.linalg.svd(sample - self.mean, full_matrices=False)[2][:COMPONENTS].T  # [D, COMPONENTS]
        self.basis = basis / ((sample - self.mean) @ basis).std(0)[:8].mean()

    def batch(self, rng: np.random.Generator) -> Batch:
        n50 = int(SECONDS * RATE)
        mels, mouths = [], []
        teacher, valid = np.zeros((BATCH, n50, COMPONENTS), np.float32), np.zeros((BATCH, n50), np.float32)
        for row, name in enumerate(rng.choice(list(SHARE), BATCH, p=list(SHARE.values()))):
            i = int(rng.choice(self.by_set[name]))
            record, speed = self.records[i], float(np.exp(rng.uniform(-0.16, 0.16)))
            total = len(record.sound) / SAMPLE_RATE
            start = rng.uniform(0, max(0.0, total - SECONDS * speed))
            seconds = start + np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE * speed
            sound = (
                np.interp(seconds * SAMPLE_RATE, np.arange(len(record.sound)), record.sound, 0, 0).astype(np.float32)
                / 32768
            )
            other = self.records[int(rng.choice(self.by_set["speech"]))].sound
            other = np.resize(other, len(sound)).astype(np.float32) / 32768
            silent = name in FACE_SETS and rng.random() < SILENT
            if silent:
                sound = np.zeros_like(sound) + rng.normal(0, rng.choice([0, 1e-4, 1e-3]), len(sound)).astype(np.float32)
            mels.append(log_mel(torch.from_numpy(sound if silent else augment(sound, other, rng))))
            when = start + (np.arange(n50) + 0.5) / RATE * speed
            at = np.minimum((when * RATE).astype(int), len(self.states[i]) - 1)
            teacher[row] = (self.states[i][at] - self.mean) @ self.basis
            valid[row] = (when < total) & (not silent)
            if silent:
                mouths.append(Mouth(row, FACE_SETS.index(name), torch.zeros(n50 // 2, SHAPE), seen=False))
                continue
            pick = partial(_at, (start + (np.arange(n50 // 2) + 0.5) / FPS * speed) * FPS - 0.5)
            if name in FACE_SETS:
                curves = None if record.visemes is None else pick(record.visemes)
                mouths.append(Mouth(row, FACE_SETS.index(name), pick(self.shapes[i]), curves))
            if name != FACE_SETS[0]:
                mouths.append(Mouth(row, 0, pick(self.people[i]), seen=False))
        return Batch(equalise(torch.stack(mels), rng), torch.from_numpy(teacher), torch.from_numpy(valid), mouths)


def losses(encoder: SpeechEncoder, heads: Heads, batch: Batch) -> dict[str, Tensor]:
    """Teacher: squared error. Lips: Huber, and one less the correlation of the gap. Curves: Huber. Match: InfoNCE."""
    features = encoder(batch.mel).float()
    error = ((heads.teacher(features) - batch.teacher) ** 2).mean(-1)
    out = {"teacher": (error * batch.valid).sum() / batch.valid.sum() * 8}
    rows = [m.row for m in batch.mouths]
    heard, shapes = features[rows], torch.stack([m.shapes for m in batch.mouths])
    forecast = encoder.lips(heard, torch.tensor([m.style for m in batch.mouths])).float()
    forecast = forecast.unflatten(1, (-1, 2)).mean(2)  # 50 Hz -> 25 Hz
    spoken = batch.valid[rows].unflatten(1, (-1, 2)).amin(2)  # [F, T25]
    silent = spoken.sum(1) == 0
    weight = spoken + silent[:, None]  # a silent segment counts whole: its lips rest
    error = F.huber_loss(forecast, shapes, reduction="none", delta=0.5).mean(-1)
    out["lips"] = 4 * (error * weight).sum() / weight.sum()
    follow = [
        1 - _correlation(forecast[i, :, 0], shapes[i, :, 0], spoken[i]) for i in range(len(rows)) if not silent[i]
    ]
    out["follow"] = torch.stack(follow).mean()
    curves = [
        (F.huber_loss(heads.visemes(heard[i].unflatten(0, (-1, 2)).mean(1)), m.curves, reduction="none", delta=0.2)
         .sum(-1) * spoken[i]).sum() / spoken[i].sum().clamp_min(1)
        for i, m in enumerate(batch.mouths) if m.curves is not None
    ]  # fmt: skip
    seen = [i for i, m in enumerate(batch.mouths) if m.seen]
    nothing = out["teacher"] * 0
    out["curves"] = torch.stack(curves).mean() if curves else nothing
    out["match"] = _match(heads, heard[seen], shapes[seen], spoken[seen]) if seen else nothing
    return out


def _correlation(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Weighted Pearson r of two series [T]."""
    weight = weight / weight.sum().clamp_min(1)
    a, b = a - (a * weight).sum(), b - (b * weight).sum()
    both = (a * b * weight).sum()
    return both / ((a * a * weight).sum() * (b * b * weight).sum() + 1e-4).sqrt()


def _match(heads: Heads, features: Tensor, shapes: Tensor, spoken: Tensor) -> Tensor:
    """InfoNCE both ways over MOMENTS of every segment: SPAN frames of mouth against the sound around them."""
    heard = F.normalize(heads.heard(features.transpose(1, 2)).transpose(1, 2), dim=-1)  # [F, T25, E]
    windows = F.pad(shapes, (0, 0, SPAN // 2, SPAN // 2)).unfold(1, SPAN, 1).flatten(2)  # [F, T25, SPAN * SHAPE]
    seen = F.normalize(heads.seen(windows), dim=-1)
    pick = torch.stack([torch.randperm(heard.shape[1])[:MOMENTS] for _ in range(len(heard))])
    keep = spoken.gather(1, pick).flatten() > 0
    take = pick[..., None].expand(-1, -1, heard.shape[-1])
    logits = heard.gather(1, take).flatten(0, 1)[keep] @ seen.gather(1, take).flatten(0, 1)[keep].T / TEMPERATURE
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _at(frames: np.ndarray, curves: np.ndarray) -> Tensor:
    """Curves [T, C] read at fractional frames [t] -> [t, C]."""
    columns = [np.interp(frames, np.arange(len(curves)), c) for c in curves.T]
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))


WEIGHTS = {"teacher": 0.2, "lips": 10.0, "follow": 1.0, "curves": 2.0, "match": 0.05}


def train(
    data: Path,
    out: Path,
    teacher: Path,
    steps: int,
    lr: float = 2e-3,
    save_every: int = 200,
    weights: dict[str, float] = WEIGHTS,
) -> SpeechEncoder:
    """Train to `steps` updates, resuming OUT/state.pt; the encoder (moving average) is saved to OUT/speech."""
    out.mkdir(parents=True, exist_ok=True)
    records = [r for name in (*FACE_SETS, *VOICE_SETS) for r in load_set(data, name)]
    states = teach(records, teacher, out / "teacher.npy")
    faces = [i for i, r in enumerate(records) if r.set in FACE_SETS]
    shapes = lip_shapes([records[i] for i in faces])
    known = dict(zip(faces, shapes, strict=True))
    segments = Segments(records, states, known, people_map(records, states, known, out / "people.npy"))
    torch.manual_seed(0)
    model = SpeechEncoder()
    heads = Heads(model.config.width, COMPONENTS)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    params = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(params, lr, weight_decay=0.02, betas=(0.9, 0.98))
    step = 0
    if (out / "state.pt").exists():
        state = torch.load(out / "state.pt", weights_only=True)
        (
            model.load_state_dict(state["model"]),
            heads.load_state_dict(state["heads"]),
            average.load_state_dict(state["average"]),
        )
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    ahead = ThreadPoolExecutor(1)  # the next batch is made while this one is learned; its seed is its number
    coming = ahead.submit(segments.batch, np.random.default_rng([step]))
    began, sums = time.time(), {}
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-5
        batch = coming.result()
        coming = ahead.submit(segments.batch, np.random.default_rng([step + 1]))
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses(model, heads, batch)
        optimizer.zero_grad()
        sum(weights[k] * v for k, v in parts.items()).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        sums = {k: sums.get(k, 0) + v.item() for k, v in parts.items()}
        if step % 50 == 0:
            line = {
                "step": step,
                **{k: round(v / 50, 4) for k, v in sums.items()},
                "seconds": round(time.time() - began, 1),
            }
            print(line, flush=True)
            with (out / "log.csv").open("a") as log:
                log.write(",".join(str(v) for v in line.values()) + "\n")
            sums = {}
        if step % save_every == 0 or step == steps:
            torch.save(
                {"model": model.state_dict(), "heads": heads.state_dict(), "average": average.state_dict(),
                 "optimizer": optimizer.state_dict(), "step": step},
                out / "state.partial.pt",
            )  # fmt: skip
            (out / "state.partial.pt").replace(out / "state.pt")
            average.module.save_pretrained(out / "speech")
    return average.module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only-teacher", action="store_true", help="no lips, for the ablation: not the product's")
    args = parser.parse_args()
    weights = {name: weight * (name == "teacher") for name, weight in WEIGHTS.items()} if args.only_teacher else WEIGHTS
    train(args.data, args.out, args.teacher, args.steps, weights=weights)


if __name__ == "__main__":
    main()
