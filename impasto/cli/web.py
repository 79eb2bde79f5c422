"""`impasto web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .console import out


def web(
    models: Annotated[list[str], typer.Argument(help="Models' names or packages.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the site into.")] = Path("site"),
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Copy ONNX Runtime Web beside the page, from npm, instead of naming a CDN with hashes."
        ),
    ] = False,
    library: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="With --offline: the unpacked npm package onnxruntime-web, instead of fetching it."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Then show the site on this machine, with the headers that threads need.")
    ] = False,
    port: Annotated[int, typer.Option(help="With --serve: the port to listen on.", min=1, max=65535)] = 8000,
) -> None:
    """Make a static page that runs models on the visitor's device."""
    from impasto.web.server import server
    from impasto.web.site import make_site

    out.print(
        str(make_site(models, output, offline=offline or library is not None, ort=library)),
        markup=False,
        soft_wrap=True,
    )
    if serve:
        with server(output, port) as running:
            out.print(f"look at http://127.0.0.1:{running.server_port} (Ctrl-C ends it)", markup=False, soft_wrap=True)
            running.serve_forever()
    else:
        out.print(
            "look at it with --serve, which starts a server; browsers do not run it from a file",
            markup=False,
            soft_wrap=True,
        )
