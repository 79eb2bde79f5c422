"""Files of several precisions and target backends inside a package."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path

import onnx
import pytest
from support.small_models import canonical_graph, write_graph

from impasto.errors import OptionError, PackageError
from impasto.export.inspection import inspect_path
from impasto.export.quantization.package_graphs import write_graphs
from impasto.export.quantization.quality import Quality
from impasto.export.quantization.quantized_graph import QuantizedGraph
from impasto.export.quantization.sensitivity import Assignment
from impasto.files import sha256
from impasto.package.file_lock import locked
from impasto.package.manifest import CONTEXT, LOCK, MANIFEST, Manifest, PackageFile, read_manifest
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.loading.source import resolve

MakePackage = Callable[..., Path]
SPEC = ModelSpec("tiny", size=SizeRule(4))


def add(package: Path, *files: tuple[str, str | None]) -> None:
    """Put graphs of (precision, target backend) into the package."""
    manifest = read_manifest(package)
    added = []
    for precision, target_backend in files:
        name = f"model.{precision}-{target_backend}.onnx" if target_backend else f"model.{precision}.onnx"
        onnx.save(canonical_graph(seed=len(added) + 1), str(package / name))
        added.append(PackageFile(name, "model", sha256(package / name), precision, target_backend))
    complete = Manifest(manifest.spec, (*manifest.files, *added))
    (package / MANIFEST).write_text(json.dumps(complete.to_json()))


def test_a_target_backend_gets_its_own_file_and_otherwise_the_one_for_all(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("fp16", None), ("int8", "onnxruntime"), ("int8", "tensorrt"))
    for target_backend in (None, "onnxruntime", "openvino", "tensorrt"):
        assert resolve(package, "fp16", target_backend=target_backend).graph_path.name == "model.fp16.onnx"
        assert resolve(package, "auto", target_backend=target_backend).graph_path.name == "model.onnx"
    for target_backend in ("onnxruntime", "tensorrt"):
        assert (
            resolve(package, "int8", target_backend=target_backend).graph_path.name
            == f"model.int8-{target_backend}.onnx"
        )
    assert resolve(package, "int8").graph_path.name == "model.int8-onnxruntime.onnx"
    with pytest.raises(PackageError, match=r"int8 models for onnxruntime, tensorrt, none for openvino.*--for openvino"):
        resolve(package, "int8", target_backend="openvino")
    assert read_manifest(package).precisions() == ("fp32", "fp16", "int8")


def test_onnx_runtime_gets_another_backends_file_where_it_has_none_of_its_own(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("int8", "tensorrt"))
    assert resolve(package, "int8", target_backend="onnxruntime").graph_path.name == "model.int8-tensorrt.onnx"
    add(package, ("int8", "openvino"))
    assert resolve(package, "int8", target_backend="onnxruntime").graph_path.name == "model.int8-openvino.onnx"
    add(package, ("int8", "onnxruntime"))
    assert resolve(package, "int8", target_backend="onnxruntime").graph_path.name == "model.int8-onnxruntime.onnx"


def test_a_manifest_without_target_backends_is_written_as_before(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("int8", None))
    written = json.loads((package / MANIFEST).read_text())
    assert all(set(entry) == {"role", "precision", "sha256"} for entry in written["files"].values())
    assert written["schema"] == 1
    assert resolve(package, "int8", target_backend="openvino").graph_path.name == "model.int8.onnx"


def test_an_unknown_target_backend_is_refused(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("int8", "tensorrt"))
    path = package / MANIFEST
    path.write_text(path.read_text().replace('"tensorrt"', '"coral"'))
    with pytest.raises(
        PackageError,
        match=r"'family of model\.int8-tensorrt\.onnx' is 'coral'; expected one of onnxruntime, openvino, tensorrt",
    ):
        read_manifest(package)


def test_exporting_again_drops_the_graphs_of_other_precisions(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("fp16", None), ("int8", "tensorrt"))
    export_another(package)
    assert sorted(path.name for path in package.iterdir()) == [LOCK, MANIFEST, "model.onnx"]
    assert read_manifest(package).precisions() == ("fp32",)


def test_exporting_again_drops_a_context_that_the_new_model_has_not(make_package: MakePackage) -> None:
    package = make_package(thumbnail=16)
    assert (package / CONTEXT).is_file()
    export_another(package)
    assert not (package / CONTEXT).exists()


def export_another(package: Path) -> None:
    write_graph(package, SPEC, canonical_graph(seed=9))


def half(ssim: float | None = None) -> QuantizedGraph:
    found = Assignment((), (), Quality(60, 60, ssim, None, None, 1), ())
    return QuantizedGraph(canonical_graph(seed=5), "fp16", None, 2, found, (), None, 60)


def test_precisions_of_one_model_never_get_beside_another(make_package: MakePackage, tmp_path: Path) -> None:
    """An export, or another quantization, may have ended since the work began."""
    package = make_package()
    source = resolve(package)
    write_graphs(source, tmp_path / "copy", [half()])
    export_another(package)
    with pytest.raises(OptionError, match="another model by now; quantize it again"):
        write_graphs(source, package, [half()])
    with pytest.raises(OptionError, match="holds another model than tiny"):
        write_graphs(resolve(package), tmp_path / "copy", [half()])
    with pytest.raises(PackageError, match="has changed meanwhile"):
        write_graphs(source, tmp_path / "new", [half()])
    for folder in (package, tmp_path / "copy"):
        inspect_path(str(folder)).require_intact()
    assert not (tmp_path / "new" / MANIFEST).exists()


def test_an_export_waits_for_who_is_changing_the_package(make_package: MakePackage) -> None:
    package = make_package()
    with ThreadPoolExecutor(1) as threads:
        with locked(package / LOCK):
            export = threads.submit(export_another, package)
            with pytest.raises(TimeoutError):
                export.result(0.2)
        export.result(10)


@pytest.mark.parametrize("write", [export_another, lambda package: write_graphs(resolve(package), package, [half()])])
def test_control_c_between_two_renames_leaves_a_whole_package(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    package = make_package()
    rename = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        signal.raise_signal(signal.SIGINT)
        return renamed

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(package)
    inspect_path(str(package)).require_intact()
    assert not list(package.glob(".*.onnx"))


def test_a_manifest_holds_no_number_that_json_has_not(make_package: MakePackage) -> None:
    package = make_package()
    with pytest.raises(ValueError, match="JSON"):
        write_graphs(resolve(package), package, [half(ssim=math.nan)])
    inspect_path(str(package)).require_intact()
