"""Fetches the weights of SyncNet and of its face detector in the background, for LSE-C and LSE-D."""

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from syncdiff.errors import CheckpointError
from syncdiff.job import Job
from syncdiff.sync import syncnet_v2
from syncdiff.sync.syncnet_v2.weights import OFFER
from syncdiff.weights import Offer, fetch

S3FD = Offer(
    "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
    "S3FD in face-alignment's copy, 90 MB, BSD-3-Clause; trained on WIDER FACE.",
    "619a316812",  # the start of its sha256, as in the file's name
)
SOURCE = (
    "LSE-C and LSE-D need SyncNet v2 (Chung and Zisserman 2016, from Oxford's VGG; the code is MIT, the file names no "
    "licence) and the S3FD face detector (BSD)"
)

log = logging.getLogger(__name__)


class SyncNetFetch:
    """One attempt to fetch what LSE needs, in a thread that ends with the process.

    job: gets the network once it is loaded. offers: the files, each with its addresses and hash."""

    def __init__(self, job: Job, offers: Sequence[Offer] = (OFFER, S3FD)) -> None:
        self._job, self._offers, self.state = job, offers, "are not installed"
        self._thread = threading.Thread(target=self._run, name="syncnet", daemon=True)

    def start(self, *, offline: bool = False) -> None:
        """Start the thread, unless `offline` or HF_HUB_OFFLINE in the environment forbids it."""
        if offline or os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no", "off"):
            return
        self.state = "are being fetched"
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether the attempt is over."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def lse_needs(self) -> str:
        """Why LSE-C and LSE-D are missing at this moment, in a sentence."""
        return f"{SOURCE}, which {self.state}."

    def _run(self) -> None:
        try:
            for offer in self._offers:
                fetch(offer, Path(torch.hub.get_dir()) / "checkpoints", ask=lambda _: True)
            self._job.syncnet = syncnet_v2.load()
        except (CheckpointError, OSError) as error:
            log.warning("SyncNet was not fetched: %s", error)
            self.state = "could not be fetched at the start of this server"
        else:
            self.state = "are installed: from the next video on they are scored"
