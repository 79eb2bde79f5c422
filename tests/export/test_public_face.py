"""`impasto.export`: what importing it costs, and the examples of its functions, run on small models."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from support.external_graphs import restorer
from support.precision_graphs import photos

from impasto import export

FUNCTIONS = (
    "add_float_graph",
    "build_engine",
    "check",
    "export_checkpoint",
    "export_triton",
    "import_onnx",
    "quantize",
)


def test_importing_it_costs_nothing_heavy() -> None:
    code = (
        "import sys, numpy, impasto.export; dir(impasto.export); "
        "print({'onnx', 'torch', 'onnxruntime', 'tensorrt_rtx', 'rich'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in export.__all__:
        assert getattr(export, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'everything'"):
        export.everything  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_takes_gives_and_raises(name: str) -> None:
    text = getattr(export, name).__doc__
    assert [part for part in ("Args:", "Returns:", "Raises:", "Example:") if part not in text] == []


def run_example(name: str, **names: object) -> None:
    function = getattr(export, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=names)
    assert example.examples
    failed, _ = doctest.DocTestRunner().run(example, clear_globs=False)
    assert not failed


def test_the_example_of_import_onnx(tmp_path: Path) -> None:
    onnx.save(restorer().model(), str(tmp_path / "graph.onnx"))
    run_example("import_onnx", graph_path=tmp_path / "graph.onnx", folder=tmp_path)


def test_the_example_of_quantize(make_package: Callable[..., Path], tmp_path: Path) -> None:
    run_example("quantize", package=make_package(), photos=photos(tmp_path / "photos"))


def test_the_example_of_add_float_graph(make_package: Callable[..., Path]) -> None:
    run_example("add_float_graph", package=make_package())


def test_the_example_of_export_triton(make_package: Callable[..., Path], tmp_path: Path) -> None:
    run_example("export_triton", package=make_package(), folder=tmp_path)


def test_the_example_of_build_engine(
    make_package: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    run_example("build_engine", package=make_package())


def test_the_examples_of_export_checkpoint_and_check(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    from support.small_training import SMALL

    from impasto.training import checkpoint, networks

    network = networks.build("unet-restorer", SMALL["unet-restorer"])
    path = tmp_path / "tiny.safetensors"
    checkpoint.save_checkpoint(path, network, name="tiny", task="denoise", recipe={}, quality={})
    run_example("export_checkpoint", checkpoint=path, folder=tmp_path)
    run_example("check", package=tmp_path / "mine")
