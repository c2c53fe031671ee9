"""The page: a pipeline in, a gradio page out. Arranges parts and passes files on; no code for media or networks.

build          the form, the view beside it, what happens when
components     the parts of the form
view_state     what the view shows
jobs           one request in a private folder
queue          whose turn it is
eta            how long a run takes
share_links    settings <-> a short address
examples       what lies in assets/examples
verify_tab     the second tab: label, mark and note of any video
api            the same for programs: named endpoints, MCP
syncnet_fetch  SyncNet's file, in the background
middleware     what stands before gradio
launch         how the page is served
loading        the job behind it, loaded when the page answers

What a run shows is drawn by assets/page/ from one dict.
"""

from syncdiff.late_imports import load_gradio

load_gradio()
from syncdiff.web.build import build_page  # noqa: E402 -- gradio is loaded first
from syncdiff.web.launch import launch_options, wrap_zero_gpu  # noqa: E402
from syncdiff.web.loading import LoadedJob  # noqa: E402

__all__ = ["LoadedJob", "build_page", "launch_options", "wrap_zero_gpu"]
