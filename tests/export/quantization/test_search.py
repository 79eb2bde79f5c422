"""`quantize`: budgets that hold, or nothing written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.precision_graphs import canonical, chain, photos
from support.small_models import canonical_graph, picture, write_graph

import impasto
from impasto import images
from impasto.errors import ImpastoError, OptionError, OutputError, PackageError, PictureError, PrecisionError
from impasto.export.inspection import inspect_path
from impasto.export.quantization import search as precision
from impasto.export.quantization.calibration import HELD_OUT, LEAST, extreme_pictures, read_pictures
from impasto.export.quantization.package_graphs import QUALITY
from impasto.export.quantization.quality import Budget, Judge, Quality
from impasto.export.quantization.ranges import Session
from impasto.export.quantization.search import QuantizeOptions, quantize
from impasto.export.quantization.sensitivity import NoAssignment, assign, groups
from impasto.metrics import psnr
from impasto.package.manifest import LOCK, MANIFEST, PRECISIONS, TARGET_BACKENDS, read_manifest
from impasto.package.spec import PERCEPTUAL, ModelSpec, SizeRule
from impasto.runtime.loading.source import known_names, resolve, shipped_models

MakePackage = Callable[..., Path]
SPEC = ModelSpec("small", receptive_field=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


def package(folder: Path, graph: onnx.ModelProto | None = None) -> Path:
    folder.mkdir()
    write_graph(folder, SPEC, graph or chain(), quality={"seen": 1})
    return folder


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_every_precision_is_written_with_what_it_is_worth(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small")
    for to in ("fp16", "int8"):
        result = quantize(model, QuantizeOptions(folder, to))
        assert [made.path.parent for made in result.made] == [model] * len(result.made)
    manifest = read_manifest(model)
    assert [(file.precision, file.target_backend) for file in manifest.files] == [
        ("fp32", None),
        ("fp16", None),
        ("int8", "onnxruntime"),
        ("int8", "openvino"),
        ("int8", "tensorrt"),
    ]
    said = manifest.quality[QUALITY]
    assert set(said) == {"fp16", "int8-onnxruntime", "int8-openvino", "int8-tensorrt"}
    assert said["fp16"]["against FP32"]["psnr"] >= 60
    assert all(said[key]["against FP32"]["psnr"] >= 30 for key in said)
    assert said["int8-tensorrt"]["calibration"].split(",")[0] in ("percentile", "min-max", "entropy")
    assert manifest.quality["seen"] == 1
    inspect_path(str(model)).require_intact()


def test_what_was_written_draws_what_it_says(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small")
    quantize(model, QuantizeOptions(folder, "int8", ("onnxruntime",)))
    image = picture(50, 70, 99)
    with impasto.load(model) as exact, impasto.load(model, precision="int8") as narrow:
        assert narrow.info.precision == "int8"
        assert psnr(exact(image), narrow(image)) >= 28
    record = json.loads((model / MANIFEST).read_text())["files"]["model.int8-onnxruntime.onnx"]
    assert (record["precision"], record["family"]) == ("int8", "onnxruntime")


def test_a_context_and_a_border_are_calibrated_with(make_package: MakePackage, folder: Path) -> None:
    model = make_package(thumbnail=16, border=8)
    options = QuantizeOptions(folder, "int8", ("onnxruntime",), damage="none")
    quantize(model, options)
    image = picture(50, 70, 99)
    with impasto.load(model) as exact, impasto.load(model, precision="int8") as narrow:
        assert psnr(exact(image), narrow(image)) >= 28


def test_one_graph_of_a_package_is_loaded_by_its_path(make_package: MakePackage, folder: Path) -> None:
    """So that what was made for TensorRT can be judged without it, context and all."""
    model = make_package(thumbnail=16, border=8)
    quantize(model, QuantizeOptions(folder, "int8", ("tensorrt",), damage="none"))
    with pytest.raises(PackageError, match="is int8, not fp16"):
        impasto.load(model / "model.int8-tensorrt.onnx", precision="fp16")


def test_another_calibration_is_tried_where_the_best_misses_the_budget(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is nearest in dB without excluding a layer can change a style by more than what is further away."""
    tried = []

    def refuses(*arguments: Any, **named: Any) -> Any:
        tried.append(arguments)
        if len(tried) < 3:
            raise NoAssignment(f"attempt {len(tried)} misses")
        return assign(*arguments, **named)

    monkeypatch.setattr(precision, "assign", refuses)
    model = package(tmp_path / "small")
    (made,) = quantize(model, QuantizeOptions(folder, "int8", ("openvino",))).made
    assert (len(tried), made.method) == (3, "min-max")
    tried.clear()
    with pytest.raises(PrecisionError, match="attempt 1 misses"):
        quantize(model, QuantizeOptions(folder, "int8", ("openvino",), method="min-max"))
    assert len(tried) == 1, "whoever names a calibration gets no other"


def test_excluding_the_worst_layer_reaches_a_budget_that_plain_int8_misses(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small", chain(8, hostile=4))
    options = QuantizeOptions(folder, "int8", ("openvino",), Budget(psnr=33), method="min-max")
    (made,) = quantize(model, options).made
    assert made.excluded
    assert made.excluded[0] == "conv4"
    assert made.quality.psnr >= 33
    assert max(made.losses, key=lambda loss: loss.levels).label == "conv4"
    loose = QuantizeOptions(folder, "int8", ("openvino",), Budget(psnr=5), method="min-max")
    (plain,) = quantize(model, loose).made
    assert not plain.excluded
    assert plain.quality.psnr < 33


def test_named_layers_are_excluded_without_a_search(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small", chain(8, hostile=4))
    options = QuantizeOptions(folder, "int8", ("openvino",), Budget(psnr=33), method="min-max")
    (searched,) = quantize(model, options).made
    content = searched.path.read_bytes()
    (named,) = quantize(model, replace(options, exclude=searched.excluded)).made
    assert (named.excluded, named.quality, named.losses) == (searched.excluded, searched.quality, ())
    assert named.path.read_bytes() == content


@pytest.mark.parametrize(
    ("exclude", "error", "words"),
    [
        (("conv9",), OptionError, "no layer is called conv9; the layers are conv0, conv1"),
        (("conv1",), PrecisionError, "does not hold with conv1 excluded.*Nothing was written"),
        (tuple(f"conv{number}" for number in range(5)), PrecisionError, "5 of 8 layers are to be excluded"),
    ],
)
def test_named_layers_that_do_not_do_write_nothing(
    exclude: tuple[str, ...], error: type[Exception], words: str, tmp_path: Path, folder: Path
) -> None:
    model = package(tmp_path / "small", chain(8, hostile=4))
    before = state(model)
    options = QuantizeOptions(folder, "int8", ("openvino",), Budget(psnr=33), method="min-max", exclude=exclude)
    with pytest.raises(error, match=words):
        quantize(model, options)
    assert state(model) == before


def test_a_budget_that_nothing_holds_writes_nothing(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small")
    quantize(model, QuantizeOptions(folder, "int8", ("openvino",)))
    before = state(model)
    with pytest.raises(
        PrecisionError, match=r"no assignment holds the budget psnr=99.*3 of 6 layers.*Nothing was written"
    ):
        quantize(model, QuantizeOptions(folder, "int8", ("openvino", "tensorrt"), Budget(psnr=99)))
    assert state(model) == before


def test_auto_takes_the_fastest_that_holds(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small")
    result = quantize(model, QuantizeOptions(folder, "auto", ("tensorrt", "onnxruntime")))
    by_target = {timing.target_backend: timing for timing in result.timings}
    assert (by_target["tensorrt"].chosen, by_target["tensorrt"].latency_ms) == ("int8", None)
    measured = by_target["onnxruntime"].latency_ms
    assert measured
    assert set(measured) == {"fp32", "fp16", "int8"}
    assert by_target["onnxruntime"].chosen == min(measured, key=lambda name: measured[name])
    strict = quantize(model, QuantizeOptions(folder, "auto", ("tensorrt",), Budget(psnr=58)))
    assert strict.timings[0].chosen == "fp16", "INT8 does not hold 58 dB"


def test_a_copy_leaves_the_package_alone(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small")
    before = state(model)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / LOCK).touch()  # what a try leaves that failed for a full disk
    for to, target_backends in (("fp16", ()), ("int8", ("openvino",))):
        quantize(model, QuantizeOptions(folder, to, target_backends, output=copy))
    assert state(model) == before
    assert {file.precision for file in read_manifest(copy).files} == {"fp32", "fp16", "int8"}
    inspect_path(str(copy)).require_intact()
    other = package(tmp_path / "other", chain(3))
    with pytest.raises(OptionError, match="holds another model"):
        quantize(model, QuantizeOptions(folder, "fp16", output=other))
    with pytest.raises(OptionError, match="is no copy of"):
        quantize(model, QuantizeOptions(folder, "fp16", output=folder))
    with pytest.raises(OutputError, match=r"0\.png is a file; choose another place"):
        quantize(model, QuantizeOptions(tmp_path / "nowhere", "fp16", output=folder / "0.png" / "sub"))


def test_models_that_ship_stay_as_they_are(folder: Path) -> None:
    with pytest.raises(OptionError, match="denoise came with Impasto and stays as it is; write a copy: -o denoise"):
        quantize("denoise", QuantizeOptions(folder))
    with pytest.raises(OptionError, match="dejpeg came with Impasto and stays as it is"):
        quantize("denoise", QuantizeOptions(folder, output=shipped_models() / "dejpeg"))
    for name in known_names():
        for wanted in PRECISIONS:
            for target_backend in (None, *TARGET_BACKENDS):
                assert resolve(name, wanted, target_backend=target_backend).precision == wanted


def test_a_model_that_ships_names_the_copy_to_make(monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(read_manifest(shipped_models() / "denoise"), files=())
    monkeypatch.setattr("impasto.runtime.loading.source.read_manifest", lambda path: without)
    with pytest.raises(PackageError, match="impasto quantize denoise --to int8 --calibrate PHOTOS -o COPY"):
        resolve("denoise", "int8")


def test_what_is_no_package_is_named_what_to_do(tmp_path: Path, folder: Path) -> None:
    """A graph of a package by its path would be written beside without the manifest's knowing; one alone has no manifest."""
    model = package(tmp_path / "small", chain(2))
    before = state(model)
    for output in (None, tmp_path / "copy"):
        with pytest.raises(OptionError, match=rf"file of the package {model}; .*: impasto quantize {model}$"):
            quantize(model / "model.onnx", QuantizeOptions(folder, "fp16", output=output))
    assert state(model) == before
    onnx.save(chain(2), str(tmp_path / "own.onnx"))
    with pytest.raises(OptionError, match=r"make one of it first: impasto export .*own\.onnx -o FOLDER"):
        quantize(tmp_path / "own.onnx", QuantizeOptions(folder, "fp16"))


def test_what_is_narrow_already_is_refused(tmp_path: Path, folder: Path) -> None:
    narrow = {}
    for to, target_backends in (("fp16", ()), ("int8", ("openvino",))):
        (made,) = quantize(package(tmp_path / to, chain(2)), QuantizeOptions(folder, to, target_backends)).made
        narrow[to] = onnx.load(str(made.path))
    for to, words in (("int8", "is quantized already .*the FP32 model"), ("fp16", "is in FP16 already")):
        with pytest.raises(PrecisionError, match=words):
            quantize(package(tmp_path / f"again-{to}", narrow[to]), QuantizeOptions(folder))


def without_layers() -> onnx.ModelProto:
    return canonical([helper.make_node("Relu", ["first"], ["last"], "relu")], {})


def branching() -> onnx.ModelProto:
    model = chain(2)
    body = helper.make_graph(
        [helper.make_node("Identity", ["last"], ["then"])],
        "branch",
        [],
        [helper.make_tensor_value_info("then", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["always"], ["unused"], then_branch=body, else_branch=body)
    model.graph.node.append(node)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (without_layers, "no Conv, ConvTranspose, Gemm, MatMul with stored weights"),
        (lambda: chain(2, opset=11), "has opset 11; quantization needs 13"),
        (branching, "branches"),
    ],
)
def test_graphs_that_cannot_be_quantized_are_refused(make, words: str, tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small", make())
    before = state(model)
    with pytest.raises(ImpastoError, match=words):
        quantize(model, QuantizeOptions(folder))
    assert state(model) == before


def test_a_perceptual_network_is_refused(tmp_path: Path, folder: Path) -> None:
    model = tmp_path / "vgg"
    model.mkdir()
    write_graph(model, ModelSpec("vgg", PERCEPTUAL), chain(2))
    with pytest.raises(OptionError, match="vgg is a perceptual network"):
        quantize(model, QuantizeOptions(folder))


def test_pictures_that_cannot_be_read_are_skipped_and_counted(tmp_path: Path, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    result = quantize(package(tmp_path / "small", chain(3)), QuantizeOptions(folder, "fp16"))
    assert (result.pictures, len(result.skipped)) == (8, 1)
    assert "broken.png" in result.skipped[0]


def test_pictures_too_small_for_an_ssim_are_left_out_and_do_not_undo_its_budget(tmp_path: Path, folder: Path) -> None:
    for name in ("3.png", "7.png"):  # held out
        images.write(folder / name, picture(10, 64))
    model = package(tmp_path / "small", chain(3))
    with pytest.raises(PrecisionError, match=r"SSIM 0\.\d+, wanted 1"):
        quantize(model, QuantizeOptions(folder, "int8", ("openvino",), Budget(ssim=1)))
    found = read_pictures(folder, SPEC, ["image"], None)
    assert (found.used, len(found.skipped), len(found.judged)) == (6, 2, 1)
    assert "10 x 64 pixels are too few" in found.skipped[0]
    assert read_pictures(folder, replace(SPEC, scale=2), ["image"], None).used == 8, "drawn twice as large"
    tiny = [replace(one, inside=(slice(0, 8), slice(0, 8))) for one in found.judged]
    assert Judge(chain(2), tiny, tiny).on_whole(chain(2)).ssim is None
    with pytest.raises(OptionError, match="this network draws 8 x 8; leave ssim out"):
        Judge(chain(2), tiny, tiny, similarity=True)


def test_what_is_no_number_holds_no_budget() -> None:
    nothing = Quality(psnr=math.nan, mean_psnr=math.nan, ssim=math.nan, style=math.nan, truth=math.nan, pictures=1)
    assert len(Budget(psnr=1, ssim=0.1, style=1, truth=9).misses(nothing)) == 4


def test_the_judge_multiplies_as_the_runtime_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without VNNI, ONNX Runtime's INT8 products saturate unless it is told; only some CPUs show it."""
    told = []

    class Options:
        def add_session_config_entry(self, *entry: str) -> None:
            told.append(entry)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: None)
    Session(chain(1))
    assert told == [("session.x64quantprecision", "1")]


def test_large_pictures_are_cut_before_they_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    degrade = pytest.importorskip(
        "impasto.training.degrade", reason="torch is not installed: pip install 'impasto[train]'"
    )
    monkeypatch.setattr("impasto.export.quantization.calibration.LARGEST", 32)
    monkeypatch.setattr("impasto.export.quantization.calibration.MARGIN", 4)
    damaged = []
    monkeypatch.setattr(degrade, "damaged", lambda clean, *_: damaged.append(clean) or clean)
    folder = photos(tmp_path / "photos", 4)  # 48 x 56
    (whole,) = read_pictures(folder, SPEC, ["image"], None, damage="noise:5").whole
    assert {clean.shape for clean in damaged} == {(40, 40, 3)}
    middle = images.read(sorted(folder.iterdir())[3]).rgb[8:40, 12:44]
    assert np.array_equal(whole.feed["image"][0], middle)
    assert np.array_equal(whole.truth, middle)


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    model = package(tmp_path / "small", chain(2))
    few = photos(tmp_path / "few", LEAST - 1)
    for name in ("a.png", "b.jpg"):
        (few / name).write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"3 pictures that can be used \(2 skipped\).*at least 4"):
        quantize(model, QuantizeOptions(few))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="no picture files"):
        quantize(model, QuantizeOptions(tmp_path / "empty"))


def test_a_restorer_is_calibrated_on_what_it_undoes(folder: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    for task, recipe, damage in (
        ("denoise", {}, "noise:0-55"),
        ("dejpeg", {"degradation": "jpeg:10-90"}, "jpeg:10-90"),
        ("stylize", {}, "none"),
    ):
        found = read_pictures(folder, ModelSpec("x", task), ["image"], None, recipe=recipe)
        assert found.damage == damage
    enlarger = ModelSpec("x", "upscale", scale=2)
    found = read_pictures(folder, enlarger, ["image"], None, damage="down:2")
    assert found.whole[0].feed["image"].shape[1:] == (24, 28, 3)
    truth = images.read(sorted(folder.iterdir())[3]).rgb
    assert found.whole[0].truth is not None
    assert np.array_equal(found.whole[0].truth, truth[:48, :56])
    with pytest.raises(OptionError, match="makes pictures smaller by 1, and x enlarges by 2"):
        read_pictures(folder, enlarger, ["image"], None, damage="noise:5")


def test_the_pictures_to_judge_by_go_through_all_strengths(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    many = photos(tmp_path / "many", 5 * HELD_OUT)
    found = read_pictures(many, ModelSpec("x", "inpaint"), ["image"], None, damage="missing:50")
    missing = [np.all(one.feed["image"][0][one.inside] == (255, 0, 255), -1).mean() for one in found.whole]
    assert sorted(missing) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=0.01)


def test_pictures_are_held_out_and_cut_to_what_the_network_takes(folder: Path) -> None:
    spec = ModelSpec("x", size=SizeRule(16), border=4)
    found = read_pictures(folder, spec, ["image"], None)
    assert (len(found.calibration), len(found.judged), len(found.whole)) == (6, 2, 2)
    assert all(side % 16 == 0 for feed in found.calibration for side in feed["image"].shape[1:3])
    whole = found.whole[0]
    given = images.read(sorted(folder.iterdir())[3]).rgb
    assert np.array_equal(whole.feed["image"][0][whole.inside], given)
    assert whole.truth is None
    assert not found.truth
    assert {tuple(np.unique(image)) for image in extreme_pictures(8)} >= {(0,), (255,), (127, 128, 129), (0, 255)}


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("psnr=40", Budget(psnr=40)),
        (" psnr = 40 , ssim=0.98", Budget(psnr=40, ssim=0.98)),
        ("style=3%", Budget(style=0.03)),
        ("style=0.03,ssim=98%", Budget(style=0.03, ssim=0.98)),
        ("truth=0.1", Budget(truth=0.1)),
    ],
)
def test_a_budget_is_read(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "40", "psnr", "psnr=", "psnr=good", "psnr=-3", "psnr=nan", "psnr=inf", "psnr=1000", "psnr=40%", "psnr=40,psnr=41",
        "ssim=2", "ssim=0", "style=300%", "speed=3", "truth=1%", "truth=0",
    ],
)  # fmt: skip
def test_a_budget_of_nonsense_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="budget"):
        Budget.parse(text)


def test_a_budget_says_what_is_missed() -> None:
    quality = Quality(psnr=38.26, mean_psnr=40, ssim=0.97, style=-0.04, truth=0.123, pictures=3)
    assert Budget(psnr=38, ssim=0.9, style=0.05, truth=0.15).misses(quality) == ()
    assert Budget(psnr=40, ssim=0.98, style=0.03, truth=0.1).misses(quality) == (
        "PSNR 38.3 dB, wanted 40",
        "SSIM 0.9700, wanted 0.98",
        "style distance -4.00 %, wanted within 3 %",
        "0.12 dB lost against the truth, wanted 0.1 at most",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"to": "int4"}, "unknown precision 'int4'"),
        ({"target_backends": ("coral",)}, "unknown target backend coral"),
        ({"method": "guess"}, "unknown calibration 'guess'"),
        ({"to": "fp16", "target_backends": ("openvino",)}, "suits every target backend; leave --for out"),
        ({"to": "fp16", "method": "entropy"}, "no calibration by entropy; leave --calibration out"),
        ({"budget": Budget(style=0.03)}, "--painting"),
        ({"paintings": (Path("x.jpg"),)}, "style=3%"),
    ],
)
def test_options_are_checked_first(changes, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        QuantizeOptions(Path("nowhere"), **changes)


def test_a_layer_keeps_its_followers() -> None:
    model = chain(3)
    found = groups(model, ("conv0", "conv1", "conv2"))
    assert {"conv0", "conv0.relu", "planes"} <= set(found["conv0"])
    assert found["conv1"] == ("conv1", "conv1.relu")
    assert sum(map(len, found.values())) == len(model.graph.node)


def darker(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same drawing, half as bright."""
    dark = onnx.ModelProto()
    dark.CopyFrom(model)
    for tensor in dark.graph.initializer:
        if tensor.name == "top":  # both the factor and the upper limit
            tensor.CopyFrom(numpy_helper.from_array(np.float32(127.5), "top"))
    return dark


def test_a_style_budget_is_measured_against_the_painting(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    model = chain(3)
    pictures = read_pictures(folder, SPEC, ["image"], None)
    judge = Judge(model, pictures.judged, pictures.whole, style=lambda drawing, style: float(drawing.mean()) + 1)
    assert judge.on_whole(model).style == 0
    assert judge.on_pieces(model).psnr == 100
    dark = darker(model)
    assert Session(dark).draw(pictures.judged[0].feed).max() <= 128
    assert judge.on_whole(dark).style == pytest.approx(-0.5, abs=0.02)


def test_a_restorer_is_judged_by_the_truth_too(tmp_path: Path, folder: Path) -> None:
    """Where it is known: a graph that draws the same loses nothing, one that draws darker all that it may not."""
    pytest.importorskip("torch", reason="torch is not installed: pip install 'impasto[train]'")
    model = tmp_path / "small"
    model.mkdir()
    spec = ModelSpec("small", "denoise", receptive_field=8)
    write_graph(model, spec, chain(), recipe={"degradation": "noise:0-55"})
    quality = quantize(model, QuantizeOptions(folder, "fp16")).made[0].quality
    assert quality.truth == pytest.approx(0, abs=0.01)
    pictures = read_pictures(folder, spec, ["image"], None)
    drawn = [replace(one, truth=Session(chain()).draw(one.feed)[0][one.inside] ^ 1) for one in pictures.judged]
    lost = Judge(chain(), drawn, drawn).on_whole(darker(chain())).truth
    assert lost is not None
    assert lost > 20, "48 dB, and then half as bright"
    with pytest.raises(OptionError, match=r"small got pictures as they are\. Say --degrade noise:0-55"):
        quantize(model, QuantizeOptions(folder, "int8", budget=Budget(truth=0.1), damage="none"))


def test_the_package_resolves_by_target_backend(tmp_path: Path, folder: Path) -> None:
    model = package(tmp_path / "small", canonical_graph())
    quantize(model, QuantizeOptions(folder, "int8", ("tensorrt", "onnxruntime"), Budget(psnr=20)))
    assert resolve(model, "int8").graph_path.name == "model.int8-onnxruntime.onnx", "what old readers take"
    assert resolve(model, "int8", target_backend="tensorrt").graph_path.name == "model.int8-tensorrt.onnx"
