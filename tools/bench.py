"""`make bench`: what a job costs on this machine. Prints; asserts nothing (timings are no tests).

A shipped example on a canvas at 25 fps goes through `python -m syncdiff sync`, each time in a fresh process as a
visitor's clip would: 5 s of 1280x720 for the seconds of every stage, the same beside a process that burns one core,
5 s of 1920x1080, then 20 s and 5 min for the peak memory. Beside them stand the network alone against the best that a
plain matrix product reaches here, and the seconds until the command line and the page begin. Machines differ and are
busy, so every time also stands as a multiple of the clip's length and of a fixed piece of work (convolutions), timed in
the same run.
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "assets" / "examples"
RATE = 25
HD, FULL_HD = (1280, 720), (1920, 1080)  # width, height
VOICE_RATE = 44_100
VIDEOS = {".mp4", ".mov", ".webm", ".mkv"}
VOICES = {".wav", ".flac", ".mp3", ".ogg", ".m4a"}


def example(endings: set[str]) -> Path:
    """The first shipped example whose name ends so."""
    found = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in endings)
    if not found:
        sys.exit(f"bench: {EXAMPLES} holds no file ending in {', '.join(sorted(endings))}")
    return found[0]


def on_canvas(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture [H,W,3] at three quarters of the height, amid its own blurred enlargement, of a size (w, h)."""
    canvas = cv2.GaussianBlur(cv2.resize(image, size), (0, 0), 12)
    height = size[1] * 3 // 4
    width = min(size[0], round(image.shape[1] * height / image.shape[0]))
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return canvas


def write_cycle(source: Path, path: Path, size: tuple[int, int]) -> None:
    """Up to five seconds of `source` there and back on the canvas: joins its own beginning, so it can be repeated."""
    with av.open(str(source)) as file:
        shown = zip(range(5 * RATE), file.decode(video=0), strict=False)
        images = [frame.to_ndarray(format="rgb24") for _, frame in shown]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for image in images + images[::-1]:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(on_canvas(image, size), format="rgb24")))
        file.mux(stream.encode(None))


def samples_of(path: Path) -> np.ndarray:
    """Sound of a file -> [N] int16, one channel at VOICE_RATE."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=VOICE_RATE)
    with av.open(str(path)) as file:
        frames = [piece for frame in file.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def write_voice(samples: np.ndarray, seconds: float, path: Path) -> None:
    """The voice repeated to exactly this length, as wav."""
    samples = np.resize(samples, round(seconds * VOICE_RATE))[None]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=VOICE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = VOICE_RATE
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def write_clip(cycle: Path, seconds: float, path: Path) -> None:
    """The cycle repeated to this length by copying packets: five minutes cost no five minutes of encoding."""
    with av.open(str(cycle)) as file:
        template = file.streams.video[0]
        packets = [(bytes(packet), packet.is_keyframe) for packet in file.demux(template) if packet.size]
        with av.open(str(path), "w") as out:
            stream = out.add_stream_from_template(template)
            for index in range(round(seconds * RATE)):
                data, is_keyframe = packets[index % len(packets)]
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, RATE)
                packet.pts = packet.dts = index
                packet.duration, packet.is_keyframe = 1, is_keyframe
                out.mux(packet)


def calibrate() -> float:
    """Seconds of one fixed piece of work on all cores: 20 convolutions, 193 GFLOP in float32; the best of three."""
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    images = torch.zeros(8, 64, 128, 128)
    return best_of(lambda: [layer(images) for _ in range(20)], 3)


class MemoryWatch(threading.Thread):
    """Peak of the summed resident memory of a process and its children, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.peak_mib = 0.0

    def run(self) -> None:
        try:
            while self.root.is_running() and self.root.status() != psutil.STATUS_ZOMBIE:
                family = [self.root, *self.root.children(recursive=True)]
                self.peak_mib = max(self.peak_mib, sum(map(resident_mib, family)))
                time.sleep(0.1)
        except psutil.NoSuchProcess:
            pass


def resident_mib(process: psutil.Process) -> float:
    """Resident memory now; nothing for a process that has just ended."""
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def cpu_seconds() -> float:
    """Processor seconds of all ended child processes so far, theirs included: what a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def journey(face: Path, voice: Path, out: Path, *options: str) -> dict:
    """One `syncdiff sync` in a process of its own: its report, with the whole command's seconds and watched memory."""
    command = [sys.executable, "-m", "syncdiff", "sync", str(face), str(voice), str(out), "--json", *options]
    start, spent = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = MemoryWatch(process.pid)
    watch.start()
    printed, complaints = process.communicate()
    if process.returncode:
        sys.exit(f"{complaints}\nbench: {' '.join(command)} ended with {process.returncode}")
    elapsed = time.perf_counter() - start
    watch.join()
    seen = {"command_s": elapsed, "cpu_s": cpu_seconds() - spent, "watched_mib": watch.peak_mib}
    return json.loads(printed) | seen


def print_times(report: dict, seconds: float, unit: float) -> None:
    """The table of stages; `unit` is the calibration's seconds."""
    inside, whole = sum(report["seconds"].values()), report["command_s"]
    totals = [("the journey", inside), ("start: imports, weights", whole - inside), ("whole command", whole)]
    totals += [("  its processor seconds", report["cpu_s"])]
    print(f"\n{'stage':26}{'seconds':>9}{'x clip':>9}{'x calibration':>15}")
    for name, spent in [*report["seconds"].items(), *totals]:
        print(f"{name:26}{spent:9.2f}{spent / seconds:9.2f}{spent / unit:15.2f}")


def network_alone() -> None:
    """One evaluation of the shipped denoiser over a lane's batch, against the best plain matrix product."""
    from torch.utils.flop_counter import FlopCounterMode

    from syncdiff.devices import autocast
    from syncdiff.diffusion.sampler import LANES
    from syncdiff.models import pixel_codec
    from syncdiff.models.denoiser import Conditioning
    from syncdiff.pipeline import SyncDiffPipeline

    net = SyncDiffPipeline.from_pretrained().denoiser
    shape = (LANES, *pixel_codec.LATENT_SHAPE)
    pictures = [torch.zeros(shape).to(memory_format=torch.channels_last) for _ in range(5)]
    speech = torch.zeros(LANES, net.config.tokens, net.config.speech_width)
    conditioning = Conditioning(*pictures[1:4], speech, torch.zeros(LANES, 2, 5), pictures[4])
    step, a = torch.full((LANES,), 999), torch.randn(2048, 2048)
    with torch.inference_mode(), autocast(torch.device("cpu")):
        with FlopCounterMode(display=False) as counted:
            net(pictures[0], step, conditioning)
        took = best_of(lambda: net(pictures[0], step, conditioning), 8)
        product = best_of(lambda: a @ a, 20)
    macs = counted.get_total_flops() / 2 / LANES / 1e9
    reached, best = 2 * macs * LANES / took, 2 * 2048**3 / product / 1e9
    print(
        f"network alone: {macs:.2f} GMAC and {1000 * took / LANES:.1f} ms a frame, {reached:.0f} of {best:.0f} GFLOP/s"
    )


def best_of(work: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of several runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def print_start() -> None:
    """Seconds until the command line says its first sentence, and until the page answers."""
    first = [sys.executable, "-m", "syncdiff", "sync", "none.mp4", "none.wav", "none-out.mp4"]
    for name, begin in (
        ("command line, to its first sentence (a face file that is not there)",
         partial(subprocess.run, first, cwd=ROOT, capture_output=True)),
        ("page, until it answers", open_page),
    ):  # fmt: skip
        spent, runs = cpu_seconds(), 3
        took = best_of(begin, runs)
        print(f"start of the {name}: {took:.2f} s; {(cpu_seconds() - spent) / runs:.2f} s of CPU")


def open_page() -> None:
    """Start `app.py`, wait until it answers, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment, quiet = os.environ | {"GRADIO_SERVER_PORT": str(port)}, subprocess.DEVNULL
    command = [sys.executable, "app.py", "--offline"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet) as app:
        while app.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                answer.read()
                break
            time.sleep(0.05)
        app.terminate()


def print_memory(name: str, report: dict) -> None:
    """What the journey says of its peak, and what was seen from outside over all its processes."""
    print(
        f"\npeak memory, {name}: {report['peak_memory_mib']:.0f} MiB reported, "
        f"{report['watched_mib']:.0f} MiB seen over all processes; {report['command_s']:.0f} s",
        flush=True,
    )


def paper_step(precision: str) -> dict:
    """One sampling step of the paper's whole U-Net, random weights, one frame: seconds, and this process's peak."""
    from syncdiff.paper.denoiser import PaperDenoiser, Priors, paper_schedule

    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, precision)
    with torch.device("meta"):
        net = PaperDenoiser()
    torch.nn.Module.to(net, dtype)  # diffusers' own would warn of layers to keep in float32, of which there are none
    net = net.to_empty(device=device).to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        for weights in net.parameters():
            weights.normal_(std=0.02)
        latents = [torch.randn(1, 3, 64, 64, device=device, dtype=dtype) for _ in range(4)]
        priors = Priors(*latents[1:], torch.randn(1, 1, 768, device=device, dtype=dtype))
        schedule, x = paper_schedule(), latents[0]
        schedule.set_timesteps(200)
        for t in schedule.timesteps[:2] if device == "cuda" else schedule.timesteps[:1]:  # a GPU's first step warms up
            start = time.perf_counter()
            x = schedule.step(net(x, t[None].to(device), priors), t, x).prev_sample
            x.sum().item()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"device": device, "seconds": time.perf_counter() - start, "peak_mib": memory}


def print_paper() -> None:
    """The paper's U-Net: its size, its cost, and a step of it in every precision the hardware has."""
    from torch.utils.flop_counter import FlopCounterMode

    from syncdiff.paper.denoiser import PaperDenoiser, Priors

    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        net = PaperDenoiser()
        priors = Priors(*(torch.zeros(1, 3, 64, 64) for _ in range(3)), torch.zeros(1, 1, 768))
        net(torch.zeros(1, 3, 64, 64), torch.zeros(1), priors)
    size = sum(weights.numel() for weights in net.parameters()) / 1e6
    print(f"the paper's U-Net: {size:.1f} M parameters, {counted.get_total_flops() / 2e9:.1f} GMAC per evaluation")
    for precision in ("float32", "bfloat16", *(["float16"] if torch.cuda.is_available() else [])):
        command = [sys.executable, __file__, "--paper-step", precision]
        step = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(f"one step, {precision}, {step['device']}: {step['seconds']:.2f} s, peak {step['peak_mib']:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--short", action="store_true", help="only the 5 s clip; not 20 s and 5 min (many minutes)")
    parser.add_argument("--paper", action="store_true", help="only the paper's U-Net: size, cost, seconds a step")
    parser.add_argument("--paper-step", metavar="PRECISION", help=argparse.SUPPRESS)  # what --paper runs, one by one
    arguments = parser.parse_args()
    if arguments.paper_step:
        print(json.dumps(paper_step(arguments.paper_step)))
        return
    short = arguments.short
    if not short:
        print_paper()
    if arguments.paper:
        return
    with tempfile.TemporaryDirectory(prefix="syncdiff-bench-") as temp:
        folder = Path(temp)
        samples = samples_of(example(VOICES))
        for name, size in (("hd", HD), ("full-hd", FULL_HD)):
            write_cycle(example(VIDEOS), folder / f"{name}.mp4", size)

        def run(seconds: float, *options: str, name: str = "hd") -> dict:
            face, voice = folder / f"{name}-{seconds}.mp4", folder / f"{seconds}.wav"
            write_clip(folder / f"{name}.mp4", seconds, face)
            write_voice(samples, seconds, voice)
            return journey(face, voice, folder / f"{seconds}-out.mp4", *options)

        load, before = os.getloadavg()[0], calibrate()
        report = run(5)
        after = calibrate()
        print(f"5 s, {HD[0]}x{HD[1]}, {RATE} fps, {report['frames']} frames; options {report['options']}")
        print(f"{os.cpu_count()} cores, load {load:.1f}; calibration {before:.2f} s before, {after:.2f} s after")
        print_times(report, 5, (before + after) / 2)
        print(f"cores used: {report['cpu_s'] / report['command_s']:.2f}")
        print_memory("5 s", report)
        network_alone()
        print_start()
        alone = sum(report["seconds"].values())
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
            try:
                beside = sum(run(5)["seconds"].values())
            finally:
                neighbour.kill()
        print(f"beside a busy core: {beside / alone:.2f} times as long")
        larger = sum(run(5, name="full-hd")["seconds"].values())
        print(f"5 s, {FULL_HD[0]}x{FULL_HD[1]}: {larger / 5:.2f} s a film-second")
        if not short:
            print_memory("20 s", run(20))
            print_memory("5 min", run(300))


if __name__ == "__main__":
    main()
