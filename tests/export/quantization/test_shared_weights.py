"""FP16 and INT8 graphs that leave weights in the FP32 graph's file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.precision_graphs import chain, photos
from support.small_models import picture, write_graph

import impasto
from impasto.errors import BackendError, ExportError, PackageError
from impasto.export.graph.weight_storage import with_fp16_storage
from impasto.export.quantization.quality import Budget
from impasto.export.quantization.ranges import Session
from impasto.export.quantization.search import QuantizeOptions, quantize
from impasto.export.tensorrt.builder import prepared_graph, require_one_hash
from impasto.package.onnx_bytes import weight_files
from impasto.package.shared_weights import WEIGHTS_KEY, self_contained, verify_weights
from impasto.package.spec import ModelSpec

BACKENDS = ("onnxruntime-cpu", "openvino")


def halves() -> onnx.ModelProto:
    """A graph whose weights are exact halves, stored as such."""
    model = chain(3, channels=32)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    return with_fp16_storage(model)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "net").mkdir()
    write_graph(folder / "net", ModelSpec("net"), halves())
    quantize(folder / "net", QuantizeOptions(photos(folder / "photos"), "fp16"))
    return folder / "net"


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "net"))


def test_weights_are_stored_once_and_the_picture_is_that_of_a_graph_with_all_inside(
    package: Path, tmp_path: Path
) -> None:
    path = package / "model.fp16.onnx"
    assert path.stat().st_size < 0.5 * (package / "model.onnx").stat().st_size
    assert weight_files(path.read_bytes()) == {"model.onnx"}
    whole = onnx.load(str(path))  # onnx's own reader finds them
    inside = onnx.load_from_string(self_contained(path))
    values, ours = ({t.name: numpy_helper.to_array(t) for t in model.graph.initializer} for model in (whole, inside))
    assert values.keys() == ours.keys()
    assert all(np.array_equal(values[name], ours[name]) for name in values)
    (tmp_path / "whole.onnx").write_bytes(self_contained(path))
    for backend in BACKENDS:
        with (
            impasto.load(package, precision="fp16", backend=backend) as shared,
            impasto.load(tmp_path / "whole.onnx", backend=backend) as alone,
        ):
            assert np.array_equal(shared(picture(40, 56)), alone(picture(40, 56)))


@pytest.mark.parametrize("target_backend", ["openvino", "tensorrt"])
def test_an_int8_graph_leaves_the_weights_of_excluded_layers_too(
    package: Path, target_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Equalized channels would be other weights than the FP32 graph stores.
    monkeypatch.setattr("impasto.export.graph.int8.equalized", lambda model, feeds: model)
    folder, budget = photos(tmp_path / "photos"), Budget(psnr=5)
    options = QuantizeOptions(folder, "int8", (target_backend,), budget, method="min-max", exclude=("conv1",))
    (made,) = quantize(package, options).made
    stored = onnx.load(str(made.path), load_external_data=False)
    (elsewhere,) = (tensor.name for tensor in stored.graph.initializer if tensor.external_data)
    assert elsewhere.startswith("conv1.weight")
    feed = {stored.graph.input[0].name: picture(40, 56)[None]}
    as_judged, as_written = (Session(model).draw(feed) for model in (made.model, onnx.load(str(made.path))))
    assert np.array_equal(as_judged, as_written)


def test_the_graph_has_another_hash_where_a_weight_is_another(made: Path) -> None:
    model = onnx.load(str(made / "model.fp16.onnx"), load_external_data=False)
    pinned = {entry.key: entry.value for entry in model.metadata_props}[WEIGHTS_KEY]
    assert pinned == impasto.files.sha256(made / "model.onnx")


def change_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_weights_that_changed_are_refused_everywhere(package: Path) -> None:
    change_a_weight(package / "model.onnx")
    graph = package / "model.fp16.onnx"
    with pytest.raises(PackageError, match=r"model\.onnx is not the file that its manifest describes"):
        impasto.load(package, precision="fp16")
    for use in (
        lambda: impasto.load(graph),  # what the manifest says of this file is true
        lambda: self_contained(graph),
        lambda: verify_weights(graph),
    ):
        with pytest.raises(
            PackageError, match=r"model\.onnx has changed since model\.fp16\.onnx.*quantize the model again"
        ):
            use()
    with pytest.raises(ExportError, match=r"model\.onnx has changed"):
        require_one_hash(graph)


def test_weights_that_are_gone_are_named(package: Path) -> None:
    (package / "model.onnx").unlink()
    with pytest.raises(PackageError, match=r"cannot read .*model\.onnx, which holds the weights of model\.fp16\.onnx"):
        impasto.load(package / "model.fp16.onnx")


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "..", "other/model.onnx", "a\0b", "\x1b[2J", "n" * 5000]
)
def test_a_place_outside_the_package_is_refused(package: Path, name: str) -> None:
    model = onnx.load(str(package / "model.fp16.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = name if entry.key == "location" else entry.value
    (package / "model.fp16.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match="keeps weights in") as error:
        verify_weights(package / "model.fp16.onnx")
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


def test_weights_in_a_file_that_no_hash_vouches_for_are_refused(package: Path) -> None:
    model = onnx.load(str(package / "model.fp16.onnx"), load_external_data=False)
    kept = [entry for entry in model.metadata_props if entry.key != WEIGHTS_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    (package / "model.fp16.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match="does not say that file's SHA-256"):
        verify_weights(package / "model.fp16.onnx")


@pytest.mark.parametrize("key, value", [("offset", "99999999"), ("offset", "-1"), ("length", "x"), ("length", "-5")])
def test_a_place_beyond_the_file_is_refused(package: Path, key: str, value: str) -> None:
    model = onnx.load(str(package / "model.fp16.onnx"), load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in tensor.external_data:
        entry.value = value if entry.key == key else entry.value
    (package / "model.fp16.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=r"the weights of .* cannot be read"):
        self_contained(package / "model.fp16.onnx")


def test_a_graph_alone_says_what_it_misses(package: Path, tmp_path: Path) -> None:
    shutil.copy(package / "model.fp16.onnx", tmp_path / "alone.onnx")
    with pytest.raises((PackageError, BackendError), match=r"model\.onnx"):
        impasto.load(tmp_path / "alone.onnx")


def test_an_engine_is_built_of_all_weights(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_one_hash(package / "model.fp16.onnx")
    prepared, _ = prepared_graph(package / "model.fp16.onnx", 20)
    assert not weight_files(prepared)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)  # as on a device that has no onnx library
    prepared, _ = prepared_graph(package / "model.fp16.onnx", 20)
    assert not weight_files(prepared)
