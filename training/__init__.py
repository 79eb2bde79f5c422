"""From photos and paintings to checkpoints: one call for each kind of training.

    from impasto.training import StyleOptions, train_style

Importing this package costs nothing; the first use of a name imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from impasto.public_names import late_imports

if TYPE_CHECKING:
    from .distillation import DistillOptions, distill
    from .loop.options import FitOptions, FitResult, StepReport
    from .restoration import RestoreOptions, train_restorer
    from .style import StyleOptions, train_style

__all__ = [
    "DistillOptions",
    "FitOptions",
    "FitResult",
    "RestoreOptions",
    "StepReport",
    "StyleOptions",
    "distill",
    "train_restorer",
    "train_style",
]

_MODULES = {
    "DistillOptions": "distillation",
    "FitOptions": "loop.options",
    "FitResult": "loop.options",
    "Progress": "loop.options",  # the old name of StepReport
    "RestoreOptions": "restoration",
    "StepReport": "loop.options",
    "StyleOptions": "style",
    "distill": "distillation",
    "train_restorer": "restoration",
    "train_style": "style",
}
"""The module that each public name comes from."""

__getattr__, __dir__ = late_imports(__name__, _MODULES)
