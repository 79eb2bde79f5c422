"""How the field's standard pictures are damaged, by seed, and how a restored one is judged.

All pictures are uint8, (H, W, 3), RGB, unless said otherwise. The same picture and seed give the same damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from impasto.benchmarks.baselines import opencv
from impasto.metrics import psnr

HIGHEST_PSNR = 10 * np.log10(255**2 / 1e-3)
"""What equal pictures count as, in dB, so that one of them does not make a mean infinite."""

KERNEL_SIDE = 25
"""Pixels; odd, so that a kernel has a middle."""

HOLES = ("scratches", "30 % of pixels", "discs of 64")

_BAYER = {"red": ((0, 0),), "green": ((0, 1), (1, 0)), "blue": ((1, 1),)}
"""The RGGB mosaic: rows and columns of each colour's sensors in a cell of 2 x 2."""

_GAMMA = 2.2
"""The gamma of the encoding that the sensor's pictures are taken to have."""


def levels(values: np.ndarray) -> np.ndarray:
    """Rounded and clipped to 8 bits."""
    rounded: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def luminance(picture: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601 in its studio range, 16 to 235, not rounded: float64 (H, W). Super-resolution is judged by it."""
    weighted: np.ndarray = picture.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16
    return weighted


def gray(picture: np.ndarray) -> np.ndarray:
    """The picture's luminance in the full range, in all three channels."""
    return np.repeat(levels((luminance(picture) - 16) * 255 / 219)[..., None], 3, axis=2)


def noisy(picture: np.ndarray, sigma: float, seed: int, *, alike: bool = False) -> np.ndarray:
    """White Gaussian noise of `sigma` levels, rounded and clipped. alike: the same in the three channels."""
    height, width, channels = picture.shape
    noise = np.random.default_rng(seed).normal(0, sigma, (height, width, 1 if alike else channels))
    return levels(picture + noise)


def camera(picture: np.ndarray, electrons: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(undamaged, noisy) as a camera's plain pipeline gives them: a Bayer mosaic in linear light, bilinear demosaicking, gamma.

    electrons: what a white pixel catches. The sensor's photon noise is Poisson's, and reading adds Gaussian noise of 3 electrons
    (Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling"). Odd sides lose a line. Infinitely many electrons would give
    the undamaged one, which has the mosaic's loss too: only noise is judged.
    """
    even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
    light = mosaic((even / 255.0) ** _GAMMA)
    generator = np.random.default_rng(seed)
    caught = generator.poisson(light * electrons) / electrons + generator.normal(0, 3 / electrons, light.shape)
    return developed(light), developed(caught)


def mosaic(light: np.ndarray) -> np.ndarray:
    """What each sensor sees of linear light: float64 (H, W, 3), sides even, to (H, W)."""
    seen = np.zeros(light.shape[:2])
    for channel, places in enumerate(_BAYER.values()):
        for row, column in places:
            seen[row::2, column::2] = light[row::2, column::2, channel]
    return seen


def developed(seen: np.ndarray) -> np.ndarray:
    """A picture from what sensors caught, float64 (H, W), 0..1: each colour interpolated between its sensors, then gamma."""
    colours = []
    for places in _BAYER.values():
        present = np.zeros(seen.shape)
        for row, column in places:
            present[row::2, column::2] = 1
        colours.append(_triangle(seen * present) / _triangle(present))
    return levels(np.clip(np.stack(colours, axis=2), 0, 1) ** (1 / _GAMMA) * 255)


def _triangle(plane: np.ndarray) -> np.ndarray:
    """Weights 1, 2, 1 along both axes, the border reflected: float64 (H, W)."""
    padded = np.pad(plane, 1, mode="reflect")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    summed: np.ndarray = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    return summed


def halved(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(large, small): the picture with even sides, and half of it by Pillow's antialiased bicubic filter."""
    large = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
    return large, resized(large, large.shape[0] // 2, large.shape[1] // 2)


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture at this size, by Pillow's bicubic filter."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def kernels() -> dict[str, np.ndarray]:
    """Eight blurs, float64 (KERNEL_SIDE, KERNEL_SIDE), each of sum 1 with its centre of mass within half a pixel of the middle."""
    middle = KERNEL_SIDE / 2
    y, x = np.mgrid[:KERNEL_SIDE, :KERNEL_SIDE] - KERNEL_SIDE // 2
    squared = x * x + y * y
    return {
        "motion 9": _stroke(np.array([(8, middle), (17, middle)])),
        "motion 9 slant": _stroke(np.array([(9, 9.5), (15.5, 16)])),
        **{f"shake {seed}": _stroke(_shake(seed)) for seed in (3, 5, 8)},
        **{f"Gauss {sigma:.1f}": _of_sum_one(np.exp(-squared / (2 * sigma**2))) for sigma in (1, 2)},
        "defocus 3": _of_sum_one((squared <= 3.2**2).astype(np.float64)),
    }


def _shake(seed: int) -> np.ndarray:
    """A hand's path around a kernel's middle, a random walk of its velocity: (60, 2), x and y in pixels."""
    velocity = np.random.default_rng(seed).normal(0, 0.12, (60, 2)).cumsum(axis=0) * 0.35 + 0.02
    path = velocity.cumsum(axis=0)
    centred: np.ndarray = path - path.mean(axis=0) + KERNEL_SIDE / 2
    return centred


def _stroke(path: np.ndarray) -> np.ndarray:
    """A line about a pixel wide along a path of x and y, (K, 2), as a centred kernel. Drawn eight times as large, for its edges."""
    from PIL import Image, ImageDraw

    fine = 8
    canvas = Image.new("L", (KERNEL_SIDE * fine,) * 2)
    points = [(float(x) * fine, float(y) * fine) for x, y in path]
    ImageDraw.Draw(canvas).line(points, fill=255, width=fine + 1, joint="curve")
    small = canvas.resize((KERNEL_SIDE,) * 2, Image.Resampling.BOX)
    return _centred(_of_sum_one(np.asarray(small, np.float64)))


def _centred(kernel: np.ndarray) -> np.ndarray:
    """Moved by whole pixels. A kernel off its middle moves the picture, too, and no restorer can know by how much."""
    places = np.arange(KERNEL_SIDE)
    row, column = round(float(kernel.sum(1) @ places)), round(float(kernel.sum(0) @ places))
    return np.roll(kernel, (KERNEL_SIDE // 2 - row, KERNEL_SIDE // 2 - column), axis=(0, 1))


def _of_sum_one(kernel: np.ndarray) -> np.ndarray:
    normalized: np.ndarray = kernel / kernel.sum()
    return normalized


def blurred(picture: np.ndarray, kernel: np.ndarray, seed: int) -> np.ndarray:
    """Convolved with a kernel, the border reflected; then white noise of 2 levels. Raises MissingDependency without OpenCV."""
    cv2 = opencv()
    # OpenCV correlates; turned by 180 degrees, the kernel convolves.
    smooth = cv2.filter2D(picture.astype(np.float64), -1, kernel[::-1, ::-1].copy(), borderType=cv2.BORDER_REFLECT_101)
    return noisy(smooth, 2, seed)


def holes(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    """Where pixels are missing, bool (height, width). kind: one of HOLES. Discs need sides of at least 64."""
    generator = np.random.default_rng(seed)
    if kind == "30 % of pixels":
        drawn: np.ndarray = generator.random((height, width)) < 0.3
        return drawn
    draw_on = {"scratches": _scratches, "discs of 64": _discs}[kind]
    return draw_on(height, width, generator)


def _scratches(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """25 crooked lines, 1 to 6 pixels wide, each a walk of six steps from anywhere."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (width, height))
    for _ in range(25):
        start = generator.uniform(0, (width, height))
        path = start + np.cumsum([(0, 0), *generator.normal(0, 60, (6, 2))], axis=0)
        line = [(float(x), float(y)) for x, y in path]
        ImageDraw.Draw(canvas).line(line, fill=255, width=int(generator.integers(1, 7)))
    return np.asarray(canvas) > 0


def _discs(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Four discs, 64 pixels across, anywhere inside."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (width, height))
    for _ in range(4):
        left, top = generator.uniform(0, width - 64), generator.uniform(0, height - 64)
        ImageDraw.Draw(canvas).ellipse((left, top, left + 64, top + 64), fill=255)
    return np.asarray(canvas) > 0


def letters() -> np.ndarray:
    """A page of text, 320 x 480: a title bar, and twelve lines of 10 to 21 points in four colours, in Pillow's own font."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (480, 320), (250, 250, 252))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, 480, 28), fill=(40, 90, 160))
    draw.text((10, 8), "File   Edit   View   Help", fill=(255, 255, 255))
    inks = ((20, 20, 20), (160, 0, 0), (0, 100, 0), (0, 0, 160))
    for line in range(12):
        said = f"{10 + line} px: Pack my box with five dozen jugs 0123456789"
        draw.text((12, 40 + 22 * line), said, font=ImageFont.load_default(10 + line), fill=inks[line % 4])
    return np.asarray(page)


def capped_psnr(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR in dB of two arrays in levels of 255; HIGHEST_PSNR at most."""
    return psnr(one, other, highest=HIGHEST_PSNR)


def luminance_psnr(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR of the luminance, with two pixels of the border left off, which is the custom for super-resolution by two."""
    return capped_psnr(luminance(one)[2:-2, 2:-2], luminance(other)[2:-2, 2:-2])


def shifted_psnr(one: np.ndarray, other: np.ndarray) -> float:
    """The best of all shifts by up to two pixels, 16 pixels of the border left off. Blind deblurring cannot know the place."""
    inside = one[16:-16, 16:-16]
    return max(capped_psnr(inside, moved[16:-16, 16:-16]) for moved in _shifts(other, range(-2, 3)))


def _shifts(picture: np.ndarray, by: Sequence[int]) -> Iterator[np.ndarray]:
    for rows in by:
        for columns in by:
            yield np.roll(picture, (rows, columns), axis=(0, 1))
