"""The gradio page over one job runner. It holds no code for media or networks.

build          lays the page out: the form on the left, the view on the right
components     the form
form_filling   events that fill the form: examples, links, the faces found
buttons        events of the buttons: a run, a trial of one frame, a comparison
costs          estimated time of each preset
events         how events run: in the browser, queued, or at once
view_state     what the view shows: a dict for each state, drawn by assets/page/
jobs           one request in a private folder
queue          fair order of the visitors
eta            how long a run takes
share_links    settings <-> query string
examples       faces and voices in assets/examples
verify_tab     the second tab: marks of any video
api            named endpoints for programs, also for MCP
syncnet_fetch  SyncNet's weights, fetched in the background
middleware     limits of requests, before gradio sees them
launch         server settings, theme, ZeroGPU
loading        the job, loaded after the page answers
"""

from syncdiff.late_imports import load_gradio

load_gradio()
from syncdiff.web.build import build_page  # noqa: E402 -- gradio is loaded first
from syncdiff.web.launch import launch_options, wrap_zero_gpu  # noqa: E402
from syncdiff.web.loading import LoadedJob  # noqa: E402

__all__ = ["LoadedJob", "build_page", "launch_options", "wrap_zero_gpu"]
