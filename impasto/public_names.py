"""Public names: how a package imports them on their first use, and how old ones go on working."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from impasto.errors import missing

_Class = TypeVar("_Class", bound=type)


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


def renamed(**names: str) -> Callable[[_Class], _Class]:
    """Decorate a class so that its old names work, each with a DeprecationWarning. names: old="new"."""

    def decorate(decorated: _Class) -> _Class:
        build = decorated.__init__  # type: ignore[misc]

        @functools.wraps(build)
        def build_by_any_name(self: Any, *arguments: Any, **named: Any) -> None:
            for old in names.keys() & named.keys():
                _warn(decorated, old, names[old])
                named[names[old]] = named.pop(old)
            build(self, *arguments, **named)

        decorated.__init__ = build_by_any_name  # type: ignore[misc]
        for old, new in names.items():
            setattr(decorated, old, property(functools.partial(_read, decorated, old, new)))
        return decorated

    return decorate


def _read(decorated: type, old: str, new: str, instance: Any) -> Any:
    _warn(decorated, old, new)
    return getattr(instance, new)


def _warn(decorated: type, old: str, new: str) -> None:
    warnings.warn(f"{decorated.__name__}.{old} is now called {new}", DeprecationWarning, stacklevel=3)
