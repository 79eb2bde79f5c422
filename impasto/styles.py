"""Mixtures of the styles that one network knows: what a user asks for, as one share for each style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from impasto.errors import OptionError

PHOTO = "photo"
"""The style that leaves a photo as it is. A network that knows it can paint with less than full strength."""

Wanted = str | Mapping[str, float] | None
"""A style's name, shares of several, or None for the first that paints."""


def painted(known: Sequence[str]) -> list[str]:
    """The styles of a network that a painting was learnt for."""
    return [name for name in known if name != PHOTO]


def mixture(known: Sequence[str], wanted: Wanted = None, strength: float = 1.0) -> np.ndarray:
    """One share for each of `known`, float32 (styles,), sum 1: `strength` of what is wanted, the rest for PHOTO.

    known: the network's styles, in its order. wanted: shares need not sum to 1. strength: 0 (the photo) to 1.
    Raises OptionError for an unknown style, shares that are negative or all 0, and a strength that cannot be had.
    """
    names = list(known)
    shares = _shares(names, wanted)
    if not isinstance(strength, Real) or not 0 <= strength <= 1:
        raise OptionError(f"strength is {strength!r:.100}; wanted a number from 0 (the photo itself) to 1")
    if strength < 1 and PHOTO not in names:
        raise OptionError(
            f"strength {float(strength):g} needs a network that has learnt it: train it with --with-strength; this one knows "
            + (", ".join(names) or "one style alone")
        )
    strength = float(strength)
    shares *= strength
    if strength < 1:
        shares[names.index(PHOTO)] += 1 - strength
    return shares.astype(np.float32)


def described(known: Sequence[str], wanted: Wanted = None, strength: float = 1.0) -> str:
    """What is drawn, in words, the most of it first, such as "starry-night 70 %, photo 30 %". Arguments and errors as of `mixture`."""
    shares = {name: share for name, share in zip(known, mixture(known, wanted, strength), strict=True) if share > 0}
    if len(shares) == 1:
        return next(iter(shares))
    return ", ".join(f"{name} {100 * share:.3g} %" for name, share in sorted(shares.items(), key=lambda each: -each[1]))


def parse(texts: Sequence[str]) -> dict[str, float]:
    """Read "starry-night" or "starry-night=0.5" for each style. Raises OptionError."""
    wanted = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            wanted[name] = float(share or 1)
        except ValueError:
            raise OptionError(f"cannot read the style {text!r}; write NAME or NAME=SHARE") from None
    return wanted


def _shares(names: list[str], wanted: Wanted) -> np.ndarray:
    if wanted is None:
        paintings = painted(names)
        wanted = paintings[0] if paintings else {}
    if not isinstance(wanted, (str, Mapping)):
        raise OptionError(f'cannot read the style {wanted!r}; give a name, or shares such as {{"a": 0.5, "b": 0.5}}')
    asked = {wanted: 1.0} if isinstance(wanted, str) else dict(wanted)
    if unknown := [name for name in asked if name not in names]:
        raise OptionError(f"unknown style {unknown[0]!r}; this network knows {', '.join(names) or 'one style alone'}")
    if not all(isinstance(share, Real) for share in asked.values()):
        raise OptionError(f"the shares of the styles are {asked!r:.200}; wanted numbers")
    try:
        shares = np.array([float(asked.get(name, 0)) for name in names], np.float64)
    except OverflowError:
        raise OptionError(f"the shares of the styles are {asked!r:.200}; wanted numbers that a float holds") from None
    total = shares.sum()
    if names and not (np.isfinite(shares).all() and (shares >= 0).all() and total > 0):
        raise OptionError(f"the shares of the styles are {asked}; wanted numbers of at least 0, not all of them 0")
    return shares / total if names else shares
