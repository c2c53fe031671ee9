"""Train the denoiser on prepared faces and an encoder of speech.

    python -m syncdiff.training.train DATA OUT --speech OUT_OF_DISTILL/speech [--preset compact] [--hours 1.5]

First a lip reader for the objective (minutes), then the denoiser. Runs under `accelerate launch` too. Resumable:
OUT/state.pt holds weights, moving average, optimiser, counters, dice and the chains' last frames; start the same
command again and it goes on as if it had never stopped. OUT/log.csv has one line every 50 updates (TensorBoard too,
where it is installed), OUT/sheet-*.png a look at some faces, OUT/denoiser the moving average as the pipeline loads it.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn import functional as F

from syncdiff import codec, sampler
from syncdiff.denoiser import Condition, Denoiser
from syncdiff.media import InputError
from syncdiff.objective import Objective
from syncdiff.speech import SpeechEncoder, log_mel, token_window
from syncdiff.training.data import ClipRecord, FaceBatch, TalkingFaces, chain_link
from syncdiff.training.distill import augment, equalise
from syncdiff.training.prepare import FPS
from syncdiff.training.reader import LipReader
from syncdiff.training.train_paper import PAPER_PRESETS, read_speech_net, read_vae
from syncdiff.training.train_paper import train as train_paper


@dataclass(frozen=True)
class Preset:
    """One row of the table below: everything that decides what comes out."""

    denoiser: dict = field(default_factory=dict)  # Denoiser's arguments
    share: dict[str, float] = field(default_factory=lambda: {"grid-s1": 0.3, "rendered": 0.3, "puppets": 0.4})
    batch: int = 32
    lr: float = 6e-4
    updates: int = 100_000
    ema: float = 0.998
    save_every: int = 300
    reader_updates: int = 800
    hearings: int = 3  # times every sound is encoded, the first clean, the others augmented
    chains: float = 0.3  # of a batch: rows whose previous frame is the network's own, from the update before
    pose_noise: float = 0.4  # upper end of the noise on a true previous frame
    pose_dropout: float = 0.2  # how often there is no previous frame
    speech_dropout: float = 0.4  # how often the speech is not told, only the lip shape


PRESETS = {
    "tiny": Preset(denoiser={"widths": (16, 32, 64)}, batch=4, updates=20, reader_updates=10, hearings=1),
    "compact": Preset(denoiser={"widths": (48, 96, 192)}),
}


def hearer(encoder: SpeechEncoder, tokens: int, hearings: int, cache: Path):
    """A function of a set's records that encodes every sound `hearings` times and looks windows of tokens up."""

    @torch.inference_mode()
    def encode(records: list[ClipRecord]):
        lengths = [(len(r.sound) // 160) // 2 for r in records]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        path = cache / f"heard-{records[0].set}.npy"
        shape = (hearings, int(starts[-1]), encoder.config.width)
        if not path.exists() or np.load(path, mmap_mode="r").shape != shape:
            partial = path.with_suffix(".partial.npy")
            rng = np.random.default_rng(0)
            out = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
            for i, record in enumerate(records):
                sound = record.sound.astype(np.float32) / 32768
                other = records[int(rng.integers(len(records)))].sound.astype(np.float32) / 32768
                versions = [sound] + [augment(sound, np.resize(other, len(sound)), rng) for _ in range(hearings - 1)]
                mel = torch.stack([log_mel(torch.from_numpy(np.ascontiguousarray(v))) for v in versions])
                mel = torch.cat([mel[:1], equalise(mel[1:], rng)])
                out[:, starts[i] : starts[i + 1]] = encoder(mel)[:, : lengths[i]].half().numpy()
            out.flush()
            partial.rename(path)
        heard = np.load(path, mmap_mode="r")

        def look(clip: int, frame: int, rng: np.random.Generator) -> np.ndarray:
            version = int(rng.integers(hearings))
            a, b = int(starts[clip]), int(starts[clip + 1])
            first = max(0, 2 * frame - tokens)
            near = torch.from_numpy(heard[version, a + first : min(b, a + first + 3 * tokens)].astype(np.float32))
            when = torch.tensor([(frame + 0.5) / FPS - first / encoder.rate])
            return token_window(near, when, tokens=tokens, rate=encoder.rate)[0].numpy()

        return look

    return encode


def conditions(batch: FaceBatch, mask: Tensor) -> tuple[Tensor, Condition]:
    """Clean latents, and what the denoiser is told."""
    clean, identity, previous = (codec.encode(x) for x in (batch.clean, batch.identity, batch.previous))
    speech, lips = torch.from_numpy(batch.speech), torch.from_numpy(batch.shapes)
    return clean, Condition(clean * (1 - mask), identity, previous, speech, lips)


def spoil(told: Condition, own: Tensor, preset: Preset) -> Condition:
    """What is told as sampling will know it: the previous frame noisy or not there, the speech now and then left out.

    Speech is left out often: the encoder knows these very clips by heart, so that their tokens alone tell the lips, and
    a network that leaned on that would mumble on any other voice.

    Args:
        own: [rows, C, h, w] what the network drew for the frames before the first rows; zeros at a chain's beginning.
            Only true previous frames in training let errors grow from frame to frame in sampling (measured: black
            smears within a second), and so did chains of one frame.
    """
    true = told.previous[len(own) :]
    shape = (len(true), 1, 1, 1)
    noise = torch.rand(shape, device=true.device) * preset.pose_noise
    keep = (torch.rand(shape, device=true.device) >= preset.pose_dropout).float()
    previous = torch.cat([own, (true + noise * torch.randn_like(true)) * keep])
    silent = torch.rand(len(previous), 1, 1, device=previous.device) < preset.speech_dropout
    return replace(told, previous=previous, speech=told.speech.masked_fill(silent, 0.0))


def train_reader(faces: TalkingFaces, out: Path, updates: int) -> LipReader:
    """The objective's lip reader: L1 on landmarks; noisy pixels, so that it stays sensible on rough estimates."""
    reader, path = LipReader(), out / "reader.pt"
    if path.exists():
        reader.load_state_dict(torch.load(path, weights_only=True))
    else:
        optimizer = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, updates)
        for update in range(1, updates + 1):
            batch = faces.batch(64, np.random.default_rng([7, update]))
            x = F.pixel_shuffle(codec.encode(batch.clean), codec.FACTOR)
            x = x + torch.randn_like(x) * torch.rand(len(x), 1, 1, 1) * 0.2
            with torch.autocast("cpu", torch.bfloat16):
                points, _ = reader(x)
            loss = F.l1_loss(points.float(), torch.from_numpy(batch.lips))
            optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
            if update % 100 == 0:
                print(f"lip reader {update}: {loss.item():.3f} px", flush=True)
        torch.save(reader.state_dict(), path)
    return reader.eval().requires_grad_(False)


@torch.inference_mode()
def sheet(denoiser: Denoiser, clean: Tensor, condition: Condition, path: Path) -> None:
    """PNG: identity, truth, masked, drawn in 1 step, drawn in 4 steps; one column a face."""
    schedule, mask = sampler.compact_schedule(), codec.latent_mask().to(clean.device)
    rows = [condition.identity, clean, condition.masked]
    for steps in (1, 4):
        noise = torch.stack([sampler.frame_noise(0, i, clean.shape[1:]) for i in range(len(clean))]).to(clean.device)
        *_, drawn = sampler.sample(lambda x, t: denoiser(x, t, condition), noise, schedule, steps)
        rows.append(drawn * mask + clean * (1 - mask))
    picture = np.concatenate([np.concatenate(list(codec.decode(row)), axis=1) for row in rows])
    cv2.imwrite(str(path), picture[..., ::-1])


def train(data: Path, out: Path, speech: Path, preset: Preset, hours: float = 24.0) -> Denoiser:
    """Train until `preset.updates` or for `hours`, whichever ends first; returns the moving average."""
    half = "fp16" if torch.cuda.is_available() and not torch.cuda.is_bf16_supported() else "bf16"
    watched = "tensorboard" if find_spec("tensorboard") else None
    accelerator = Accelerator(mixed_precision=half, log_with=watched, project_dir=out)
    accelerator.init_trackers("syncdiff")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(accelerator.process_index)
    encoder = SpeechEncoder.from_pretrained(speech).eval()
    model = Denoiser(speech_width=encoder.config.width, **preset.denoiser).to(memory_format=torch.channels_last)
    model.unet.set_attn_processor(AttnProcessor())  # on a CPU the fused kernel's backward took a quarter of an update
    hear = hearer(encoder, model.config.tokens, preset.hearings, out)
    reader = train_reader(TalkingFaces(data, preset.share, hear, split="generator"), out, preset.reader_updates)
    faces = TalkingFaces(data, preset.share, hear)
    objective = Objective(sampler.compact_schedule(), reader.to(accelerator.device))
    average = Denoiser.from_config(model.config)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), preset.lr, weight_decay=0.01, betas=(0.9, 0.99))
    update, samples, elapsed, dice = 0, 0, 0.0, None
    lanes = int(preset.chains * preset.batch)
    own = torch.zeros(lanes, codec.CHANNELS, codec.HEIGHT, codec.WIDTH, device=accelerator.device)
    if (out / "state.pt").exists():
        state = torch.load(out / "state.pt", weights_only=True)
        (
            model.load_state_dict(state["model"]),
            average.load_state_dict(state["average"]),
            optimizer.load_state_dict(state["optimizer"]),
        )
        update, samples, elapsed, dice = (state[key] for key in ("update", "samples", "elapsed", "dice"))
        own = state["own"].to(accelerator.device)
    model, optimizer = accelerator.prepare(model, optimizer)
    average.to(accelerator.device)
    averaged, learned = list(average.parameters()), list(accelerator.unwrap_model(model).parameters())
    mask = codec.latent_mask()
    held = conditions(faces.batch(12, np.random.default_rng(99)), mask)
    ahead = ThreadPoolExecutor(1)  # the next batch is made while this one is learned; its seed is its number

    def make(number: int) -> tuple[Tensor, Condition]:
        chained = faces.chains(lanes, accelerator.process_index, number)
        free = faces.batch(preset.batch - lanes, np.random.default_rng([accelerator.process_index, number]))
        both = zip(astuple(chained), astuple(free), strict=True)
        return conditions(FaceBatch(*(np.concatenate(pair) for pair in both)), mask)

    coming = ahead.submit(make, update)
    torch.manual_seed(accelerator.process_index)  # again: a lip reader trained just now has used the dice
    if dice:
        _set_dice(dice)
    began, sums = time.time() - elapsed, {}

    def save() -> None:
        whole = accelerator.unwrap_model(model)
        state = {
            "model": whole.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "update": update,
            "samples": samples,
            "elapsed": time.time() - began,
            "dice": _dice(),
            "own": own.cpu(),
        }
        torch.save(state, out / "state.partial.pt")
        (out / "state.partial.pt").replace(out / "state.pt")
        average.save_pretrained(out / "denoiser")
        sheet(average.eval(), held[0].to(average.device), held[1].to(average.device), out / f"sheet-{update:06d}.png")

    while update < preset.updates and time.time() - began < hours * 3600:
        progress = max(update / preset.updates, (time.time() - began) / (hours * 3600))
        for group in optimizer.param_groups:
            group["lr"] = preset.lr * min(
                1.0, (update + 1) / 200, max(0.02, (1 - progress) / 0.4)
            )  # linear down at the end
        clean, condition = coming.result()
        coming = ahead.submit(make, update + 1)
        clean, condition = clean.to(accelerator.device), condition.to(accelerator.device)
        with accelerator.autocast():
            own[[row for row in range(lanes) if chain_link(row, update)[1] == 0]] = 0
            terms, drawn = objective(model, clean, spoil(condition, own, preset), pure=lanes)
            own = drawn.clamp(-1, 1) * mask.to(drawn.device) + condition.masked[:lanes]
        accelerator.backward(sum(terms.values()))
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), optimizer.zero_grad()
        update, samples = update + 1, samples + preset.batch * accelerator.num_processes
        with torch.no_grad():
            decay = min(preset.ema, update / (update + 10))
            torch._foreach_lerp_(averaged, learned, 1 - decay)
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + value.item()
        if accelerator.is_main_process and update % 50 == 0:
            line = {
                "update": update,
                "samples": samples,
                **{k: round(v / 50, 5) for k, v in sums.items()},
                "seconds": round(time.time() - began),
            }
            print(line, flush=True)
            with (out / "log.csv").open("a") as log:
                log.write(",".join(map(str, line.values() if log.tell() else line)) + "\n")
            accelerator.log(line, step=update)
            sums = {}
        if accelerator.is_main_process and update % preset.save_every == 0:
            save()
    if accelerator.is_main_process:
        save()
    accelerator.end_training()
    return average


def _dice() -> list[Tensor]:
    """States of the random generators: the CPU's, and every GPU's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _set_dice(dice: list[Tensor]) -> None:
    torch.set_rng_state(dice[0])
    torch.cuda.set_rng_state_all(dice[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--speech", type=Path, required=True, help="folder of a trained SpeechEncoder; for the paper "
                        "preset a released AV-HuBERT file")  # fmt: skip
    parser.add_argument("--preset", choices=[*PRESETS, *PAPER_PRESETS], default="compact")
    parser.add_argument("--hours", type=float, default=24.0)
    ours = parser.add_argument_group(
        "paper preset", "as published, on LRS2 or LRS3: see syncdiff/training/train_paper.py"
    )
    ours.add_argument("--vae", type=Path, metavar="DIR", help="VQ-f4")
    ours.add_argument("--list", type=Path, metavar="FILE", help="names of the films, as LRS2's train.txt")
    ours.add_argument("--cache", action="store_true", help="keep latents and frozen features on disk")
    args = parser.parse_args()
    if args.preset in PAPER_PRESETS:
        preset = PAPER_PRESETS[args.preset]
        print(asdict(preset), flush=True)
        try:
            nets = read_speech_net(args.speech), read_vae(args.vae)
            train_paper(args.data, args.out, *nets, preset, hours=args.hours, listed=args.list, cached=args.cache)
        except InputError as sentence:
            sys.exit(str(sentence))
        return
    print(asdict(PRESETS[args.preset]), flush=True)
    train(args.data, args.out, args.speech, PRESETS[args.preset], args.hours)


if __name__ == "__main__":
    main()
