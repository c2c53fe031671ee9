"""`make bench`: what the whole journey costs on this machine. Prints; asserts nothing (timings are no tests).

A shipped example on a 1280x720 canvas at 25 fps goes through `python -m syncdiff sync`, each time in a fresh process as
a visitor's clip would: 5 s at the default steps for the seconds of every stage, then 20 s and 5 min at one step for the
peak memory. Machines differ and are busy, so every time also stands as a multiple of the clip's length and of a fixed
piece of work (convolutions), which is timed in the same run before and after.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "assets" / "examples"
WIDTH, HEIGHT, RATE = 1280, 720, 25
VOICE_RATE = 44_100
VIDEOS = {".mp4", ".mov", ".webm", ".mkv"}
VOICES = {".wav", ".flac", ".mp3", ".ogg", ".m4a"}


def example(endings: set[str]) -> Path:
    """The first shipped example whose name ends so."""
    found = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in endings)
    if not found:
        sys.exit(f"bench: {EXAMPLES} holds no file ending in {', '.join(sorted(endings))}")
    return found[0]


def on_canvas(image: np.ndarray) -> np.ndarray:
    """A picture [H,W,3] at three quarters of the height, amid its own blurred enlargement -> [720,1280,3]."""
    canvas = cv2.GaussianBlur(cv2.resize(image, (WIDTH, HEIGHT)), (0, 0), 12)
    height = HEIGHT * 3 // 4
    width = min(WIDTH, round(image.shape[1] * height / image.shape[0]))
    top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return canvas


def write_cycle(source: Path, path: Path) -> None:
    """Up to five seconds of `source` there and back on the canvas: joins its own beginning, so it can be repeated."""
    with av.open(str(source)) as file:
        shown = zip(range(5 * RATE), file.decode(video=0), strict=False)
        images = [frame.to_ndarray(format="rgb24") for _, frame in shown]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in images + images[::-1]:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(on_canvas(image), format="rgb24")))
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
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(20):
            layer(images)
        best = min(best, time.perf_counter() - start)
    return best


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


def print_memory(name: str, report: dict) -> None:
    """What the journey says of its peak, and what was seen from outside over all its processes."""
    print(
        f"\npeak memory, {name}: {report['peak_memory_mib']:.0f} MiB reported, "
        f"{report['watched_mib']:.0f} MiB seen over all processes; {report['command_s']:.0f} s",
        flush=True,
    )


def paper_step(precision: str) -> dict:
    """One sampling step of the paper's whole U-Net, random weights, one frame: seconds, and this process's peak."""
    from syncdiff.paper import PaperDenoiser, Priors, paper_schedule

    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, precision)
    with torch.device("meta"):
        net = PaperDenoiser()
    torch.nn.Module.to(net, dtype)  # diffusers' own would warn of layers to keep in float32, of which there are none
    net = net.to_empty(device=device).to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        for weights in net.parameters():
            weights.normal_(std=0.02)
        latents = [torch.randn(1, 3, 64, 64, device=device, dtype=dtype) for _ in range(4)]
        told = Priors(*latents[1:], torch.randn(1, 1, 768, device=device, dtype=dtype))
        schedule, x = paper_schedule(), latents[0]
        schedule.set_timesteps(200)
        for t in schedule.timesteps[:2] if device == "cuda" else schedule.timesteps[:1]:  # a GPU's first step warms up
            start = time.perf_counter()
            x = schedule.step(net(x, t[None].to(device), told), t, x).prev_sample
            x.sum().item()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"device": device, "seconds": time.perf_counter() - start, "peak_mib": memory}


def print_paper() -> None:
    """The paper's U-Net: its size, its cost, and a step of it in every precision the hardware has."""
    from torch.utils.flop_counter import FlopCounterMode

    from syncdiff.paper import PaperDenoiser, Priors

    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        net = PaperDenoiser()
        told = Priors(*(torch.zeros(1, 3, 64, 64) for _ in range(3)), torch.zeros(1, 1, 768))
        net(torch.zeros(1, 3, 64, 64), torch.zeros(1), told)
    size = sum(weights.numel() for weights in net.parameters()) / 1e6
    print(f"the paper's U-Net: {size:.1f} M parameters, {counted.get_total_flops() / 2e9:.1f} GMAC per evaluation")
    for precision in ("float32", "bfloat16", *(["float16"] if torch.cuda.is_available() else [])):
        command = [sys.executable, __file__, "--paper-step", precision]
        told = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(f"one step, {precision}, {told['device']}: {told['seconds']:.2f} s, peak {told['peak_mib']:.0f} MiB")


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
        cycle, samples = folder / "cycle.mp4", samples_of(example(VOICES))
        write_cycle(example(VIDEOS), cycle)

        def run(seconds: float, *options: str) -> dict:
            face, voice = folder / f"{seconds}.mp4", folder / f"{seconds}.wav"
            write_clip(cycle, seconds, face)
            write_voice(samples, seconds, voice)
            return journey(face, voice, folder / f"{seconds}-out.mp4", *options)

        load, before = os.getloadavg()[0], calibrate()
        report = run(5)
        after = calibrate()
        print(f"5 s, {WIDTH}x{HEIGHT}, {RATE} fps, {report['frames']} frames; options {report['options']}")
        print(f"{os.cpu_count()} cores, load {load:.1f}; calibration {before:.2f} s before, {after:.2f} s after")
        print_times(report, 5, (before + after) / 2)
        print_memory("5 s", report)
        if not short:
            print_memory("20 s, one step", run(20, "--steps", "1"))
            print_memory("5 min, one step", run(300, "--steps", "1"))


if __name__ == "__main__":
    main()
