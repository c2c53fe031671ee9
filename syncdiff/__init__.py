"""syncdiff: a face video and a voice go in, a re-spoken, scored video comes out.

The public names are looked up on first use, so that `import syncdiff` costs nothing: no torch, no gradio.
"""

import os
from importlib import import_module
from typing import Any

# Read when torch and numpy are loaded. Threads that spin while they wait steal cores from whatever else runs: beside
# three busy processes a film of 5 s takes 9.7 s with the first line and 45 s without; numpy inverts a 2 x 2 matrix in
# 7 us with the second line, and in up to 1,300 us of CPU without.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_MODULES = {
    "InputError": "errors",
    "Scores": "sync.scoring",
    "Progress": "results",
    "Result": "results",
    "SampleOptions": "options",
    "SyncDiffPipeline": "pipeline",
}

__all__ = list(_MODULES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'syncdiff' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"syncdiff.{_MODULES[name]}"), name)
