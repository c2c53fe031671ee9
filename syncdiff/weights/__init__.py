"""Weight files: folders of this project's pipelines, and other people's checkpoints.

folders       which profile a folder holds, reading its networks, saving them in shards
fetching      downloads of a named file, after its licence was shown and accepted
reading       a checkpoint -> its tensors, and from there into a network
formats       the zip of PyTorch 1.6 and later, and the older stream ("legacy")
"""

from syncdiff.errors import CheckpointError
from syncdiff.weights.fetching import Offer, ask_on_terminal, fetch
from syncdiff.weights.pickle_names import Inert
from syncdiff.weights.reading import load_strictly, read_tensors
from syncdiff.weights.refusal import some

__all__ = ["CheckpointError", "Inert", "Offer", "ask_on_terminal", "fetch", "load_strictly", "read_tensors", "some"]
