"""`impasto build` and `impasto cache`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

import rich.progress
import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from impasto.errors import CheckFailed
from impasto.package.manifest import FLOAT
from impasto.package.spec import PERCEPTUAL
from impasto.progress import Progress

from . import options
from .console import Commands, err, out, say_stopped, write_json, write_measured

if TYPE_CHECKING:
    from impasto.export.tensorrt.options import BuildOptions
    from impasto.export.tensorrt.package_engines import BuildResult

cache = typer.Typer(cls=Commands, no_args_is_help=True, help="The engines that were built on this machine.")

Sizes = Annotated[
    Optional[list[str]],  # noqa: UP045 (Typer on Python 3.10 evaluates it)
    typer.Option(
        "--size",
        "-s",
        help="HEIGHTxWIDTH, 480p, 720p, 1080p, 1440p or 2160p, or SMALLEST:BEST:LARGEST; may be repeated. By default the only size "
        "of a graph that has one, otherwise 1080p.",
        show_default=False,
    ),
]
Optimization = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--opt-level", help="0 (fast build) to 5 (fast engine).", min=0, max=5),
]
Workspace = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Most scratch memory for a layer, such as 512M."),
]
Tactics = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="TensorRT: libraries to take kernels from, such as edge_mask_convolutions,jit_convolutions."),
]
Dla = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        metavar="CORE",
        min=0,
        help="Jetson with TensorRT 8 or 10: number of the deep learning accelerator (DLA), which computes what it can. fp16 or int8, "
        "one size.",
    ),
]
WithFloat = Annotated[
    bool,
    typer.Option(
        "--with-float", help="Also build the FP32 engine with float ends, which draws pictures of 16 bits and float32."
    ),
]
Targets = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--target", help="TensorRT-RTX: GPUs to build for, such as sm86,sm89,sm120. None is needed here."),
]


def build(
    model: options.Model,
    precision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="fp32, fp16 or int8; by default fp16 where it is possible, else fp32.", show_default=False),
    ] = None,
    size: Sizes = None,
    batch: Annotated[str, typer.Option(help="Pictures at once: 1, or smallest:best:largest from 1.")] = "1",
    workspace: Workspace = None,
    opt_level: Optimization = None,
    tactics: Tactics = None,
    hardware_compatible: Annotated[
        bool,
        typer.Option("--hardware-compatible", help="TensorRT: one engine for all GPUs from Ampere on. It is slower."),
    ] = False,
    target: Targets = None,
    dla: Dla = None,
    with_float: WithFloat = False,
    device: options.Device = 0,
    product: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx.")] = "auto",
    flavour: Annotated[str | None, typer.Option(hidden=True, help="What --product was called before.")] = None,
    store: Annotated[
        str, typer.Option(help="Where engines go: package, cache, or auto, the package unless it came with Impasto.")
    ] = "auto",
    check: Annotated[bool, typer.Option(help="Compare with ONNX Runtime, if the engine runs here.")] = True,
    json: options.Json = None,
) -> None:
    """Build a TensorRT engine of a model, and check its precision and its drawing."""
    from impasto import export
    from impasto.export.tensorrt.package_engines import discard

    wanted = replace(
        _options(precision or "auto", size or [], batch, workspace, opt_level, tactics, hardware_compatible, target),
        dla_core=dla,
        with_float=with_float,
    )
    with _bar_or_exit(f"building {model}") as (report, waiting):
        result = export.build_engine(
            model, wanted, store=store, product=flavour or product, device=device, progress=report, waiting=waiting
        )
    out.print(str(result), markup=False, soft_wrap=True)
    if result.why_precision:
        err.print(f"{result.record.precision} was chosen: {result.why_precision}", markup=False)
    if result.float_engine:
        out.print(f"the engine with float ends: {result.float_engine}", markup=False, soft_wrap=True)
    if result.context:
        out.print(f"its context graph's engine: {result.context}", markup=False, soft_wrap=True)
    for capability, counts in result.record.precisions_by_target.items():
        layers = ", ".join(f"{count} {name}" for name, count in counts.items())
        out.print(f"compute capability {capability}: {layers}", markup=False)
    if result.record.dla:
        out.print(str(result.record.dla), markup=False)
        for layer in result.record.dla.gpu_layers:
            out.print(f"  {layer}", markup=False, soft_wrap=True)
    write_measured(json, result.to_json())
    for plan in filter(None, (result.plan, result.float_engine)) if check else ():
        try:
            _check(replace(result, plan=plan), device)
        except CheckFailed:
            discard(plan)
            err.print("the engine was removed, so that nothing loads it; --no-check keeps such a one")
            raise


@cache.command("list")
def list_entries(json: options.Json = None) -> None:
    """Show the engines of the cache, the one used last first."""
    from impasto.export.tensorrt.cache import EngineCache

    entries = EngineCache().entries()
    table = Table("engine", "model", "precision", "largest size", "for", "built by", "MB", "last used")
    for entry in entries:
        record = entry.record
        shapes = (shapes[2] for ranges in record.profiles for shapes in ranges.values() if len(shapes[2]) == 4)
        largest = max(shapes, key=lambda shape: shape[1] * shape[2], default=())
        ends = " (float ends)" if record.role == FLOAT else ""
        table.add_row(
            record.key[:12],
            f"{record.spec.get('name', '')}{ends}",
            record.precision,
            " x ".join(str(side) for side in largest[1:3]),
            record.gpu or ", ".join(record.compute_capabilities),
            f"{record.product} {record.version}",
            f"{entry.nbytes / 1e6:.1f}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
        )
    out.print(table)
    found = [{"plan": str(entry.plan), "used": entry.used, "record": entry.record.to_json()} for entry in entries]
    write_json(json, {"engines": found})


@cache.command()
def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Everything, the builder's timing caches included.")
    ] = False,
) -> None:
    """Remove what was used longest ago until the cache is within its limit ($IMPASTO_CACHE_BYTES, 4 GiB)."""
    from impasto.export.tensorrt.cache import EngineCache

    out.print(f"freed {EngineCache().clean(everything) / 1e6:.1f} MB")


@cache.command()
def path() -> None:
    """Print the cache's folder ($IMPASTO_CACHE)."""
    from impasto.runtime.cache_folder import cache_folder

    out.print(str(cache_folder()), markup=False, soft_wrap=True)


def _options(
    precision: str,
    sizes: list[str],
    batch: str,
    workspace: str | None,
    level: int | None,
    tactics: str | None,
    compatible: bool,
    target: str | None,
) -> BuildOptions:
    from impasto.export.tensorrt.options import BuildOptions, Sizes, parse_batch, parse_bytes

    return BuildOptions(
        precision=precision,
        sizes=tuple(Sizes.parse(text) for text in sizes),
        batch=parse_batch(batch),
        workspace_bytes=parse_bytes(workspace) if workspace else None,
        optimization_level=level,
        tactic_sources=_words(tactics) if tactics else None,
        hardware_compatible=compatible,
        targets=_words(target or ""),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())


def _check(result: BuildResult, device: int) -> None:
    """Draw with the new engine where it runs here; otherwise say that nobody has."""
    if result.why_not_here:
        err.print(f"not checked against ONNX Runtime: {result.why_not_here}", markup=False)
        return
    if result.record.spec.get("task") == PERCEPTUAL:
        err.print("not checked against ONNX Runtime: a perceptual network draws no pictures")
        return
    from impasto.export.checks.engine import check_engine

    from .tables import engine_check_table

    with err.status("drawing with the engine and with ONNX Runtime"):
        found = check_engine(result.plan, result.source, device=device)
    out.print(engine_check_table(found))
    found.require()


@contextmanager
def _bar_or_exit(title: str) -> Iterator[tuple[Progress, Callable[[], None]]]:
    """The bar of `_bar`. After Ctrl-C the process ends here if TensorRT's builder goes on, since Python would wait for it."""
    try:
        with _bar(title) as functions:
            yield functions
    except KeyboardInterrupt:
        from impasto.export.tensorrt.builder_thread import is_building

        if is_building():
            say_stopped()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        raise


@contextmanager
def _bar(title: str) -> Iterator[tuple[Progress, Callable[[], None]]]:
    """A progress bar, and the two functions that move it: for the builder's phases, and for waiting."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[phase]}"), TimeElapsedColumn())
    with rich.progress.Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(title, total=None, phase="")

        def report(phase: str, done: int = 0, total: int | None = None, /) -> None:
            bar.update(task, total=total, completed=done, phase=phase[:60])

        def waiting() -> None:
            bar.update(task, phase="another process is building it; waiting")

        yield report, waiting
