"""Marks of redrawn lips, and their detection. Imports no model and no job.

label      small words in the corner of every frame
watermark  invisible, in the redrawn mouth
manifest   a signed C2PA manifest in the file
verify     all three, read back from any file, in plain words
"""

from syncdiff.provenance.label import label
from syncdiff.provenance.manifest import credentials, read_manifest, sign
from syncdiff.provenance.verify import Verification, verify, verifying
from syncdiff.provenance.watermark import Watermark

__all__ = ["Verification", "Watermark", "credentials", "label", "read_manifest", "sign", "verify", "verifying"]
