"""Small models and pictures that all tests share. Nothing here needs torch or files from outside the repository."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from support.emulated_gpu import emulated  # noqa: F401 - a fixture
from support.small_models import canonical_graph, context_graph

from impasto.files import sha256
from impasto.package.manifest import MANIFEST, Manifest, PackageFile
from impasto.package.spec import ModelSpec, SizeRule

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # Each of several test processes on a core of its own: torch's, ONNX Runtime's and OpenVINO's threads wait for one another in
    # busy loops, and two processes with two threads each on two cores take half as long again.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

for name in (
    "COLUMNS",
    "LINES",
):  # processes of pytest-xdist have both, and a console keeps what it finds when it is made
    os.environ.pop(name, None)


LONG_FILES = (
    "test_wheel.py",
    "test_engines.py",
    "test_models.py",
    "test_package_engines.py",
    "test_from_checkpoint.py",
    "test_gram_emulated.py",
    "test_commands.py",
)
"""Files that take a minute or so. They begin first, so that at the end no process works at one of them alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a small model package and returns its folder."""

    def make(
        name: str = "tiny",
        *,
        task: str = "denoise",
        scale: int = 1,
        border: int = 0,
        thumbnail: int | None = None,
        tiled: bool = True,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        spec = ModelSpec(
            folder.name,
            task=task,
            scale=scale,
            size=SizeRule(4),
            border=border,
            receptive_field=7 if tiled else None,
            thumbnail=thumbnail,
        )
        graphs = {"model.onnx": ("model", canonical_graph(scale, 5 if thumbnail else None))}
        if thumbnail:
            graphs["context.onnx"] = ("context", context_graph(thumbnail, 5))
        files = []
        for file_name, (role, graph) in graphs.items():
            onnx.save(graph, str(folder / file_name))
            files.append(PackageFile(file_name, role, sha256(folder / file_name)))
        manifest = Manifest(spec, tuple(files), impasto="test")
        (folder / MANIFEST).write_text(json.dumps(manifest.to_json()))
        return folder

    return make
