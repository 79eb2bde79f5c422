"""`impasto serve`."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Annotated

import typer

from impasto.errors import OptionError
from impasto.styles import parse

from . import options
from .console import err, out

_MOST = 1e9
"""Limits of seconds, megabytes and megapixels stay below this, which refuses infinity too."""


def serve(
    model: options.Model,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 means all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Number of processes. Each has a model of its own.", min=1)] = 1,
    cores: Annotated[int, typer.Option(help="Cores of each worker, where there are no GPUs.", min=1)] = 1,
    queue: Annotated[
        int, typer.Option(help="Number of pictures that may wait. More are refused with status 503.", min=1)
    ] = 32,
    seconds: Annotated[
        float, typer.Option(help="Longest time from request to answer; later answers are refused.")
    ] = 60,
    megabytes: Annotated[float, typer.Option(help="Largest picture file in MiB. Larger ones are refused.")] = 32,
    megapixels: Annotated[float, typer.Option(help="Largest picture in megapixels. Larger ones are refused.")] = 50,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    layout: options.Layout = None,
    style: options.Style = None,
    strength: options.Strength = 1.0,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address of a Ray cluster; auto, or local for one on this machine.")
    ] = "local",
) -> None:
    """Answer HTTP requests: a picture in, a picture out. Needs the extra ray."""
    from impasto.batch.ray import Drawing
    from impasto.serving import Limits, serving

    wanted = parse(style) if style else None
    drawing = Drawing(model, backend, precision, layout, style=wanted, strength=strength)
    for flag, value in (("--seconds", seconds), ("--megabytes", megabytes), ("--megapixels", megapixels)):
        if not 0 < value < _MOST:
            raise OptionError(f"{flag} is {value:g}; give more than 0, and less than {_MOST:g}")
    limits = Limits(workers, cores, queue, seconds, int(megabytes * (1 << 20)), int(megapixels * 1e6))
    with ExitStack() as opened:
        with err.status("starting Ray and the workers"):
            url = opened.enter_context(serving(drawing, limits, host=host, port=port, address=ray))
        out.print(
            f"POST pictures to {url}, for example: curl --data-binary @photo.jpg {url} -o result.png (Ctrl-C ends it)",
            markup=False,
            soft_wrap=True,
        )
        threading.Event().wait()
