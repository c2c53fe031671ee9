"""The page of syncdiff: `python app.py [--offline]`, or a Hugging Face Space.

At the first start it fetches SyncNet's file for the scores, unless --offline or HF_HUB_OFFLINE=1 forbids it."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from functools import partial

from syncdiff.server_tmpdir import make_server_tmpdir

# glibc keeps a heap for each of many threads, and what is freed in one helps no other (docs/page.md has figures).
with suppress(OSError, AttributeError):  # another C library
    ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX

# Read when gradio is imported: no calls home, and a folder for uploads and results that is ours alone and goes with us.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = str(make_server_tmpdir() / "gradio")
import spaces  # on a ZeroGPU Space it has to come before torch, and to decorate something

from syncdiff.errors import InputError
from syncdiff.preview import Preview
from syncdiff.provenance.manifest import credentials
from syncdiff.web import LoadedJob, build_page, launch_options, wrap_zero_gpu

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # a stopped container tidies up as well
try:
    credentials()
except InputError as sentence:  # a key that cannot sign is said at once, and not after somebody's whole run
    sys.exit(f"app.py: {sentence}")
job = LoadedJob()
load = partial(job.load, offline="--offline" in sys.argv[1:])
first = bool(os.environ.get("SPACES_ZERO_GPU"))  # there `launch` readies what is loaded for the processes to come
if first:
    load()
demo = build_page(wrap_zero_gpu(job, spaces.GPU), Preview(lambda: job.pipe), job)
if __name__ == "__main__":
    demo.launch(prevent_thread_lock=True, **launch_options())  # the page has answered when this returns
    if not first:
        load()
    demo.block_thread()
