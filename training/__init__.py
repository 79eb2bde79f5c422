"""From photos and paintings to checkpoints: one call for each kind of training.

    from impasto.training import StyleOptions, train_style

Importing this package costs nothing; the first use of a name imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from impasto.errors import MissingDependency, install

if TYPE_CHECKING:
    from .distillation import DistillOptions, distill
    from .loop.options import FitOptions, FitResult, Progress
    from .restoration import RestoreOptions, train_restorer
    from .style import StyleOptions, train_style

__all__ = [
    "DistillOptions",
    "FitOptions",
    "FitResult",
    "Progress",
    "RestoreOptions",
    "StyleOptions",
    "distill",
    "train_restorer",
    "train_style",
]

_MODULES = {
    "DistillOptions": "distillation",
    "FitOptions": "loop.options",
    "FitResult": "loop.options",
    "Progress": "loop.options",
    "RestoreOptions": "restoration",
    "StyleOptions": "style",
    "distill": "distillation",
    "train_restorer": "restoration",
    "train_style": "style",
}
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    """Import a public name on its first use. Raises MissingDependency where torch is not installed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_MODULES[name]}", __name__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("impasto"):
            raise
        raise MissingDependency(f"training needs {error.name}: {install('train')}") from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
