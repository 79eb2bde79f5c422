"""Options that several verbs take, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from impasto import images
from impasto.files import check_writable


def located(model: Path | None) -> Path | None:
    """The path as it is. Where there is no such file, the package of the model with that name."""
    from impasto.runtime.loading.source import known_names

    return model if model is None or model.exists() else known_names().get(str(model), model)


Model = Annotated[
    str, typer.Argument(help="A model's name, a package folder, an .onnx file or an engine.", show_default=False)
]
Backend = Annotated[str, typer.Option(help="auto, tensorrt, openvino, onnxruntime-cpu or onnxruntime-cuda.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16 or int8.")]
Device = Annotated[int, typer.Option(help="Number of the CUDA device.", min=0)]
Layout = Annotated[
    Optional[str],  # noqa: UP045 (Typer on Python 3.10 evaluates it)
    typer.Option(help="For an external ONNX file: channel order and range, such as 'rgb 0..1' or 'bgr 0..255'."),
]


def writable(path: Path | None) -> Path | None:
    """The path as it is. Raises OutputError, before any work is done, where it cannot be written."""
    if path is not None:
        check_writable(path)
    return path


def writable_picture(path: Path | None) -> Path | None:
    """The path of a picture file as it is. Raises OutputError where it cannot be written, OptionError for another suffix."""
    if path is not None:
        images.check_suffix(path)
    return writable(path)


Json = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--json", callback=writable, help="Also write the result to this file."),
]


def writable_page(path: Path | None) -> Path | None:
    """The path of an HTML page as it is. Raises OutputError where it cannot be written, MissingDependency without jinja2."""
    if path is not None:
        from impasto.report.page import require_jinja2

        require_jinja2()
    return writable(path)


Html = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--html", callback=writable_page, help="Also write an HTML page with pictures and charts to this file."
    ),
]
Style = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="For a network of several styles: NAME, or NAME=SHARE for each of several."),
]
Strength = Annotated[
    float,
    typer.Option(
        help="Strength of a style or a restorer: 0 (the picture itself) to 1 (the full effect), to 2 for some denoisers."
    ),
]
