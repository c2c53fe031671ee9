"""Weight files: folders of this project's pipelines, and other people's checkpoints.

folders       which profile a folder holds, reading its networks, saving them in shards
fetching      downloads of a named file, after its licence was shown and accepted
reading       a checkpoint -> its tensors, and from there into a network
unpickler     what a checkpoint's pickle may build
"""

from syncdiff.late_imports import load_diffusers
from syncdiff.weights.fetching import Offer, ask_on_terminal, fetch
from syncdiff.weights.reading import load_strictly, read_tensors

__all__ = ["Offer", "ask_on_terminal", "fetch", "load_strictly", "read_tensors"]

load_diffusers()
