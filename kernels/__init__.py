"""Gram matrices and style losses of feature maps, and their gradients, at memory speed.

    from impasto.kernels import gram, style_loss
    loss = style_loss(features, targets, weights)      # one CUDA launch for all layers; torch elsewhere

Importing this module costs nothing; torch is imported by the first call.
"""

from __future__ import annotations

from .style import gram, style_loss

__all__ = ["gram", "style_loss"]
