"""A package's public names, each imported on its first use: importing the package then costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from impasto.errors import missing


def late_imports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    package: its `__name__`. modules: each public name, and the module inside the package that defines it.
    The first use of a name raises MissingDependency, with the command that installs it, where a library is not installed.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f"{package}.{modules[name]}")
        except ModuleNotFoundError as error:
            told = missing(error)
            if told is None:  # a fault of ours, not of the installation
                raise
            raise told from None
        return getattr(module, name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
