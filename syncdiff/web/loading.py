"""The job behind the page, loaded after the page answers: torch and the networks take as long again."""

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
    from syncdiff.web.syncnet_fetch import SyncNetFetch


class LoadedJob:
    """Runs jobs as a Job does; calls before `load` is done wait for it."""

    def __init__(self) -> None:
        self._job: Future[Job] = Future()
        self._fetch: SyncNetFetch | None = None

    def load(self, *, offline: bool = False) -> None:
        """Load the job, and fetch SyncNet's file unless `offline`. An error is also raised in every call that waits."""
        try:
            from syncdiff.job import Job
            from syncdiff.web.syncnet_fetch import SyncNetFetch

            job = Job.ready()
        except BaseException as error:
            self._job.set_exception(error)
            raise
        self._fetch = SyncNetFetch(job)
        if job.syncnet is None:
            self._fetch.start(offline=offline)
        self._job.set_result(job)

    def __call__(
        self, face: Path, voice: Path, out: Path, options: SampleOptions
    ) -> Generator[Progress | Result, None, None]:
        yield from self._job.result()(face, voice, out, options)

    @property
    def pipe(self) -> SyncDiffPipeline:
        """The components of the job."""
        return self._job.result().pipe

    def lse_needs(self) -> str:
        """Why LSE-C and LSE-D are missing at this moment; "" before the job is loaded."""
        return self._fetch.lse_needs() if self._fetch else ""
