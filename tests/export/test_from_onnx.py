"""Anybody's ONNX file as a package: it draws what the file draws, in every layout and size, or it says why it cannot."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.external_graphs import HALF, Sketch, restorer, u_net, upscaler
from support.small_models import canonical_graph, picture

import impasto
from impasto.errors import BackendError, ExportError, OptionError, OutputError, PackageError, ShapeError
from impasto.export.checks.against_torch import check_package
from impasto.export.from_onnx import import_onnx
from impasto.export.graph.helpers import element_types
from impasto.export.inspection import inspect_path
from impasto.package.manifest import read_manifest
from impasto.package.writer import check_target
from impasto.runtime.inference import tile_plan
from impasto.runtime.loading.opening import SPEC_KEY

LAYOUTS = ("rgb 0..1", "bgr 0..1", "rgb 0..255", "bgr -1..1")


@pytest.fixture
def saved(tmp_path):
    """A function that writes a graph and gives its path."""

    def save(model: onnx.ModelProto, file: str = "Some Model_x.onnx", **described: object):
        path = tmp_path / file
        onnx.save(model, str(path))
        if described:
            path.with_suffix(".json").write_text(json.dumps(described))
        return path

    return save


def drawn(path, image, **options):
    with impasto.load(path, backend="onnxruntime-cpu", **options) as model:
        return model(image).astype(int)


def assert_same(path, package, image, layout, differing=0.01):
    difference = np.abs(drawn(path, image, layout=layout) - drawn(package, image))
    assert difference.max() <= 1
    assert (difference > 0).mean() < differing


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("sketch", "scale"), [(restorer(), 1), (upscaler(2), 2)])
def test_the_package_draws_what_the_file_draws_in_every_layout(saved, sketch, scale, layout):
    path = saved(sketch.model(scale=scale))
    made = import_onnx(path, layout=layout)
    assert_same(path, made.folder, picture(45, 70), layout)
    assert made.check.max_difference <= 1


def test_bgr_costs_nothing_in_the_graph(saved):
    """The order of channels goes into the first layer's weights; at the other end, three planes change places."""
    path = saved(Sketch().conv(8).op("Relu").conv(3).model())
    graphs = {}
    for layout in ("rgb 0..1", "bgr 0..1"):
        folder = import_onnx(path, path.parent / layout[:3], layout=layout).folder
        graphs[layout] = [node.op_type for node in onnx.load(str(folder / "model.onnx")).graph.node]
    assert graphs["bgr 0..1"].count("Gather") == 1
    assert [kind for kind in graphs["bgr 0..1"] if kind != "Gather"] == graphs["rgb 0..1"]


def test_bgr_before_layers_of_groups(saved):
    """Whose weights cannot take the order of channels."""
    sketch = Sketch()
    sketch.op("Conv", sketch.constant(np.linspace(-1, 1, 54).reshape(6, 1, 3, 3)), group=3, pads=[1] * 4)
    sketch.channels = 6
    path = saved(sketch.conv(3).model())
    assert_same(path, import_onnx(path, layout="bgr 0..1").folder, picture(24, 30), "bgr 0..1")


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": HALF},
        {"opset": 11},
        {"opset": 13, "weights_as_inputs": True},
        {"opset": 21},
        {"names": ("image", "picture")},
        {"names": ("image/0 Cast", "out")},
        {"sizes": (1, "h", "w")},
    ],
)
def test_habits_of_other_exporters(saved, options):
    path = saved(restorer().model(**options))
    folder = import_onnx(path, layout="rgb 0..1").folder
    assert_same(path, folder, picture(40, 52), "rgb 0..1", differing=0.1 if options.get("dtype") == HALF else 0.01)
    graph = onnx.load(str(folder / "model.onnx"))
    assert {entry.version for entry in graph.opset_import} == {20}
    assert (graph.graph.input[0].name, graph.graph.output[0].name) == ("image", "picture")
    assert all(tensor.data_type != TensorProto.FLOAT16 for tensor in graph.graph.initializer)


def test_planes_in_the_last_axis(saved):
    sketch = Sketch().op("Transpose", perm=[0, 3, 1, 2]).conv(4).op("Relu").conv(3).op("Transpose", perm=[0, 2, 3, 1])
    path = saved(sketch.model(channels_last=True))
    made = import_onnx(path, layout="bgr 0..1")
    assert made.spec.receptive_field == 2
    assert_same(path, made.folder, picture(33, 21), "bgr 0..1")


def test_batch_norms_of_old_graphs_go_into_their_convolutions(saved):
    sketch = Sketch().conv(6)
    statistics = [sketch.constant(np.linspace(low, 2, 6)) for low in (0.5, -1, -0.2, 0.5)]
    path = saved(sketch.op("BatchNormalization", *statistics).op("Relu").conv(3).model(opset=9, weights_as_inputs=True))
    folder = import_onnx(path, layout="rgb 0..1").folder
    assert "BatchNormalization" not in [node.op_type for node in onnx.load(str(folder / "model.onnx")).graph.node]
    assert_same(path, folder, picture(30, 30), "rgb 0..1")


class TestSizes:
    @pytest.mark.parametrize(("sketch", "multiple"), [(restorer(), 1), (u_net(1), 2), (u_net(3), 8)])
    def test_the_multiple_is_found(self, saved, sketch, multiple):
        spec = import_onnx(saved(sketch.model()), layout="rgb 0..1").spec
        assert (spec.size.multiple, spec.size.minimum, spec.scale, spec.task) == (multiple, multiple, 1, "unknown")

    def test_the_least_side_is_found(self, saved):
        sketch = Sketch()
        pads = sketch.constant([0, 0, 9, 9, 0, 0, 9, 9], np.int64)
        sketch.op("Pad", pads, mode="reflect").conv(3, 19, pads=[0] * 4)
        path = saved(sketch.model())
        made = import_onnx(path, layout="rgb 0..1")
        assert made.spec.size.minimum == 16  # a power of two above the 10 that reflection needs
        assert drawn(made.folder, picture(3, 5)).shape == (3, 5, 3)

    @pytest.mark.parametrize("scale", [2, 3])
    def test_the_scale_is_found_and_makes_it_an_upscaler(self, saved, scale):
        made = import_onnx(saved(upscaler(scale).model(scale=scale)), layout="rgb 0..1")
        assert (made.spec.scale, made.spec.task, made.spec.receptive_field) == (scale, "upscale", 2)

    @pytest.mark.parametrize("scale", [1, 2])
    def test_pictures_larger_than_a_fixed_size_are_cut_into_tiles_that_join(self, saved, scale):
        sketch = upscaler(2) if scale == 2 else restorer()
        free = import_onnx(saved(sketch.model(scale=scale), "free.onnx"), layout="rgb 0..1")
        fixed = import_onnx(saved(sketch.model(scale=scale, sizes=(1, 24, 32)), "fixed.onnx"), layout="rgb 0..1")
        assert fixed.spec.size.fixed == (24, 32)
        for size in ((24, 32), (10, 32), (61, 33), (25, 7)):
            image = picture(*size)
            assert np.abs(drawn(free.folder, image) - drawn(fixed.folder, image)).max() <= 1 or min(size) < 24

    def test_what_cannot_be_cut_refuses_larger_pictures(self, saved):
        sketch = restorer()
        sketch.op("GlobalAveragePool").op("Add", "x")
        made = import_onnx(saved(sketch.model(sizes=(1, 24, 32))), layout="rgb 0..1")
        assert made.spec.receptive_field is None
        assert "never cut into tiles" in str(made)
        with pytest.raises(ShapeError, match=r"takes up to 24 x 32 .*free height and width"):
            drawn(made.folder, picture(25, 32))

    def test_tiles_of_a_free_size_join(self, saved, monkeypatch):
        made = import_onnx(saved(u_net(2).model()), layout="rgb 0..1")
        image = picture(150, 210)
        whole = drawn(made.folder, image)
        monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
        monkeypatch.setattr(tile_plan, "TILE", 48)
        assert np.abs(whole - drawn(made.folder, image)).max() <= 1

    def test_a_sidecar_is_believed(self, saved):
        path = saved(
            u_net(2).model(), layout="bgr 0..255", multiple=16, receptive_field=64, task="deblur", name="sharp"
        )
        made = import_onnx(path)
        assert made.folder.name == "sharp"
        assert (made.spec.size.multiple, made.spec.receptive_field, made.spec.task) == (16, 64, "deblur")
        assert read_manifest(made.folder).recipe["origin"]["layout"] == "bgr 0..255"

    def test_sizes_that_nobody_can_guess(self, saved):
        sketch = Sketch().conv(8, 3, strides=[3, 3], pads=[0] * 4).op("Relu")
        sketch.op("ConvTranspose", sketch.constant(np.ones((8, 3, 3, 3))), strides=[3, 3])
        with pytest.raises(ExportError, match=r'none of the sizes.*"multiple": 48'):
            import_onnx(saved(sketch.model()), layout="rgb 0..1")
        path = saved(sketch.model(), "known.onnx", layout="rgb 0..1", multiple=3)
        assert import_onnx(path).spec.size.multiple == 3


def test_the_package_says_where_it_is_from_and_runs_alone(saved):
    path = saved(restorer().model())
    made = import_onnx(path, layout="rgb 0..1", task="dejpeg")
    assert made.folder == path.parent / "some-model_x"
    origin = read_manifest(made.folder).recipe["origin"]
    assert (origin["file"], origin["layout"], len(origin["sha256"])) == (path.name, "rgb 0..1", 64)
    assert made.spec.task == "dejpeg"
    image = picture(20, 31)
    assert np.array_equal(drawn(made.folder, image), drawn(made.folder / "model.onnx", image))
    assert import_onnx(made.folder / "model.onnx", path.parent / "again").spec == made.spec


def test_torch_cannot_check_it(saved):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    made = import_onnx(saved(restorer().model()), layout="rgb 0..1")
    with pytest.raises(PackageError, match=r"made of Some Model_x.onnx, which torch cannot draw with"):
        check_package(made.folder)


def test_a_canonical_graph_needs_no_layout(saved):
    made = import_onnx(saved(canonical_graph(scale=2), "ours.onnx", multiple=4))
    assert (made.spec.scale, made.spec.size.multiple, made.check.max_difference) == (2, 4, 0)
    with pytest.raises(OptionError, match="as they are; leave the layout out"):
        import_onnx(saved(canonical_graph(), "ours.onnx"), layout="rgb 0..1")


def test_a_graph_that_says_no_sizes_of_what_it_gives(saved):
    model = restorer().model()
    for dimension in model.graph.output[0].type.tensor_type.shape.dim:
        dimension.Clear()
    assert import_onnx(saved(model), layout="rgb 0..1").check.max_difference == 0


class TestWhatLiesThere:
    @pytest.mark.parametrize("stored", ["inside", "beside"])
    def test_no_source_is_replaced(self, saved, stored):
        path = saved(restorer().model(), "graph.onnx" if stored == "beside" else "model.onnx")
        if stored == "beside":
            model = onnx.load(str(path))
            onnx.save(model, str(path), save_as_external_data=True, location="model.onnx", size_threshold=0)
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        with pytest.raises(
            OptionError, match=r"would replace .*model\.onnx, which it is to be made of; choose another"
        ):
            import_onnx(path, path.parent, layout="rgb 0..1")
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before

    def test_no_graph_of_the_package_is_dropped_to_make_it(self, saved):
        made = import_onnx(saved(restorer().model()), layout="rgb 0..1").folder
        for name in ("model.onnx", "manifest.json"):
            with pytest.raises(OptionError, match="which it is to be made of"):
                check_target(made, None, [made / name])

    def test_the_folder_names_the_package(self, saved):
        path = saved(restorer().model(), "other.onnx")
        made = import_onnx(path, path.parent / "sharp", layout="rgb 0..1")
        assert (made.spec.name, made.folder.name) == ("sharp", "sharp")
        assert read_manifest(made.folder).spec.name == "sharp"
        import_onnx(path, made.folder, layout="rgb 0..1")  # the same again
        named = import_onnx(path, path.parent / "Sharp Two", layout="rgb 0..1", name="mine")
        assert named.spec.name == "mine"
        assert import_onnx(path, path.parent / "Sharp Three", layout="rgb 0..1").spec.name == "sharp-three"

    def test_a_package_of_another_file_stays_though_its_folder_has_its_name(self, saved):
        folder = import_onnx(saved(restorer().model(), "one.onnx"), layout="rgb 0..1").folder
        with pytest.raises(OptionError, match=r"holds the package one, and this one is called two; .*--name one"):
            import_onnx(saved(restorer().model(), "two.onnx"), folder, layout="rgb 0..1")
        assert import_onnx(folder.parent / "two.onnx", folder, layout="rgb 0..1", name="one").spec.name == "one"

    def test_another_models_package_stays(self, saved, make_package):
        package, path = make_package(thumbnail=16), saved(restorer().model())
        with pytest.raises(
            OptionError, match=r"holds the package tiny, and this one is called some-model_x; .*--name tiny"
        ):
            import_onnx(path, package, layout="rgb 0..1")
        inspect_path(str(package)).require_intact()
        assert import_onnx(path, package, layout="rgb 0..1", name="tiny").folder == package
        inspect_path(str(package)).require_intact()


class TestWhatOthersWrite:
    def test_halves_that_are_made_as_the_graph_runs(self, saved):
        """As torch's exporters write `.half()`: sizes cast to halves, tensors filled with one, noise of a type."""
        sketch = Sketch().op("Shape")
        sizes = sketch.last
        sketch.op("Gather", sketch.constant(2, np.int64)).op("Cast", to=HALF)
        height = sketch.op("Div", sketch.last).last
        filling = numpy_helper.from_array(np.array([0.1], np.float16))
        filled = sketch.op("ConstantOfShape", take=sizes, value=filling).last
        sketch.last = "x"
        path = saved(sketch.conv(3).op("Mul", height).op("Add", filled).model(dtype=HALF))
        made = import_onnx(path, layout="rgb 0..1")
        model = onnx.load(str(made.folder / "model.onnx"))
        assert HALF not in element_types(model).values()
        assert_same(path, made.folder, picture(20, 31), "rgb 0..1", differing=0.1)

    def test_branches_keep_the_weights_that_they_read(self, saved):
        sketch = Sketch()
        bodies = {}
        for name, factor in (("then_branch", 0.5), ("else_branch", 0.25)):
            scale = helper.make_node("Mul", ["x", sketch.constant(factor)], [name])
            given = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            bodies[name] = helper.make_graph([scale], name, [], [given])
        sketch.op("Shape").op("Gather", sketch.constant(2, np.int64)).op("Greater", sketch.constant(30, np.int64))
        path = saved(sketch.op("If", **bodies).model())
        made = import_onnx(path, layout="rgb 0..1")
        assert made.spec.receptive_field is None
        for height in (20, 40):
            assert_same(path, made.folder, picture(height, 31), "rgb 0..1")

    @pytest.mark.parametrize("opset", [17, 20])
    def test_functions_are_written_out(self, saved, opset):
        model = Sketch().conv(8).op("Relu").conv(3).model(opset=opset)
        model.functions.append(
            helper.make_function(
                "theirs", "Rectify", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], model.opset_import
            )
        )
        model.graph.node[1].op_type, model.graph.node[1].domain = "Rectify", "theirs"
        model.opset_import.append(helper.make_opsetid("theirs", 1))
        path = saved(model)
        made = import_onnx(path, layout="rgb 0..1")
        assert made.spec.receptive_field == 2
        assert_same(path, made.folder, picture(20, 31), "rgb 0..1")

    @pytest.mark.parametrize(("opset", "dtype"), [(11, TensorProto.FLOAT), (20, HALF)])
    def test_canonical_graphs_are_modernized_too(self, saved, opset, dtype):
        """Opset 11 has another Softmax, and no INT8; halves are no FP32 to make precisions of."""
        sketch = Sketch().op("Cast", to=dtype).op("Transpose", perm=[0, 3, 1, 2]).conv(3)
        sketch.op("Clip", sketch.constant(0), sketch.constant(255)).op("Transpose", perm=[0, 2, 3, 1])
        model = sketch.op("Cast", to=TensorProto.UINT8).model(opset=opset, dtype=dtype, channels_last=True)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = TensorProto.UINT8
        path = saved(model)
        made = import_onnx(path)
        assert made.spec.receptive_field == 1
        written = onnx.load(str(made.folder / "model.onnx"))
        assert written.opset_import[0].version == 20
        assert HALF not in element_types(written).values()
        assert np.abs(drawn(path, picture(20, 31)) - drawn(made.folder, picture(20, 31))).max() <= 1


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"task": "nonsense"}, "unknown task 'nonsense'; write one of .* into the sidecar"),
        ({"thumbnail": 64}, "thumbnail or styles, which a context graph takes"),
        ({"styles": ["a", "b"]}, "thumbnail or styles"),
    ],
)
def test_what_a_sidecar_says_must_be_possible(saved, described, words):
    path = saved(restorer().model(), layout="rgb 0..1", **described)
    with pytest.raises(OptionError, match=words):
        import_onnx(path)


@pytest.mark.parametrize(("text", "words"), [("{oops", "is no JSON"), ("[1]", "is list, not an object")])
def test_metadata_of_ours_that_is_none_says_so(saved, text, words):
    model = restorer().model()
    model.metadata_props.add(key=SPEC_KEY, value=text)
    with pytest.raises(PackageError, match=words):
        import_onnx(saved(model), layout="rgb 0..1")


def one_channel() -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "h", "w"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "gray", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two_inputs() -> onnx.ModelProto:
    model = restorer().model()
    model.graph.input.append(helper.make_tensor_value_info("sigma", TensorProto.FLOAT, [1]))
    return model


def no_picture() -> onnx.ModelProto:
    return Sketch().op("ReduceMean", axes=[2, 3], keepdims=0).model(opset=13)


def one_side_fixed() -> onnx.ModelProto:
    return restorer().model(sizes=("n", 64, "w"))


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (restorer().model(), {}, OptionError, "--layout 'rgb 0..1'"),
        (restorer().model(), {"layout": "rgba 0..1"}, OptionError, "cannot read the pixel layout"),
        (restorer().model(), {"layout": "rgb 0..1", "task": "magic"}, OptionError, "unknown task 'magic'; choose one"),
        (restorer().model(), {"layout": "rgb 0..1", "name": "No/Name"}, OptionError, "cannot be a model's name"),
        (one_channel(), {"layout": "rgb 0..1"}, ExportError, "a picture model has 3 channels"),
        (two_inputs(), {"layout": "rgb 0..1"}, ExportError, "takes x float .*, sigma float"),
        (one_side_fixed(), {"layout": "rgb 0..1"}, ExportError, "fixes one side"),
        (
            restorer().model(sizes=(4, 24, 32)),
            {"layout": "rgb 0..1"},
            ExportError,
            "takes 4 pictures at once.* batch of 1",
        ),
        (b"no graph at all", {"layout": "rgb 0..1"}, ExportError, "no ONNX file that can be read"),
    ],
)
def test_what_cannot_be_made_a_package_says_why_and_leaves_nothing(tmp_path, model, options, error, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(error, match=message):
        import_onnx(path, tmp_path / "package", **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_package_needs_none_made_of_it(make_package):
    with pytest.raises(OptionError, match="is no bare ONNX file"):
        import_onnx(make_package())


def test_a_folder_that_cannot_be_written(saved, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        import_onnx(saved(restorer().model()), tmp_path / "file", layout="rgb 0..1")


def test_a_wrong_drawing_is_not_written(saved, tmp_path, monkeypatch):
    """The comparison can fail: with another scale at the one end."""
    from impasto.export import from_onnx
    from impasto.package.spec import Pixels

    path = saved(restorer().model())
    monkeypatch.setattr(
        from_onnx, "with_pixels", lambda model, pixels, real=from_onnx.with_pixels: real(model, Pixels("rgb", 0, 0.9))
    )
    with pytest.raises(ExportError, match="levels of 255 away from what"):
        import_onnx(path, tmp_path / "package", layout="rgb 0..1")
    assert not (tmp_path / "package").exists()


def test_what_was_exported_is_built_like_a_network_of_ours(saved, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")
    from impasto.export.tensorrt.cache import EngineCache
    from impasto.export.tensorrt.options import BuildOptions, Sizes
    from impasto.export.tensorrt.package_engines import build_engine

    path = saved(upscaler().model(opset=13))
    package = import_onnx(path, layout="bgr 0..1").folder
    fixed = import_onnx(saved(restorer().model(sizes=(1, 24, 32)), "fixed.onnx"), layout="rgb 0..1").folder
    cache = EngineCache(tmp_path / "cache")
    with pytest.raises(ExportError, match=r"impasto export .* --layout"):
        build_engine(path, BuildOptions("fp32", targets=("sm86",)), cache=cache)

    def build(folder, size):
        options = BuildOptions("fp32", (Sizes.parse(size),), targets=("sm86",))
        return build_engine(folder, options, cache=cache)

    built = build(package, "64x64:128x128:256x256")
    assert built.plan.parent == package / "engines"
    assert built.record.precisions()["fp32"] >= 2
    assert build(fixed, "24x32").record.profiles[0]["image"] == ((1, 24, 32, 3),) * 3
    with pytest.raises(OptionError, match=r"exported for pictures of 24 x 32 alone; .*tiles.*--size 24x32"):
        build(fixed, "1080p")
    shutil.rmtree(package / "engines")


class TestOldAndOddFiles:
    """What other exporters write, and ONNX's converter or ONNX Runtime's optimizer once made something else of."""

    @pytest.mark.parametrize(("kind", "opset"), [("Upsample", 9), ("Resize", 10)])
    @pytest.mark.parametrize("mode", ["linear", "nearest"])
    @pytest.mark.parametrize("factor", [2.0, 1.5, 0.75])
    def test_resizes_from_before_they_said_how(self, saved, kind, opset, mode, factor):
        if kind == "Upsample" and factor < 1:
            pytest.skip("Upsample only enlarges")
        sketch = Sketch()
        sketch.op(kind, sketch.constant([1, 1, factor, factor]), mode=mode)
        if factor != 2:  # and back, so that the whole is one factor
            sketch.op(kind, sketch.constant([1, 1, 2 / factor, 2 / factor]), mode=mode)
        path = saved(sketch.model(opset=opset, scale=2))
        sidecar = {} if factor == 2 else {"multiple": 12}
        path.with_suffix(".json").write_text(json.dumps({"layout": "rgb 0..1", **sidecar}))
        assert_same(path, import_onnx(path).folder, picture(36, 48), None)

    @pytest.mark.parametrize("attributes", [{"mode": "cubic"}, {"mode": "linear", "antialias": 1}])
    @pytest.mark.filterwarnings("ignore:openvino draws it")
    def test_a_resize_that_is_computed_in_planes_only(self, saved, attributes):
        """ONNX Runtime moved the Transpose of our pixels behind it, and then would not load the graph."""
        sketch = Sketch()
        sketch.op("Resize", "", sketch.constant([1, 1, 0.5, 0.5]), **attributes)
        sketch.op("Resize", "", sketch.constant([1, 1, 2, 2]), mode="nearest")
        path = saved(sketch.model(opset=18))
        made = import_onnx(path, layout="rgb 0..1")
        assert_same(path, made.folder, picture(44, 70), "rgb 0..1")
        assert made.spec.receptive_field is not None or "antialias" in attributes

    @pytest.mark.parametrize("channels_last", [True, False])
    @pytest.mark.parametrize("said", [True, False])
    def test_one_layout_goes_in_and_another_comes_out(self, saved, channels_last, said):
        perm = [0, 3, 1, 2] if channels_last else [0, 2, 3, 1]
        model = Sketch().op("Transpose", perm=perm).model(channels_last=channels_last)
        for axis, dimension in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
            dimension.Clear()
            if said:
                sizes = ["n", 3, "h", "w"] if channels_last else ["n", "h", "w", 3]
                dimension.CopyFrom(helper.make_tensor_value_info("v", 1, [sizes[axis]]).type.tensor_type.shape.dim[0])
        path, image = saved(model), picture(20, 30)
        assert np.array_equal(drawn(path, image, layout="bgr 0..1"), image)
        assert np.array_equal(drawn(import_onnx(path, layout="bgr 0..1").folder, image), image)

    def test_float64_is_refused(self, saved):
        path = saved(Sketch().op("Sigmoid").model(dtype=TensorProto.DOUBLE))
        for work in (
            lambda: import_onnx(path, layout="rgb 0..1"),
            lambda: drawn(path, picture(9, 9), layout="rgb 0..1"),
        ):
            with pytest.raises((ExportError, BackendError), match=r"double.* in float32"):
                work()

    @pytest.mark.parametrize("side", [64, 128])
    def test_a_size_that_is_baked_in_is_found_or_named(self, saved, side):
        sketch = Sketch()
        sketch.op("Reshape", sketch.constant([1, 3, side, side], np.int64)).op("Sigmoid")
        path = saved(sketch.model())
        made = import_onnx(path, layout="rgb 0..1")
        assert made.spec.size.fixed == (side, side)
        assert f"{side} x {side} only" in str(made)
        wanted = drawn(made.folder, picture(40, 50))
        if side != 64:
            with pytest.raises(BackendError, match=r'works at 128 x 128.*"fixed": \[128, 128\]'):
                drawn(path, picture(40, 50), layout="rgb 0..1")
        path.with_suffix(".json").write_text(json.dumps({"layout": "rgb 0..1", "size": {"fixed": [side, side]}}))
        assert np.abs(drawn(path, picture(40, 50)) - wanted).max() <= 1
