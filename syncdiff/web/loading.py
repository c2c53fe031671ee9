"""The job behind the page. It is loaded when the page answers already: torch and the networks take as long again."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from syncdiff.options import SampleOptions
from syncdiff.results import Progress, Result

if TYPE_CHECKING:
    from syncdiff.job import Job
    from syncdiff.pipeline import SyncDiffPipeline


class LoadedJob:
    """Runs jobs as a Job does; whoever asks before `load` is done waits for it."""

    def __init__(self) -> None:
        self._job: Future[Job] = Future()
        self._syncnet: object = ""

    def load(self, *, offline: bool = False) -> None:
        """Load the job, and fetch SyncNet's file unless `offline`. What that raises, whoever waits gets too."""
        try:
            from syncdiff.job import Job
            from syncdiff.web.syncnet_fetch import SyncNetFetch

            job = Job.ready()
        except BaseException as error:
            self._job.set_exception(error)
            raise
        self._syncnet = fetch = SyncNetFetch(job)
        if job.syncnet is None:
            fetch.start(offline=offline)
        self._job.set_result(job)

    def __call__(
        self, face: Path, voice: Path, out: Path, options: SampleOptions
    ) -> Generator[Progress | Result, None, None]:
        yield from self._job.result()(face, voice, out, options)

    @property
    def pipe(self) -> SyncDiffPipeline:
        """The components of the job."""
        return self._job.result().pipe

    def __str__(self) -> str:
        """Why SyncNet's scores are missing."""
        return str(self._syncnet)
