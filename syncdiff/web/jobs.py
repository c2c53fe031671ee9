"""Runs the requests of visitors and programs: one at a time, each in a private folder."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from syncdiff.errors import DiskError, InputError
from syncdiff.options import SampleOptions
from syncdiff.preview import Face, Preview, Trial
from syncdiff.results import Progress, Result
from syncdiff.web.eta import DurationModel, TimeLeft
from syncdiff.web.examples import recognise
from syncdiff.web.queue import Queue, Visitor, network

OUR_FAULT = "Something went wrong on our side and was noted. Your files are untouched: please try once more."
DISK_FULL = "There is no room on our disk just now. Your files are untouched: please try again in an hour."
POLL_SECONDS = 0.25  # seconds between two looks at the queue
KEPT_SECONDS = 3600  # seconds that an upload or a delivered result stays on disk
MAX_NUMBER = 10**12  # larger numbers are refused before they are printed
SWITCHES = ("correct_offset", "label")
NUMBERS = ("steps", "seed")
Runner = Callable[[Path, Path, Path, SampleOptions], Generator[Progress | Result, None, None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """A job that waits for others."""

    ahead: int  # jobs that come first
    seconds: float | None  # estimated, until it begins; None where unknown


@dataclass(frozen=True)
class Running:
    """A job that runs."""

    progress: Progress
    fraction: float  # of the whole job, 0..1
    left: float  # seconds, estimated


class UnfinishedError(InputError):
    """A form that is not filled in yet. where: id of the part of the page that lacks something."""

    def __init__(self, where: str, sentence: str) -> None:
        super().__init__(sentence)
        self.where = where


@dataclass(frozen=True)
class JobRequest:
    """Files, consent and options, as a visitor or a program sent them: nothing is checked yet."""

    face: str | None
    voice: str | None
    agreed: bool  # whether everybody seen or heard has agreed
    options: Mapping[str, Any]  # of SampleOptions; None keeps its default
    seconds: tuple[float | None, float | None] = (None, None)  # of face (a photo is 0) and voice; None where unknown
    promised: bool = True  # whether the visitor promised to say that AI was used, where options leave the label out
    at: float | None = None  # second of the face video whose frame a trial redraws

    def sample_options(self) -> SampleOptions:
        """The options, checked. Raises InputError."""
        for name, value in self.options.items():
            if name in NUMBERS and value is not None and not _whole(value):
                raise InputError(f"The value of {name} is no whole number: give one, such as 2.")
            if isinstance(value, int | float) and abs(value) > MAX_NUMBER:  # else a sentence would print all its digits
                raise InputError(f"The value of {name} is far out of range: give a small number.")
            if name in SWITCHES and value is not None and not isinstance(value, bool):  # the text "false" is truthy
                raise InputError(f"The value of {name} is neither true nor false: give one of the two.")
        numbers = {name: int(self.options[name]) for name in NUMBERS if self.options.get(name) is not None}
        return SampleOptions.of(**{**self.options, **numbers})

    def files(self) -> tuple[Path, Path]:
        """Face and voice. Raises UnfinishedError where one, the consent or the promise is missing."""
        if not self.face:
            raise UnfinishedError("face", "There is no face yet: add a video or a photo.")
        if not self.voice:
            raise UnfinishedError("voice", "There is no voice yet: add a sound file or record one.")
        face, voice = Path(self.face), Path(self.voice)
        agreed = self.agreed is True  # a program may send the text "false"
        if not agreed and not (recognise(face, "face") and recognise(voice, "voice")):
            raise UnfinishedError("agreed", "Has everyone seen or heard agreed? Tick the box (consent), then start.")
        if self.options.get("label") is False and not self.promised:
            raise UnfinishedError("unlabelled", "The label is off: promise to say it yourself, or turn it on again.")
        return face, voice


def _whole(value: Any) -> bool:
    """Whether a value from a request is a whole number."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turn every error into a gr.Error: with the sentence of an InputError, else a general one and a log entry."""
    try:
        yield
    except gr.Error:  # ZeroGPU's: no GPU is free, or not for so long
        raise
    except DiskError:
        log.exception("a run failed")
        raise gr.Error(DISK_FULL, print_exception=False) from None
    except InputError as error:
        raise gr.Error(escape(str(error), quote=False), print_exception=False) from None  # a toast would render markup
    except Exception:
        log.exception("a run failed")
        raise gr.Error(OUR_FAULT, print_exception=False) from None


def cache_folder() -> Path:
    """Gradio's cache: the only folder that it serves files from, and that `delete_cache` clears."""
    folder = Path(get_upload_folder())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


class JobService:
    """A job runner and a preview with their queues, and the durations learned from past jobs."""

    def __init__(self, run_job: Runner, preview: Preview) -> None:
        self.run_job, self.preview, self.durations = run_job, preview, DurationModel()
        self.queue, self.preview_queue = Queue(), Queue(16, 4, 6, "files looked at")

    def trial(self, request: JobRequest, visitor: Visitor) -> Trial:
        """Redraw one frame. Raises gr.Error only."""
        with errors_as_sentences(), in_turn(self.preview_queue, visitor):
            return self.preview.trial(*request.files(), request.sample_options(), request.at)

    def faces(self, face: str, visitor: Visitor) -> list[Face]:
        """The faces in the first seconds of a file. Raises gr.Error only."""
        with errors_as_sentences(), in_turn(self.preview_queue, visitor):
            return self.preview.faces(face)

    def run(self, request: JobRequest, visitor: Visitor) -> Generator[Waiting | Running | Result, None, None]:
        """Run one request in a new private folder, which is removed unless a Result comes of it.

        Raises gr.Error only. Closing the generator gives its place in the queue back."""
        sweep(cache_folder())
        folder = Path(tempfile.mkdtemp(prefix="result-", dir=cache_folder()))
        finished = False
        try:
            with errors_as_sentences():
                options, (face, voice) = request.sample_options(), request.files()
                with self.queue.place(visitor) as place:
                    while ahead := place.ahead:
                        usual = self.durations.usual()
                        yield Waiting(ahead, usual and usual * ahead)
                        touch(folder, face, voice)
                        time.sleep(POLL_SECONDS)
                    time_left = TimeLeft(self.durations, options, *request.seconds)
                    with closing(self.run_job(face, voice, folder / "syncdiff.mp4", options)) as items:
                        for item in items:
                            if isinstance(item, Result):
                                finished = True
                                self.durations.learn(item, time_left.source)
                            else:
                                item = Running(item, *time_left(item))  # noqa: PLW2901
                            touch(folder, face, voice)
                            yield item
        finally:
            if not finished:
                shutil.rmtree(folder, ignore_errors=True)


def visitor_of(request: gr.Request) -> Visitor:
    """The visitor of a request; behind a trusted proxy (`launch.TRUSTED_PROXIES`), with the address it forwards."""
    return Visitor(request.session_hash or "", network(request.client.host if request.client else ""))


@contextmanager
def in_turn(queue: Queue, visitor: Visitor) -> Iterator[None]:
    """Wait in the queue, then hold the turn inside. Raises InputError where the queue is full."""
    with queue.place(visitor) as place:
        while place.ahead:
            time.sleep(POLL_SECONDS)
        yield


def touch(*paths: Path) -> None:
    """Renew the times of files in use, so that neither `sweep` nor gradio's timer removes them in a long wait."""
    for path in paths:
        if path.is_relative_to(cache_folder()):
            with suppress(OSError):
                os.utime(path)
                os.utime(path.parent)


def sweep(cache: Path) -> None:
    """Remove everything older than KEPT_SECONDS: results, uploads, and what gradio's clients leave."""
    for path in cache.iterdir():
        with suppress(OSError):  # another request may have removed it
            if time.time() - path.stat().st_mtime <= KEPT_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
