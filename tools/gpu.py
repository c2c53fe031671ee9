"""Train on a GPU that is lent for minutes: pack the data, run everything there, put the results together.

    python tools/gpu.py pack DATA PACKS [--teacher whisper-base.bin] [--size 12] [--folders N]
    python tools/gpu.py run PACK ... --out RESULTS [--work FOLDER] [--minutes 8.5]
    python tools/gpu.py join RESULTS FOLDER

pack     puts prepared clips (see `syncdiff.training.prepare`) into folders of at most --size MiB, PACKS/pack-01 and on;
         cut off, it goes on. The order is such that any first folders are a fair choice: sets by their shares in
         sets.toml, people in turn. Crops travel as they are, sound as Opus at 24 kbit/s, and of the teacher only what
         is read.
run      unpacks into WORK/data what is not there yet, proves the GPU (tests marked gpu, times), trains the speech
         encoder, then the denoiser, and writes all that came of it into RESULTS, in pieces under 16 MiB. It stops after
         --minutes; the same command goes on from WORK, with more packs if more are given. A pack that was unpacked
         before need not be given again.
join     puts the pieces together: proof.json, logs, contact sheets, the weights of both networks.

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
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import without_av  # noqa: F401 -- before the package, whose modules import PyAV

# isort: split
from syncdiff.audio import SAMPLE_RATE
from syncdiff.devices import best_device
from syncdiff.diffusion import sampler
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.errors import InputError
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.paper import PaperDenoiser, Priors
from syncdiff.training import distill, train
from syncdiff.training.data import people_in
from syncdiff.training.sets import DENOISER_SHARE, SPEECH_SHARE
from syncdiff.training.teacher import first_layers
from syncdiff.training.train_paper import PAPER_PRESETS
from syncdiff.weights.folders import COMPACT

MIB = 2**20
PIECE = 2 * MIB  # of the teacher, so that it fits into what a folder has left
RESULT = 15 * MIB  # of the results
QUALITY = 0.93  # soundfile's compression level of Opus: 24 kbit/s
TEACHER = "teacher.bin"
SETS = {name: DENOISER_SHARE.get(name, 0) + SPEECH_SHARE.get(name, 0) for name in DENOISER_SHARE | SPEECH_SHARE}
REPEATS = 10  # of what is timed, after a first that is not counted

Item = tuple[str, Callable[[], bytes]]  # a file's name in a pack and a function that makes it


# --- packing


def opus(sound: np.ndarray) -> bytes:
    """Sound [N] int16 at 16 kHz as Ogg Opus."""
    out = io.BytesIO()
    soundfile.write(out, sound, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=QUALITY)
    return out.getvalue()


def _record(path: Path) -> Iterator[Item]:
    """The files of one prepared clip; its record comes last."""
    film = path.with_suffix(".mp4")
    if film.exists():
        yield film.name, film.read_bytes
    with np.load(path) as file:
        arrays = {key: file[key] for key in file}
    sound, rest = arrays.pop("sound"), io.BytesIO()
    yield path.with_suffix(".ogg").name, lambda: opus(sound)
    np.savez_compressed(rest, length=len(sound), **arrays)
    yield path.name, rest.getvalue


def clips(data: Path) -> Iterator[Path]:
    """Records in the order of packing: the set that is furthest behind its share comes next, its people in turn."""
    waiting = {}
    for name in SETS:
        people: dict[str, list[Path]] = {}
        for path, who in people_in(data / name).items():
            people.setdefault(who, []).append(path)
        turns = chain.from_iterable(zip_longest(*people.values()))
        waiting[name] = [path for path in turns if path]
    packed = dict.fromkeys(waiting, 0.0)
    while any(waiting.values()):
        name = min((name for name in waiting if waiting[name]), key=lambda name: packed[name] / SETS[name])
        path = waiting[name].pop(0)
        packed[name] += path.stat().st_size
        yield path


def items(data: Path, teacher: Path | None) -> Iterator[list[Item]]:
    """Everything to be packed; files of one list go into one folder."""
    if teacher:
        parts = pieces(first_layers(teacher), TEACHER, PIECE)
        yield from ([(name, lambda part=part: part)] for name, part in parts.items())
    for path in sorted(data.glob("*/identities.tsv")):
        if path.parent.name in SETS:
            yield [(f"{path.parent.name}/{path.name}", path.read_bytes)]
    for path in clips(data):
        yield [(f"{path.parent.name}/{name}", make) for name, make in _record(path)]


def pack(data: Path, out: Path, teacher: Path | None = None, size: float = 12.0, folders: float = math.inf) -> int:
    """Fill OUT/pack-01, OUT/pack-02, ... with at most `size` MiB each; returns how many there are.

    A folder is written whole or not at all, and one that is there is kept.
    Raises InputError for data without clips, and for a clip that is larger than a folder.
    """
    done, packed = set(), sorted(out.glob("pack-*/data.zip"))
    for path in packed:
        with zipfile.ZipFile(path) as file:
            done |= set(file.namelist())
    number, room, filling, found = len(packed), 0.0, None, False
    for files in items(data, teacher):
        found = True
        if files[-1][0] in done:
            continue
        made = [(name, make()) for name, make in files]
        need = sum(len(content) + 2 * len(name) + 200 for name, content in made)  # with zip's own headers
        if need > size * MIB - 200:
            raise InputError(f"{made[-1][0]} takes {need / MIB:.1f} MiB: give --size of more than that.")
        if need > room:
            _close(filling, out, number)
            if number == folders:
                return number
            out.mkdir(parents=True, exist_ok=True)
            number, room, filling = number + 1, size * MIB - 200, zipfile.ZipFile(out / "open.partial", "w")
        for name, content in made:
            filling.writestr(zipfile.ZipInfo(name), content)
        room -= need
    if not found:
        known = ", ".join(SETS)
        raise InputError(f"{data} holds no prepared clips of {known}: make them with syncdiff.training.prepare.")
    _close(filling, out, number)
    return number


def _close(pack: zipfile.ZipFile | None, out: Path, number: int) -> None:
    if pack:
        pack.close()
        (out / f"pack-{number:02d}").mkdir(exist_ok=True)
        (out / "open.partial").rename(out / f"pack-{number:02d}" / "data.zip")


def unpack(packs: list[Path], data: Path) -> None:
    """Bring packs back into prepared data; what is there already stays. Raises InputError for what is no pack."""
    for path in packs:
        try:
            with zipfile.ZipFile(path / "data.zip") as file:
                for name in file.namelist():
                    _restore(file, name, data)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no whole pack: give a folder that pack wrote. ({error})") from error
    joined(data, TEACHER)


def _restore(file: zipfile.ZipFile, name: str, data: Path) -> None:
    target = data / name
    if target.exists() or target.suffix == ".ogg":
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = file.read(name)
    if target.suffix == ".npz":
        with np.load(io.BytesIO(content)) as packed:
            arrays = {key: packed[key] for key in packed}
        sound, _ = soundfile.read(io.BytesIO(file.read(f"{name[:-4]}.ogg")), dtype="int16")
        record = io.BytesIO()
        np.savez(record, sound=sound[: int(arrays.pop("length"))], **arrays)
        content = record.getvalue()
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(content)
    partial.rename(target)


def pieces(content: bytes, name: str, size: int) -> dict[str, bytes]:
    """A file in parts called NAME.1of3 and so on."""
    count = max(1, math.ceil(len(content) / size))
    return {f"{name}.{i + 1}of{count}": content[i * size : (i + 1) * size] for i in range(count)}


def joined(folder: Path, name: str) -> Path | None:
    """FOLDER/NAME put together of its parts; None as long as one is missing."""
    target = folder / name
    parts = {int(path.suffix[1:].split("of")[0]): path for path in folder.glob(f"{name}.*of*")}
    if parts and len(parts) == int(parts[1].suffix.split("of")[1] if 1 in parts else 0):
        target.write_bytes(b"".join(parts[i].read_bytes() for i in sorted(parts)))
    return target if target.exists() else None


# --- the run there


def gpu_tests() -> str:
    """The last line of the tests marked gpu."""
    if not torch.cuda.is_available():
        return "not run: no CUDA GPU"
    root = Path(__file__).resolve().parent.parent
    code = "import sys, tools.gpu, pytest; sys.exit(pytest.main(['-q', '-m', 'gpu', 'tests/test_gpu.py']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


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
def proof(paper: str) -> dict[str, object]:
    """The tests, and seconds of both networks on random input: the compact one's sampler a frame, two steps, so many
    frames at once; the paper's U-Net a step."""
    place = best_device()
    name = torch.cuda.get_device_name() if place.type == "cuda" else "cpu"
    found: dict[str, object] = {"device": name, "torch": torch.__version__, "tests": gpu_tests()}
    compact = Denoiser.from_pretrained(COMPACT / "denoiser").to(place).eval()
    schedule = compact_schedule()
    for frames in (1, 32):
        shape = (frames, pixel_codec.CHANNELS, pixel_codec.HEIGHT, pixel_codec.WIDTH)
        noise, *pictures, mask = (torch.randn(shape, device=place) for _ in range(5))
        speech = torch.randn(frames, compact.config.tokens, compact.config.speech_width, device=place)
        told = Conditioning(*pictures, speech, torch.randn(frames, 2, SHAPE, device=place), mask)
        for half, precision in precisions().items():
            with precision:
                seconds = timed(lambda: list(sampler.sample(lambda x, t: compact(x, t, told), noise, schedule, 2)))  # noqa: B023
            found[f"compact, seconds a frame, {frames} at once, {half}"] = seconds / frames
    net = PaperDenoiser(**PAPER_PRESETS[paper].denoiser).to(place).eval()
    noise, masked, identity = (torch.randn(1, 3, 64, 64, device=place) for _ in range(3))
    pose = torch.randn(1, 3 * net.config.previous, 64, 64, device=place)
    told = Priors(masked, identity, pose, torch.randn(1, net.config.tokens, net.config.speech_width, device=place))
    t = torch.tensor([500], device=place)
    for half, precision in precisions().items():
        with precision:
            found[f"paper, seconds a step, {half}"] = timed(lambda: net(noise, t, told))
    if place.type == "cuda" and find_spec("xformers"):
        try:
            net.unet.enable_xformers_memory_efficient_attention()
            with precisions()["bf16"]:
                found["paper, seconds a step, bf16, xformers"] = timed(lambda: net(noise, t, told))
        except Exception as error:  # noqa: BLE001 -- a build for another torch raises anything, and the rest goes on
            found["xformers"] = f"{type(error).__name__}: {error}"
    return found


def run(args: argparse.Namespace) -> dict[str, object]:
    """What is not done yet of: unpack, proof, speech encoder, denoiser. Returns what RESULTS/results.json says."""
    until, work = time.time() + 60 * args.minutes, args.work
    data, speech, net, told = (work / name for name in ("data", "speech", "net", "results.json"))
    unpack(args.packs, data)
    found = json.loads(told.read_text()) if told.exists() else proof(args.paper)
    told.write_text(json.dumps(found))
    sets = {name for name in SETS if (data / name).is_dir()}
    if not (speech / "done").exists():
        given = {"hours": args.speech_minutes / 60, "until": until, "workers": args.workers}
        begin = args.start and args.start / "speech"
        distill.train(data, speech, data / TEACHER, args.speech_steps, begin, **given)
        if time.time() < until:
            (speech / "done").touch()
    if time.time() < until:
        preset = train.PRESETS[args.preset]
        share = {name: part for name, part in preset.share.items() if name in sets}
        share = {name: part / sum(share.values()) for name, part in share.items()}
        preset = replace(preset, share=share, workers=args.workers)
        encoder = SpeechEncoder.from_pretrained(speech / "speech").eval()
        begin = args.start and args.start / "denoiser"
        train.train(data, net, encoder, preset, args.denoiser_minutes / 60, start=begin, until=until)
    for name, folder in (("speech", speech), ("denoiser", net)):
        if (folder / "state.pt").exists():
            counted = torch.load(folder / "state.pt", weights_only=True, mmap=True, map_location="cpu")
            found[f"{name}, updates"], found[f"{name}, samples"] = counted["update"], counted["samples"]
            found[f"{name}, samples a second"] = counted["samples"] / counted["elapsed"]
    told.write_text(json.dumps(found, indent=1))
    print(told.read_text(), flush=True)
    hand_back(work, args.out)
    return found


def hand_back(work: Path, out: Path) -> None:
    """RESULTS/results.json, and beside it the pieces of a tar file: what `export` takes, the weights in half precision,
    and the logs and the last contact sheet."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text((work / "results.json").read_text())
    kept = [*work.glob("*/log.csv"), *sorted(work.glob("net/sheet-*.png"))[-1:]]
    for kind, folder in ((SpeechEncoder, work / "speech" / "speech"), (Denoiser, work / "net" / "denoiser")):
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
    for name, part in pieces(content.getvalue(), "results.tar", RESULT).items():
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
    packing.add_argument("--size", type=float, default=12.0, help="MiB of a folder at the most (default 12)")
    packing.add_argument("--folders", type=int, default=math.inf, help="how many at the most (default: all)")
    running = verbs.add_parser("run", help="everything on the machine with the GPU")
    running.add_argument("packs", type=Path, nargs="*")
    running.add_argument("--out", type=Path, required=True, metavar="RESULTS")
    place = Path(tempfile.gettempdir()) / "syncdiff-gpu"
    running.add_argument("--work", type=Path, default=place, help="where it lives between calls")
    running.add_argument("--minutes", type=float, default=8.5, help="of this call")
    running.add_argument("--speech-minutes", type=float, default=3.0, help="of the speech encoder, in all calls")
    running.add_argument("--denoiser-minutes", type=float, default=6.0, help="of the denoiser, in all calls")
    running.add_argument("--speech-steps", type=int, default=20_000, help="at the most")
    running.add_argument("--start", type=Path, metavar="WEIGHTS", help="weights to begin with: assets/weights")
    running.add_argument("--preset", choices=train.PRESETS, default="compact-gpu")
    running.add_argument("--paper", choices=PAPER_PRESETS, default="paper", help="whose U-Net is timed")
    running.add_argument("--workers", type=int, default=12, help="threads that make batches")
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
