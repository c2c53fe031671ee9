"""Train the paper's model as published: reached through `train --preset paper`.

    accelerate launch --num_processes 6 -m syncdiff.training.train LRS2 OUT --preset paper --list LRS2/train.txt \\
        --speech base_vox_iter5.pt --vae VQVAE_FOLDER [--cache]

`--speech base` (or large) is the released file in torch's folder of checkpoints; where it is not there, its licence is
shown and, after a yes, it is fetched: run it once on its own, as six processes would all ask.

The loss is the mean squared error of the noise and nothing else (section 3.4); the U-Net, the bottleneck and the last
three layers of AV-HuBERT learn together (section 3.2). OUT/boxes holds the face boxes, found once. With --cache the
latents (49 kB a frame) and what the frozen layers hear (1.5 kB a frame) lie there too, and neither the autoencoder nor
those layers run again. OUT/log.csv has a line every 50 updates; OUT/pipeline is the moving average as `--profile paper
--weights` takes it. The same command again goes on from OUT/state.pt as if it had never stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from diffusers import DDIMScheduler, VQModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.errors import InputError
from syncdiff.paper import VQ_F4_AT, PaperDenoiser, Priors, masked, paper_schedule, to_latents
from syncdiff.paper.avhubert import OFFERS, AVHubert, stacked
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.training.lrs import Film, Finder, Utterance, find_boxes, read_film, utterances
from syncdiff.weights import fetch, load_strictly, read_tensors
from syncdiff.weights.folders import read_network

LOGGED = 50  # updates between two lines of OUT/log.csv


@dataclass(frozen=True)
class PaperPreset:
    """Section 4.3, and where it is silent DiffTalk's configuration (docs/paper.md)."""

    denoiser: dict = field(default_factory=dict)  # PaperDenoiser's arguments
    batch: int = 8  # per GPU; the paper has six
    lr: float = 1e-6  # per row of the global batch: DiffTalk's base_learning_rate; 4.8e-5 for 6 x 8
    updates: int = 190_000  # 200 epochs of one frame an utterance: 45,839 of them in LRS2's main set, 48 at a time
    ema: float = 0.9999  # latent diffusion's; the average is young at first, as theirs is
    clip: float = 0.1  # DiffTalk: gradient_clip_val
    tuned: int = 3  # layers of AV-HuBERT that learn (Table 6)
    apart: int = 1  # frames from the target to the identity frame, at the least: any other (DiffTalk: 60)
    save_every: int = 1000
    finder: Finder = "face-alignment"


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
    # To see the whole line work: with an AV-HuBERT of 64 and any VQ autoencoder of factor 4, on no special films.
    "paper-tiny": PaperPreset(
        denoiser={"widths": (32, 64), "layers": 1, "head": 16, "speech_width": 64},
        batch=2,
        lr=1e-3,
        updates=20,
        ema=0.9,
        clip=1.0,
        tuned=1,
        finder="mediapipe",
    ),
}


class Films:
    """Random frames of a corpus, each with its priors and the whole utterance's sound."""

    def __init__(
        self, found: list[Utterance], folder: Path, vae: VQModel, speech: AVHubert, preset: PaperPreset, *, cached: bool
    ) -> None:
        self.found, self.folder, self.vae, self.speech, self.preset = found, folder, vae, speech, preset
        self.cached = cached

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """What `Trainer` takes: latents [B, 3, 64, 64], pose [B, 3 NP, 64, 64], heard [B, T25, 104 or D], frame [B]."""
        rows = [self._row(self.found[int(rng.integers(len(self.found)))], rng) for _ in range(self.preset.batch)]
        heard = [row.pop("heard") for row in rows]
        batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        lengths = torch.tensor([len(h) for h in heard])
        return batch | {"heard": nn.utils.rnn.pad_sequence(heard, batch_first=True), "lengths": lengths}

    def _row(self, one: Utterance, rng: np.random.Generator) -> dict[str, Tensor]:
        boxes = self._boxes(one)
        usable = np.flatnonzero(np.isfinite(boxes).all(1))
        usable = usable[usable > 0]
        if not usable.size:
            raise InputError(f"{one.video} shows no face after its first frame: leave it out of the list.")
        t = int(rng.choice(usable))
        before = [max(0, t - k) for k in range(1, self.preset.denoiser.get("previous", 1) + 1)]
        far = np.flatnonzero(np.abs(np.arange(len(boxes)) - t) >= min(self.preset.apart, len(boxes) // 3))
        other = int(rng.choice(far))
        if self.cached:
            latents, heard = self._kept(one)
            clean, hidden, identity, *pose = (
                torch.from_numpy(np.array(latents[i, k], np.float32))
                for i, k in ((t, 0), (t, 1), (other, 0), *((j, 0) for j in before))
            )
            heard = torch.from_numpy(np.array(heard, np.float32))
        else:
            film = read_film(one.video, self.preset.finder, boxes)
            pictures = [film.frames[t], masked(film.frames[t], film.boxes[t]), film.frames[other]]
            clean, hidden, identity, *pose = self._encoded(np.stack([*pictures, *(film.frames[j] for j in before)]))
            heard = stacked(film.sound)
        frame = torch.tensor(min(t, len(heard) - 1))
        told = {"masked": hidden, "identity": identity, "pose": torch.cat(pose)}
        return {"clean": clean, "heard": heard, "frame": frame} | told

    def _boxes(self, one: Utterance) -> np.ndarray:
        path = self._at(one, "boxes.npy")
        if not path.exists():
            _write(path, find_boxes(one.video, self.preset.finder).astype(np.float32))
        return np.load(path)

    def _kept(self, one: Utterance) -> tuple[np.ndarray, np.ndarray]:
        """Latents [T, 2, 3, 64, 64] of every frame and of it masked, and what the frozen layers hear [T25, D]."""
        pictures, sounds = self._at(one, "latents.npy"), self._at(one, f"heard-{self.preset.tuned}.npy")
        if not (pictures.exists() and sounds.exists()):
            film = read_film(one.video, self.preset.finder, self._boxes(one))
            _write(pictures, np.stack(list(self._both(film))).astype(np.float16))
            heard = frozen_part(self.speech, stacked(film.sound)[None].to(self.speech.device), self.preset.tuned)
            _write(sounds, heard[0].float().cpu().numpy().astype(np.float16))
        return np.load(pictures, mmap_mode="r"), np.load(sounds)

    def _both(self, film: Film) -> Iterator[np.ndarray]:
        """Latents [2, 3, 64, 64] of every frame, and of it masked where it has a face."""
        for frame, box in zip(film.frames, film.boxes, strict=True):
            hidden = masked(frame, box) if np.isfinite(box).all() else frame
            yield self._encoded(np.stack([frame, hidden])).numpy()

    def _encoded(self, frames: np.ndarray) -> Tensor:
        with torch.inference_mode():
            return to_latents(self.vae, frames).cpu().clone()

    def _at(self, one: Utterance, kind: str) -> Path:
        return self.folder / f"{one.name}.{kind}"


def _write(path: Path, rows: np.ndarray) -> None:
    """Written beside its place and moved there: what is there is whole, whichever process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{time.monotonic_ns()}.partial.npy")
    np.save(partial, rows)
    partial.replace(path)


@torch.no_grad()
def frozen_part(speech: AVHubert, frames: Tensor, tuned: int) -> Tensor:
    """Stacked filterbanks [B, T25, 104] -> what goes into the last `tuned` layers [B, T25, D]."""
    held: list[Tensor] = []
    parts = [*speech.encoder.layers, speech.encoder.layer_norm]
    hook = parts[-1 - tuned].register_forward_pre_hook(lambda _, given: held.append(given[0]))
    was, _ = speech.training, speech.eval()  # a layer that is left out would not be asked
    try:
        speech(frames)
    finally:
        hook.remove()
        speech.train(was)
    return held[0]


def tuned_part(speech: AVHubert, hidden: Tensor, lengths: Tensor, tuned: int) -> Tensor:
    """The rest of the way, [B, T25, D] -> features [B, T25, D]."""
    seen = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
    for layer in speech.encoder.layers[len(speech.encoder.layers) - tuned :]:
        if not (speech.training and torch.rand(()) < speech.encoder.layerdrop):
            hidden = layer(hidden, seen[:, None, None])
    return speech.encoder.layer_norm(hidden)


class Trainer(nn.Module):
    """Everything that learns, and its loss: one module, so that accelerate spreads it over GPUs as one."""

    def __init__(self, denoiser: PaperDenoiser, speech: AVHubert, scheduler: DDIMScheduler, tuned: int) -> None:
        super().__init__()
        self.denoiser, self.speech, self.scheduler, self.tuned = denoiser, speech, scheduler, tuned
        speech.trainable_layers(tuned)
        denoiser.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(
        self,
        clean: Tensor,
        masked: Tensor,
        identity: Tensor,
        pose: Tensor,
        heard: Tensor,
        lengths: Tensor,
        frame: Tensor,
    ) -> Tensor:
        """E || eps - M(z_d, d, E_v, E_a) ||^2 of one batch (see `Films.batch`)."""
        if heard.shape[-1] == self.speech.config["width"]:
            features = tuned_part(self.speech, heard, lengths, self.tuned)
        else:
            features = self.speech(heard, lengths)
        K = self.denoiser.config["tokens"]
        near = frame[:, None] + torch.arange(K, device=frame.device) - (K - 1) // 2
        near = near.clamp_min(0).minimum(lengths[:, None] - 1)
        tokens = features[torch.arange(len(frame), device=frame.device)[:, None], near]
        noise = torch.randn_like(clean)
        t = torch.randint(0, self.scheduler.config["num_train_timesteps"], (len(clean),), device=clean.device)
        noisy = self.scheduler.add_noise(clean, noise, t)  # pyright: ignore[reportArgumentType] -- IntTensor is meant as int64
        drawn = self.denoiser(noisy, t, Priors(masked, identity, pose, tokens))
        return F.mse_loss(drawn.float(), noise)


def train(
    data: Path,
    out: Path,
    speech: AVHubert,
    vae: VQModel,
    preset: PaperPreset,
    *,
    hours: float = 24.0,
    listed: Path | None = None,
    cached: bool = False,
) -> SyncDiffPipeline:
    """Train until `preset.updates` or for `hours`; returns the pipeline of the moving average. Raises InputError."""
    half = "fp16" if torch.cuda.is_available() and not torch.cuda.is_bf16_supported() else "bf16"
    left_out = DistributedDataParallelKwargs(find_unused_parameters=True)  # layers of AV-HuBERT, now and then
    accelerator = Accelerator(mixed_precision=half, kwargs_handlers=[left_out])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # the same in every process
    vae.to(accelerator.device).eval().requires_grad_(False)
    learner = Trainer(PaperDenoiser(**preset.denoiser), speech.to(accelerator.device), paper_schedule(), preset.tuned)
    learned = [p for p in learner.parameters() if p.requires_grad]
    films = Films(utterances(data, listed), out / "boxes", vae, speech, preset, cached=cached)
    optimizer = torch.optim.AdamW(learned, preset.lr * preset.batch * accelerator.num_processes)
    learner.to(accelerator.device)
    average, update, samples, elapsed = EMAModel(learned, decay=preset.ema), 0, 0, 0.0
    if (out / "state.pt").exists():
        state = read_tensors(out / "state.pt")
        load_strictly(learner, state["learner"], out / "state.pt")
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        update, samples, elapsed = state["update"], state["samples"], state["elapsed"]
    average.to(accelerator.device)
    model, optimizer = accelerator.prepare(learner.train(), optimizer)
    began, losses = time.time() - elapsed, deque(maxlen=LOGGED)

    def save() -> SyncDiffPipeline:
        state = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state_dict()}
        counted = {"update": update, "samples": samples, "elapsed": time.time() - began}
        torch.save(state | counted, out / "state.partial.pt")
        (out / "state.partial.pt").replace(out / "state.pt")
        average.store(learned)
        average.copy_to(learned)
        pipe = SyncDiffPipeline(learner.denoiser, learner.speech, paper_schedule(), vae)
        pipe.save_pretrained(out / "pipeline")
        average.restore(learned)
        return pipe

    def late() -> bool:
        """Whether the time is up in any process: one that stopped alone would leave the others waiting."""
        mine = torch.tensor([time.time() - began >= hours * 3600], device=accelerator.device)
        return bool(accelerator.gather(mine).any())

    while update < preset.updates and not late():
        dice = np.random.default_rng([accelerator.process_index, update])  # a run cut off goes on as it would have
        batch = films.batch(dice)
        torch.manual_seed(int(dice.integers(2**63)))
        with accelerator.autocast():
            loss = model(**{key: value.to(accelerator.device) for key, value in batch.items()})
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(learned, preset.clip)
        optimizer.step(), optimizer.zero_grad()
        average.step(learned)
        losses.append(loss.item())
        update, samples = update + 1, samples + preset.batch * accelerator.num_processes
        if accelerator.is_main_process and update % LOGGED == 0:
            loss, seconds = round(float(np.mean(losses)), 5), round(time.time() - began)
            line = {"update": update, "samples": samples, "loss": loss, "seconds": seconds}
            print(line, flush=True)
            with (out / "log.csv").open("a") as log:
                rows = [line.values()] if log.tell() else [line, line.values()]
                log.writelines(",".join(map(str, row)) + "\n" for row in rows)
        if accelerator.is_main_process and update % preset.save_every == 0:
            save()
    if accelerator.is_main_process:
        save()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return SyncDiffPipeline.from_pretrained(out / "pipeline")


def read_speech_net(path: Path) -> AVHubert:
    """A released AV-HuBERT file, or a folder of ours; "base" or "large" is the released one, fetched after a yes.

    Raises CheckpointError."""
    if offer := OFFERS.get(str(path)):
        path = fetch(offer, Path(torch.hub.get_dir()) / "checkpoints")
    return read_network(AVHubert, path) if path.is_dir() else AVHubert.read(path)


def read_vae(folder: Path | None) -> VQModel:
    """VQ-f4 from a folder. Raises InputError that says where the files are; nothing is fetched."""
    if folder is None or not (folder / "config.json").is_file():
        hub, part = VQ_F4_AT
        raise InputError(
            f"VQ-f4 is not in {folder or '--vae'}: fetch the sub-folder {part} of {hub} from the Hugging Face hub "
            f"(hf download {hub} --include '{part}/*') and give that folder as --vae."
        )
    return read_network(VQModel, folder)
