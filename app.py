"""The page of syncdiff: `python app.py`, or a Hugging Face Space."""

import os
import signal
import sys

from syncdiff.home import settle

# Read when gradio is imported: no calls home, and a folder for uploads and results that is ours alone and goes with us.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = str(settle() / "gradio")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read by torch: threads that spin steal cores from the encoder
import spaces  # on a ZeroGPU Space it has to come before torch

from syncdiff.look import Look
from syncdiff.media import InputError
from syncdiff.page import build_page, gpu_seconds, launch_options
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.provenance import credentials

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # a stopped container tidies up as well
try:
    credentials()
except InputError as sentence:  # a key that cannot sign is said at once, and not after somebody's whole run
    sys.exit(f"app.py: {sentence}")
pipe = SyncDiffPipeline.ready()


@spaces.GPU(duration=gpu_seconds)
def make(face, voice, out, options):
    """The pipeline; on a ZeroGPU Space with a GPU that is lent for as long as this takes, elsewhere as it is."""
    if os.environ.get("SPACES_ZERO_GPU"):
        pipe.to("cuda")
    yield from pipe(face, voice, out, options)


demo = build_page(make, Look(pipe))
if __name__ == "__main__":
    demo.launch(**launch_options())
