"""Old names of public classes' arguments and attributes, which go on working."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)


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
