"""Weight files: folders of this project's pipelines, and other people's checkpoints.

folders       pipelines in diffusers' layout: profile, strict reading, saving in shards
fetching      downloads, after the user has accepted the licence
reading       checkpoints of others: tensors, strict loading into a network
unpickler     a restricted unpickler for them
"""

from syncdiff.late_imports import load_diffusers
from syncdiff.weights.fetching import Offer, ask_on_terminal, fetch
from syncdiff.weights.reading import load_strictly, read_tensors

__all__ = ["Offer", "ask_on_terminal", "fetch", "load_strictly", "read_tensors"]

load_diffusers()
