"""What tells that lips were redrawn, and reading it back. Knows pixels and files; nothing of models or jobs.

label      small words in the corner of every frame
watermark  an invisible mark in the redrawn mouth        payload  the bits in it, and when chance is excluded
manifest   a signed note in the file (C2PA)
verify     all three, read back from any file, in plain words
"""

from syncdiff.provenance.label import label
from syncdiff.provenance.manifest import Manifest, credentials, read_manifest, sign
from syncdiff.provenance.verify import Verification, verify, verifying
from syncdiff.provenance.watermark import Watermark, WatermarkReading, read_watermark

__all__ = [
    "Manifest",
    "Verification",
    "Watermark",
    "WatermarkReading",
    "credentials",
    "label",
    "read_manifest",
    "read_watermark",
    "sign",
    "verify",
    "verifying",
]
