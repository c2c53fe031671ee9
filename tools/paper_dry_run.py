"""The paper profile from LRS2 to its table, on a made-up LRS2 and small random networks: does every step hold?

    python tools/paper_dry_run.py FOLDER [--films 50] [--processes 2]

FOLDER/LRS2 gets short films of the shipped examples, 160x160 as LRS2's are: of every ten one is broken, one shows no
face, one is upside down from its middle on, where no face is found, one has a silent sound track, and one none at all.
Beside them lie an AV-HuBERT and a VQ autoencoder in the formats that they are released in, full of random numbers. Then
the very commands run that the real corpus and files would get, in two processes each: `prepare_lrs`, `train`, `train`
again to distil, `sync`, and `evaluate` for Tables 1 and 4. What comes out is noise. It shows that the line holds.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from syncdiff.audio import SAMPLE_RATE  # noqa: E402
from syncdiff.evaluation.paper_drawing import write_film  # noqa: E402
from syncdiff.training.prepare import read_frames, read_sound  # noqa: E402
from tests.media_fixtures import without_sound  # noqa: E402
from tests.released import audio_path, beside_audio, small_vq, write  # noqa: E402

FRAMES = 14  # of a film: 0.6 s
KINDS = ("good", "good", "broken", "good", "faceless", "turned", "good", "silent", "mute", "good")


def make_corpus(folder: Path, films: int) -> dict[str, str]:
    """Films, texts, and the lists train.txt and test.txt (two of seven films); returns each film's kind by its name."""
    sources = []
    for name in ("ines", "malik", "tomas"):  # square, as LRS2's films are
        path = ROOT / "assets" / "examples" / f"{name}.mp4"
        images = [np.array(av.VideoFrame.from_ndarray(i).reformat(160, 160).to_ndarray()) for i in read_frames(path)]
        sources.append((images, read_sound(path)))
    kinds, lists = {}, {"train": [], "test": []}
    for number in range(films):
        name, kind = f"{number % len(sources):04}/{number:05}", KINDS[number % len(KINDS)]
        images, sound = sources[number % len(sources)]
        first = FRAMES * (number // len(sources)) % (len(images) - FRAMES)
        images = [image.copy() for image in islice(images, first, first + FRAMES)]
        sound = sound[first * SAMPLE_RATE // 25 :][: FRAMES * SAMPLE_RATE // 25]
        if kind == "faceless":
            images = [np.full_like(image, 90) for image in images]
        if kind == "turned":
            images[FRAMES // 2 :] = [image[::-1] for image in images[FRAMES // 2 :]]
        path = folder / "main" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_film(path, images, np.zeros_like(sound) if kind == "silent" else sound)
        if kind == "broken":
            path.write_bytes(path.read_bytes()[: 2000 * (number // 10)])
        if kind == "mute":
            without_sound(path, path.with_suffix(".mute.mp4")).replace(path)
        path.with_suffix(".txt").write_text("Text:  GOOD EVENING\nConf:  4\n")
        kinds[name] = kind
        lists["test" if number % 7 in (2, 5) else "train"].append(name)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name} NF\n" for name in names))
    return kinds


def make_networks(folder: Path) -> None:
    """base.pt, an AV-HuBERT of 64 features in fairseq's older format, and vqvae, a small VQ autoencoder of factor 4."""
    torch.manual_seed(0)
    write(folder / "base.pt", {"model": audio_path(64, 64, 2) | beside_audio(64)}, legacy=True)
    small_vq().save_pretrained(folder / "vqvae")


def run(processes: int, module: str, *arguments: object) -> None:
    """`python -m module arguments` in this process, or that many by torchrun. Raises SystemExit where one fails."""
    given = [str(argument) for argument in arguments]
    launched = "python" if processes == 1 else f"torchrun --nproc_per_node {processes}"
    print("$", launched, "-m", module, *given, flush=True)
    if processes == 1:
        before, sys.argv = sys.argv, [module, *given]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise
        finally:
            sys.argv = before
        return
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run([*launch, "-m", module, *given], cwd=ROOT, env=os.environ | {"ACCELERATE_USE_CPU": "true"})
    if done.returncode:
        raise SystemExit(f"{module} ended with {done.returncode}")


def dry_run(folder: Path, films: int = 50, processes: int = 2, steps: int = 4) -> str:
    """The whole line; returns Table 1 as Markdown."""
    lrs2, prepared, out, few = folder / "LRS2", folder / "prepared", folder / "run", folder / "few"
    make_corpus(lrs2, films)
    make_networks(folder)
    lists, vae = [lrs2 / "train.txt", lrs2 / "test.txt"], ("--vae", folder / "vqvae")
    run(processes, "syncdiff.training.prepare_lrs", lrs2, prepared, "--list", *lists, "--boxes", "mediapipe", *vae)
    training = ("--list", lists[0], "--workers", 1, "--rows", 2)
    speech = ("--speech", folder / "base.pt", *vae)
    run(processes, "syncdiff.training.train", prepared, out, "--preset", "paper-tiny", *training, *speech)
    teacher = ("--teacher", out / "pipeline")
    run(processes, "syncdiff.training.train", prepared, few, "--preset", "paper-tiny-few", *training, *teacher)
    film = next(path for path in sorted(lrs2.rglob("*.mp4")) if path.stem == "00000")
    weights = ("--weights", out / "pipeline")
    run(1, "syncdiff", "sync", film, film, folder / "synced.mp4", *weights, "--steps", steps)
    evaluation = ("--protocol", "paper", "--list", lists[1], *weights, "--out", folder / "evaluation")
    voices = ("--steps", steps, "--voices", "foreign", "silence")
    run(processes, "syncdiff.evaluation.evaluate", prepared, *evaluation, *voices)
    run(1, "syncdiff.evaluation.evaluate", prepared, *evaluation, "--table", 4)
    return (folder / "evaluation" / "table.md").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(dry_run(arguments.folder.resolve(), arguments.films, arguments.processes))


if __name__ == "__main__":
    main()
