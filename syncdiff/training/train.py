"""Train the denoiser on prepared faces and an encoder of speech.

    python -m syncdiff.training.train DATA OUT --speech OUT_OF_DISTILL/speech [--preset compact] [--hours 1.5]

First the networks of the losses (minutes), then the denoiser. Runs under `accelerate launch` too.
Resumable: OUT/state.pt holds weights, moving average, optimiser, counters, states of the random generators and the
chains' last frames; the same command goes on as if it had never stopped. OUT/log.csv has one line every 50 updates
(TensorBoard too, where it is installed), OUT/sheet-*.png shows some faces, OUT/denoiser is the moving average as the
pipeline loads it.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from syncdiff.audio.mel import log_mel
from syncdiff.conditioning import BuildInputs, warped_inputs
from syncdiff.devices import best_device, usable_cores
from syncdiff.diffusion import sampler
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.errors import InputError
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder, token_window
from syncdiff.progress import mapped
from syncdiff.training.data import ArrayFile, ClipRecord, TalkingFaces, TokenSource, load_batches
from syncdiff.training.distill import augment, equalise
from syncdiff.training.landmark_net import LandmarkNet, train_landmark_net
from syncdiff.training.loop import Run, accelerator_for
from syncdiff.training.prepare import FPS
from syncdiff.training.sets import DENOISER_SHARE
from syncdiff.training.sync_loss import SyncMatcher, train_matcher
from syncdiff.training.train_paper import PAPER_PRESETS, PaperPreset, run_paper
from syncdiff.training.trainer import TrainConfig, Trainer
from syncdiff.weights.folders import read_network


@dataclass(frozen=True)
class Preset:
    """Everything that decides the result of a training run."""

    denoiser: dict = field(default_factory=dict)  # Denoiser's arguments
    share: dict[str, float] = field(default_factory=lambda: dict(DENOISER_SHARE))
    batch: int = 32
    updates: int = 100_000
    save_every: int = 300
    helper_updates: int = 800  # of the landmark network, and of the matcher where there is a sync loss
    hearings: int = 3  # versions of every sound that are encoded: one clean, the others augmented
    workers: int = 2  # processes that make batches; 0: the training's own
    build: BuildInputs = warped_inputs
    config: TrainConfig = field(default_factory=TrainConfig)


PRESETS = {
    "tiny": Preset(denoiser={"widths": (16, 32, 64)}, batch=4, updates=20, helper_updates=10, hearings=1, workers=0,
                   config=TrainConfig(chained=1)),
    # Two CPU cores. The sync loss moved r by .01 in docs/ablations.md and needs a network of its own: left out.
    "compact": Preset(denoiser={"widths": (48, 96, 192)}, helper_updates=300, config=TrainConfig(lr=4e-4)),
    "compact-gpu": Preset(  # the same network with the batches of a GPU
        denoiser={"widths": (48, 96, 192)}, batch=256, updates=12_000, helper_updates=300, save_every=1000, workers=16,
        config=TrainConfig(lr=1e-3, ema=0.997, chained=76),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class TokenLookup:
    """Windows of speech tokens around a frame of a clip, from one of the encoded versions of its sound."""

    features: ArrayFile  # [versions, sum T50, D] float16
    starts: np.ndarray  # [clips + 1]
    tokens: int
    rate: int

    def __call__(self, clip: int, frame: int, rng: np.random.Generator) -> np.ndarray:
        """[K, D] float32."""
        version = self.features.array[int(rng.integers(len(self.features.array)))]
        a, b = int(self.starts[clip]), int(self.starts[clip + 1])
        first = max(0, 2 * frame - self.tokens)
        near = torch.from_numpy(version[a + first : min(b, a + first + 3 * self.tokens)].astype(np.float32))
        when = torch.tensor([(frame + 0.5) / FPS - first / self.rate])
        return token_window(near, when, tokens=self.tokens, rate=self.rate)[0].numpy()


def cached_features(encoder: SpeechEncoder, tokens: int, hearings: int, cache: Path) -> TokenSource:
    """A function of a set's records that encodes every sound `hearings` times, first as it is, then augmented."""

    def log_mels(records: list[ClipRecord], clip: int) -> Tensor:
        rng = np.random.default_rng(clip)
        sound, other = records[clip].samples, records[int(rng.integers(len(records)))].samples
        versions = [sound] + [augment(sound, np.resize(other, len(sound)), rng) for _ in range(hearings - 1)]
        mel = torch.stack([log_mel(torch.from_numpy(np.ascontiguousarray(v))) for v in versions])
        return torch.cat([mel[:1], equalise(mel[1:], rng)])

    @torch.inference_mode()
    def encode(records: list[ClipRecord]) -> TokenLookup:
        lengths = [(len(r.sound) // 160) // 2 for r in records]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        path = cache / f"heard-{records[0].set}.npy"
        shape = (hearings, int(starts[-1]), encoder.config["width"])
        if not path.exists() or np.load(path, mmap_mode="r").shape != shape:
            unfinished, device = path.with_suffix(".partial.npy"), best_device()
            encoder.to(device)  # pyright: ignore[reportArgumentType]
            out = np.lib.format.open_memmap(unfinished, "w+", np.float16, shape)
            for i, mel in enumerate(mapped(partial(log_mels, records), range(len(records)), usable_cores())):
                features = encoder(mel.to(device))
                out[:, starts[i] : starts[i + 1]] = features[:, : lengths[i]].half().cpu().numpy()
            out.flush()
            unfinished.rename(path)
        return TokenLookup(ArrayFile(path), starts, tokens, encoder.rate)

    return encode


def train_helpers(
    faces: TalkingFaces, out: Path, preset: Preset, model: Denoiser
) -> tuple[LandmarkNet, SyncMatcher | None]:
    """The networks of the losses: loaded from OUT, or trained now on true frames."""
    reader = train_landmark_net(faces, out, preset.helper_updates, preset.workers)
    if not preset.config.sync:
        return reader, None
    sizes = model.config["tokens"], model.config["speech_width"]
    return reader, train_matcher(faces, reader, out, preset.helper_updates, *sizes, preset.workers)


@torch.inference_mode()
def sheet(denoiser: Denoiser, clean: Tensor, condition: Conditioning, path: Path) -> None:
    """PNG: identity, truth, masked, drawn in 1 step, drawn in 4 steps; one column a face."""
    schedule, mask = compact_schedule(), pixel_codec.latent_mask().to(clean.device)
    rows = [condition.reference, clean, condition.masked]
    for steps in (1, 4):
        noise = torch.stack([sampler.frame_noise(0, i, clean.shape[1:]) for i in range(len(clean))]).to(clean.device)
        *_, drawn = sampler.sample(lambda x, t: denoiser(x, t, condition), noise, schedule, steps)
        rows.append(drawn * mask + clean * (1 - mask))
    picture = np.concatenate([np.concatenate(list(pixel_codec.decode(row)), axis=1) for row in rows])
    cv2.imwrite(str(path), picture[..., ::-1])


def new_denoiser(encoder: SpeechEncoder, preset: Preset, start: Path | None) -> Denoiser:
    """The denoiser that a run begins with: untrained, or with the weights in a folder."""
    model = Denoiser(speech_width=encoder.config["width"], **preset.denoiser).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if start is not None:
        model.load_state_dict(read_network(Denoiser, start).state_dict())
    if best_device().type == "cpu":  # the fused kernel's backward took a quarter of an update there
        model.unet.set_attn_processor(AttnProcessor())
    return model


def track(accelerator: Accelerator, run: Run, line: dict[str, float] | None) -> None:
    """Pass a line of the log, if there is one, to the trackers, which write their files at every call."""
    if line:
        accelerator.log({f"{run.folder.name}/{term}": value for term, value in line.items()}, step=run.update)


def train(
    data: Path,
    out: Path,
    encoder: SpeechEncoder,
    preset: Preset,
    hours: float = 24.0,
    helpers: Path | None = None,
    start: Path | None = None,
    until: float = math.inf,
) -> Denoiser:
    """Train until `preset.updates` or for `hours`, whichever ends first; returns the moving average.

    OUT is where the run lives; one that was cut off goes on from there. Arguments as of `train_together`.
    """
    return train_together(data, {out: preset}, encoder, hours, helpers or out, start, until)[out]


def train_together(
    data: Path,
    presets: dict[Path, Preset],
    encoder: SpeechEncoder,
    hours: float,
    helpers: Path,
    start: Path | None = None,
    until: float = math.inf,
) -> dict[Path, Denoiser]:
    """Networks that see the same batches, one update of each in turn; returns their moving averages.

    Args:
        data: what prepare wrote.
        presets: of every run, by the folder where it lives. They may differ in the network and in what an update does
            with a batch, not in the batches.
        helpers: where the encoded sounds and the losses' networks live, for all runs that share an encoder.
        start: folder of a denoiser whose weights the run begins with.
        until: when to stop for now, by time.time(); the same call goes on later.
    """
    outs, preset = list(presets), next(iter(presets.values()))
    tracker = "tensorboard" if find_spec("tensorboard") else None
    accelerator = accelerator_for(log_with=tracker, project_dir=outs[0])
    accelerator.init_trackers("syncdiff")
    for folder in (*outs, helpers):
        folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(accelerator.process_index)
    models = [new_denoiser(encoder, each, start) for each in presets.values()]
    token_source = cached_features(encoder, models[0].config["tokens"], preset.hearings, helpers)
    with accelerator.main_process_first():
        half = TalkingFaces(data, preset.share, token_source, split="generator")
        reader, matcher = train_helpers(half, helpers, preset, models[0])
    torch.manual_seed(accelerator.process_index)  # again: training a helper draws random numbers, loading one does not
    trainers = [
        Trainer(out, model, each.config, accelerator, reader, matcher)
        for (out, each), model in zip(presets.items(), models, strict=True)
    ]
    faces = TalkingFaces(data, preset.share, token_source, build=preset.build)
    shown = faces.batch(12, np.random.default_rng(99)).encoded(accelerator.device)
    for trainer in trainers:
        trainer.resume()

    def save() -> None:
        for out, trainer in zip(outs, trainers, strict=True):
            trainer.save()
            trainer.average.save_pretrained(out / "denoiser")
            sheet(trainer.average.eval(), *shown, out / f"sheet-{trainer.run.update:06d}.png")

    def spent() -> float:
        """Seconds by the main process's clock, for all: so they learn at one rate and stop together."""
        seconds = trainers[0].run.seconds if time.time() < until else math.inf
        return cast(Tensor, broadcast(torch.tensor([seconds], device=accelerator.device))).item()

    make = partial(faces.mixed, preset.batch, preset.config.chained, accelerator.process_index)
    first = min(trainer.run.update for trainer in trainers)
    batches = load_batches(make, range(first, preset.updates), preset.workers)
    for number in range(first, preset.updates):
        if (seconds := spent()) >= hours * 3600:
            break
        batch = next(batches).encoded(accelerator.device)
        for trainer in trainers:
            if trainer.run.update > number:  # the run was cut off while another's state was being saved
                continue
            done = max(number / preset.updates, seconds / (hours * 3600))
            track(accelerator, trainer.run, trainer.learn(*batch, done))
        if accelerator.is_main_process and (number + 1) % preset.save_every == 0:
            save()
    batches.close()
    if accelerator.is_main_process:
        save()
    accelerator.end_training()
    return {out: trainer.average for out, trainer in zip(outs, trainers, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--speech", type=Path, help="folder of a trained SpeechEncoder; for the paper presets a "
                        "released AV-HuBERT file")  # fmt: skip
    parser.add_argument("--preset", choices=[*PRESETS, *PAPER_PRESETS], default="compact")
    parser.add_argument("--hours", type=float, help="default: 24 in all; for the paper presets no limit")
    parser.add_argument("--start", type=Path, metavar="DENOISER", help="folder of weights to begin with")
    ours = parser.add_argument_group(
        "paper preset", "as published, on LRS2 or LRS3: see syncdiff/training/train_paper.py"
    )
    ours.add_argument("--vae", type=Path, metavar="DIR", help="VQ-f4")
    ours.add_argument("--list", type=Path, metavar="FILE", help="names of the films, as LRS2's train.txt")
    ours.add_argument("--rows", type=int, default=8, help="of one forward pass: what fits into a GPU (default 8)")
    ours.add_argument("--checkpointing", action="store_true", help="less memory, a third more time an update")
    ours.add_argument("--workers", type=int, default=4, help="threads that read films, for each GPU (default 4)")
    ours.add_argument("--teacher", type=Path, metavar="DIR", help="a trained pipeline, for the presets that distil it")
    args = parser.parse_args()
    preset = (PRESETS | PAPER_PRESETS)[args.preset]
    print(asdict(preset), flush=True)
    try:
        if isinstance(preset, PaperPreset):
            run_paper(args, preset)
        elif args.speech is None:
            sys.exit("--speech is missing: give the folder of a trained SpeechEncoder, OUT/speech of distill.")
        else:
            encoder, hours = read_network(SpeechEncoder, args.speech), 24.0 if args.hours is None else args.hours
            train(args.data, args.out, encoder, preset, hours, start=args.start)
    except InputError as sentence:
        sys.exit(str(sentence))


if __name__ == "__main__":
    main()
