"""What every test shares: quiet threads, no network, a private temp folder, fixed seeds, a loud word about skips."""

import os

# Before torch, gradio or huggingface_hub are imported: they read these once.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin make each other crawl on a shared machine
os.environ["GOMP_SPINCOUNT"] = "0"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("GRADIO_SERVER_PORT", None)

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def private_temp(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temp folder of the test's own, for child processes too: a test can ask whether anything was left behind."""
    folder = tmp_path_factory.mktemp("temp")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 -- the point is the global state that a library may read
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:  # noqa: F821 -- too heavy for most tests
    """The real app, for whoever attacks it or crowds it."""
    from tests.serving import Server

    app = Server(tmp_path_factory.mktemp("server"))
    yield app
    app.end()


@pytest.fixture
def server(app: "Server") -> "Server":  # noqa: F821
    """The app, started unless it runs already."""
    if not app.runs():
        app.start()
    return app


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        skip = pytest.mark.skip(reason="no CUDA GPU: what runs on one was NOT tested")
        for item in items:
            if item.get_closest_marker("gpu") and not torch.cuda.is_available():
                item.add_marker(skip)
    if CHROMIUM is None:
        skip = pytest.mark.skip(reason="no Chromium on PATH: the page was NOT tested in a browser")
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Skips hide easily among dots: say in plain words what this machine could not test."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("NOT TESTED ON THIS MACHINE", sep="!", red=True)
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:4d} x {reason}", yellow=True)
