"""What is asked of a model besides a picture: style, strength, colours, working size. Checked by the model's spec alone.

So a wrong wish is known before a backend loads, or on a machine that has none.
"""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import Literal

import numpy as np

from impasto.errors import OptionError
from impasto.images.sizes import LEAST_WORKING_SIZE
from impasto.package.spec import RESTORERS, ModelSpec
from impasto.styles import Wanted, mixture


def style_shares(spec: ModelSpec, path: Path, style: Wanted, strength: float) -> np.ndarray | None:
    """The share of each of the network's styles, as `mixture` gives them; None for a restorer, which has none.

    path: of the model, for the message. Raises OptionError for a style or strength that the network has not learnt.
    """
    if not spec.strength and spec.task not in RESTORERS:
        return mixture(spec.styles, style, strength)
    mixture((), style)  # raises if a style was named
    _check_strength(spec, path, strength)
    return None


def check_keep_colors(spec: ModelSpec, wanted: bool) -> None:
    """Raises OptionError if `keep_colors` is wanted of a network that is no stylizer."""
    if wanted and not spec.may_draw_smaller:
        raise OptionError(
            f"keep_colors is for stylizers, and {spec.name} is a network for {spec.task}; "
            "leave keep_colors out (--keep-colors at the command line)"
        )


def working_size(spec: ModelSpec, wanted: int | Literal["auto"] | None) -> int | None:
    """The working size in use, in pixels. Raises OptionError for a value that `load` does not take."""
    if wanted is None or wanted == "auto":
        return spec.working_size if wanted else None
    if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or wanted < LEAST_WORKING_SIZE:
        raise OptionError(
            f"working_size is {wanted!r}; wanted 'auto', None (every picture at its own size), or {LEAST_WORKING_SIZE} pixels or more"
        )
    if not spec.may_draw_smaller:
        raise OptionError(
            f"a working size is for stylizers, and {spec.name} is a network for {spec.task}: a smaller picture would lose detail; "
            "leave working_size out (--working-size at the command line)"
        )
    return int(wanted)


def _check_strength(spec: ModelSpec, path: Path, strength: float) -> None:
    """Raises OptionError for a strength that this restorer does not take."""
    most = spec.strength
    if not isinstance(strength, Real) or (most and not 0 <= strength <= most):
        raise OptionError(
            f"strength is {strength!r}; wanted a number from 0 (the picture itself) to {most or 1:g}, where 1 is the full effect"
        )
    if not most and strength != 1:
        remedy = (
            "no network that enlarges takes one; leave strength out"
            if spec.scale > 1
            else f"leave strength out, or add one: impasto export {path} --with-strength"
        )
        raise OptionError(f"strength is {strength:g}, and {spec.name} takes no strength; {remedy}")
