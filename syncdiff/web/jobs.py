"""One request: files and options in, progress and a result out, in a private folder that never outlives its use."""

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
from syncdiff.web.eta import Clock, Pace
from syncdiff.web.examples import recognise
from syncdiff.web.queue import Queue, Visitor, network

OUR_FAULT = "Something went wrong on our side and was noted. Your files are untouched: please try once more."
DISK_FULL = "There is no room on our disk just now. Your files are untouched: please try again in an hour."
POLL_SECONDS = 0.25  # seconds between two looks at the line
KEPT_SECONDS = 3600  # seconds that an upload or a delivered result stays on disk
MAX_NUMBER = 10**12  # a number beyond any range
SWITCHES = ("correct_offset", "label")
NUMBERS = ("steps", "seed")
Runner = Callable[[Path, Path, Path, SampleOptions], Generator[Progress | Result, None, None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """Others come first."""

    ahead: int
    seconds: float | None  # until it is our turn; None where nobody knows


@dataclass(frozen=True)
class Running:
    """A job at work."""

    progress: Progress
    fraction: float  # of the whole job, 0..1
    left: float  # seconds, estimated


@dataclass(frozen=True)
class JobRequest:
    """What a visitor or a program wants."""

    face: str | None
    voice: str | None
    agreed: bool  # that everybody seen or heard agreed
    options: Mapping[str, Any]  # of SampleOptions; None keeps its default
    seconds: tuple[float | None, float | None] = (None, None)  # of face (a photo is 0) and voice, as far as known
    promised: bool = True  # to say oneself that AI was used, where options leave the label out
    at: float | None = None  # second of the frame that a trial redraws

    def chosen(self) -> SampleOptions:
        """What was turned, over the defaults. Raises InputError."""
        for name, value in self.options.items():
            if name in NUMBERS and value is not None and not _whole(value):
                raise InputError(f"The value of {name} is no whole number: give one, such as 2.")
            if isinstance(value, int | float) and abs(value) > MAX_NUMBER:  # before all its digits stand in a sentence
                raise InputError(f"The value of {name} is far out of range: give a small number.")
            if name in SWITCHES and value is not None and not isinstance(value, bool):  # "false" would count as a yes
                raise InputError(f"The value of {name} is neither true nor false: give one of the two.")
        given: dict[str, Any] = {name: value for name, value in self.options.items() if value is not None}
        return SampleOptions(**given | {name: int(given[name]) for name in NUMBERS if name in given})  # pyright: ignore[reportArgumentType]


def _whole(value: Any) -> bool:
    """Whether a value from a request is a whole number."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """What a visitor may read: the sentence of an InputError, or one calm sentence while the log has the rest."""
    try:
        yield
    except gr.Error:  # ZeroGPU's: there is no GPU to lend, or not for so long
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
    """Gradio's cache: the only place it serves files from, and sweeps by `delete_cache`."""
    folder = Path(get_upload_folder())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


class JobService:
    """One job runner, one line of visitors, one estimate of how long things take."""

    def __init__(self, run_job: Runner, preview: Preview) -> None:
        self.run_job, self.preview, self.pace = run_job, preview, Pace()
        self.queue, self.preview_queue = Queue(), Queue(16, 4, 6, "files looked at")

    def trial(self, asked: JobRequest, visitor: Visitor) -> Trial:
        """One frame. Raises gr.Error only."""
        with errors_as_sentences(), in_turn(self.preview_queue, visitor):
            return self.preview.trial(*files_of(asked), asked.chosen(), asked.at)

    def faces(self, face: str, visitor: Visitor) -> list[Face]:
        """Who is in the first seconds. Raises gr.Error only."""
        with errors_as_sentences(), in_turn(self.preview_queue, visitor):
            return self.preview.faces(face)

    def run(self, asked: JobRequest, visitor: Visitor) -> Generator[Waiting | Running | Result, None, None]:
        """One request in a fresh private folder, which is thrown away unless a Result comes of it.

        Raises gr.Error only. Closing it gives the place in the line back."""
        sweep(cache_folder())
        folder = Path(tempfile.mkdtemp(prefix="result-", dir=cache_folder()))
        finished = False
        try:
            with errors_as_sentences():
                options, (face, voice) = asked.chosen(), files_of(asked)
                with self.queue.place(visitor) as place:
                    while ahead := place.ahead:
                        usual = self.pace.usual()
                        yield Waiting(ahead, usual and usual * ahead)
                        keep(folder, face, voice)
                        time.sleep(POLL_SECONDS)
                    clock = Clock(self.pace, options, *asked.seconds)
                    with closing(self.run_job(face, voice, folder / "syncdiff.mp4", options)) as items:
                        for item in items:
                            if isinstance(item, Result):
                                finished = True
                                self.pace.learn(item, clock.source)
                            else:
                                item = Running(item, *clock(item))  # noqa: PLW2901
                            keep(folder, face, voice)
                            yield item
        finally:
            if not finished:
                shutil.rmtree(folder, ignore_errors=True)


def visitor_of(request: gr.Request) -> Visitor:
    """Who asks. The address is the client's own where a trusted proxy names it (`launch.TRUSTED_PROXIES`)."""
    return Visitor(request.session_hash or "", network(request.client.host if request.client else ""))


@contextmanager
def in_turn(queue: Queue, visitor: Visitor) -> Iterator[None]:
    """Wait for one's turn, for something short. Raises InputError where the line is full."""
    with queue.place(visitor) as place:
        while place.ahead:
            time.sleep(POLL_SECONDS)
        yield


def keep(*paths: Path) -> None:
    """Put off the sweep of what is in use, here and by gradio's own timer: a long line may take longer."""
    for path in paths:
        if path.is_relative_to(cache_folder()):
            with suppress(OSError):
                os.utime(path)
                os.utime(path.parent)


def sweep(cache: Path) -> None:
    """Remove whatever lies there for more than KEPT_SECONDS: results, uploads, and what gradio's clients leave."""
    for path in cache.iterdir():
        with suppress(OSError):  # another request was faster
            if time.time() - path.stat().st_mtime <= KEPT_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


class UnfinishedError(InputError):
    """A form that is not filled in yet. where: id of the part of the page that lacks something."""

    def __init__(self, where: str, sentence: str) -> None:
        super().__init__(sentence)
        self.where = where


def files_of(asked: JobRequest) -> tuple[Path, Path]:
    """Face and voice, if they are there and may be used. Raises UnfinishedError."""
    if not asked.face:
        raise UnfinishedError("face", "There is no face yet: add a video or a photo.")
    if not asked.voice:
        raise UnfinishedError("voice", "There is no voice yet: add a sound file or record one.")
    face, voice = Path(asked.face), Path(asked.voice)
    agreed = asked.agreed is True  # the word "false" of some program is no yes
    if not agreed and not (recognise(face, "face") and recognise(voice, "voice")):
        raise UnfinishedError("agreed", "Has everyone seen or heard agreed? Tick the box (consent), then start.")
    if asked.options.get("label") is False and not asked.promised:
        raise UnfinishedError("unlabelled", "The label is off: promise to say it yourself, or turn it on again.")
    return face, voice
