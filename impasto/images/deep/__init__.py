"""Picture files of more than 8 bits a channel: PNG and TIFF of 16 bits, TIFF of float32, and NumPy's .npy."""

from .arrays import as_bytes, as_depth
from .decoding import NPY, decode_deep, is_deep
from .encoding import SUFFIXES, encode_deep, stack

__all__ = ["NPY", "SUFFIXES", "as_bytes", "as_depth", "decode_deep", "encode_deep", "is_deep", "stack"]
