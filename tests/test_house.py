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
ORDER = ["media", "faces", "crops", "speech", "codec", "denoiser", "sampler", "syncnet", "scores", "weights",
         "pipeline", "page", "__main__"]  # fmt: skip
ROOMS = sorted(path for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def rooms_imported(source: str) -> set[str]:
    """Names of the syncdiff modules that a module imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            inside = node.level == 1 or node.module == "syncdiff"
            if node.module and (node.level == 1 or node.module.startswith("syncdiff.")):
                found.add(node.module.removeprefix("syncdiff.").split(".")[0])
            elif inside:
                found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("syncdiff."))
    return found


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from syncdiff.media import Clip", {"media"}),
        ("from .faces import choose", {"faces"}),
        ("from syncdiff import crops, speech", {"crops", "speech"}),
        ("def f():\n    import syncdiff.training.data", {"training"}),
        ("import numpy", set()),
    ],
)
def test_rooms_imported_sees_every_form(source: str, rooms: set[str]) -> None:
    assert rooms_imported(source) == rooms


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.stem)
def test_a_room_imports_only_earlier_rooms(path: Path) -> None:
    assert path.stem in ORDER, f"{path.name} has no place in the order of rooms"
    earlier = set(ORDER[: ORDER.index(path.stem)])
    later = rooms_imported(path.read_text()) - earlier
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
