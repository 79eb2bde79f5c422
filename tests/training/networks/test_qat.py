"""Quantization-aware fine-tuning: it computes what the INT8 graph will, and mends what calibration alone cannot."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.interruption import Cut, cut_at
from support.small_training import photo, shaken

from impasto.errors import OptionError
from impasto.export.from_checkpoint import export_checkpoint
from impasto.export.from_torch import export_model, spec_of
from impasto.export.graph import int8
from impasto.export.graph.helpers import with_names
from impasto.export.graph.weight_storage import without_fp16_storage
from impasto.export.quantization.search import Budget, QuantizeOptions, quantize
from impasto.metrics import psnr
from impasto.training import checkpoint
from impasto.training.inference import draw
from impasto.training.loop import trainer as fit
from impasto.training.loop.options import FitOptions, ModelInfo
from impasto.training.loop.task import Task
from impasto.training.networks import ARCHITECTURES, qat
from impasto.training.networks.base import ResidualBlock
from impasto.training.restoration import train_restorer
from impasto.training.style import train_style

pytest_plugins = ("support.training_fixtures",)

BUDGET = 36.0
"""dB from FP32."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Maps this small are not worth two threads' waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Likeness(Task):
    """Go on drawing what the network drew at first."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.weights = {"likeness": 1.0}
        self._first = copy.deepcopy(network)
        self._photos = [photo(64, 64, seed) for seed in range(3)]
        self._planes = torch.stack([torch.from_numpy(p).permute(2, 0, 1).float() / 255 for p in self._photos])

    def batch(self, step):
        top, left = np.random.default_rng(step).integers(0, 17, 2)
        return (self._planes[:, :, top : top + 48, left : left + 48],)

    def forward(self, planes):
        with torch.no_grad():
            wanted = self._first(planes)
        return {"likeness": 100 * (self.network(planes) - wanted).square().mean()}

    def judge(self, network, photos):
        return {"psnr": float(np.mean([psnr(draw(network, p), draw(self._first, p)) for p in photos]))}

    def validate(self, network):
        return self.judge(network, self._photos)

    def score(self, quality):
        return quality["psnr"]

    def preview(self, network):
        return None


@pytest.fixture(scope="module")
def fragile():
    """One channel of each block is 64 times as large as its neighbours and counts no more: one step size does not fit all."""
    network = shaken("unet-restorer", widths=[8, 8, 8])
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, ResidualBlock):
                block.first.weight[0] *= 64
                block.first.bias[0] *= 64
                block.second.weight[:, 0] /= 64
                block.second.weight *= 3
    return network


@pytest.fixture(scope="module")
def mended(fragile, tmp_path_factory):
    """(result before, result after) of fine-tuning the fragile network; before, it has its ranges and no more."""
    results = []
    for steps, rate in ((1, 1e-12), (300, 3e-3)):
        options = FitOptions(steps, rate, averaging=0.95, device="cpu", precision="fp32", qat=True)
        task = Likeness(copy.deepcopy(fragile))
        folder = tmp_path_factory.mktemp("run")
        results.append(fit.fit(task, options, folder, ModelInfo("tiny", "denoise", {})))
    return results


def test_a_budget_that_calibration_misses_is_reached(mended):
    before, after = mended
    assert before.quality["psnr"] > 60, "the float network was not hurt"
    assert before.int8["psnr"] < BUDGET - 2
    assert after.int8["psnr"] > BUDGET
    assert "in INT8: psnr" in str(after)


def int8_graph(network, ranges):
    model = with_names(without_fp16_storage(export_model(network, spec_of(network, "tiny", "denoise"))))
    return int8.quantized(model, int8.learnt_ranges(model, ranges), (), "openvino")


def test_the_exported_graph_draws_what_training_saw(mended):
    trained = checkpoint.load(mended[1].checkpoint)
    graph = int8_graph(trained.network.folded(), trained.recipe[qat.RECIPE]["ranges"])
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    by = {name: node.op_type for node in graph.graph.node for name in node.output}
    assert all(by[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])
    # As it is written: ONNX Runtime's optimizer rounds biases too, and this network makes whole levels of what follows from that.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = photo(64, 64, 9)
    inner = replace_border(trained.network)
    eager = draw(qat.restored(inner, trained.recipe[qat.RECIPE]), image).astype(int)
    drawn = session.run(None, {"image": image[None]})[0][0]
    assert np.abs(drawn - eager).max() <= 2
    assert (drawn != eager).mean() < 0.02
    assert np.abs(draw(inner, image) - eager).mean() > 0.1, "INT8 differs from float, or nothing was tested"


def replace_border(network):
    """The same without a border: the graph alone has none."""
    bare = copy.deepcopy(network)
    bare.border = 0
    return bare


def test_quantize_takes_the_learnt_ranges(mended, photos, tmp_path):
    package = export_checkpoint(mended[1].checkpoint, tmp_path / "package")
    options = QuantizeOptions(photos, target_backends=("openvino",), budget=Budget(psnr=20.0), damage="none")
    made = quantize(package, options).made[0]
    assert made.method == "learnt"
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(made.path)).graph.initializer}
    ranges = checkpoint.load(mended[1].checkpoint).recipe[qat.RECIPE]["ranges"]
    scales = sorted(float(values) for name, values in held.items() if name.endswith("_scale") and values.ndim == 0)
    assert np.allclose(scales, sorted(end / qat.LEVELS for end in ranges.values()), rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_removed_can_be_restored(architecture):
    network = shaken(architecture)
    image = photo(40, 48)
    ranges = dict.fromkeys(qat._convolutions(network), 2.0)
    assert not any(name.startswith("reader") for name in ranges)
    quantized = qat.restored(network, {"ranges": ranges})
    plain, learnt = qat.removed(quantized)
    assert learnt == {"ranges": ranges}
    assert list(plain.state_dict()) == list(network.state_dict())
    assert np.array_equal(draw(plain, image), draw(network, image))
    assert not np.array_equal(draw(quantized, image), draw(network, image))


def test_rounding_leaves_what_is_on_the_steps_and_clips_the_rest():
    end = torch.tensor(2.54, requires_grad=True)  # steps of 0.02
    x = torch.tensor([0.0, 0.02, -2.54, 0.029, 0.031, 9.0, -9.0], requires_grad=True)
    rounded = qat._rounded(x, end)
    assert torch.allclose(rounded, torch.tensor([0.0, 0.02, -2.54, 0.02, 0.04, 2.54, -2.56]), atol=1e-6)
    assert torch.equal(qat._rounded(rounded.detach(), end), rounded)
    rounded.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 0, 0]
    # Jain et al. 2020, equation 6, over the steps in a range: what was rounded away, and the ends of what was clipped.
    wanted = (0 + 0 + 0 + (1 - 1.45) + (2 - 1.55) + 127 - 128) / qat.LEVELS
    assert end.grad.item() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("kind", ["restore", "style"])
def test_killed_and_resumed_is_uninterrupted(kind, restoring, stylizing, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "LOOK_EVERY", 2)
    monkeypatch.setattr(qat, "LOOKED_AT", 1)
    options, train = (restoring, train_restorer) if kind == "restore" else (stylizing, train_style)
    start = tmp_path / "start.safetensors"
    network = shaken("unet-restorer" if kind == "restore" else "thumbnail-stylizer")
    checkpoint.save_checkpoint(start, network, name="start", task=kind, recipe={})
    tuned = FitOptions(steps=4, device="cpu", qat=True)
    whole = train(options("whole", config={}, start=start, fit=tuned))
    cut = options("cut", config={}, start=start, fit=replace(tuned, save_seconds=0))
    with pytest.raises(Cut):
        train(cut, cut_at(4))
    resumed = train(replace(cut, resume=True))
    ours, theirs = (checkpoint.load(result.checkpoint) for result in (whole, resumed))
    assert ours.recipe[qat.RECIPE] == theirs.recipe[qat.RECIPE]
    assert all(
        torch.equal(value, theirs.network.state_dict()[name]) for name, value in ours.network.state_dict().items()
    )
    assert ours.quality["validation in INT8"] == whole.int8


def test_it_takes_a_trained_network(restoring):
    with pytest.raises(OptionError, match="trained checkpoint with --start"):
        restoring(fit=FitOptions(steps=2, device="cpu", qat=True))
