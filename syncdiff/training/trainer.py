"""The denoiser's trainer: one update, its hyper-parameters, and the state that a run is resumed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from syncdiff.diffusion.losses import PURE_NOISE, Objective
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.training.data import chain_link
from syncdiff.training.landmark_net import LandmarkNet
from syncdiff.training.loop import Average, Run
from syncdiff.training.sync_loss import SyncMatcher


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of one update."""

    lr: float = 6e-4
    ema: float = 0.999
    chained: int = 9  # first rows of every batch: their previous frame is the network's own, from the update before
    pose_noise: float = 0.4  # upper end of the noise on a true previous frame
    pose_dropout: float = 0.2  # how often there is no previous frame
    speech_dropout: float = 0.4  # how often the speech is dropped, and only the lip shape given
    lip_shapes: bool = True  # whether lip shapes are given, and speech is dropped now and then
    pure_noise: float = PURE_NOISE  # share of the rows that start from pure noise, beside those of chains
    sync: float = 0.0  # weight of the sync loss
    regressor: bool = False  # for comparison: the frame in one evaluation without noise, by L1 alone, as Wav2Lip does


def corrupt_conditioning(conditioning: Conditioning, own: Tensor, config: TrainConfig) -> Conditioning:
    """Conditioning as sampling has it: the previous frame noisy or missing, the speech now and then dropped.

    Speech is dropped often: the encoder was trained on these very clips, so their tokens alone predict the lips. A
    network that relies on that moves the lips too little on any other voice.

    Args:
        own: [rows, C, h, w] the network's own previous frames of the first rows; zeros at a chain's beginning. With
            only true previous frames in training, errors grew from frame to frame in sampling (black smears within a
            second); so they did with chains of one frame.
    """
    true = conditioning.previous[len(own) :]
    shape = (len(true), 1, 1, 1)
    noise = torch.rand(shape, device=true.device) * config.pose_noise
    keep = (torch.rand(shape, device=true.device) >= config.pose_dropout).float()
    previous = torch.cat([own, (true + noise * torch.randn_like(true)) * keep])
    silent = torch.rand(len(previous), 1, 1, device=previous.device) < config.speech_dropout
    if not config.lip_shapes:
        return replace(conditioning, previous=previous, lip_shapes=torch.zeros_like(conditioning.lip_shapes))
    return replace(conditioning, previous=previous, speech=conditioning.speech.masked_fill(silent, 0.0))


class Trainer:
    """The denoiser with its moving average, optimiser, run, and the last frames of its chains."""

    def __init__(
        self,
        out: Path,
        model: Denoiser,
        config: TrainConfig,
        accelerator: Accelerator,
        reader: LandmarkNet,
        matcher: SyncMatcher | None,
    ) -> None:
        self.config, self.accelerator, self.reader = config, accelerator, reader.to(accelerator.device)
        self.matcher = matcher and matcher.to(accelerator.device)
        self.mask = pixel_codec.latent_mask().to(accelerator.device)
        self.own = torch.zeros(config.chained, *self.mask.shape[1:], device=accelerator.device)
        self.ema = Average(model, config.ema)
        self.model, self.optimizer = accelerator.prepare(
            model, torch.optim.AdamW(model.parameters(), config.lr, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
        )
        self.learned = accelerator.unwrap_model(self.model)
        self.ema.module.to(accelerator.device)
        self.ema.load_state_dict(self.learned.state_dict())  # alike in all processes by now
        self.run = Run(out, {"model": self.learned, "average": self.ema, "optimizer": self.optimizer})
        self.objective = Objective(compact_schedule(), self.reader, config.pure_noise)

    @property
    def average(self) -> Denoiser:
        """The moving average."""
        return self.ema.module

    def learn(self, clean: Tensor, conditioning: Conditioning, progress: float) -> dict[str, float] | None:
        """One update; returns the line of the log after it, if there is one.

        Args:
            clean: [B, C, h, w].
            progress: 0..1 of the run; the rate falls over the last four tenths.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (self.run.update + 1) / 200, max(0.02, (1 - progress) / 0.4))
        clean, conditioning = clean.to(self.accelerator.device), conditioning.to(self.accelerator.device)
        with self.accelerator.autocast():
            beginning = [row for row in range(len(self.own)) if chain_link(row, self.run.update)[1] == 0]
            self.own[beginning] = 0
            seen = corrupt_conditioning(conditioning, self.own, config)
            if config.regressor:
                terms, estimate = self.regress(clean, seen)
            else:
                terms, estimate = self.objective(self.model, clean, seen, pure=len(self.own))
            drawn = estimate[: len(self.own)] * self.mask + conditioning.masked[: len(self.own)]
            self.own = drawn.detach().nan_to_num().clamp(-1, 1)
            if self.matcher is not None:
                features = self.reader(F.pixel_shuffle(estimate, pixel_codec.FACTOR))[1][-1]
                terms["sync"] = config.sync * self.matcher(features, conditioning.speech)
        self.accelerator.backward(sum(terms.values()))
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        # One bad batch must not end the run: its update is left out. In fp16 the scaler does that itself.
        if self.accelerator.scaler or (norm is not None and norm.isfinite()):
            self.optimizer.step()
        self.optimizer.zero_grad()
        found = {name: term.item() for name, term in terms.items()}
        samples, main = len(clean) * self.accelerator.num_processes, self.accelerator.is_main_process
        line = self.run.step(samples, found, log=main)
        self.ema.step(self.learned, self.run.update)
        return line

    def regress(self, clean: Tensor, conditioning: Conditioning) -> tuple[dict[str, Tensor], Tensor]:
        """Mean absolute error of the frame predicted at the last timestep from zeros, with the objective's weights;
        and that frame, [B, C, h, w] as `clean`."""
        steps = self.objective.scheduler.config["num_train_timesteps"]
        last = torch.full((len(clean),), steps - 1, device=clean.device)
        estimate = self.model(torch.zeros_like(clean), last, conditioning).float()
        error = (estimate - clean).abs() * self.objective.pixel_weight.to(clean.device)
        return {"pixels": error.mean()}, estimate

    def save(self) -> None:
        """Everything that `resume` brings back."""
        dice = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        self.run.save(own=self.own.cpu(), dice=dice)

    def resume(self) -> None:
        """Everything as it was, to the states of the random generators.

        Those and the chains' last frames are of the main process: the others draw new seeds and begin new chains.
        """
        state = self.run.resume()
        if not state:
            return
        if not self.accelerator.is_main_process:
            torch.manual_seed(self.run.update * self.accelerator.num_processes + self.accelerator.process_index)
            return
        self.own = state["own"].to(self.accelerator.device)
        torch.set_rng_state(state["dice"][0])
        torch.cuda.set_rng_state_all(state["dice"][1:])
