"""What training makes small. Each function says its formula and where it is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.kernels import gram, style_loss


def content(features: Tensor, of_photo: Tensor) -> Tensor:
    """mean((f − f₀)²) / mean(f₀²): Gatys et al. 2016, equation 1, made independent of the layer's magnitude.

    features, of_photo: (N, C, H, W). Returns a scalar, float32; 0 for equal features.
    """
    reference = of_photo.float()
    return F.mse_loss(features.float(), reference) / reference.square().mean()


class StyleTarget:
    """A painting's Gram matrices, to compare feature maps with."""

    def __init__(self, features: Mapping[str, Tensor]) -> None:
        """features: the painting's, (1, C, H, W) per layer."""
        self.layers = tuple(features)
        self.grams = [gram(value.float())[0] for value in features.values()]
        # Makes each layer's term mean((G − A)²) / mean(A²), and their sum a mean over layers.
        self.weights = [1 / (len(self.grams) * float(target.square().mean())) for target in self.grams]

    def distance(self, features: Mapping[str, Tensor]) -> Tensor:
        """Mean over layers of mean((G − A)²) / mean(A²): Gatys et al. 2016, equations 3 to 5, normalised per layer.

        G = F Fᵀ / (C H W) of each picture, A the painting's. features: (N, C, H, W) per layer. Returns a scalar.
        """
        maps: Sequence[Tensor] = [features[layer] for layer in self.layers]
        return style_loss(maps, self.grams, self.weights)


def total_variation(picture: Tensor) -> Tensor:
    """mean|∂x| + mean|∂y| of neighbouring pixels: Rudin et al. 1992, anisotropic. picture: (N, C, H, W)."""
    return picture.diff(dim=2).abs().mean() + picture.diff(dim=3).abs().mean()


def charbonnier(one: Tensor, other: Tensor, epsilon: float = 1e-3) -> Tensor:
    """mean √((a − b)² + ε²) − ε: Charbonnier et al. 1994; the absolute error with a soft corner, 0 for equal pictures."""
    return ((one - other).square() + epsilon * epsilon).sqrt().mean() - epsilon


def frequency(one: Tensor, other: Tensor) -> Tensor:
    """mean |F(a) − F(b)| over frequencies, F the orthonormal two-dimensional Fourier transform: Cho et al. 2021, equation 2.

    Asks for detail that errors of pixels, spread thinly, hardly feel. one, other: (N, C, H, W). Returns a scalar, float32; 0 for
    equal pictures. A change at one frequency counts by its height, wherever it is; shifting both pictures changes nothing.
    """
    return torch.fft.rfft2(one.float() - other.float(), norm="ortho").abs().mean()


def log_error(one: Tensor, other: Tensor) -> Tensor:
    """mean over pictures of log₁₀(1 + MSE / δ), δ = 1 / (12 · 255²): a tenth of the PSNR that is lost, in dB, as in Chen et al. 2021
    (HINet), equation 6.

    A tenth less error counts alike in a picture that is nearly right and in one that is not; means of errors hear the bad
    ones alone. δ is what rounding to 8 bits does, so nothing is gained below it and equal pictures have 0.
    one, other: (N, C, H, W) in 0..1. Returns a scalar.
    """
    rounding = 1 / (12 * 255**2)
    return (1 + (one - other).square().mean((1, 2, 3)) / rounding).log10().mean()


def perceptual(features: Tensor, of_clean: Tensor) -> Tensor:
    """mean((f − f₀)²) / mean(f₀²) of a backbone's content layer: Johnson et al. 2016, equation 2, made relative as `content`."""
    return content(features, of_clean)


def temporal(redrawn: Tensor, drawn: Tensor, motion: Tensor, margin: int) -> Tensor:
    """mean((g(W x + n) − W g(x))²) over all but `margin` pixels at the edges: Huang et al. 2017, equation 5, W being known.

    Two pictures of a video differ by motion and noise; their drawings ought to differ by the motion alone. A network g that paints
    by place or by noise flickers. Gupta et al. 2017 also train on made motion where no flow is measured.
    redrawn: drawing of the moved and noisy pictures, (N, C, S, S). drawn: that of the unmoved ones. motion: as `moved` takes it.
    """
    inside = slice(margin, drawn.shape[-1] - margin)
    return F.mse_loss(redrawn[..., inside, inside], moved(drawn, motion)[..., inside, inside])


def moved(picture: Tensor, motion: Tensor) -> Tensor:
    """Pictures (N, C, H, W) seen through an affine motion (N, 2, 3), in units of half a side: bilinear, edges repeated."""
    grid = F.affine_grid(motion.to(picture.dtype), list(picture.shape), align_corners=False)
    return F.grid_sample(picture, grid, padding_mode="border", align_corners=False)


def cell_pattern(picture: Tensor, cell: int) -> Tensor:
    """How much a picture repeats itself with the period of a network's cells: the grid that depth-to-space leaves.

    The mean fine detail (picture minus its 3 x 3 blur) at each of the cell x cell places, and its mean energy there, would
    be the same everywhere if the network did not know where its cells begin. Returns the variance of the former plus
    the relative variance of the latter over places, averaged over colours; 0 for a picture without a grid. Ours.
    picture: (N, 3, H, W), H and W multiples of `cell`.
    """
    places = by_place(picture, cell)
    mean = places.mean((0, 3, 4))
    energy = places.square().mean((0, 3, 4))
    relative = energy / (energy.mean(1, keepdim=True) + 1e-8)
    return 100 * mean.var(1).mean() + 0.1 * relative.var(1).mean()


def by_place(picture: Tensor, cell: int) -> Tensor:
    """Fine detail (picture minus its 3 x 3 blur) sorted by place in its cell: (N, C, H, W) to (N, C, cell², H/cell, W/cell)."""
    blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return F.pixel_unshuffle(picture - blurred, cell).unflatten(1, (picture.shape[1], cell * cell))


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """mean((a − b)²) of two pictures that ought to be equal: a picture's drawing and its shifted copy's, shifted back.

    What a network draws because of where its cells begin differs between the two; what it draws because of the photo
    does not. Zhang 2019, "Making convolutional networks shift-invariant again", has the measure; as a loss it is ours.
    """
    return F.mse_loss(one, other)


def out_of_range(picture: Tensor) -> Tensor:
    """Mean distance of values from 0..1, which a file cannot hold. picture: any shape."""
    return (F.relu(picture - 1) + F.relu(-picture)).mean()


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ weight · term. A scalar."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


ON_REQUEST = ("temporal", "deep content", "psnr", "frequency", "perceptual")
"""Terms that are not even computed without a weight."""


def requested(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights without those of terms that are computed on request only, and have none."""
    return {name: value for name, value in weights.items() if value or name not in ON_REQUEST}
