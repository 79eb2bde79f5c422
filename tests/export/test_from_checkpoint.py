"""A checkpoint becomes a package that draws what torch draws; and what happens when it cannot."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.small_models import REPOSITORY, picture, write_graph

import impasto
from impasto.errors import CheckFailed, CheckpointError, ExportError, OptionError, OutputError
from impasto.files import sha256

torch = pytest.importorskip("torch", reason="export needs torch")

from impasto.export import from_torch as canonical  # noqa: E402
from impasto.export.checks.against_torch import check_package, compare, synthetic  # noqa: E402
from impasto.export.from_checkpoint import export_checkpoint  # noqa: E402
from impasto.export.graph.weight_storage import with_fp16_storage, without_fp16_storage  # noqa: E402
from impasto.package.writer import check_name  # noqa: E402
from impasto.runtime.loading.source import shipped_models  # noqa: E402
from impasto.training import checkpoint as checkpoints  # noqa: E402
from impasto.training.inference import draw  # noqa: E402
from impasto.training.networks import build  # noqa: E402

NETWORKS = {
    # Fewer blocks than ship: torch traces them one by one, and TestShipped has them all.
    "classic-stylizer": {"blocks": 1},
    "thumbnail-stylizer": {"blocks": 1, "after": 1},
    "unet-restorer": {"encoder": (1, 1), "middle": 1, "decoder": (1, 1)},
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    network = build(request.param, NETWORKS[request.param]).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # no two tensors are all zeros, as before a training
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return network


@pytest.fixture(scope="module")
def package(network, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    path = folder / "random.safetensors"
    checkpoints.save_checkpoint(path, network, name="random", task="stylize", recipe={"seed": 0})
    return export_checkpoint(path, folder / "package")


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (96, 64)])
def test_the_package_draws_what_torch_draws(network, package, size):
    loaded = checkpoints.load(package.parent / "random.safetensors").network
    image = picture(*size)
    with impasto.load(package) as model:
        assert compare("", model(image), draw(loaded, image)).max_difference <= 1


def test_the_graph_is_canonical(package):
    model = onnx.load(str(package / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    image, out = model.graph.input[0], model.graph.output[0]
    for value in (image, out):
        dims = value.type.tensor_type.shape.dim
        assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert [d.dim_param for d in dims[:3]] == ["N", "H", "W"]
        assert dims[3].dim_value == 3
    assert model.opset_import[0].version == canonical.OPSET
    # One operator each, no chains of shape arithmetic that engines cannot fuse.
    assert not {"Shape", "Gather", "Reshape"} & {node.op_type for node in without_fp16_storage(model).graph.node}
    text = (package / "model.onnx").read_bytes()
    assert str(REPOSITORY).encode() not in text
    assert b"site-packages" not in text


def test_batches_are_drawn_picture_by_picture(network, package):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(package / "model.onnx"))
    images = np.stack([picture(64, 96, seed) for seed in range(3)])
    feeds = {"image": images}
    if network.thumbnail:
        thumbnails = np.stack([impasto.images.thumbnail(image, network.thumbnail) for image in images])
        context = onnxruntime.InferenceSession(str(package / "context.onnx"))
        feeds["context"] = context.run(None, {"thumbnail": thumbnails})[0]
    together = session.run(None, feeds)[0]
    for index in range(3):
        alone = session.run(None, {name: value[index : index + 1] for name, value in feeds.items()})[0]
        assert np.abs(together[index].astype(int) - alone[0]).max() <= 1


def test_a_bare_graph_knows_itself(network, package, tmp_path):
    image = picture(40, 50)
    with impasto.load(package / "model.onnx") as inside, impasto.load(package) as whole:
        assert inside.info.spec == whole.info.spec
        assert np.array_equal(inside(image), whole(image)), "in its package it finds its context"
    bare = tmp_path / "bare.onnx"
    bare.write_bytes((package / "model.onnx").read_bytes())
    if network.thumbnail:
        with pytest.raises(impasto.ImpastoError, match="context graph beside it"):
            impasto.load(bare)
        return
    with impasto.load(bare) as alone:
        assert alone.info.spec == inside.info.spec


def test_the_manifest_describes_the_files(package):
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert manifest["recipe"]["seed"] == 0
    assert "model.onnx" in manifest["files"]
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == sha256(package / name)


def test_exporting_twice_gives_the_same_graph(network, package, tmp_path):
    again = export_checkpoint(package, tmp_path / "of a package")
    assert {path.name for path in again.iterdir()} == {path.name for path in package.iterdir()}
    for path in package.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("network", [next(iter(NETWORKS))], indirect=True)  # names are no network's own
def test_a_package_is_renamed_in_place_and_replaced_by_no_other(network, package, tmp_path):
    copy = shutil.copytree(package, tmp_path / "copy")
    assert export_checkpoint(copy, name="renamed") == copy
    with pytest.raises(
        OptionError, match=r"holds the package renamed, and this one is called random; .*--name renamed"
    ):
        export_checkpoint(package, copy)
    with pytest.raises(OutputError, match=r"manifest.json is a file; choose another place"):
        export_checkpoint(package, copy / "manifest.json" / "sub")


def test_a_package_is_its_own_checkpoint(network, package):
    assert not (package / "checkpoint.safetensors").exists()
    trained, held = (checkpoints.load(path) for path in (package.parent / "random.safetensors", package))
    assert (held.name, held.task, held.recipe) == (trained.name, trained.task, trained.recipe)
    assert held.network.config == trained.network.config
    state = trained.network.state_dict()
    assert state.keys() == held.network.state_dict().keys()
    assert all(torch.equal(held.network.state_dict()[key], value) for key, value in state.items())
    assert (
        sum(path.stat().st_size for path in package.glob("*.onnx")) < 2.2 * sum(v.numel() for v in state.values()) + 1e5
    )


def test_weights_are_unpacked_to_the_same_bits_under_their_own_names(network, package):
    from impasto.export.quantization.ranges import Session

    stored = onnx.load(str(package / "model.onnx"))
    plain = without_fp16_storage(stored)
    feed = {"image": picture(64, 96)[None]}
    if network.thumbnail:
        context = Session(onnx.load(str(package / "context.onnx")))
        thumbnail = impasto.images.thumbnail(picture(64, 96), network.thumbnail)
        feed["context"] = context.draw({"thumbnail": thumbnail[None]})
    assert np.array_equal(Session(stored).draw(feed), Session(plain).draw(feed))
    names = {tensor.name for tensor in stored.graph.initializer if tensor.name.startswith("network.")}
    assert names == {tensor.name for tensor in plain.graph.initializer if tensor.name.startswith("network.")}
    layers = [node for node in plain.graph.node if node.op_type == "Conv"]
    assert {node.input[1] for node in layers} <= names
    assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in plain.graph.initializer}


def test_a_weight_that_something_else_reads_keeps_its_name_there():
    """An external graph: one half that is read as it is, cast, and gathered from by a single number."""
    node, half = onnx.helper.make_node, onnx.numpy_helper.from_array(np.arange(4, dtype=np.float16), "w")
    index = onnx.numpy_helper.from_array(np.array(2), "two")
    nodes = [
        node("Cast", ["w"], ["floats"], to=onnx.TensorProto.FLOAT),
        node("Gather", ["floats", "two"], ["third"]),
        node("Add", ["floats", "third"], ["y"]),
        node("Identity", ["w"], ["z"]),
    ]
    outputs = [
        onnx.helper.make_tensor_value_info(name, kind, [4])
        for name, kind in (("y", onnx.TensorProto.FLOAT), ("z", onnx.TensorProto.FLOAT16))
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], outputs, [half, index]))
    plain = without_fp16_storage(model)
    assert [node.op_type for node in plain.graph.node] == ["Add", "Identity"]
    assert set(plain.graph.node[0].input) == {"floats", "third"}
    assert list(plain.graph.node[1].input) == ["w"]
    onnx.checker.check_model(plain, full_check=True)


def test_a_package_keeps_the_checkpoint_that_its_graphs_do_not_hold(tmp_path):
    """The exporter makes one of two tensors that are equal, as all biases are before a training."""
    untrained = build("unet-restorer", NETWORKS["unet-restorer"]).eval()
    with torch.no_grad():
        for name, parameter in untrained.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    path = tmp_path / "untrained.safetensors"
    checkpoints.save_checkpoint(path, untrained, name="untrained", task="stylize", recipe={"seed": 0})
    folder = export_checkpoint(path, tmp_path / "package")
    assert json.loads((folder / "manifest.json").read_text())["network"] == {}
    assert sha256(folder / "checkpoint.safetensors") == sha256(path)
    assert checkpoints.load(folder).recipe == {"seed": 0}
    again = export_checkpoint(folder, tmp_path / "again")
    assert (again / "checkpoint.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "folder without a manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "no manifest that can be read"),
        (lambda folder: (folder / "manifest.json").write_text('{"model": 3}'), "no manifest that can be read"),
        (lambda folder: (folder / "model.onnx").unlink(), "lacks model.onnx"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "not the file that its manifest describes"),
        (lambda folder: _rewrite(folder, network={}), "does not say which network"),
        (lambda folder: _rewrite(folder, files=_elsewhere(folder)), "outside of the package"),
        (
            lambda folder: _rewrite(folder, network={"architecture": "unet-restorer", "config": {"widths": [8]}}),
            "does not fit",
        ),
    ],
)
def test_training_refuses_a_package_that_is_broken(package, tmp_path, change, reason):
    folder = Path(shutil.copytree(package, tmp_path / "package"))
    change(folder)
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.load(folder)


def _elsewhere(folder: Path) -> dict[str, object]:
    """The files of the manifest, the graph under a way back to it that leaves the folder."""
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return {f"../{folder.name}/{name}": entry for name, entry in files.items()}


def _rewrite(folder: Path, **entries: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize("values", [np.float32(70000), np.float32(1 / 3)], ids=["too large", "not a half"])
def test_weights_that_are_no_halves_stay_as_they_are(values):
    weights = onnx.numpy_helper.from_array(np.full((64, 64), values), "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [weights])
    model = with_fp16_storage(onnx.helper.make_model(graph))
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert model.graph.initializer[0].data_type == onnx.TensorProto.FLOAT


def test_a_failed_export_leaves_the_old_package(network, package, monkeypatch):
    before = {path.name: path.read_bytes() for path in package.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spec = canonical.spec_of(network, "random", "stylize")
    graph = onnx.load(str(package / "model.onnx"))
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="no space left"):
        write_graph(package, spec, graph)
    assert {path.name: path.read_bytes() for path in package.iterdir()} == before


def test_check_passes_what_is_right_and_fails_what_is_not(package, tmp_path):
    from PIL import Image

    Image.fromarray(picture(50, 70)).save(tmp_path / "photo.png")
    result = check_package(package, [tmp_path / "photo.png"])
    assert result.passed
    assert result.pictures[0].picture == "photo.png"
    result.require()


def test_check_notices_other_weights(network, package, tmp_path):
    """The proof can fail: a package whose graph was not made of the weights that it is compared with."""
    torch.manual_seed(1)
    other = build(network.architecture, network.config).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = Path(shutil.copytree(package, tmp_path / "package"))
    checkpoints.save_checkpoint(folder / "checkpoint.safetensors", other, name="b", task="stylize", recipe={})
    files = json.loads((folder / "manifest.json").read_text())["files"]
    held = {"role": "checkpoint", "precision": "fp16", "sha256": sha256(folder / "checkpoint.safetensors")}
    _rewrite(folder, files=files | {"checkpoint.safetensors": held})
    result = check_package(folder)
    assert not result.passed
    with pytest.raises(CheckFailed, match="levels away"):
        result.require()


def test_a_network_that_cannot_be_exported_is_one_line(network):
    class Branching(type(network)):
        def forward(self, image, context=None):
            if float(image.mean()) > 0.5:
                return image
            return super().forward(image, context)

    network_class, network.__class__ = network.__class__, Branching
    try:
        with pytest.raises(ExportError, match="may not branch") as error:
            canonical.export_model(network, canonical.spec_of(network, "x", "stylize"))
        assert "\n" not in str(error.value)
    finally:
        network.__class__ = network_class


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a b", "-a", "x" * 65])
def test_names_that_cannot_be_folders_are_refused(name):
    with pytest.raises(OptionError, match="model's name"):
        check_name(name)


def test_synthetic_pictures_are_the_same_every_time():
    assert np.array_equal(synthetic(20, 30), synthetic(20, 30))
    assert synthetic(20, 30).std() > 30


@pytest.mark.parametrize("name", ["great-wave", "denoise"])
class TestShipped:
    """The models in the repository."""

    def test_the_package_is_what_its_weights_export_to(self, name, tmp_path):
        folder = shipped_models() / name
        fresh = export_checkpoint(folder, tmp_path / name)
        image = synthetic(120, 90)
        with impasto.load(folder) as shipped, impasto.load(fresh) as exported:
            assert shipped.info.spec == exported.info.spec
            assert np.abs(shipped(image).astype(int) - exported(image)).max() <= 1
        check_package(folder).require()

    def test_the_recipe_is_complete(self, name):
        manifest = json.loads((shipped_models() / name / "manifest.json").read_text())
        assert {"command", "seed", "steps", "data", "losses"} <= set(manifest["recipe"])
        assert (shipped_models() / name / "README.md").is_file()

    def test_tiles_join(self, name, monkeypatch):
        from impasto.runtime.inference import tile_plan

        image = synthetic(400, 600)
        with impasto.load(name) as model:
            whole = model(image)
            monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
            monkeypatch.setattr(tile_plan, "TILE", 1)
            model._forget_sizes()
            assert np.abs(whole.astype(int) - model(image)).max() <= 1
            assert next(iter(model._buffers.values())).plan.tiles


def test_what_ships_is_small():
    folders = [path.parent for path in shipped_models().glob("*/manifest.json")]
    sizes = {folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in folders}
    assert {name: size for name, size in sizes.items() if size > 6_000_000} == {}
    assert sum(sizes.values()) <= 40_000_000


def test_pixels_that_are_not_missing_come_back_exactly_in_every_precision():
    from impasto.export.graph import int8
    from impasto.export.graph.fp16 import exact_pixels, find_fp32_nodes, rounded, to_half
    from impasto.export.graph.helpers import with_names
    from impasto.export.quantization.ranges import Session, observe
    from impasto.export.tensorrt.parser_graph import prepare

    torch.manual_seed(0)
    network = build("unet-restorer", {"marker": [1.0, 0.0, 1.0]}).eval()
    model = with_names(
        without_fp16_storage(canonical.export_model(network, canonical.spec_of(network, "x", "inpaint")))
    )
    image = picture(64, 96)
    missing = np.zeros(image.shape[:2], bool)
    missing[10:30, 20:50] = True
    image[missing] = (255, 0, 255)
    feed = {"image": image[None]}
    exact = exact_pixels(model)
    assert exact is not model, "the mask is not taken for a part of the network"
    half = to_half(exact, {fp32_node.node for fp32_node in find_fp32_nodes(exact, observe(exact, [feed]))})
    whole = int8.quantized(model, int8.find_ranges(model, [feed], "min-max"), (), "tensorrt")
    drawn = Session(model).draw(feed)[0]
    assert (drawn[missing] != image[missing]).any()
    for graph in (model, rounded(half), whole, prepare(model, 17)):
        found = Session(graph).draw(feed)[0]
        assert np.array_equal(found[~missing], image[~missing])
        assert np.abs(found[missing].astype(int) - drawn[missing]).max() <= 16
