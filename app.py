"""The page of syncdiff: `python app.py [--offline]`, or a Hugging Face Space.

At the first start it fetches SyncNet's file for the scores, unless --offline or HF_HUB_OFFLINE=1 forbids it."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from functools import partial

from syncdiff.server_tmpdir import make_server_tmpdir

# glibc gives every few threads their own heap; memory freed in one is not used by another (figures: docs/page.md).
with suppress(OSError, AttributeError):  # another C library
    ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX

# Read when gradio is imported: no telemetry; uploads and results in a private folder that is removed at the end.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = str(make_server_tmpdir() / "gradio")
import spaces  # on a ZeroGPU Space it must be imported before torch, and decorate a function

from syncdiff.errors import InputError
from syncdiff.preview import Preview
from syncdiff.provenance.manifest import credentials
from syncdiff.web import LoadedJob, build_page, launch_options, wrap_zero_gpu

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # a stopped container cleans up as well
try:
    credentials()
except InputError as sentence:  # a key that cannot sign ends the start, not somebody's whole run
    sys.exit(f"app.py: {sentence}")
job = LoadedJob()
load = partial(job.load, offline="--offline" in sys.argv[1:])
zero_gpu = bool(os.environ.get("SPACES_ZERO_GPU"))  # there `launch` hands the loaded networks to the GPU processes
if zero_gpu:
    load()
demo = build_page(wrap_zero_gpu(job, spaces.GPU), Preview(lambda: job.pipe), job.lse_needs)
if __name__ == "__main__":
    demo.launch(prevent_thread_lock=True, **launch_options())  # returns when the page answers
    if not zero_gpu:
        load()
    demo.block_thread()
