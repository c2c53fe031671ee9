"""Train the project's own judge: `python -m syncdiff.training.judge SHARDS OUT.safetensors`.

The judge must not share data with the networks of the generator's losses. It is trained on the other half of the
people, those that `data.split_of` assigns to "judge". A sixteenth of them is held out to monitor training.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.audio import SAMPLE_RATE
from syncdiff.audio.mel import log_mel
from syncdiff.devices import autocast, best_device
from syncdiff.sync.judge import JudgeConfig, JudgeNet
from syncdiff.sync.scoring import FPS, FRAME_SAMPLES, MAX_SHIFT, WINDOW, Scores, score
from syncdiff.training import data
from syncdiff.training.loop import Average, Run, write_line
from syncdiff.training.sets import JUDGE

CHECK_EVERY = 100  # steps
LIP_SPREAD = 0.05  # typical deviation of lip opening and width, in units of the distance of the eye corners


@dataclass(frozen=True)
class JudgeTraining:
    """How the shipped judge was trained; travels in its weights as part of the record."""

    steps: int = 2500
    minutes: float = 60.0  # of the clock, after which the run comes to its end with the steps it has done
    clips: int = 6  # a batch
    frames: int = 50  # of each clip
    rate: float = 3e-3  # rises for a twentieth of the run, falls to zero over the last 40 %
    decay: float = 0.02
    other_clips: float = 0.3  # weight of the contrast with the sound of other clips
    lips: float = 1.0  # weight of the auxiliary lip regression at the start; falls to zero at half time
    average: float = 0.99  # of the weights that are kept
    seed: int = 0


# Losses


def sync_loss(video: Tensor, audio: Tensor, scale: Tensor, other_clips: float) -> Tensor:
    """InfoNCE (van den Oord 2018, eq. 4) both ways, video and audio [B,W,D] of unit length.

    The negatives are the shifts -15 .. +15 of the own clip, as in scoring, and with less weight the windows of all
    other clips, which makes foreign sound distant in absolute terms."""
    B, W = video.shape[:2]
    cosines = scale * video.flatten(0, 1) @ audio.flatten(0, 1).T  # [BW,BW]
    clip = torch.arange(B, device=video.device).repeat_interleave(W)
    moment = torch.arange(W, device=video.device).repeat(B)
    same = clip[:, None] == clip
    near = same & ((moment[:, None] - moment).abs() <= MAX_SHIFT)
    own = torch.eye(B * W, dtype=torch.bool, device=video.device)
    inside = _both_ways(cosines.masked_fill(~near, -torch.inf))
    across = _both_ways(cosines.masked_fill(same & ~own, -torch.inf))
    return inside + other_clips * across


class LipReading(nn.Module):
    """Auxiliary loss: lip opening and width in the middle of the window, regressed from both branches' embeddings.

    It speeds up the first few hundred steps; then its weight is zero. It is not part of the finished judge."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.seen, self.heard = nn.Linear(features, 2), nn.Linear(features, 2)

    def forward(self, video: Tensor, audio: Tensor, lips: Tensor) -> Tensor:
        """Video and audio [B,W,D] before they are made unit vectors, lips [B,T,2] -> loss."""
        target = lips[:, WINDOW // 2 : -(WINDOW // 2)] / LIP_SPREAD
        return F.smooth_l1_loss(self.seen(video), target) + F.smooth_l1_loss(self.heard(audio), target)


def _both_ways(logits: Tensor) -> Tensor:
    partner = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


# Augmentation of picture and sound


def augment_picture(crops: np.ndarray, config: JudgeConfig, rng: np.random.Generator) -> np.ndarray:
    """Grey crops [T,S,S] uint8 -> mouths [T,H,W] float32: one geometry, light and lens for the whole clip; tremor."""
    H, W = config.size
    top, left, bottom, right = config.box
    scale = (right - left) / W * rng.uniform(0.92, 1.09)
    mirror = rng.choice([-1.0, 1.0])
    angle = np.radians(rng.normal(0, 2.5))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[mirror * cos, -sin], [mirror * sin, cos * rng.uniform(0.96, 1.04)]])
    middle = np.array([(left + right) / 2, (top + bottom) / 2]) + rng.normal(0, 1.5, 2)
    tremor = _smooth(rng.normal(0, 1, (len(crops), 2)), rng.uniform(0.3, 2)) * rng.uniform(0, 0.5)
    coarse = rng.uniform(1.2, 3) if rng.random() < 0.4 else None
    blur = rng.uniform(0.3, 1.3) if rng.random() < 0.4 else None
    quality = int(rng.integers(25, 85)) if rng.random() < 0.4 else None
    mouths = np.empty((len(crops), H, W), np.uint8)
    for t, crop in enumerate(crops):
        centre = middle + tremor[t]
        matrix = np.column_stack([turn, centre - turn @ (W / 2, H / 2)])
        mouth = cv2.warpAffine(crop, matrix, (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=1)
        if coarse:
            small = cv2.resize(mouth, (int(W / coarse), int(H / coarse)), interpolation=cv2.INTER_AREA)
            mouth = cv2.resize(small, (W, H))
        if blur:
            mouth = cv2.GaussianBlur(mouth, (0, 0), blur)
        if quality:
            mouth = cv2.imdecode(cv2.imencode(".jpg", mouth, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)
        mouths[t] = mouth
    light = 255 * (np.arange(256) / 255) ** np.exp(rng.normal(0, 0.25))  # gamma, then contrast and brightness
    light = (light - 128) * rng.uniform(0.5, 1.3) + 128 + rng.normal(0, 15)
    pixels = light.astype(np.float32)[mouths]
    if rng.random() < 0.5:
        pixels += rng.uniform(0, 6) * rng.standard_normal(pixels.shape, np.float32)
    return np.clip(pixels, 0, 255)


def _smooth(series: np.ndarray, frames: float) -> np.ndarray:
    """Series [T,C] smoothed over time and brought back to a spread of one."""
    smooth = cv2.GaussianBlur(series, (1, 0), 0, sigmaY=frames, borderType=cv2.BORDER_REFLECT) if frames else series
    return smooth / (smooth.std() + 1e-6)


def augment_sound(samples: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Samples [N] and another clip's [N] -> [N] with a room, an equaliser, noise, the other voice, and another gain."""
    N = len(samples)
    spectrum = _spectrum(samples, 2 * N)
    octave = np.log2(np.maximum(np.fft.rfftfreq(2 * N, 1 / SAMPLE_RATE), 50) / 50)
    colour = np.interp(octave, np.linspace(0, 8, 9), _smooth(rng.normal(0, 1, (9, 1)), 1)[:, 0]) * rng.uniform(0, 6)
    spectrum *= 10 ** (colour / 20)
    if rng.random() < 0.4:
        spectrum *= _spectrum(_room(rng), 2 * N)
    sound = _wave(spectrum)[:N]
    level = sound.std() + 1e-5
    if rng.random() < 0.6:
        hiss = _wave(_spectrum(rng.standard_normal(N, np.float32), N) * 2 ** (-rng.uniform(0, 1) * octave[::2]))
        sound = sound + _mix(hiss, level, rng.uniform(3, 30))
    if rng.random() < 0.3:
        sound = sound + _mix(other, level, rng.uniform(8, 25))
    return (sound * 10 ** (rng.uniform(-14, 8) / 20)).astype(np.float32)


def _spectrum(samples: np.ndarray, length: int) -> np.ndarray:
    """By torch, whose transform stays in single precision: half of numpy's time."""
    return torch.fft.rfft(torch.as_tensor(samples, dtype=torch.float32), length).numpy()


def _wave(spectrum: np.ndarray) -> np.ndarray:
    return torch.fft.irfft(torch.as_tensor(spectrum, dtype=torch.complex64)).numpy()


def _room(rng: np.random.Generator) -> np.ndarray:
    """An impulse response: the direct sound, then noise that dies away."""
    length = int(SAMPLE_RATE * rng.uniform(0.08, 0.4))
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= rng.uniform(0.1, 0.6) / np.linalg.norm(tail)
    tail[0] = 1
    return tail


def _mix(noise: np.ndarray, level: float, snr: float) -> np.ndarray:
    """Noise [N] scaled to `snr` dB below a sound of this root mean square."""
    return noise / (noise.std() + 1e-5) * level * 10 ** (-snr / 20)


# Clips


@dataclass(frozen=True)
class JudgeClip:
    """One prepared clip, as the judge's training keeps it in memory."""

    name: str  # SET/NAME
    crops: np.ndarray  # [T,S,S] uint8 grey
    samples: np.ndarray  # [640 T] float32
    lips: np.ndarray  # [T,2] float32 opening and width by landmarks, about their mean over the clip


def read_clips(shards: Path, sets: Sequence[str], shortest: int) -> tuple[list[JudgeClip], list[JudgeClip]]:
    """The judge's half of the people in prepared sets: the clips to train on, and those of people held out.

    Clips under `shortest` frames or with a frame without a good face are left out."""
    training, held_out = [], []
    for records in (data.load_set(shards, name) for name in sets):
        crops, starts = data.load_crops(shards, records)
        for record, start in zip(records, starts, strict=False):
            if data.split_of(record.identity) != "judge" or len(record) < shortest or not record.good.all():
                continue
            lips = np.stack([record.opening, record.width], 1).astype(np.float32)
            clip = JudgeClip(
                f"{record.set}/{record.name}",
                # grey, as the judge's input: half of the corpus fits into a gigabyte
                np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops[start : start + len(record)]]),
                record.samples[: len(record) * FRAME_SAMPLES],
                lips - lips.mean(0),
            )
            (held_out if zlib.crc32(record.identity.encode()) // 2 % 16 == 0 else training).append(clip)
    return training, held_out


# The loop


def batches(
    clips: Sequence[JudgeClip], config: JudgeConfig, run: JudgeTraining, first: int = 0
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Mouths [B,T,H,W], log-mel [B,M,4T] and lips [B,T,2] from step `first` on.

    Every step has a seed of its own: a resumed run repeats what an uninterrupted one would have done."""
    for step in range(first, run.steps):
        rng = np.random.default_rng((run.seed, step))
        chosen = rng.choice(len(clips), min(run.clips, len(clips)), replace=False)
        examples = [_example(clips[i], clips[rng.integers(len(clips))], config, run.frames, rng) for i in chosen]
        mouths, mels, lips = zip(*examples, strict=True)
        yield torch.from_numpy(np.stack(mouths)), torch.stack(mels), torch.from_numpy(np.stack(lips))


def _example(
    clip: JudgeClip, other: JudgeClip, config: JudgeConfig, T: int, rng: np.random.Generator
) -> tuple[np.ndarray, Tensor, np.ndarray]:
    start = int(rng.integers(0, len(clip.crops) - T + 1))
    samples = clip.samples[start * FRAME_SAMPLES : (start + T) * FRAME_SAMPLES]
    sound = augment_sound(samples, other.samples[: len(samples)], rng)
    # log_mel is relative to the loudest moment, and a longer recording may have a louder one elsewhere
    mel = (log_mel(torch.from_numpy(sound)) - abs(rng.normal(0, 0.1))).clamp_min(-1)
    return augment_picture(clip.crops[start : start + T], config, rng), mel.float(), clip.lips[start : start + T]


def train(
    clips: Sequence[JudgeClip],
    held_out: Sequence[JudgeClip],
    folder: Path,
    config: JudgeConfig | None = None,
    run: JudgeTraining | None = None,
) -> tuple[JudgeNet, Run]:
    """Train a judge; returns its averaged weights, and the run. `folder` keeps the log and the state to resume from."""
    run, device = run or JudgeTraining(), best_device()
    torch.manual_seed(run.seed)
    judge = JudgeNet(config).to(device)
    judge.to(memory_format=torch.channels_last)  # a third faster on a CPU  # pyright: ignore[reportCallIssue]
    average = Average(judge, run.average)
    lip_reading = LipReading(judge.config.features).to(device)
    optimizer = torch.optim.AdamW([*judge.parameters(), *lip_reading.parameters()], run.rate, weight_decay=run.decay)
    parts = {"judge": judge, "hint": lip_reading, "average": average, "optimizer": optimizer}
    state = Run(folder, parts, CHECK_EVERY)
    state.resume()
    for batch in batches(clips, judge.config, run, state.update):
        mouths, mel, lips = (part.to(device) for part in batch)
        done = max((state.update + 1) / run.steps, state.seconds / 60 / run.minutes)
        optimizer.param_groups[0]["lr"] = run.rate * min(1, done / 0.05, max(0.0, (1 - done) / 0.4))
        torch.manual_seed(run.seed * 1_000_003 + state.update + 1)  # dropout too has a seed of its own each step
        judge.train()
        with autocast(device):
            video, audio = judge.look(mouths), judge.listen(mel)
        video, audio = video.float(), audio.float()
        scale = judge.scale.exp().clamp(max=40)
        loss = sync_loss(F.normalize(video, dim=2), F.normalize(audio, dim=2), scale, run.other_clips)
        loss = loss + run.lips * max(0.0, 1 - 2 * done) * lip_reading(video, audio, lips)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 5.0)
        optimizer.step()
        logged = state.step(len(mouths), {"loss": loss.item()})
        average.step(judge, state.update)
        if logged or done >= 1:
            state.save()
            figures = {"update": state.update} | check(average.module, held_out)
            print(figures, flush=True)
            write_line(folder / "held.csv", figures)
        if done >= 1:
            break
    return average.module, state


def check(judge: JudgeNet, clips: Sequence[JudgeClip]) -> dict[str, float]:
    """Accuracy on held-out clips: share of offsets found exactly and within a frame, and mean confidences."""
    matched = [_score(judge, clip, clip) for clip in clips]
    foreign = [_score(judge, clip, other) for clip, other in zip(clips, [*clips[1:], *clips[:1]], strict=True)]
    offsets = np.abs([s.offset_frames for s in matched if s.offset_frames is not None])
    return {
        "exact": float((offsets == 0).mean()),
        "within_1": float((offsets <= 1).mean()),
        "confidence": float(np.mean([s.confidence for s in matched if s.confidence is not None])),
        "foreign": float(np.mean([s.confidence for s in foreign if s.confidence is not None])),
    }


def _score(judge: JudgeNet, picture: JudgeClip, sound: JudgeClip) -> Scores:
    return score((cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB) for grey in picture.crops), sound.samples, judge)


def _without_folders(argument: str) -> str:
    """An absolute path's last part: the record is shipped and must not name folders of the training machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="what syncdiff.training.prepare wrote")
    parser.add_argument("out", type=Path, help="the judge's weights, *.safetensors")
    parser.add_argument("--runs", type=Path, default=Path("runs/judge"), help="log, and the state to resume from")
    parser.add_argument("--sets", nargs="+", default=JUDGE[::-1])
    parser.add_argument("--steps", type=int, default=JudgeTraining.steps)
    parser.add_argument("--minutes", type=float, default=JudgeTraining.minutes)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    run = JudgeTraining(steps=args.steps, minutes=args.minutes)
    clips, held_out = read_clips(args.shards, args.sets, run.frames)
    minutes = sum(len(clip.crops) for clip in clips) / FPS / 60
    print(f"{len(clips)} clips, {minutes:.1f} min, to train on; {len(held_out)} held out", flush=True)
    judge, state = train(clips, held_out, args.runs, run=run)
    record = {
        "command": shlex.join(["python", "-m", "syncdiff.training.judge", *map(_without_folders, sys.argv[1:])]),
        "training": asdict(run),
        "clips": len(clips),
        "minutes_of_clips": round(minutes, 1),
        "steps_done": state.update,
        "minutes_taken": round(state.seconds / 60, 1),
        "held_back": check(judge, held_out),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    judge.save(args.out, record)


if __name__ == "__main__":
    main()
