"""Memory stays flat however long the film is: a whole job on a small picture and small untrained weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 160
MOST = 50.0  # KiB a frame; a thread whose heap glibc never gave back took 100, a frame in a queue takes 300

# Chunks of 16 frames instead of 128, so that all that may wait waits long before the middle. Planted: the queue before
# the writer has no bound, and the writer stands still until every frame is drawn.
JOURNEY = f"""
import json, resource, sys
from threading import Event
import torch
from syncdiff.diffusion import sampler
sampler.LANES = 1
from syncdiff import drawing
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.job import Job
from syncdiff.media import ClipWriter
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.progress import Worker

denoiser = Denoiser(widths=(16, 32), speech_width=16, tokens=4, residual=False).eval()
Denoiser.forward = lambda net, noisy, *_: torch.zeros_like(noisy)
job = Job(SyncDiffPipeline(denoiser, SpeechEncoder(width=16, layers=1).eval(), compact_schedule()), source_copy=False)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1024

def growth(out):
    "KiB a frame, from the most in the second quarter of drawing to the most in the last."
    seen = []
    for item in job(*sys.argv[1:3], out, SampleOptions(steps=1)):
        if getattr(item, "stage", "") == "drawing":
            seen.append(resident())
            if item.done >= {FRAMES}:
                drawn.set()
    quarter = len(seen) // 4
    return (max(seen[-quarter:]) - max(seen[quarter : 2 * quarter])) / ({FRAMES} / 2)

drawn = Event()
found = [growth(sys.argv[3])]
drawn.clear()
drawing.Worker = lambda: Worker(0)
write = ClipWriter.write
ClipWriter.write = lambda *given: drawn.wait(300) and write(*given)
found.append(growth(sys.argv[3]))
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc: memory was NOT measured")
def test_memory_does_not_grow_while_a_film_is_drawn(tmp_path: Path) -> None:
    face, voice = tmp_path / "face.png", tmp_path / "voice.wav"
    photo = cv2.imread(str(ROOT / "assets" / "examples" / "speaker-1.jpg"))
    cv2.imwrite(str(face), cv2.resize(photo, (240, 240 * photo.shape[0] // photo.shape[1] // 2 * 2)))
    soundfile.write(voice, 0.2 * np.sin(np.arange(FRAMES * 640) / 9), 16_000)
    command = [sys.executable, "-c", JOURNEY, str(face), str(voice), str(tmp_path / "out.mp4")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flat, planted = json.loads(done.stdout.splitlines()[-1])
    assert flat < MOST < planted, f"{flat:.0f} KiB a frame; with a queue that has no bound {planted:.0f}"
