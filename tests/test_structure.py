"""The repository: what importing costs, and that one fact written twice is the same fact. Import order: `make lint`."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, syncdiff; print([m for m in ('torch', 'gradio', 'cv2', 'numpy', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_loads_no_compiler_no_statistics_and_no_plots_which_still_work() -> None:
    code = """
import sys
from syncdiff.job import Job
from syncdiff.faces.mediapipe_backend import MediapipeDetector
Job.ready()
MediapipeDetector().__exit__()
unused = ("torch._dynamo", "scipy.stats", "scipy.integrate", "matplotlib", "gradio", "skimage")
print([m for m in unused if m in sys.modules])
import diffusers, importlib.metadata, matplotlib.pyplot, mediapipe, scipy.stats, torch
from mediapipe.python.solutions.drawing_utils import plt
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item(), scipy.stats.norm.cdf(0),
      plt.plot is matplotlib.pyplot.plot, mediapipe.tasks.vision.FaceLandmarker.__name__)
multistep = diffusers.LMSDiscreteScheduler()  # its coefficients are integrals
multistep.set_timesteps(5)
print(round(multistep.get_lms_coefficient(1, 2, 0) / float(multistep.sigmas[3] - multistep.sigmas[2]), 3),
      "numpy" in importlib.metadata.packages_distributions())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "2.0 0.5 True FaceLandmarker", "1.0 True"]


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
    pins = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
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


def test_commands_in_the_docs_name_modules_and_options_that_exist() -> None:
    asked = re.compile(r"(?:-m (syncdiff[\w.]*)|python (tools/\w+)\.py)([^\n`]*)")
    found = 0
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for module, tool, rest in asked.findall(page.read_text().replace("\\\n", " ")):
            path = ROOT / ("syncdiff/cli/__init__" if module == "syncdiff" else module.replace(".", "/") or tool)
            source = path.with_suffix(".py").read_text()
            options = re.findall(r"(?<![\w-])--[a-z][\w-]*", rest)
            assert not [option for option in options if f'"{option}"' not in source], (page.name, module or tool, rest)
            found += len(options)
    assert found > 30


SOURCES = {path.relative_to(ROOT).with_suffix("").parts: path.read_text() for path in (ROOT / "syncdiff").rglob("*.py")}


def is_defined(name: str) -> bool:
    """Whether `name`, alone or as module.function or Class.member, is in the code."""
    scope, _, last = name.rpartition(".")
    scope = scope.rpartition(".")[2]
    of_class = re.compile(rf"^class {scope}\b", re.MULTILINE)
    here = {module: text for module, text in SOURCES.items() if not scope or scope in module or of_class.search(text)}
    definition = re.compile(rf"\b(?:def|class) {last}\b|\b{last}(?:, \w+)*(?:: [^=\n]+)? = |^ +{last}: ", re.MULTILINE)
    return any(last in module or definition.search(text) for module, text in here.items())


def test_what_the_docs_name_is_in_the_code() -> None:
    files, names = [], []
    for page in (ROOT / "docs").glob("*.md"):
        quoted = re.findall(r"`([\w./]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
        files += [name for name in quoted if re.fullmatch(r"[a-z]+/[\w/]+\.(py|md|toml)", name)]
        if page.name in ("how-it-works.md", "glossary.md"):
            dotted = [name.rpartition("/")[2] for name in quoted if not re.search(r"/$|\.(py|md|toml)$", name)]
            names += [name for name in dotted if name not in ("compact", "paper")]  # profiles
        if page.name == "how-it-works.md":
            names += re.findall(r"\w+\.[\w.]+", re.search(r"```(.*?)```", page.read_text(), re.DOTALL)[1])
    assert not [name for name in files if not any((top / name).exists() for top in (ROOT, ROOT / "syncdiff"))]
    assert not [name for name in names if not is_defined(name)]
    assert len(files) > 50
    assert len(names) > 40
