"""The page of syncdiff: `python app.py`, or a Hugging Face Space."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: else it calls home
import spaces  # noqa: F401, I001 -- on a ZeroGPU Space it has to come before torch

from syncdiff.page import build_page, launch_options
from syncdiff.pipeline import SyncDiffPipeline

demo = build_page(SyncDiffPipeline.from_pretrained())
if __name__ == "__main__":
    demo.launch(server_port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")), **launch_options())
