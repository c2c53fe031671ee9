"""What the load and attack scripts share: the real app as a process of its own, and visitors who talk to it as a
browser does, each from an address of their own. Works without pytest."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import psutil
import soundfile

from tests.media_fixtures import BITS, BLOCK, make_video, number_in, numbered

ROOT = Path(__file__).resolve().parent.parent
FACE = ROOT / "assets" / "examples" / "ines.mp4"
SIDE, FRAMES = 320, 12  # px, and the fewest frames of a clip
VOICE_RATE, VOICE_SECONDS = 16_000, 0.45
WAIT_SECONDS = 600.0  # seconds to wait for anything at all: this is no stopwatch, and machines are busy


def wait_until(condition: Callable[[], Any], what: str, every: float = 0.05) -> float:
    """Seconds until the condition held. Raises TimeoutError, saying what did not happen."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > WAIT_SECONDS:
            raise TimeoutError(what)
        time.sleep(every)
    return time.monotonic() - began


# ---- clips that tell whose they are


def clip_of(number: int, folder: Path) -> tuple[Path, Path]:
    """A face that wears `number` (0..255) and a voice that hums it: distinct pictures, lengths and pitches."""
    with av.open(str(FACE)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), frames_of(number))]
    images = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images]
    for image in images:
        image[-BLOCK:, : BITS * BLOCK] = numbered(number, SIDE, SIDE)[:BLOCK, : BITS * BLOCK]  # the label lies on top
    face = make_video(folder / f"face-{number}.mp4", images, size=(SIDE, SIDE))
    t = np.arange(round(VOICE_RATE * VOICE_SECONDS)) / VOICE_RATE
    voice = folder / f"voice-{number}.wav"
    soundfile.write(voice, (0.4 * np.sin(2 * np.pi * pitch_of(number) * t)).astype(np.float32), VOICE_RATE)
    return face, voice


def frames_of(number: int) -> int:
    return FRAMES + number % 4


def pitch_of(number: int) -> float:
    """Hz, below half of VOICE_RATE for every number."""
    return 400.0 + 25 * number


def belongs_to(number: int, video: bytes) -> list[str]:
    """What in a finished video is not that visitor's own; empty where all of it is."""
    with av.open(io.BytesIO(video)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        container.seek(0)
        rate = container.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)])
    middle = sound[: round(VOICE_SECONDS * rate)] * np.hanning(round(VOICE_SECONDS * rate))[: len(sound)]
    pitch = np.abs(np.fft.rfft(middle, 1 << 16)).argmax() * rate / (1 << 16)
    wrong = [f"the number {seen}" for seen in {number_in(image[-BLOCK:]) for image in images} - {number}]
    wrong += [f"{len(images)} frames"] if len(images) != frames_of(number) else []
    return wrong + ([f"a voice at {pitch:.0f} Hz"] if abs(pitch - pitch_of(number)) > 10 else [])


# ---- the app

# Python runs this in the server before anything else: whom it calls, or asks the address of, is written down.
LISTEN = """
import os, sys

def heard(event, given):
    if event == "socket.connect":
        host = given[1][0] if isinstance(given[1], tuple) else None
    elif event == "socket.getaddrinfo":
        host = given[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and host not in ("localhost", "::1", "0.0.0.0") and not host.startswith("127."):
        with open(os.environ["CALLED"], "a") as log:
            print(host, file=log)

sys.addaudithook(heard)
"""


class Server:
    """`python app.py` on a free port, with a temporary folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.temp, self.log, self._called = folder / "temp", folder / "app.log", folder / "called.log"
        self.temp.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(LISTEN)
        self.process: psutil.Popen | None = None
        self.url = ""

    def start(self) -> float:
        """Seconds until it answered."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("GRADIO", "SPACE"))}
        environment |= {"GRADIO_SERVER_PORT": str(port), "TMPDIR": str(self.temp), "HF_HUB_OFFLINE": "1"}
        environment |= {"PYTHONPATH": str(self.log.parent), "CALLED": str(self._called)}
        self.url = f"http://127.0.0.1:{port}"
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        return wait_until(self.answers, "app.py does not answer", 0.5)

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        if not self.runs():
            raise RuntimeError(f"app.py ended by itself:\n{self.log.read_text()[-3000:]}")
        try:
            return httpx.get(self.url, timeout=60.0).status_code == 200
        except httpx.TransportError:
            return False

    def functions(self) -> dict[str, int]:
        """Named endpoints, by gradio's number."""
        config = httpx.get(f"{self.url}/config", timeout=WAIT_SECONDS).json()
        return {one["api_name"]: one["id"] for one in config["dependencies"] if one["api_visibility"] == "public"}

    def called(self) -> list[str]:
        """Hosts beyond this machine that it called, or asked the address of."""
        return self._called.read_text().split() if self._called.exists() else []

    def rss(self) -> float:
        """MiB that the process holds."""
        return self.process.memory_info().rss / 2**20

    def children(self) -> list[psutil.Process]:
        """Processes that work for it at the moment."""
        return [one for one in self.process.children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]

    def home(self) -> Path:
        """Its private folder."""
        (home,) = self.temp.glob("syncdiff-app-*")
        return home

    def results(self) -> int:
        """Runs in line, running or delivered."""
        return len([*self.home().glob("gradio/result-*")])

    def jobs(self) -> list[Path]:
        """Folders of work that goes on at the moment."""
        return [path for path in self.home().iterdir() if not path.name.startswith(("lock", "gradio", "torch"))]

    def stop(self) -> None:
        """As a container does it."""
        self.process.terminate()
        self.process.wait(WAIT_SECONDS)

    def end(self) -> None:
        """In any case."""
        if self.runs():
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """As nobody should."""
        workers = self.process.children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for one in workers:
            if one.is_running():
                one.wait(WAIT_SECONDS)  # they notice by themselves


# ---- who comes


class Guest:
    """One open page: a session and an address."""

    def __init__(self, server: Server, number: int, address: str = "") -> None:
        self.number, self.session = number, f"guest{number}x{os.urandom(4).hex()}"
        address = address or f"198.51.100.{number}"  # addresses for documentation (RFC 5737)
        self.http = httpx.Client(base_url=server.url, headers={"X-Forwarded-For": address}, timeout=WAIT_SECONDS)
        self.functions = server.functions()

    def upload(self, path: Path, name: str | None = None) -> dict[str, Any]:
        """The file, as an endpoint takes it."""
        answer = self.http.post("/gradio_api/upload", files={"files": (name or path.name, path.read_bytes())})
        return named(answer.raise_for_status().json()[0])

    def join(self, endpoint: str, *data: Any) -> str:
        """Ask for a run; its event."""
        asked = {"data": data, "fn_index": self.functions[endpoint], "session_hash": self.session}
        answer = self.http.post("/gradio_api/queue/join", json=asked)
        return answer.raise_for_status().json()["event_id"]

    def heard(self) -> Iterator[dict[str, Any]]:
        """What the server tells this session, until its last run is over."""
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    if message["msg"] == "close_stream":
                        return
                    yield message

    def ask(self, endpoint: str, *data: Any) -> dict[str, Any]:
        """The last word about one run: gradio's message, with "success" and "output"."""
        self.join(endpoint, *data)
        *_, last = (message for message in self.heard() if message["msg"] == "process_completed")
        return last

    def cancel(self, endpoint: str, event: str) -> None:
        body = {"session_hash": self.session, "fn_index": self.functions[endpoint], "event_id": event}
        self.http.post("/gradio_api/cancel", json=body).raise_for_status()

    def fetch(self, file: dict[str, Any]) -> bytes:
        return self.http.get(f"/gradio_api/file={file['path']}").raise_for_status().content


def named(path: str) -> dict[str, Any]:
    """A path as gradio's clients send it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def progress_of(message: dict[str, Any]) -> str:
    """What a message says about how far a run is: "waiting, 3 ahead", "drawing"; "" where it says nothing."""
    if message["msg"] != "progress":
        return ""
    return str(message["progress_data"][0].get("desc") or "") if message["progress_data"] else ""
