"""The public face of training: what importing it costs, and the examples of its functions, run as they stand."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys

import pytest
from support.small_training import photo

from impasto import evaluation, images, training
from impasto.export.from_checkpoint import export_checkpoint

pytest_plugins = ("support.training_fixtures",)


def run_example(function):
    """Run the example of a docstring and fail where it prints something else."""
    (example,) = [test for test in doctest.DocTestFinder().find(function, function.__name__) if test.examples]
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    said: list[str] = []
    assert runner.run(example, out=said.append).failed == 0, "".join(said)


def test_importing_it_costs_no_torch():
    code = "import json, sys, impasto.training; print(json.dumps([m for m in ('torch', 'PIL', 'onnx') if m in sys.modules]))"
    assert json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) == []


def test_every_name_that_it_offers_is_there():
    assert all(hasattr(training, name) for name in training.__all__)
    assert set(training.__all__) <= set(dir(training))
    with pytest.raises(AttributeError, match="no attribute 'fit_style'"):
        training.fit_style  # noqa: B018


def test_the_examples_run(photos, vgg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    shutil.copy(vgg, "vgg16.safetensors")
    images.write("waves.png", photo(96, 128, 7))
    run_example(training.train_style)
    run_example(training.train_restorer)
    run_example(training.distill)
    export_checkpoint("runs/denoiser/checkpoint.safetensors", "denoiser")
    run_example(evaluation.evaluate)
