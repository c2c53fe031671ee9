"""Importing this makes `import av` work where PyAV is not installed, for code that never opens a film."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Anything(type):
    """A class whose attributes are all 0."""

    def __getattr__(cls, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0


class Absent(MetaPathFinder, Loader):
    """Every module below `av`, empty; every name in it an exception class."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "av" else None

    def exec_module(self, module: ModuleType) -> None:
        def attribute(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything(name, (Exception,), {})

        module.__getattr__ = attribute


sys.meta_path.append(Absent())  # asked last: a PyAV that is installed is taken
