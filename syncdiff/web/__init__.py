"""The page: a pipeline in, a gradio page out. Arranges parts and passes files on; knows nothing of media or networks.

build     the form, the view beside it, what happens when   launch    how the page is served
form      the parts of the form                             views     what the view is told
runs      one request in a private folder                   queue     whose turn it is
pace      how long a run takes                              links     settings <-> a short address
examples  what lies in assets/examples                      check     the second tab: label, mark and note of any video
programs  the same for programs: named endpoints, MCP

What a run shows is drawn by assets/page/ from one dict.
"""

from syncdiff.web.build import build_page
from syncdiff.web.launch import launch_options, wrap_zero_gpu

__all__ = ["build_page", "launch_options", "wrap_zero_gpu"]
