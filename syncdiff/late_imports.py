"""Imports of large libraries without parts that are not used here; those are loaded lazily.

CPU time: diffusers 0.9 s, instead of 3.0 s with torch's compiler and scipy's statistics, and 0.9 s more with scipy's
integrals and a list of all installed files; mediapipe 0.4 s, instead of 0.9 s with matplotlib. On a busy machine gradio
takes 2.6 s, instead of 5.8 s with pandas and its stub files.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any


class _LazyModule(ModuleType):
    """Placeholder for a module that is loaded at the first use of an attribute that is not among the `stubs`."""

    def __init__(self, name: str, **stubs: Any) -> None:
        super().__init__(name)
        self.__dict__.update(stubs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def put_off(*modules: _LazyModule | str) -> Iterator[None]:
    """Inside, importing these modules does not load them, if they are not loaded yet; using them does."""
    lazy = [_LazyModule(module) if isinstance(module, str) else module for module in modules]
    placed = [module for module in lazy if sys.modules.setdefault(module.__name__, module) is module]
    try:
        yield
    finally:
        for module in placed:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def without_compiler() -> AbstractContextManager[None]:
    """Inside, importing torch's compiler is put off; diffusers decorates with it, and tests for compiled modules."""
    from torch._compile import _disable_dynamo  # torch's own decorator that loads the compiler at the first call

    class NothingCompiled:
        pass

    compiler = _LazyModule(
        "torch._dynamo",
        allow_in_graph=lambda fn: fn,  # as diffusers has it where there is no compiler
        disable=lambda fn=None, recursive=True, **_: _disable_dynamo(fn, recursive),
        eval_frame=SimpleNamespace(OptimizedModule=NothingCompiled),
    )
    return put_off(compiler)


@contextmanager
def _no_packages_listed() -> Iterator[None]:
    """Inside, installed files are not listed; diffusers lists them all to look for three optional packages."""
    before, importlib.metadata.packages_distributions = importlib.metadata.packages_distributions, dict
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = before


def load_diffusers() -> None:
    """Load the parts of diffusers that are used. To be called before any other import of diffusers."""
    with without_compiler(), put_off("scipy.stats", "scipy.integrate", "requests"), _no_packages_listed():
        from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel, VQModel  # noqa: F401


def load_mediapipe() -> None:
    """Load mediapipe without matplotlib."""
    pyplot = _LazyModule("matplotlib.pyplot")
    with put_off(_LazyModule("matplotlib", pyplot=pyplot), pyplot):
        from mediapipe.python.solutions import face_detection  # noqa: F401


def load_gradio() -> None:
    """Load gradio without pandas, and without the stub files that it writes into its own folder for each component.

    gradio 6.31 reads, parses and compares the source of every component class for them at each start."""
    getfile = inspect.getfile

    def getfile_without_gradio(obj: Any) -> str:
        if isinstance(obj, type) and obj.__module__.startswith("gradio."):
            raise OSError("no stub for this class")  # gradio's `create_or_modify_pyi` then writes none
        return getfile(obj)

    inspect.getfile = getfile_without_gradio
    try:
        with put_off("pandas"):
            import gradio  # noqa: F401
    finally:
        inspect.getfile = getfile
