"""One call for every proof that a model draws what it should."""

from __future__ import annotations

import os
from collections.abc import Sequence

from impasto.errors import OptionError
from impasto.progress import Progress, silent

from .against_torch import CheckResult, check_package
from .engine import EngineCheck, check_engine
from .style import StyleCheck, StyleReference, check_style


def check(
    model: str | os.PathLike[str],
    pictures: Sequence[str | os.PathLike[str]] = (),
    *,
    against: str | os.PathLike[str] | None = None,
    least_psnr: float | None = None,
    style: StyleReference | None = None,
    backend: str = "auto",
    device: int = 0,
    progress: Progress = silent,
) -> CheckResult | EngineCheck | StyleCheck:
    """Compare what a model draws with what it should draw.

    A package is compared with its weights in torch; an engine, with `against`, with its graph in ONNX Runtime; with `style`, a
    package's precisions, or an engine and its graph, are compared by their distance to a painting.

    Args:
        model: a package by path or name, or an engine (.plan).
        pictures: picture files to draw. Synthetic pictures come on top; with `style`, only where no files are given.
        against: for an engine, the .onnx file or package that it must draw like.
        least_psnr: for an engine, the least PSNR in dB; None takes 60 (fp32), 50 (fp16) or 30 (int8), or 90 with float ends.
        style: the painting to measure the style by.
        backend: what draws a package; "auto" as in `impasto.load`.
        device: the GPU's number.
        progress: called with one line for each graph that is drawn with; only with `style`.

    Returns:
        CheckResult, EngineCheck or StyleCheck. Each has `require()`, which raises CheckFailed, and `to_json()`.

    Raises:
        OptionError: for arguments that do not go together, or an engine without `against`.
        MissingDependency: where torch, or TensorRT, is needed and missing.
        PackageError, PictureError, NoNumbers, CheckFailed: as `check_package`, `check_engine` and `check_style` say.

    Example:
        >>> from impasto.export import check
        >>> check(package).passed
        True
    """
    if against is not None and backend != "auto":
        raise OptionError(
            "--against compares TensorRT with ONNX Runtime on the CPU, which draws what the graph says; leave --backend out"
        )
    if style is not None:
        if least_psnr is not None:
            raise OptionError("--min-psnr is of another check than --style; run both, one after the other")
        return check_style(model, style, pictures, against=against, backend=backend, device=device, progress=progress)
    if against is not None:
        return check_engine(model, against, pictures, device=device, least_psnr=least_psnr)
    if str(model).endswith(".plan"):
        raise OptionError(f"{model} is an engine; say what it must draw like: --against MODEL.onnx, or its package")
    if least_psnr is not None:
        raise OptionError(
            "--min-psnr is of engines, with --against; a package must draw what torch draws to 1 level of 255"
        )
    return check_package(model, pictures, backend=backend, device=device)
