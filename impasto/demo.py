"""The whole path on a real photo: weights -> ONNX -> runtime -> pictures, a contact sheet and a latency table.

usage: python -m impasto.demo --output build/demo      (what `make demo` runs)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import impasto
from impasto.cli.console import Commands, err, out
from impasto.cli.tables import benchmark_table
from impasto.errors import MissingDependency, install
from impasto.files import make_folder
from impasto.images.contact_sheet import Panel, write_contact_sheet
from impasto.metrics import noisy, psnr

from . import images

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, add_completion=False)

SIGMA = 25
"""Standard deviation of the noise that the denoiser gets to undo, in levels of 255."""


@app.callback(invoke_without_command=True)
def main(
    output: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("build/demo"),
) -> None:
    """Stylize and denoise a photo through the whole path."""
    started = time.perf_counter()
    make_folder(output)
    packages = {name: _export(name, output / "models" / name) for name in ("great-wave", "denoise")}
    rows = [_stylize(packages["great-wave"], output), _denoise(packages["denoise"], output)]
    sheet = output / "contact-sheet.png"
    write_contact_sheet(sheet, rows)
    _measure(packages, output)
    _build_engines(packages, output)
    out.print(
        f"\nDone in {time.perf_counter() - started:.0f} s. Look at [bold]{sheet}[/] (single pictures beside it).",
        soft_wrap=True,
    )


def _export(name: str, folder: Path) -> Path:
    """Weights -> package, and the proof that it draws what torch draws."""
    from impasto.export.checks.against_torch import check_package
    from impasto.export.from_checkpoint import export_checkpoint
    from impasto.runtime.loading.source import shipped_models

    err.print(f"[bold]{name}[/]: weights to ONNX")
    package = export_checkpoint(shipped_models() / name, folder)
    result = check_package(package)
    result.require()
    largest = max(picture.max_difference for picture in result.pictures)
    err.print(f"[bold]{name}[/]: {result.backend} draws what torch draws (largest difference {largest} of 255)")
    return package


def _stylize(package: Path, output: Path) -> list[Panel]:
    photo = _photo("chelsea")
    with impasto.load(package) as model:
        painted = model(photo)
    images.write(output / "photo.png", photo)
    images.write(output / "stylized.png", painted)
    return [Panel("photo", photo), Panel(package.name, painted)]


def _denoise(package: Path, output: Path) -> list[Panel]:
    clean = _photo("coffee")
    damaged = noisy(clean, SIGMA, seed=0)
    with impasto.load(package) as model:
        restored = model(damaged)
    images.write(output / "noisy.png", damaged)
    images.write(output / "denoised.png", restored)
    return [
        Panel(f"noise, sigma {SIGMA}: {psnr(damaged, clean):.1f} dB", damaged),
        Panel(f"{package.name}: {psnr(restored, clean):.1f} dB", restored),
        Panel("the photo itself", clean),
    ]


def _measure(packages: dict[str, Path], output: Path) -> None:
    from impasto.benchmarks import BenchmarkOptions, benchmark

    reports = []
    for name, package in packages.items():
        with err.status(f"measuring {name}"):
            report = benchmark(package, ["512x512"], options=BenchmarkOptions(iterations=20, warmup=3))
        report.write(output / f"benchmark-{name}.json")
        reports.append(report)
    out.print(benchmark_table(*reports))


def _build_engines(packages: dict[str, Path], output: Path) -> None:
    """Engines for a GPU that need not be here, where TensorRT-RTX is installed."""
    from impasto.export.tensorrt.builder import EngineBuilder
    from impasto.export.tensorrt.cache import EngineCache
    from impasto.export.tensorrt.options import BuildOptions, Sizes
    from impasto.export.tensorrt.targets import find_builder
    from impasto.runtime.loading.source import resolve

    options = BuildOptions(precision="fp32", sizes=(Sizes.parse("512x512"),), targets=("sm86",))
    for name, package in packages.items():
        source = resolve(package)
        assert source.manifest is not None
        try:
            with err.status(f"building an engine of {name}"):
                builder = EngineBuilder(
                    source.graph_path,
                    source.manifest.spec,
                    options,
                    graph_precision=source.precision,
                    api=find_builder(options, "tensorrt-rtx"),
                    cache=EngineCache(output / "engines"),
                )
                entry, _ = builder.build()
        except MissingDependency:
            hint = f"{install('rtx')}, no GPU needed"
            out.print(f"TensorRT-RTX is not installed, so no engine was built ({hint})", markup=False)
            return
        out.print(
            f"{name}: TensorRT-RTX {entry.record.version} engine for compute capability 8.6 at 512 x 512, "
            f"{entry.nbytes:,} bytes, {len(entry.record.layers)} layers, built without a GPU: {entry.plan}",
            soft_wrap=True,
        )


def _photo(name: str) -> np.ndarray:
    """One of scikit-image's own photos, which are in the public domain or CC0: uint8 (H, W, 3)."""
    try:
        from skimage import data
    except ImportError:
        raise MissingDependency(f"the demo takes its photos from scikit-image: {install('demo')}") from None
    return np.ascontiguousarray(getattr(data, name)())


if __name__ == "__main__":
    app(prog_name="impasto.demo")
