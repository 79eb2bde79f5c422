"""An upscaler against bicubic and Lanczos interpolation.

usage: python -m impasto.benchmarks.upscale PHOTOS --model upscale-x2 [--json FILE]
PHOTOS is a folder of clean pictures. They are made smaller by Pillow's antialiased bicubic filter, 8 bits in and out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import impasto
from impasto.errors import OptionError

from .baselines import mean_psnr, run


def compare(model: impasto.Model, photos: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean PSNR in dB over photos (uint8, H x W x 3, sides multiples of 16): of bicubic, of Lanczos, of the model.

    Raises OptionError for a model that does not enlarge.
    """
    scale = model.info.scale
    if scale == 1:
        raise OptionError(f"{model.info.name} does not enlarge (scale 1); name an upscaler with --model")
    small = [_resized(photo, photo.shape[0] // scale, photo.shape[1] // scale, "BICUBIC") for photo in photos]
    enlarged = {
        name: [_resized(s, p.shape[0], p.shape[1], name) for s, p in zip(small, photos, strict=True)]
        for name in ("BICUBIC", "LANCZOS")
    }
    return {
        f"×{scale}": {
            "bicubic": mean_psnr(photos, enlarged["BICUBIC"]),
            "lanczos": mean_psnr(photos, enlarged["LANCZOS"]),
            "model": mean_psnr(photos, [model(picture) for picture in small]),
        }
    }


def _resized(picture: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling[name]))


def _line(scale: str, row: dict[str, float]) -> str:
    return f"{scale}: bicubic {row['bicubic']:.2f}  Lanczos {row['lanczos']:.2f}  model {row['model']:.2f} dB"


if __name__ == "__main__":
    run(__doc__ or "", compare, _line, cell=16, enlarging=True)
