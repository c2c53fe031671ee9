"""Other people's checkpoint files -> plain containers of tensors. Knows the file formats, and no network's layers.

A PyTorch checkpoint is a pickle, and a pickle is a small program that may call whatever it names. It is never run here.

refusal  what is said of a file that cannot be used
named    what a file names: classes that stay names, storages, tensors that are read when they are wanted
machine  steps through a pickle, and has no instruction for importing or calling
formats  the zip of PyTorch 1.6 and later, and the older stream ("legacy") before it
reading  a file -> its tensors, and from there into a network
fetching the only way in from outside: it shows the licence and asks first
"""

from syncdiff.checkpoints.fetching import Offer, ask_on_terminal, fetch
from syncdiff.checkpoints.named import Inert
from syncdiff.checkpoints.reading import load_strictly, read_tensors
from syncdiff.checkpoints.refusal import CheckpointError, some

__all__ = ["CheckpointError", "Inert", "Offer", "ask_on_terminal", "fetch", "load_strictly", "read_tensors", "some"]
