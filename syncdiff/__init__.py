"""syncdiff: a face video and a voice go in, a re-spoken, scored video comes out.

The public names are looked up on first use, so that `import syncdiff` costs nothing: no torch, no gradio.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "InputError": "errors",
    "Scores": "sync.scoring",
    "Progress": "results",
    "Result": "results",
    "SampleOptions": "options",
    "SyncDiffPipeline": "pipeline",
}

__all__ = list(_ROOMS)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'syncdiff' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"syncdiff.{_ROOMS[name]}"), name)
