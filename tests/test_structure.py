"""The house itself: who may import whom, what importing costs, and that one fact written twice is the same fact."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "syncdiff"

# A later room may import an earlier one, never the other way; training sees them all and is seen by none.
ORDER = ["errors", "server_tmpdir", "progress", "audio", "media", "faces", "options", "weights", "geometry", "devices",
         "models", "diffusion", "sync", "results", "conditioning", "generator", "paper", "provenance", "pipeline",
         "job", "batch", "preview", "web", "cli", "__main__"]  # fmt: skip
FILES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.parent.name not in ("training", "evaluation") and path != PACKAGE / "__init__.py"
)


def room_of(path: Path) -> str:
    """A room is a module, or a folder of modules with one door."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(source: str, depth: int = 1) -> set[str]:
    """Rooms that a module `depth` folders below the repository imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("syncdiff."))
        elif isinstance(node, ast.ImportFrom):
            start = {0: "", depth: "syncdiff."}.get(node.level, "elsewhere.")
            first, _, rest = f"{start}{node.module or ''}".strip(".").partition(".")
            if first == "syncdiff":
                found.update([rest.split(".")[0]] if rest else [alias.name for alias in node.names])
    return found


@pytest.mark.parametrize(
    ("source", "depth", "rooms"),
    [
        ("from syncdiff.media import Clip", 1, {"media"}),
        ("from syncdiff.media.clip import Clip", 2, {"media"}),
        ("from .faces import choose", 1, {"faces"}),
        ("from .clip import Clip", 2, set()),
        ("from ..crops import cut", 2, {"crops"}),
        ("from . import speech", 1, {"speech"}),
        ("from syncdiff import crops, speech", 1, {"crops", "speech"}),
        ("def f():\n    import syncdiff.training.data", 1, {"training"}),
        ("import numpy\nfrom torch import nn", 1, set()),
    ],
)
def test_rooms_imported_sees_every_form(source: str, depth: int, rooms: set[str]) -> None:
    assert rooms_imported(source, depth) == rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_earlier_rooms(path: Path) -> None:
    room = room_of(path)
    assert room in ORDER, f"{path.name} has no place in the order of rooms"
    imported = rooms_imported(path.read_text(), len(path.relative_to(PACKAGE).parts))
    later = imported - set(ORDER[: ORDER.index(room) + 1])
    assert not later, f"{path.name} imports {sorted(later)}, which come after it"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, syncdiff; print([m for m in ('torch', 'gradio', 'cv2', 'numpy', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists() -> None:
    import syncdiff

    for name in syncdiff.__all__:
        assert getattr(syncdiff, name).__name__ == name
    with pytest.raises(AttributeError, match="it has InputError"):
        _ = syncdiff.no_such_name


def space_header() -> dict[str, str]:
    header = (ROOT / "README.md").read_text().split("---")[1]
    return dict(line.split(": ", 1) for line in header.strip().splitlines())


def test_the_space_installs_what_was_measured() -> None:
    header = space_header()
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert header["sdk_version"] == pins["gradio"]
    assert header["python_version"].strip('"') in {"3.11", "3.12"}
    assert project["requires-python"] == ">=3.11,<3.13"
    assert (ROOT / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60
    assert "xformers" not in pins


def test_nothing_in_the_repository_is_too_big_for_a_space() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: the sizes of tracked files were NOT checked")
    big = [name for name in listed.stdout.split("\0") if name and (ROOT / name).stat().st_size > 10_000_000]
    assert not big


def test_readme_is_short_and_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    for name in re.findall(r"`((?:syncdiff|assets|tests|bench)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"README.md names {name}, which is not there"
