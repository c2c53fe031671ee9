"""Train on a GPU that is lent for minutes: pack the data, run everything there, put the results together.

    python tools/gpu.py pack DATA PACKS [--teacher whisper-base.bin] [--size 15] [--folders N]
    python tools/gpu.py run PACK ... --out RESULTS [--work FOLDER] [--minutes 8.5]
    python tools/gpu.py join RESULTS FOLDER

pack     puts prepared clips (see `syncdiff.training.prepare`) into folders of at most --size MiB, PACKS/pack-01 and on;
         cut off, it goes on. The order is such that any first folders are a fair choice: sets by their shares in
         sets.toml, people in turn. Crops travel as they are, sound as Opus at 24 kbit/s, and of the teacher only what
         is read.
run      unpacks into WORK/data what is not there yet, proves the GPU (tests marked gpu, times), trains the speech
         encoder where a teacher is among the packs, then the denoiser, then rows of `training.rows` where
         --ablation names some, and writes all that came of it into RESULTS, in pieces under 16 MiB, after every step. A
         step that fails is listed there, and the next one is tried. It stops after --minutes; the same command goes on
         from WORK, with more packs if more are given. A pack that was unpacked before need not be given again.
join     puts the pieces together: results.json, logs, contact sheets, the weights of what was trained.

The machine needs torch, diffusers, accelerate, OpenCV and soundfile; PyAV and mediapipe are not called there.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import without_av  # noqa: F401 -- before the package, whose modules import PyAV

# isort: split
from syncdiff.devices import best_device
from syncdiff.diffusion import sampler
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.errors import InputError
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.paper.denoiser import PaperDenoiser, Priors
from syncdiff.training import distill, rows, train
from syncdiff.training.train_paper import PAPER_PRESETS
from syncdiff.weights.folders import COMPACT
from tools.packs import MIB, TEACHER, joined, pack, pieces, unpack

RESULT_PIECE = 15 * MIB  # of the results
REPEATS = 10  # of what is timed, after a first that is not counted
MIN_SECONDS_LEFT = 60  # of a call for a training to begin: its preparation takes a minute


class Results:
    """What RESULTS/results.json says, written again after every step: a call that is cut off has handed back the rest.

    A step that fails is listed there, and the next one is tried: the GPU may not be lent again.
    """

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out, self.path = work, out, work / "results.json"
        self.found: dict[str, object] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def step(self, name: str, call: Callable[[], dict[str, object]]) -> None:
        """Do one step; `call` returns what is noted of it."""
        print(f"--- {name}", flush=True)
        began = time.perf_counter()
        try:
            self.found |= call()
            self.found.pop(f"{name}, failed", None)
        except Exception:  # noqa: BLE001 -- whatever it is, what was done before is handed back
            self.found[f"{name}, failed"] = traceback.format_exc()[-2000:]
            traceback.print_exc()
        self.found[f"{name}, seconds of the last call"] = round(time.perf_counter() - began, 1)
        self.path.write_text(json.dumps(self.found, indent=1))
        hand_back(self.work, self.out)


def gpu_tests() -> dict[str, object]:
    """The last line of the tests marked gpu. Without the project's options, as the machine may have another pytest."""
    if not torch.cuda.is_available():
        return {"tests": "not run: no CUDA GPU"}
    root = Path(__file__).resolve().parent.parent
    given = ["-q", "-o", "addopts=--import-mode=importlib", "-m", "gpu", "tests/test_gpu.py"]
    code = f"import sys, tools.gpu, pytest; sys.exit(pytest.main({given}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    return {"tests": (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]}


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""

    def wait() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    call()
    began = wait()
    for _ in range(REPEATS):
        call()
    return (wait() - began) / REPEATS


def precisions() -> dict[str, torch.autocast]:
    """Single precision, and the half ones where there is a GPU."""
    kind = best_device().type
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16} if kind == "cuda" else {}
    return {"fp32": torch.autocast(kind, enabled=False)} | {n: torch.autocast(kind, half) for n, half in halves.items()}


@torch.inference_mode()
def compact_times() -> dict[str, object]:
    """Seconds a frame of the compact sampler on random input, two steps, 1 or 32 frames at once."""
    device, times = best_device(), {}
    net = Denoiser.from_pretrained(COMPACT / "denoiser").to(device).eval()
    schedule = compact_schedule()
    for frames in (1, 32):
        shape = (frames, *pixel_codec.LATENT_SHAPE)
        noise, *pictures, mask = (torch.randn(shape, device=device) for _ in range(5))
        speech = torch.randn(frames, net.config.tokens, net.config.speech_width, device=device)
        conditioning = Conditioning(*pictures, speech, torch.randn(frames, 2, SHAPE, device=device), mask)
        for half, precision in precisions().items():
            with precision:
                seconds = timed(lambda: list(sampler.sample(lambda x, t: net(x, t, conditioning), noise, schedule, 2)))  # noqa: B023
            times[f"compact, seconds a frame, {frames} at once, {half}"] = seconds / frames
    return times


@torch.inference_mode()
def paper_times(preset: str) -> dict[str, object]:
    """Seconds a step of the paper's U-Net on random input, by precision and attention."""
    device, times = best_device(), {}
    net = PaperDenoiser(**PAPER_PRESETS[preset].denoiser).to(device).eval()
    noise, masked, identity = (torch.randn(1, 3, 64, 64, device=device) for _ in range(3))
    pose = torch.randn(1, 3 * net.config.previous, 64, 64, device=device)
    priors = Priors(masked, identity, pose, torch.randn(1, net.config.tokens, net.config.speech_width, device=device))
    t = torch.tensor([500], device=device)
    for half, precision in precisions().items():
        with precision:
            times[f"paper, seconds a step, {half}"] = timed(lambda: net(noise, t, priors))
    if device.type == "cuda" and find_spec("xformers"):
        try:
            net.unet.enable_xformers_memory_efficient_attention()
            with precisions()["bf16"]:
                times["paper, seconds a step, bf16, xformers"] = timed(lambda: net(noise, t, priors))
        except Exception as error:  # noqa: BLE001 -- a build for another torch raises anything
            times["xformers"] = f"{type(error).__name__}: {error}"
    return times


def counters(name: str, folder: Path) -> dict[str, object]:
    """Updates, samples and speed of a run, from its state."""
    state = torch.load(folder / "state.pt", weights_only=True, mmap=True, map_location="cpu")
    counts: dict[str, object] = {f"{name}, {key}": state[key] for key in ("update", "samples")}
    return counts | {f"{name}, samples a second": round(state["samples"] / state["elapsed"], 1)}


def train_speech(args: argparse.Namespace, until: float) -> dict[str, object]:
    """The speech encoder, until its minutes are over or the call's are."""
    out, begin = args.work / "speech", args.start and args.start / "speech"
    given = {"hours": args.speech_minutes / 60, "until": until, "workers": max(1, args.workers)}
    distill.train(args.work / "data", out, args.work / "data" / TEACHER, args.speech_steps, begin, **given)
    if time.time() < until:
        (out / "done").touch()
    return counters("speech", out)


def train_denoiser(args: argparse.Namespace, until: float) -> dict[str, object]:
    """The denoiser, on the encoder that was trained here, or else on the one it begins with."""
    data, out, own = (args.work / name for name in ("data", "net", "speech/speech"))
    preset = train.PRESETS[args.preset]
    preset = replace(preset, share=available(data, preset.share), workers=args.workers)
    encoder = SpeechEncoder.from_pretrained(own if own.is_dir() else (args.start or COMPACT) / "speech")
    begin = args.start and args.start / "denoiser"
    train.train(data, out, encoder.float().eval(), preset, args.denoiser_minutes / 60, start=begin, until=until)
    return counters("denoiser", out)


def train_rows(args: argparse.Namespace, until: float) -> dict[str, object]:
    """Rows of the ablation, each from nothing, with the batches of a GPU; they are judged at home."""
    data, out = args.work / "data", args.work / "ablation"
    encoder = SpeechEncoder.from_pretrained((args.start or COMPACT) / "speech").float().eval()
    usual, presets = train.PRESETS[args.preset], {}
    batch = usual.batch // 2
    for name in args.ablation:
        preset = rows.ROWS[name].preset
        config = replace(preset.config, lr=1e-3, chained=preset.config.chained * batch // preset.batch)
        presets[name] = replace(
            preset, batch=batch, updates=args.ablation_updates, helper_updates=usual.helper_updates,
            workers=args.workers, share=available(data, preset.share), config=config,
        )  # fmt: skip
    encoders = {"facial-informative": encoder, "log mel": rows.LogMel()}
    rows.train_rows(data, out, encoders, presets, until)
    return {k: v for name in args.ablation for k, v in counters(name, rows.folder_of(name, out)).items()}


def available(data: Path, share: dict[str, float]) -> dict[str, float]:
    """The shares of those sets that are in the data, scaled to sum to 1."""
    share = {name: part for name, part in share.items() if any((data / name).glob("*.npz"))}
    return {name: part / sum(share.values()) for name, part in share.items()}


def run(args: argparse.Namespace) -> None:
    """What is not done yet of: unpack, proof, speech encoder (where the packs have a teacher), denoiser, ablation."""
    until, work = time.time() + 60 * args.minutes, args.work
    unpack(args.packs, work / "data")
    results = Results(work, args.out)

    def time_left() -> bool:
        """Whether a step can get beyond its preparation; else it waits for the next call."""
        return until - time.time() > MIN_SECONDS_LEFT

    if "device" not in results.found:
        place = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        results.found |= {"device": place, "torch": torch.__version__}
        results.step("tests", gpu_tests)
        results.step("compact", compact_times)
        results.step("paper", lambda: paper_times(args.paper))
    begun = (work / "speech" / "done").exists() or (work / "net" / "state.pt").exists()
    if (work / "data" / TEACHER).exists() and not begun and time_left():
        results.step("speech", lambda: train_speech(args, until))
    if args.denoiser_minutes and time_left():
        results.step("denoiser", lambda: train_denoiser(args, until))
    if args.ablation and time_left():
        results.step("ablation", lambda: train_rows(args, until))
    print(results.path.read_text(), flush=True)


def hand_back(work: Path, out: Path) -> None:
    """RESULTS/results.json, and beside it the pieces of a tar file: what `export` takes, the weights in half precision,
    and the logs and the last contact sheet."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text((work / "results.json").read_text())
    kept = [*work.glob("*/log.csv"), *work.glob("ablation/*/log.csv"), *sorted(work.glob("net/sheet-*.png"))[-1:]]
    denoisers = [work / "net" / "denoiser", *work.glob("ablation/*/denoiser")]
    for kind, folder in ((SpeechEncoder, work / "speech" / "speech"), *((Denoiser, folder) for folder in denoisers)):
        if folder.exists():
            half, counts = work / "half" / folder.relative_to(work), folder.parent / "state.pt"
            kind.from_pretrained(folder).half().save_pretrained(half)
            state = torch.load(counts, weights_only=True, mmap=True, map_location="cpu")
            torch.save({key: state[key] for key in ("update", "samples", "elapsed")}, half.parent / "state.pt")
            kept += [*half.iterdir(), half.parent / "state.pt"]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in kept:
            inside = path.relative_to(work / "half" if work / "half" in path.parents else work)
            tar.add(path, str(inside))
    for old in out.glob("results.tar.*of*"):  # there may have been fewer pieces
        old.unlink()
    for name, part in pieces(content.getvalue(), "results.tar", RESULT_PIECE).items():
        (out / name).write_bytes(part)


def join(parts: Path, folder: Path) -> None:
    """The pieces in RESULTS, put together and unpacked. Raises InputError where one is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*parts.glob("results.tar.*of*"), parts / "results.json"):
        if path.exists():
            (folder / path.name).write_bytes(path.read_bytes())
    whole = joined(folder, "results.tar")
    for path in folder.glob("results.tar.*of*"):
        path.unlink()
    if whole is None:
        raise InputError(f"{parts} lacks pieces of results.tar: give the folder with all that run wrote.")
    with tarfile.open(whole) as tar:
        tar.extractall(folder, filter="data")
    whole.unlink()


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="prepared data into folders of a given size")
    packing.add_argument("data", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("--teacher", type=Path, metavar="MODEL.bin", help="Whisper base, as distill takes it")
    packing.add_argument("--size", type=float, default=15.0, help="MiB of a folder at the most (default 15)")
    packing.add_argument("--folders", type=int, default=math.inf, help="how many at the most (default: all)")
    running = verbs.add_parser("run", help="everything on the machine with the GPU")
    running.add_argument("packs", type=Path, nargs="*")
    running.add_argument("--out", type=Path, required=True, metavar="RESULTS")
    place = Path(tempfile.gettempdir()) / "syncdiff-gpu"
    running.add_argument("--work", type=Path, default=place, help="where it lives between calls")
    running.add_argument("--minutes", type=float, default=8.5, help="of this call")
    running.add_argument("--speech-minutes", type=float, default=3.0, help="of the speech encoder, in all calls")
    running.add_argument("--denoiser-minutes", type=float, default=5.0, help="of the denoiser, in all calls; 0: none")
    running.add_argument("--speech-steps", type=int, default=20_000, help="at the most")
    running.add_argument("--start", type=Path, metavar="WEIGHTS", help="weights to begin with: assets/weights")
    running.add_argument("--preset", choices=train.PRESETS, default="compact-gpu")
    running.add_argument("--paper", choices=PAPER_PRESETS, default="paper", help="whose U-Net is timed")
    running.add_argument("--workers", type=int, default=16, help="processes that make batches")
    running.add_argument("--ablation", nargs="+", choices=rows.ROWS, default=[], help="rows to train")
    running.add_argument("--ablation-updates", type=int, default=1000, help="of each row")
    joining = verbs.add_parser("join", help="the pieces of the results")
    joining.add_argument("results", type=Path)
    joining.add_argument("folder", type=Path)
    args = parser.parse_args(given)
    try:
        if args.verb == "pack":
            count = pack(args.data, args.out, args.teacher, args.size, args.folders)
            print(f"{count} folders in {args.out}")
        elif args.verb == "run":
            run(args)
        else:
            join(args.results, args.folder)
    except InputError as sentence:
        sys.exit(str(sentence))


if __name__ == "__main__":
    main()
