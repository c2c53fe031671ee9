"""Train the paper's model as published: reached through `train --preset paper`.

    python -m syncdiff.training.prepare_lrs LRS2 PREPARED --list LRS2/train.txt [--vae VQVAE]
    accelerate launch --num_processes 6 -m syncdiff.training.train PREPARED OUT --preset paper --list LRS2/train.txt \\
        --speech base_vox_iter5.pt --vae VQVAE [--rows 8] [--checkpointing]
    ... -m syncdiff.training.train PREPARED OUT --preset paper-few --list LRS2/train.txt --teacher RUN/pipeline

The loss is the mean squared error of the noise and nothing else (section 3.4); the U-Net, the bottleneck and the last
three layers of AV-HuBERT learn together (section 3.2). A batch has 48 rows whatever the number of GPUs: with fewer than
six, gradients are accumulated over parts of --rows rows. --checkpointing recomputes activations in the backward pass
instead of keeping them. `paper-few` distils a trained pipeline to few steps (consistency distillation).

`--speech base` (or large) is the released file in torch's folder of checkpoints; where it is not there, its licence is
shown and, after a yes, it is fetched: run it once in one process first, since each of six would ask.

OUT/log.csv has a line every 50 updates, OUT/skipped.tsv the films that could not be read, and OUT/pipeline is the
moving average as `--profile paper --weights` takes it. The same command again goes on from OUT/state.pt as if it had
never stopped. A run ends after its preset's updates, or --hours after its start, and prints which.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from diffusers import DDIMScheduler, VQModel
from torch import Tensor, nn

from syncdiff.errors import InputError
from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import TRAIN_STEPS, PaperDenoiser, few_step_schedule, paper_schedule, to_latents
from syncdiff.paper.frames import masked
from syncdiff.paper.released import read_speech_net, read_vae
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.progress import mapped
from syncdiff.training.loop import Average, Run, accelerator_for
from syncdiff.training.lrs import UNREADABLE, PreparedFilm, prepared
from syncdiff.training.paper_losses import ConsistencyLoss, DenoisingLoss

LOG_EVERY = 50  # updates between two lines of OUT/log.csv
MAX_TRIES = 100  # films in turn that cannot be read before training ends


@dataclass(frozen=True)
class PaperPreset:
    """Section 4.3, and where it is silent DiffTalk's configuration (docs/paper.md)."""

    denoiser: dict = field(default_factory=dict)  # PaperDenoiser's arguments
    batch: int = 48  # rows of an update over all processes: six GPUs with 8 each
    lr: float = 4.8e-5  # DiffTalk: base_learning_rate 1e-6 for every row of the batch
    updates: int = 190_000  # 200 epochs of one frame an utterance: 45,839 of them in LRS2's main set, 48 at a time
    ema: float = 0.9999  # latent diffusion's; the average is young at first, as theirs is
    clip: float = 0.1  # DiffTalk: gradient_clip_val
    tuned: int = 3  # layers of AV-HuBERT that learn (Table 6)
    apart: int = 1  # frames from the target to the identity frame, at the least: any other (DiffTalk: 60)
    save_every: int = 1000
    distils: bool = False  # a trained pipeline into one for few steps


_TINY = PaperPreset(
    denoiser={"widths": (32, 64), "layers": 1, "head": 16, "speech_width": 64},
    batch=4, lr=4e-3, updates=20, ema=0.9, clip=1.0, tuned=1,
)  # fmt: skip
PAPER_PRESETS = {
    "paper": PaperPreset(),
    # What Tables 3, 5 and 6 take away or change. Table 2's AV-HuBERT row is Table 3's "Rnd".
    "paper-rnd": PaperPreset(denoiser={"bottleneck": 0}),
    "paper-prv": PaperPreset(denoiser={"bottleneck": 3, "identity": False}),
    "paper-prv-squeezed": PaperPreset(denoiser={"identity": False}),
    "paper-np5": PaperPreset(denoiser={"previous": 5}),
    "paper-np10": PaperPreset(denoiser={"previous": 10}),
    "paper-nf3": PaperPreset(tuned=9),
    "paper-nf6": PaperPreset(tuned=6),
    "paper-nf12": PaperPreset(tuned=0),
    # The paper's future work (section 6). Rate and average as in latent consistency models (Luo et al. 2023).
    "paper-few": PaperPreset(lr=8e-6, updates=20_000, ema=0.95, clip=1.0, tuned=0, distils=True),
    # To see the whole line work: with an AV-HuBERT of 64 and any VQ autoencoder of factor 4, on no special films.
    "paper-tiny": _TINY,
    "paper-tiny-few": replace(_TINY, lr=1e-3, tuned=0, distils=True),
}


# --- data


class PaperRows:
    """This process's rows of the batch of every update. Row r of update n depends on n and r alone.

    A batch has clean, masked, identity [B, 3, 64, 64] and pose [B, 3 NP, 64, 64] where latents were prepared, else
    pictures [B, 3 + NP, 256, 256, 3] uint8 in that order; noise [B, 3, 64, 64]; timestep [B] int64; filterbanks
    [B, T25, 104] padded, lengths [B], frame [B] int64. `skipped` names the films that could not be read, and why.
    """

    def __init__(self, films: list[PreparedFilm], preset: PaperPreset, rows: range) -> None:
        self.films, self.preset, self.rows = films, preset, rows
        self.skipped: dict[str, str] = {}

    def batch(self, update: int) -> dict[str, Tensor]:
        """Raises InputError where no film can be read any more."""
        rows = [self._row(np.random.default_rng([update, row])) for row in self.rows]
        filterbanks = [row.pop("filterbanks") for row in rows]
        batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        batch["lengths"] = torch.tensor([len(f) for f in filterbanks])
        return batch | {"filterbanks": nn.utils.rnn.pad_sequence(filterbanks, batch_first=True)}

    def _row(self, rng: np.random.Generator) -> dict[str, Tensor]:
        for _ in range(MAX_TRIES):
            film = self.films[int(rng.integers(len(self.films)))]
            try:
                return self._read(film, rng)
            except (InputError, *UNREADABLE) as error:
                self.skipped.setdefault(film.name, str(error))
        last = film.path
        raise InputError(f"{MAX_TRIES} films in turn could not be read, the last of them {last}: is the disk there?")

    def _read(self, film: PreparedFilm, rng: np.random.Generator) -> dict[str, Tensor]:
        record, latents = film.read(), film.latents()
        boxes, filterbanks = record.boxes, torch.from_numpy(record.speech)
        usable = np.flatnonzero(np.isfinite(boxes).all(1))
        t = int(rng.choice(usable[usable > 0]))
        previous = [max(0, t - k) for k in range(1, self.preset.denoiser.get("previous", 1) + 1)]
        far = np.flatnonzero(np.abs(np.arange(len(boxes)) - t) >= min(self.preset.apart, len(boxes) // 3))
        other = int(rng.choice(far))
        noise = rng.standard_normal((3, 64, 64), np.float32)
        row = {
            "noise": torch.from_numpy(noise),
            "timestep": torch.tensor(int(rng.integers(TRAIN_STEPS))),
            "filterbanks": filterbanks,
            "frame": torch.tensor(min(t, len(filterbanks) - 1)),
        }
        if latents is None:
            decoded = record.film()
            hidden = masked(decoded.frames[t], decoded.boxes[t])
            pictures = np.stack([decoded.frames[t], hidden, *decoded.frames[[other, *previous]]])
            return row | {"pictures": torch.from_numpy(pictures)}
        indices = [(t, 0), (t, 1), (other, 0), *((j, 0) for j in previous)]
        clean, hidden, identity, *pose = (torch.from_numpy(latents[index].astype(np.float32)) for index in indices)
        return row | {"clean": clean, "masked": hidden, "identity": identity, "pose": torch.cat(pose)}


def encoded(vae: VQModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of `PaperRows` with its pictures, if it has any, as latents [B, 3, 64, 64] and [B, 3 NP, 64, 64]."""
    if "pictures" not in batch:
        return batch
    pictures = batch["pictures"]
    with torch.no_grad():
        latents = to_latents(vae, pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    clean, hidden, identity = latents[:, :3].unbind(1)
    rest = {key: value for key, value in batch.items() if key != "pictures"}
    return rest | {"clean": clean, "masked": hidden, "identity": identity, "pose": latents[:, 3:].flatten(1, 2)}


def accumulation(batch: int, processes: int, rows: int) -> tuple[int, int]:
    """(rows of one forward pass, passes of one update) of each process, at most `rows` at once. Raises InputError."""
    if batch % processes:
        raise InputError(f"{batch} rows cannot be shared evenly by {processes} processes: start a divisor of {batch}.")
    own = batch // processes
    at_once = max(n for n in range(1, own + 1) if own % n == 0 and n <= max(1, rows))
    return at_once, own // at_once


# --- the run


class PaperTrainer:
    """The networks with their optimiser, moving average and run; one update, and state to resume from."""

    def __init__(self, out: Path, networks: DenoisingLoss, preset: PaperPreset, accelerator: Accelerator) -> None:
        self.networks, self.preset, self.accelerator = networks.to(accelerator.device).train(), preset, accelerator
        self.trainable = [p for p in networks.parameters() if p.requires_grad]
        self.both = nn.ModuleDict({"denoiser": networks.denoiser, "speech": networks.speech})
        self.average = Average(self.both, preset.ema)
        self.model, self.optimizer = accelerator.prepare(networks, torch.optim.AdamW(self.trainable, preset.lr))
        self.run = Run(out, {"networks": networks, "optimizer": self.optimizer, "average": self.average}, LOG_EVERY)

    def learn(self, parts: list[dict[str, Tensor]]) -> None:
        """One update from this process's parts of a batch, of equal size."""
        total = 0.0
        for part in parts:
            last = part is parts[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    loss = self.model(**part) / len(parts)
                self.accelerator.backward(loss)
            total += loss.item()
        self.accelerator.clip_grad_norm_(self.trainable, self.preset.clip)
        self.optimizer.step(), self.optimizer.zero_grad()
        self.run.step(self.preset.batch, {"loss": total}, log=self.accelerator.is_main_process)
        self.average.step(self.both, self.run.update)

    def resume(self) -> None:
        """Raises CheckpointError for a state of another preset."""
        state = self.run.resume()
        if self.accelerator.scaler and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def save(self, vae: VQModel) -> None:
        """Everything that `resume` brings back, and the moving average as a pipeline."""
        scaler = self.accelerator.scaler
        self.run.save(scaler=scaler.state_dict() if scaler else None)  # of fp16: else the first updates would overflow
        schedule = cast(DDIMScheduler, few_step_schedule()) if self.preset.distils else paper_schedule()
        average = cast(nn.ModuleDict, self.average.module)
        pipe = SyncDiffPipeline(
            cast(PaperDenoiser, average["denoiser"]), cast(AVHubert, average["speech"]), schedule, vae
        )
        pipe.save_pretrained(self.run.folder / "pipeline")


def train(
    data: Path,
    out: Path,
    speech: AVHubert,
    vae: VQModel,
    preset: PaperPreset,
    *,
    teacher: PaperDenoiser | None = None,
    hours: float | None = None,
    listed: Path | None = None,
    rows: int = 8,
    checkpointing: bool = False,
    workers: int = 1,
) -> SyncDiffPipeline:
    """Train until `preset.updates`; returns the pipeline of the moving average. Raises InputError.

    Args:
        data: a folder of `prepare_lrs`.
        teacher: for a preset that distils, the trained network; the student starts as a copy of it.
        hours: stop that long after the start. None is no limit.
        rows: of one forward pass, at most; a batch with more is accumulated.
        workers: threads that read batches ahead, for every training process.
    """
    dropped_layers = DistributedDataParallelKwargs(find_unused_parameters=preset.tuned > 0)  # of AV-HuBERT
    accelerator = accelerator_for(dropped_layers)
    at_once, passes = accumulation(preset.batch, accelerator.num_processes, rows)
    corpus = prepared(data, listed)
    out.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        print(
            f"{len(corpus.films)} films; {len(corpus.refused)} more were refused when they were prepared. "
            f"An update: {accelerator.num_processes} processes, {passes} passes of {at_once} rows in each.",
            flush=True,
        )
    torch.manual_seed(0)  # the same in every process
    vae.to(accelerator.device).eval().requires_grad_(False)
    if teacher is None:
        networks = DenoisingLoss(PaperDenoiser(**preset.denoiser), speech, paper_schedule(), preset.tuned)
    else:
        student = cast(PaperDenoiser, PaperDenoiser.from_config(teacher.config))
        student.load_state_dict(teacher.state_dict())
        networks = ConsistencyLoss(student, speech, paper_schedule(), teacher.to(accelerator.device))
        preset = replace(preset, denoiser={"previous": teacher.config["previous"]})
    if checkpointing:
        networks.denoiser.unet.enable_gradient_checkpointing()
    trainer = PaperTrainer(out, networks, preset, accelerator)
    trainer.resume()
    first, own = accelerator.process_index * at_once * passes, at_once * passes
    data_rows = PaperRows(corpus.films, preset, range(first, first + own))
    ended = _run(trainer, data_rows, vae, out, hours=hours, passes=passes, workers=workers)
    if accelerator.is_main_process:
        trainer.save(vae)
        print(ended, flush=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return SyncDiffPipeline.from_pretrained(out / "pipeline")


def _run(
    trainer: PaperTrainer, data: PaperRows, vae: VQModel, out: Path, *, hours: float | None, passes: int, workers: int
) -> str:
    """Run the updates; returns why the run ends."""
    preset, accelerator, run = trainer.preset, trainer.accelerator, trainer.run
    limit = None if hours is None else time.time() + hours * 3600
    if run.update >= preset.updates:
        return f"Nothing to do: {out} has all {preset.updates} updates already."
    listed: set[str] = set()
    for batch in mapped(data.batch, range(run.update, preset.updates), workers):
        if _late(accelerator, limit):
            return (f"Stopped {hours} hours after the start (--hours), after update {run.update} of "
                    f"{preset.updates}: the same command goes on from there.")  # fmt: skip
        listed |= _list_skipped(data.skipped, listed, out / "skipped.tsv")
        torch.manual_seed(1_000_003 * run.update + accelerator.process_index)  # dropout: goes on as it would have
        chunks = {key: value.to(accelerator.device).chunk(passes) for key, value in batch.items()}
        parts = [dict(zip(chunks, part, strict=True)) for part in zip(*chunks.values(), strict=True)]
        trainer.learn([encoded(vae, part) for part in parts])
        if accelerator.is_main_process and run.update % preset.save_every == 0:
            trainer.save(vae)
    return f"Done: all {preset.updates} updates."


def _late(accelerator: Accelerator, limit: float | None) -> bool:
    """Whether any process is over the limit: one that stopped alone would leave the others waiting for gradients."""
    if limit is None:
        return False
    mine = torch.tensor([time.time() >= limit], device=accelerator.device)
    return bool(cast(Tensor, accelerator.gather(mine)).any())


def _list_skipped(skipped: dict[str, str], listed: set[str], path: Path) -> set[str]:
    """Append those that are not listed yet to the file, and return their names. Each process may list a film."""
    new = {film: why for film, why in skipped.copy().items() if film not in listed}
    if new:
        lines = "".join(f"{film}\t{why}\n" for film, why in new.items())
        print(f"Left out, as they cannot be read:\n{lines}", file=sys.stderr, end="", flush=True)
        with path.open("a") as file:
            file.write(lines)
    return set(new)


# --- the command line


def run_paper(args: argparse.Namespace, preset: PaperPreset) -> None:
    """The command line of `train`, for a preset of this module. Raises InputError."""
    choices = {name: getattr(args, name) for name in ("hours", "rows", "checkpointing", "workers")}
    if preset.distils:
        pipe = read_teacher(args.teacher)
        nets, choices["teacher"] = (pipe.speech, pipe.vae), pipe.denoiser
    elif args.speech is None:
        raise InputError("--speech is missing: give a released AV-HuBERT file, or base to have it fetched.")
    else:
        nets = read_speech_net(args.speech), read_vae(args.vae)
    train(args.data, args.out, *nets, preset, listed=args.list, **choices)


def read_teacher(folder: Path | None) -> SyncDiffPipeline:
    """A trained pipeline of this profile. Raises InputError."""
    if folder is None:
        raise InputError("This preset distils a trained pipeline: give its folder, a run's OUT/pipeline, as --teacher.")
    pipe = SyncDiffPipeline.from_pretrained(folder)
    if pipe.profile != "paper":
        raise InputError(f"{folder} holds the {pipe.profile} profile: give the paper profile's weights as --teacher.")
    return pipe
