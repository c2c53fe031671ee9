"""What lies in assets/examples: faces and voices that anybody may try."""

import base64
import filecmp
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"
EXAMPLES = ASSETS / "examples"
DOCUMENTS = {  # what the page links to, below the repository's root
    "Model card": "assets/weights/README.md",
    "Licence": "LICENSE",
    "Credits": "assets/examples/README.md",
}


@dataclass(frozen=True)
class Example:
    """A face and the voice that goes with it; either may be taken alone."""

    key: str  # its name in a link
    label: str  # of the pair
    face: Path
    face_label: str
    voice: Path
    voice_label: str
    poster: Path | None  # a small picture of the face

    @property
    def compared(self) -> Path:
        """Where `tools/make_examples.py` writes the original beside our result."""
        return self.face.with_name(f"{self.key}-compared.mp4")


def examples() -> dict[str, Example]:
    """By key, in the order of examples.json; empty where there is none."""
    index = EXAMPLES / "examples.json"
    rows = json.loads(index.read_text()) if index.is_file() else []
    return {
        row["key"]: Example(
            row["key"],
            row["label"],
            EXAMPLES / row["face"],
            row["face_label"],
            EXAMPLES / row["voice"],
            row["voice_label"],
            EXAMPLES / row["poster"] if "poster" in row else None,
        )
        for row in rows
    }


def poster(example: Example) -> str | None:
    """The small picture as a data URL: it costs the page no request."""
    if example.poster is None:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(example.poster.read_bytes()).decode()


def recognise(path: Path | None, kind: str) -> str | None:
    """The key of the example whose `kind` ("face" or "voice") has the very bytes of `path`, or None."""
    if path is None or not path.is_file():
        return None
    same: Mapping[str, Example] = examples()
    return next((key for key, one in same.items() if filecmp.cmp(path, getattr(one, kind), shallow=False)), None)
