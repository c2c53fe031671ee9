"""A pipeline that keeps the contract and draws nothing: for tests of the page and the command line only."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Event

import av
import numpy as np

from syncdiff.errors import InputError
from syncdiff.faces import Gap, Spot
from syncdiff.job import NO_SYNCNET
from syncdiff.options import SampleOptions
from syncdiff.preview import Face, Trial
from syncdiff.results import Progress, Result
from syncdiff.sync.scoring import Scores

RATE = 25


def write_video(
    path: Path, seconds: float = 2.0, colour: tuple[int, int, int] = (200, 190, 180), tone: float = 220.0
) -> Path:
    """An mp4, 320x180 at 25 fps: a disc whose mouth opens and closes, a bar that grows with time, and a tone."""
    path.write_bytes(_video(seconds, colour, tone))
    return path


@cache
def _video(seconds: float, colour: tuple[int, int, int], tone: float) -> bytes:
    frames, file = round(seconds * RATE), BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=RATE, width=320, height=180, pix_fmt="yuv420p")
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(face(n, frames, colour), format="rgb24")
            container.mux(video.encode(frame))
        t = np.arange(round(seconds * 48000)) / 48000
        samples = (0.2 * np.sin(2 * np.pi * tone * t)).astype(np.float32)
        for start in range(0, len(samples), 1024):
            block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(block))
        for stream in (video, sound):
            container.mux(stream.encode())
    return file.getvalue()


def write_recording(path: Path, frames: int = 15) -> Path:
    """A webm whose header tells no length, as a browser's recorder makes it, 320x180 at 25 fps."""
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as container:
        video = container.add_stream("libvpx", rate=RATE, width=320, height=180, pix_fmt="yuv420p")
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(face(n, frames, (200, 190, 180)), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def face(n: int, frames: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Frame n of `frames`: uint8 [180,320,3]."""
    y, x = np.mgrid[:180, :320]
    image = np.full((180, 320, 3), 60, np.uint8)
    image[(x - 160) ** 2 + (y - 85) ** 2 < 70**2] = colour
    for eye in (135, 185):
        image[(x - eye) ** 2 + (y - 65) ** 2 < 36] = 40
    image[((x - 160) / 24) ** 2 + ((y - 115) / (3 + 9 * abs(np.sin(n / 3)))) ** 2 < 1] = (120, 30, 40)
    image[172:, : round(320 * (n + 1) / frames)] = (90, 110, 230)
    return image


class FakePipeline:
    """Yields Progress `steps` times per stage, `pause` seconds apart, then the Result; raises `error` while drawing."""

    def __init__(
        self, steps: int = 4, pause: float = 0.0, seconds: float = 2.0, error: Exception | None = None
    ) -> None:
        self.steps, self.pause, self.seconds, self.error = steps, pause, seconds, error
        self.calls: list[tuple[Path, Path, Path, SampleOptions]] = []
        self.folders: list[Path] = []  # the private folder of each call: gone when the call is over
        self.finished = 0
        self.on_draw: Callable[[], object] = lambda: None  # called after every step of drawing
        self.source_copy = True
        self.offset = 0  # frames, of the result, where nobody asks to have it corrected
        self.running = {"profile": "compact", "device": "cpu", "precision": "float32", "attention": "sdpa"}

    def __call__(self, face_file: Path, voice: Path, out: Path, options: SampleOptions) -> Iterator[Progress | Result]:
        self.calls.append((face_file, voice, out, options))
        folder = Path(tempfile.mkdtemp(prefix="fake-"))
        self.folders.append(folder)
        try:
            for stage in ("reading", "finding the face", "listening", "drawing", "scoring"):
                for n in range(self.steps):
                    time.sleep(self.pause)
                    preview = face(n, self.steps, (210, 180, 160)) if stage == "drawing" else None
                    yield Progress(stage, n + 1, self.steps, preview)
                    if stage == "drawing":
                        self.on_draw()
                    if self.error and stage == "drawing":
                        raise self.error
            result = self.result(out, options)
            self.finished += 1
            yield result
        finally:
            shutil.rmtree(folder)

    def result(self, out: Path, options: SampleOptions) -> Result:
        source = write_video(out.with_name(f"{out.stem}.source.mp4"), self.seconds) if self.source_copy else None
        write_video(out, self.seconds, (210, 180, 160), 330.0)
        t = np.linspace(0.2, self.seconds - 0.2, 24)

        def scores(level: float) -> Scores:
            curve = tuple((float(s), float(level + np.sin(level + 4 * s))) for s in t)
            return Scores("syncdiff-judge", level, 12 - level, 0 if level > 4 else 1, curve, steady=True)

        off = 0 if options.correct_offset else self.offset

        return Result(
            video=out,
            source=source,
            frames=round(self.seconds * RATE),
            redrawn=round(self.seconds * RATE) - 8,
            seconds={"reading": 0.4, "finding the face": 1.1, "listening": 0.1, "drawing": 2.9, "scoring": 0.6},
            passed_through=(Gap(0.4, 0.7, "the face is turned away"),),
            silent=((1.0, 1.4),),
            notes=("The voice is longer than the video: the video runs forward and back until the voice ends.",),
            source_scores=scores(3.2),
            result_scores=replace(scores(5.6), offset_frames=off, steady=True),
            earlier_frames=self.offset if options.correct_offset else 0,
            peak_memory_mib=812.0,
            options=options,
            running=self.running,
            mouth=((0.0, 0.5, 0.64, 0.2), (self.seconds, 0.5, 0.64, 0.2)),
            lse_needs=NO_SYNCNET,
        )


class FakePreview:
    """Finds `people` faces side by side and redraws a frame in another colour; raises `error` instead."""

    def __init__(self, people: int = 1, error: Exception | None = None) -> None:
        self.people, self.error = people, error
        self.free = Event()  # what is asked waits for it
        self.free.set()
        self.looked: list[Path] = []
        self.tried: list[tuple[Path, Path, SampleOptions, float | None]] = []

    def faces(self, face_file: str | Path) -> list[Face]:
        self.looked.append(Path(face_file))
        self.free.wait()
        if self.error:
            raise self.error
        colours = [(200, 190, 180), (120, 90, 70), (230, 200, 160)]
        pictures = [face(0, 1, colour)[10:160, 85:235] for colour in colours[: self.people]]
        return [Face(p, Spot(0.0, (i + 0.5) / self.people, 0.5), None) for i, p in enumerate(pictures)]

    def trial(self, face_file: Path, voice: Path, options: SampleOptions, at: float | None = None) -> Trial:
        self.tried.append((face_file, voice, options, at))
        self.free.wait()
        if self.error:
            raise self.error
        crop = np.array([[80, 20], [240, 20], [240, 180], [80, 180]], np.float32)
        mask = np.array([[110, 95], [210, 95], [200, 165], [120, 165]], np.float32)
        return Trial(face(0, 1, (200, 190, 180)), face(5, 9, (210, 180, 160)), crop, mask, 0.8)


def bad_input() -> InputError:
    return InputError("The video has no face in any of its 50 frames: choose one where a face is in view.")
