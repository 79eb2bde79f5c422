"""Files of several precisions and families inside a package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from conftest import canonical_graph
from impasto.errors import PackageError
from impasto.export.package import write_package
from impasto.files import sha256
from impasto.runtime.manifest import MANIFEST, Manifest, PackageFile, read_manifest
from impasto.runtime.resolve import resolve
from impasto.runtime.spec import ModelSpec, SizeRule

MakePackage = Callable[..., Path]
SPEC = ModelSpec("tiny", size=SizeRule(4))


def add(package: Path, *files: tuple[str, str | None]) -> None:
    """Put graphs of (precision, family) into the package."""
    manifest = read_manifest(package)
    added = []
    for precision, family in files:
        name = f"model.{precision}-{family}.onnx" if family else f"model.{precision}.onnx"
        onnx.save(canonical_graph(seed=len(added) + 1), str(package / name))
        added.append(PackageFile(name, "model", sha256(package / name), precision, family))
    complete = Manifest(manifest.spec, (*manifest.files, *added))
    (package / MANIFEST).write_text(json.dumps(complete.to_json()))


def test_a_family_gets_its_own_file_and_otherwise_the_one_for_all(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("fp16", None), ("int8", "onnxruntime"), ("int8", "tensorrt"))
    for family in (None, "onnxruntime", "openvino", "tensorrt"):
        assert resolve(package, "fp16", family=family).graph.name == "model.fp16.onnx"
        assert resolve(package, "auto", family=family).graph.name == "model.onnx"
    for family in ("onnxruntime", "tensorrt"):
        assert resolve(package, "int8", family=family).graph.name == f"model.int8-{family}.onnx"
    assert resolve(package, "int8").graph.name == "model.int8-onnxruntime.onnx"
    with pytest.raises(PackageError, match=r"int8 models for onnxruntime, tensorrt, none for openvino.*--for openvino"):
        resolve(package, "int8", family="openvino")
    assert read_manifest(package).precisions() == ("fp32", "fp16", "int8")


def test_a_manifest_without_families_is_written_as_before(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("int8", None))
    written = json.loads((package / MANIFEST).read_text())
    assert all(set(entry) == {"role", "precision", "sha256"} for entry in written["files"].values())
    assert written["schema"] == 1
    assert resolve(package, "int8", family="openvino").graph.name == "model.int8.onnx"


def test_an_unknown_family_is_refused(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("int8", "tensorrt"))
    path = package / MANIFEST
    path.write_text(path.read_text().replace('"tensorrt"', '"coral"'))
    with pytest.raises(PackageError, match="family 'coral'; expected one of onnxruntime, openvino, tensorrt"):
        read_manifest(package)


def test_exporting_again_drops_the_graphs_of_other_precisions(make_package: MakePackage) -> None:
    package = make_package()
    add(package, ("fp16", None), ("int8", "tensorrt"))
    write_package(package, SPEC, {"model.onnx": canonical_graph(seed=9)}, None, recipe={}, quality={})
    assert sorted(path.name for path in package.iterdir()) == [MANIFEST, "model.onnx"]
    assert read_manifest(package).precisions() == ("fp32",)
