"""Damage to undo: a clean batch in, a damaged one out, seeded, on the batch's own device."""

from .base import Degradation, Untouched, damaged, eight_bits, from_linear, to_linear
from .blur import Defocus, GaussianBlur, Motion, Shake
from .jpeg import Jpeg, JpegFullColour, JpegTwice
from .missing import MISSING_COLOUR, Missing
from .noise import BayerNoise, GaussianNoise, Grain, GrayNoise, SensorNoise
from .scaling import AtTwiceTheSize, Down
from .several import Compose, Mixture
from .text import parse

__all__ = [
    "MISSING_COLOUR", "AtTwiceTheSize", "BayerNoise", "Compose", "Defocus", "Degradation", "Down", "GaussianBlur", "GaussianNoise",
    "Grain", "GrayNoise", "Jpeg", "JpegFullColour", "JpegTwice", "Missing", "Mixture", "Motion", "SensorNoise", "Shake", "Untouched",
    "damaged", "eight_bits", "from_linear", "parse", "to_linear",
]  # fmt: skip
