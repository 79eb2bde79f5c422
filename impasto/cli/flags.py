"""Options of a verb as fields of a dataclass, so that verbs can share them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

Flags = TypeVar("Flags")


def takes(flags: type[Flags]) -> Callable[[Callable[[Flags], None]], Callable[..., None]]:
    """Turn a function of one dataclass into a command that Typer can read: one parameter for each field.

    flags: a dataclass. Its fields are annotated as a command's parameters are, and a field without a default is required.
    The help shows the fields of the class itself before those of its bases.
    """
    hints = get_type_hints(flags, include_extras=True)
    declared = {field.name: field for field in dataclasses.fields(flags)}  # type: ignore[arg-type]
    ordered = dict.fromkeys(
        name for owner in flags.__mro__ for name in inspect.get_annotations(owner) if name in declared
    )
    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=_default(declared[name]), annotation=hints[name]
        )
        for name in ordered
    ]

    def decorate(function: Callable[[Flags], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            function(flags(**given))

        del command.__wrapped__  # Typer would read its annotations
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _default(field: dataclasses.Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
