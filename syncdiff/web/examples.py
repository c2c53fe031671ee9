"""The faces and voices in assets/examples, which anybody may use."""

import base64
import filecmp
import json
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"
EXAMPLES = ASSETS / "examples"
DOCUMENTS = {  # that the page links to; paths from the repository's root
    "Model card": "assets/weights/README.md",
    "Licence": "LICENSE",
    "Credits": "assets/examples/README.md",
}


@dataclass(frozen=True)
class Example:
    """A face and a voice that go together; each can be used alone."""

    key: str  # its name in links
    label: str  # of face and voice together
    face: Path
    face_label: str
    voice: Path
    voice_label: str
    poster: Path | None = None  # a small picture of the face

    @property
    def compared(self) -> Path:
        """The video of original and result, from `tools/make_examples.py`."""
        return self.face.with_name(f"{self.key}-compared.mp4")


def examples() -> dict[str, Example]:
    """The examples by key, in the order of examples.json; empty without that file."""
    index = EXAMPLES / "examples.json"
    entries = json.loads(index.read_text()) if index.is_file() else []
    files = ("face", "voice", "poster")
    return {
        entry["key"]: Example(**entry | {name: EXAMPLES / entry[name] for name in files if name in entry})
        for entry in entries
    }


def poster(example: Example) -> str | None:
    """The small picture as a data URL, which needs no request."""
    if example.poster is None:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(example.poster.read_bytes()).decode()


def recognise(path: Path | None, kind: str) -> str | None:
    """The key of the example whose `kind` ("face" or "voice") has the same bytes as `path`, or None."""
    if path is None or not path.is_file():
        return None
    known = examples().items()
    return next((key for key, example in known if filecmp.cmp(path, getattr(example, kind), shallow=False)), None)
