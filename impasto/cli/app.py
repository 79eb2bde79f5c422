"""The verbs, put together."""

from __future__ import annotations

import typer

import impasto

from . import (
    bench,
    build,
    check,
    compare,
    doctor,
    export,
    export_triton,
    inspect,
    models,
    quantize,
    run,
    serve,
    train,
    web,
)
from .console import Commands, out
from .eval import evaluate

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Image stylizers and restorers on edge devices: train, export, check, run, measure.",
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"impasto {impasto.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None: ...


app.add_typer(train.app, name="train")
app.command()(export.export)
app.command("export-triton")(export_triton.export_triton)
app.command()(quantize.quantize)
app.command()(build.build)
app.command()(run.run)
app.command()(check.check)
app.command("eval")(evaluate)
app.command()(bench.bench)
app.command()(compare.compare)
app.command()(inspect.inspect)
app.command()(models.models)
app.command()(web.web)
app.command()(serve.serve)
app.command()(doctor.doctor)
app.add_typer(build.cache, name="cache")
