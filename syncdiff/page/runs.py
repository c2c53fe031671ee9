"""One request: files and options in, progress and a result out, in a private folder that never outlives its use."""

import logging
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

from syncdiff.look import Face, Look, Trial
from syncdiff.media import InputError
from syncdiff.page.examples import recognise
from syncdiff.page.pace import Pace
from syncdiff.page.queue import Queue
from syncdiff.pipeline import Progress, Result, SampleOptions

OUR_FAULT = "Something went wrong on our side and was noted. Your files are untouched: please try once more."
LOOK_AGAIN = 0.25  # seconds between two looks at the line
KEPT = 3600  # seconds that a delivered result stays on disk
Pipeline = Callable[[Path, Path, Path, SampleOptions], Generator[Progress | Result, None, None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """Others come first."""

    ahead: int
    seconds: float | None  # until it is our turn; None where nobody knows


@dataclass(frozen=True)
class Asked:
    """What a visitor or a program wants."""

    face: str | None
    voice: str | None
    agreed: bool  # that everybody seen or heard agreed
    options: Mapping[str, Any]  # of SampleOptions; None keeps its default

    def chosen(self) -> SampleOptions:
        """What was turned, over the defaults. Raises InputError."""
        return SampleOptions(**{name: value for name, value in self.options.items() if value is not None})


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """What a visitor may read: the sentence of an InputError, or one calm sentence while the log has the rest."""
    try:
        yield
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


class Desk:
    """Where requests come in: one pipeline, one line of visitors, one idea of how long things take."""

    def __init__(self, pipe: Pipeline, look: Look) -> None:
        self.pipe, self.look, self.queue, self.pace = pipe, look, Queue(), Pace()

    def trial(self, asked: Asked) -> Trial:
        """One frame. Raises gr.Error only."""
        with errors_as_sentences():
            return self.look.trial(*files_of(asked), asked.chosen())

    def faces(self, face: str) -> list[Face]:
        """Who is in the first seconds. Raises gr.Error only."""
        with errors_as_sentences():
            return self.look.faces(face)

    def run(self, asked: Asked, visitor: str) -> Iterator[Waiting | Progress | Result]:
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
                        time.sleep(LOOK_AGAIN)
                    with closing(self.pipe(face, voice, folder / "syncdiff.mp4", options)) as items:
                        for item in items:
                            if isinstance(item, Result):
                                finished = True
                                self.pace.learn(item)
                            yield item
        finally:
            if not finished:
                shutil.rmtree(folder, ignore_errors=True)


def sweep(cache: Path) -> None:
    """Remove the folders of results that were delivered, or could not be, more than KEPT seconds ago."""
    for folder in cache.glob("result-*"):
        with suppress(OSError):  # another request was faster
            if time.time() - folder.stat().st_mtime > KEPT:
                shutil.rmtree(folder, ignore_errors=True)


def files_of(asked: Asked) -> tuple[Path, Path]:
    """Face and voice, if they are there and may be used. Raises InputError."""
    if not asked.face:
        raise InputError("There is no face yet: add a video or a photo.")
    if not asked.voice:
        raise InputError("There is no voice yet: add a sound file or record one.")
    face, voice = Path(asked.face), Path(asked.voice)
    if not asked.agreed and not (recognise(face, "face") and recognise(voice, "voice")):
        raise InputError("Did everyone who is seen or heard agree? Say so with the tick, and it can begin.")
    return face, voice
