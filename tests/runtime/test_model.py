"""The runtime API, on small graphs with known answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.small_models import canonical_graph, float_graph, picture

import impasto
from impasto.errors import BackendError, ModelNotFound, OptionError, PackageError, ShapeError
from impasto.package.spec import Pixels
from impasto.runtime import model as module
from impasto.runtime.inference import tile_plan


@pytest.fixture(params=["onnxruntime-cpu", "openvino"])
def load(request):
    """`impasto.load` by each of the backends that run on a CPU."""
    return partial(impasto.load, backend=request.param)


SIZES = [(1, 1), (1, 9), (2, 3), (4, 4), (5, 7), (31, 64), (64, 64), (65, 33)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("border", [0, 6])
def test_any_size_goes_in_and_comes_out_scaled(load, make_package, size, scale, border):
    image = picture(*size)
    with load(make_package(scale=scale, border=border)) as model:
        drawn = model(image)
    assert drawn.shape == (size[0] * scale, size[1] * scale, 3)
    assert drawn.dtype == np.uint8
    assert np.abs(drawn[::scale, ::scale].astype(int) - image).mean() < 60  # the network adds to the picture


def test_the_picture_given_is_left_alone_and_the_result_is_the_callers(load, make_package):
    image = picture(40, 52)
    before = image.copy()
    with load(make_package(border=4)) as model:
        first = model(image)
        kept = first.copy()
        second = model(picture(40, 52, seed=1))
    assert np.array_equal(image, before)
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_tiles_join_exactly(load, make_package, monkeypatch):
    image = picture(203, 331)
    with load(make_package(border=5)) as model:
        whole = model(image)
    monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
    monkeypatch.setattr(tile_plan, "TILE", 64)
    with load(model.info.path) as model:
        tiled = model(image)
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert (whole != tiled).mean() < 1e-3


def test_tiles_join_exactly_when_the_network_enlarges(load, make_package, monkeypatch):
    image = picture(150, 90)
    with load(make_package(scale=2)) as model:
        whole = model(image)
        monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
        monkeypatch.setattr(tile_plan, "TILE", 48)
        model._forget_sizes()
        assert np.abs(whole.astype(int) - model(image)).max() <= 1


def test_a_wrong_receptive_field_would_show(load, make_package, monkeypatch):
    """The test above can fail: with windows that overlap too little, tiles do not join."""
    folder = make_package()
    data = json.loads((folder / "manifest.json").read_text())
    data["model"]["receptive_field"] = 0
    (folder / "manifest.json").write_text(json.dumps(data))
    image = picture(200, 200)
    with load(folder) as model:
        whole = model(image)
        monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
        monkeypatch.setattr(tile_plan, "TILE", 64)
        model._forget_sizes()
        assert np.abs(whole.astype(int) - model(image)).max() > 1


def test_a_model_of_unknown_receptive_field_is_never_tiled(load, make_package, monkeypatch):
    monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
    with load(make_package(tiled=False)) as model:
        assert "never" in model.info.tiling
        model(picture(100, 100))
        assert not next(iter(model._buffers.values())).plan.tiles


def test_the_context_sees_the_whole_picture_also_in_tiles(load, make_package, monkeypatch):
    dark, bright = picture(160, 200) // 4, 255 - picture(160, 200) // 4
    with load(make_package(thumbnail=16)) as model:
        whole = [model(image) for image in (dark, bright)]
        monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
        monkeypatch.setattr(tile_plan, "TILE", 64)
        model._forget_sizes()
        tiled = [model(image) for image in (dark, bright)]
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_a_video_is_smoothed_within_a_scene_and_starts_afresh_after_a_cut(load, make_package):
    dark, bright = np.full((32, 32, 3), 140, np.uint8), np.full((32, 32, 3), 160, np.uint8)
    white = np.full((32, 32, 3), 205, np.uint8)
    with load(make_package(thumbnail=16)) as model:
        alone = {name: model(image) for name, image in (("dark", dark), ("bright", bright), ("white", white))}
        frames = list(model.stream([dark, bright, white]))
        again = list(model.stream([bright]))
    assert np.array_equal(frames[0], alone["dark"])
    assert frames[1].mean() < alone["bright"].mean() - 5  # still remembers the darker frame
    assert np.array_equal(frames[2], alone["white"])
    assert np.array_equal(again[0], alone["bright"])


def test_a_context_graph_by_itself_is_no_picture_model(load, make_package):
    with pytest.raises(BackendError, match=r"gives \(1, 5\) for a picture"):
        load(make_package(thumbnail=16) / "context.onnx")


def test_videos_side_by_side_have_scenes_of_their_own(load, make_package):
    """Streams of one model, and one that begins while another runs, draw what each draws alone."""
    videos = [[np.full((32, 32, 3), level + step, np.uint8) for step in range(0, 20, 4)] for level in (120, 140)]
    with load(make_package(thumbnail=16)) as model:
        alone = [list(model.stream(video)) for video in videos]
        together = list(zip(*(model.stream(video) for video in videos), strict=True))
        first = model.stream(videos[0])
        begun = [next(first), next(first)]
        list(model.stream(videos[1]))
        begun += first
    assert all(np.array_equal(one, other) for one, other in zip(begun, alone[0], strict=True))
    for wanted, drawn in zip(alone, zip(*together, strict=True), strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(drawn, wanted, strict=True))


def test_a_picture_may_be_drawn_over_itself(load, make_package, monkeypatch):
    monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
    monkeypatch.setattr(tile_plan, "TILE", 64)
    with load(make_package()) as model:
        image = picture(152, 200)
        wanted = model(image)
        assert not next(iter(model._buffers.values())).plan.padded, "tiles are read from the picture itself"
        assert next(iter(model._buffers.values())).plan.tiled
        model.run_into(image, image)
        assert np.array_equal(image, wanted)
        memory = np.zeros(152 * 200 * 3 + 3000, np.uint8)
        image, out = (memory[start:][: 152 * 200 * 3].reshape(152, 200, 3) for start in (0, 3000))
        image[...] = picture(152, 200)
        model.run_into(image, out)
        assert np.array_equal(out, wanted)


def test_the_graphs_work_is_repeated_once_for_each_tile(load, make_package, monkeypatch):
    monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
    monkeypatch.setattr(tile_plan, "TILE", 64)
    with load(make_package()) as model:
        compute = model.computation(picture(64, 160))
        runs = []
        monkeypatch.setattr(model._backend, "_run", lambda *arrays: runs.append(arrays))
        compute()
        assert len(runs) == len(tile_plan.plan_tiles(model.info.spec, None, 64, 160).tiles) > 1


def test_large_pictures_buffers_are_few(make_package, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 4 * 40 * 40 * 3)
    with impasto.load(make_package(border=4)) as model:
        for side in (20, 24, 28, 32, 36):
            model(picture(side, side))
        assert [made[:2] for made in model._buffers] == [(32, 32), (36, 36)][-len(model._buffers) :]
        assert sum(buffers.nbytes for buffers in model._buffers.values()) <= module.KEPT_BYTES
        model(picture(200, 200))
        assert [made[:2] for made in model._buffers] == [(200, 200)]


def test_the_graphs_work_is_repeated_on_a_picture_that_lies_anyhow(load, make_package):
    with load(make_package()) as model:
        model.computation(picture(40, 60)[:, ::2])()


def test_stream_keeps_order_and_equals_single_calls(load, make_package):
    frames = [picture(20 + n, 30, seed=n) for n in range(9)]
    with load(make_package()) as model:
        expected = [model(frame) for frame in frames]
        for depth in (1, 2, 5, 50):
            for got, want in zip(model.stream(frames, depth=depth), expected, strict=True):
                assert np.array_equal(got, want)


def test_stream_reads_no_further_ahead_than_its_depth(make_package):
    read = []

    def frames():
        for n in range(20):
            read.append(n)
            yield picture(16, 16, seed=n)

    with impasto.load(make_package()) as model:
        results = model.stream(frames(), depth=3)
        next(results)
        assert len(read) == 3
        results.close()


def test_stream_passes_a_bad_frame_on_in_its_place(load, make_package):
    with load(make_package()) as model:
        results = model.stream([picture(8, 8), np.zeros((8, 8, 2), np.uint8), picture(8, 8)])
        next(results)
        with pytest.raises(ShapeError, match="wanted uint8"):
            next(results)
    with load(model.info.path) as model:
        for depth in (0, "2", 1.5, None):
            with pytest.raises(OptionError, match="at least 1"):
                model.stream([], depth=depth)


def test_run_into_allocates_no_picture(load, make_package):
    image, out = picture(801, 999), np.empty((801, 999, 3), np.uint8)
    with load(make_package(border=8, thumbnail=16)) as model:
        model.run_into(image, out)
        tracemalloc.start()
        model.run_into(image, out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < image.nbytes / 8
        assert np.array_equal(out, model(image))


def _read_only() -> np.ndarray:
    out = np.empty((8, 8, 3), np.uint8)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    "out",
    [
        [1],
        _read_only(),
        np.empty((8, 8, 3), np.float32),
        np.empty((8, 9, 3), np.uint8),
        np.empty((8, 16, 3), np.uint8)[:, ::2],
    ],
)
def test_run_into_refuses_arrays_that_do_not_fit(make_package, out):
    with impasto.load(make_package()) as model, pytest.raises(ShapeError, match="out is"):
        model.run_into(picture(8, 8), out)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        [[1, 2, 3]],
    ],
)
def test_anything_but_a_picture_is_refused(make_package, image):
    with impasto.load(make_package()) as model:
        for use in (model, model.output_shape):
            with pytest.raises(ShapeError, match="wanted"):
                use(image)


def test_views_with_strides_are_pictures_too(load, make_package):
    image = picture(60, 44)
    with load(make_package()) as model:
        assert np.array_equal(model(image[::-1, ::2]), model(np.ascontiguousarray(image[::-1, ::2])))


def test_threads_may_share_a_model(load, make_package):
    images = [picture(24 + n, 40, seed=n) for n in range(6)]
    with load(make_package(border=4)) as model:
        expected = [model(image) for image in images]
        got = [None] * len(images)

        def work(n: int) -> None:
            for _ in range(5):
                got[n] = model(images[n])

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(images))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True))


def test_a_closed_model_refuses_to_run(load, make_package):
    model = load(make_package())
    model.close()
    model.close()
    with pytest.raises(BackendError, match="closed"):
        model(picture(8, 8))


def test_info_says_what_was_chosen(load, make_package):
    with load(make_package(scale=2)) as model:
        info = model.info
    assert (info.name, info.task, info.scale) == ("tiny", "denoise", 2)
    assert (info.backend, info.device, info.precision) == (load.keywords["backend"], "CPU", "fp32")
    assert info.size_rule.multiple == 4
    assert info.backend in str(info)


def test_names_are_found_in_the_folders_of_the_environment_first(make_package, monkeypatch):
    folder = make_package("own")
    monkeypatch.setenv("IMPASTO_MODELS", str(folder.parent))
    with impasto.load("own") as model:
        assert model.info.path == folder
    with pytest.raises(ModelNotFound, match="did you mean 'own'"):
        impasto.load("owm")


def test_a_file_in_the_working_folder_hides_no_model(make_package, monkeypatch, tmp_path):
    folder = make_package("own")
    monkeypatch.setenv("IMPASTO_MODELS", str(folder.parent))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "own").write_text("notes")
    with impasto.load("own") as model:
        assert model.info.path == folder
    with pytest.raises(BackendError, match="no model that can be run"):
        impasto.load("./own")


def test_unknown_models_are_one_clear_line(tmp_path):
    for wrong in ("no-such-model", tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(ModelNotFound) as error:
            impasto.load(wrong)
        assert "\n" not in str(error.value)


def test_a_changed_file_is_refused_unless_trusted(make_package):
    folder = make_package()
    onnx.save(canonical_graph(seed=5), str(folder / "model.onnx"))
    with pytest.raises(PackageError, match="not the file that its manifest describes"):
        impasto.load(folder)
    with pytest.raises(PackageError, match="not the file that its manifest describes"):
        impasto.load(folder / "model.onnx")
    for path in (folder, folder / "model.onnx"):
        with impasto.load(path, trust=True) as model:
            model(picture(8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=99), "schema 99"),
        (lambda d: d.pop("schema"), "no schema number"),
        (lambda d: d.pop("files"), "lists no files"),
        (lambda d: d["model"].update(scale=0), "'scale' is 0"),
        (lambda d: d["model"].update(name=""), "'name'"),
        (lambda d: d["model"].update(bit_depth=16), "16 bits"),
        (lambda d: d["model"]["size"].update(multiple="4"), "'multiple' is '4'"),
        (lambda d: d["model"]["size"].update(fixed=[3]), "size.fixed"),
        (lambda d: d["files"].update({"../evil": d["files"]["model.onnx"]}), "outside of the package"),
        (lambda d: d["files"]["model.onnx"].update(sha256="12"), "no SHA-256"),
        (lambda d: d["files"]["model.onnx"].update(precision="fp4"), "'fp4'"),
        (lambda d: d.update(model=[]), "not an object"),
        (lambda d: d["model"].update(thumbnail=96), "context"),
    ],
)
def test_malformed_manifests_are_named(make_package, change, message):
    folder = make_package()
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(PackageError, match=message):
        impasto.load(folder)


def test_a_manifest_that_is_no_json_is_named(make_package):
    folder = make_package()
    (folder / "manifest.json").write_text('{"schema": 1')
    with pytest.raises(PackageError, match=r"manifest\.json"):
        impasto.load(folder)


def test_a_missing_graph_is_named(make_package):
    folder = make_package()
    (folder / "model.onnx").unlink()
    with pytest.raises(PackageError, match=r"lacks model\.onnx"):
        impasto.load(folder)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "cuda"}, OptionError, "unknown backend 'cuda'"),
        ({"precision": "fp8"}, OptionError, "unknown precision 'fp8'"),
        ({"precision": "int8"}, PackageError, "holds no int8 model; it holds: fp32"),
        ({"layout": "hwc"}, OptionError, "cannot read the pixel layout"),
    ],
)
def test_wrong_options_say_what_is_possible(make_package, options, error, message):
    with pytest.raises(error, match=message):
        impasto.load(make_package(), **options)


def test_a_named_backend_that_cannot_run_here_raises(make_package):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has a CUDA provider")
    with pytest.raises(BackendError, match="cannot run"):
        impasto.load(make_package(), backend="onnxruntime-cuda")


def alone(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process with this environment and the path alone."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_onnx_runtime_reports_nothing(make_package, tmp_path):
    """Left alone, it keeps an identity for Microsoft in the home folder (Privacy.md of its 1.29 and later)."""
    code = (
        "import impasto, numpy\n"
        f"with impasto.load({str(make_package())!r}, backend='onnxruntime-cpu') as model: model(numpy.zeros((8, 8, 3), 'uint8'))"
    )
    (tmp_path / "home").mkdir()
    done = alone(code, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "home").rglob("*"))


def test_a_user_without_a_home_runs_models(make_package, tmp_path):
    """Containers run as any number, of which no passwd knows."""
    unknown = "import os, pathlib\ndef home(*_): raise RuntimeError('Could not determine home directory.')\npathlib.Path.home = home\n"
    code = unknown + f"import impasto\nprint(impasto.load({str(make_package())!r}).info.backend)"
    assert alone(code).stdout.strip() in ("openvino", "onnxruntime-cpu")
    from_main = (
        unknown + "import sys\nfrom impasto.__main__ import main\nsys.argv = ['impasto', 'cache', 'path']\nmain()"
    )
    done = alone(from_main)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this user has no home folder to keep engines in; set $IMPASTO_CACHE to a folder" in done.stderr
    assert alone(from_main, XDG_CACHE_HOME="/x").stdout.strip() == "/x/impasto/engines"


def test_files_that_are_no_graph_are_named(load, tmp_path):
    text = tmp_path / "model.onnx"
    text.write_text("hello")
    with pytest.raises(BackendError, match="cannot load"):
        load(text)
    plan = tmp_path / "model.bin"
    plan.write_bytes(b"\0")
    with pytest.raises(
        BackendError, match=r"expected a package folder, an \.onnx file, or a \.plan file of impasto build"
    ):
        load(plan)


def test_an_empty_file_is_no_graph(load, tmp_path):
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(BackendError, match=r"empty\.onnx"):
        load(tmp_path / "empty.onnx")


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("[]", "not an object")])
def test_metadata_that_describe_no_model_are_named(load, tmp_path, text, said):
    graph = canonical_graph()
    graph.metadata_props.add(key="impasto.spec", value=text)
    onnx.save(graph, str(tmp_path / "own.onnx"))
    with pytest.raises(PackageError, match=rf"own\.onnx.*{said}"):
        load(tmp_path / "own.onnx")


def test_a_graph_with_missing_weights_is_named(load, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(canonical_graph(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(BackendError, match="cannot load") as error:
        load(path)
    assert "\n" not in str(error.value)


class TestExternal:
    """Graphs that nobody here made."""

    def save(self, tmp_path, graph, **sidecar):
        path = tmp_path / "external.onnx"
        onnx.save(graph, str(path))
        if sidecar:
            path.with_suffix(".json").write_text(json.dumps(sidecar))
        return path

    @pytest.mark.parametrize("layout", ["rgb 0..1", "rgb 0..255"])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_red_is_halved(self, load, tmp_path, layout, channels_last):
        image = picture(13, 17)
        with load(self.save(tmp_path, float_graph(channels_last=channels_last)), layout=layout) as model:
            drawn = model(image)
        assert np.abs(drawn - image * [0.5, 1, 1]).max() <= 0.5

    def test_blue_is_halved_where_the_order_is_bgr(self, load, tmp_path):
        image = picture(13, 17)
        with load(self.save(tmp_path, float_graph(), layout="bgr 0..1")) as model:
            assert np.abs(model(image) - image * [1, 1, 0.5]).max() <= 0.5

    def test_minus_one_to_one_turns_around_grey(self, load, tmp_path):
        image = picture(13, 17)
        with load(self.save(tmp_path, float_graph(gain=-1), layout="rgb -1..1")) as model:
            drawn = model(image)
        assert np.abs(drawn[..., 0].astype(int) - (255 - image[..., 0])).max() <= 1

    def test_an_option_overrules_the_sidecar(self, load, tmp_path):
        image = picture(5, 5)
        with load(self.save(tmp_path, float_graph(), layout="bgr 0..1"), layout="rgb 0..1") as model:
            assert np.abs(model(image) - image * [0.5, 1, 1]).max() <= 0.5

    def test_a_layout_is_refused_where_the_graph_leaves_no_choice(self, load, tmp_path, make_package):
        graph = canonical_graph()
        described = {"name": "own", "size": {"multiple": 4}}
        graph.metadata_props.add(key="impasto.spec", value=json.dumps(described))
        for path in (make_package(), self.save(tmp_path, canonical_graph(), multiple=4), self.save(tmp_path, graph)):
            with pytest.raises(
                OptionError,
                match=r"has a layout of its own, uint8 .* RGB; leave layout out \(--layout",
            ):
                load(path, layout="bgr 0..1")
            load(path).close()

    def test_a_size_that_the_graph_rounds_down_is_told_with_the_remedy(self, load, tmp_path):
        graph = float_graph()
        names = ["half", "sizes"]
        graph.graph.node[0].input[0] = names[0] + "x2"
        graph.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "sizes"))
        for node in (
            helper.make_node("Resize", ["half", "", "sizes"], ["halfx2"], mode="nearest"),
            helper.make_node("MaxPool", ["input"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        ):
            graph.graph.node.insert(0, node)
        path = self.save(tmp_path, graph, layout="rgb 0..1")
        with load(path) as model:
            assert model(picture(8, 6)).shape == (8, 6, 3)
            with pytest.raises(BackendError, match=r'sidecar: \{"multiple": 8\}'):
                model(picture(9, 6))
        self.save(tmp_path, graph, layout="rgb 0..1", multiple=2)
        with load(path) as model:
            assert model(picture(9, 6)).shape == (9, 6, 3)

    def test_its_computation_converts_no_pixels(self, load, tmp_path, monkeypatch):
        with load(self.save(tmp_path, float_graph(), layout="rgb 0..1")) as model:
            compute = model.computation(picture(9, 6))
            monkeypatch.setattr(Pixels, "encode", None)
            monkeypatch.setattr(Pixels, "decode", None)
            compute()

    def test_without_a_layout_the_message_says_how_to_give_one(self, load, tmp_path):
        with pytest.raises(BackendError, match=r"layout='rgb 0\.\.1'"):
            load(self.save(tmp_path, float_graph()))

    def test_a_fixed_size_takes_smaller_pictures_and_refuses_larger_ones(self, load, tmp_path):
        with load(self.save(tmp_path, float_graph(side=32), layout="rgb 0..1")) as model:
            assert model(picture(20, 32)).shape == (20, 32, 3)
            with pytest.raises(ShapeError, match=r"takes up to 32 x 32 .* free height and width"):
                model(picture(33, 32))

    def test_the_scale_is_found_by_trying(self, load, tmp_path):
        path = tmp_path / "bare.onnx"
        onnx.save(canonical_graph(scale=2), str(path))
        path.with_suffix(".json").write_text('{"multiple": 4}')
        with load(path) as model:
            assert model.info.scale == 2
            assert model(picture(9, 9)).shape == (18, 18, 3)

    @pytest.mark.parametrize(
        ("sidecar", "message"),
        [
            ('{"layout": "hwc"}', "pixel layout"),
            ('{"multiple": 0}', "'multiple' is 0"),
            ('{"colour": "rgb"}', "unknown colour"),
            ("[1]", "expected an object"),
            ("{", "cannot read"),
        ],
    )
    def test_a_wrong_sidecar_is_named(self, tmp_path, sidecar, message):
        path = self.save(tmp_path, float_graph())
        path.with_suffix(".json").write_text(sidecar)
        with pytest.raises(impasto.ImpastoError, match=message):
            impasto.load(path)


def test_a_strength_is_a_number(make_package):
    with (
        impasto.load(make_package()) as model,
        pytest.raises(OptionError, match=r"strength is '0\.5'; wanted a number"),
    ):
        model.set_style(strength="0.5")


@pytest.mark.parametrize("style", [["a", "b"], 3])
def test_a_style_is_a_name_or_shares(make_package, style):
    with impasto.load(make_package()) as model, pytest.raises(OptionError, match="give a name, or shares such as"):
        model.set_style(style)


def test_load_is_found_by_those_who_look_around():
    assert {"load", "Model", "ModelInfo", "errors"} <= set(dir(impasto))
