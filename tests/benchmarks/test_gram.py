"""The Gram benchmark's arithmetic, its baselines and what it says of missing ones, without a GPU."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

from impasto.benchmarks import gram as benchmark
from impasto.kernels import launch


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> benchmark.Bench:
    """Copies move 2 bytes a microsecond, reads 4; every method takes 10 microseconds, and is called once."""
    monkeypatch.setattr(benchmark, "copy_bandwidth", lambda: 2.0)
    monkeypatch.setattr(benchmark, "read_bandwidth", lambda: 4.0)

    def called(work: Any, sets: int, repeats: int = 30) -> tuple[float, float]:
        work(0)
        return 10.0, 0.0

    monkeypatch.setattr(benchmark, "replay_microseconds", called)
    return benchmark.Bench()


@pytest.fixture
def layer() -> benchmark.Problem:
    """Values whose products a float16 cannot hold: 64 x 512 x 512."""
    return benchmark.Problem("relu1_2 x1", [[torch.full((1, 2, 16, 16), 30.0, dtype=torch.float16)]], [torch.eye(2)])


def test_a_forward_pass_reads_and_a_backward_pass_reads_and_writes(
    bench: benchmark.Bench, layer: benchmark.Problem
) -> None:
    assert layer.feature_bytes == 1024
    bench.measure(layer, "forward", lambda _: None)
    bench.measure(layer, "forward + backward", lambda _: None, backward=True)
    assert [timing.floor_microseconds for timing in bench.timings] == [256, 256 + 1024]


def test_a_probe_that_is_slower_than_a_copy_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "copy_bandwidth", lambda: 3.0)
    monkeypatch.setattr(benchmark, "read_bandwidth", lambda: 1.0)
    assert benchmark.Bench().read_bandwidth == 3.0


def test_cublas_gives_float32(
    bench: benchmark.Bench, layer: benchmark.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(benchmark, "has_wgmma", lambda: False)
    monkeypatch.setattr(torch, "bmm", lambda left, right, out_dtype=None: asked.append(out_dtype))
    bench.grams(layer, others=True)
    assert asked == [torch.float32]
    assert [timing.method for timing in bench.timings] == ["impasto gram", "torch.bmm (cuBLAS)"]


def test_both_are_measured_where_gram_chooses_cublas(
    bench: benchmark.Bench, layer: benchmark.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run K decides by them."""
    from impasto.kernels import operators

    chosen: list[bool] = []
    monkeypatch.setattr(benchmark, "has_wgmma", lambda: False)
    monkeypatch.setattr(torch, "bmm", lambda left, right, out_dtype=None: None)
    monkeypatch.setattr(operators, "product_is_faster", lambda *_: True)
    monkeypatch.setattr(operators, "_takes_product", lambda *_: operators.product_is_faster(1, 64, (9, 0)))
    gram = operators.gram
    monkeypatch.setattr(
        "impasto.kernels.gram", lambda x: (chosen.append(operators._takes_product(x, None)), gram(x, None))
    )
    bench.grams(layer, others=True)
    methods = [timing.method for timing in bench.timings]
    assert methods == ["impasto gram", "impasto gram, by its own choice", "torch.bmm (cuBLAS)"]
    assert chosen == [False, True]


def test_quack_is_measured_where_it_is_and_its_failure_is_said(
    bench: benchmark.Bench,
    layer: benchmark.Problem,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    benchmark.measure_quack(bench, [layer])
    assert "quack is not installed" in capsys.readouterr().out
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: name)
    interface = types.ModuleType("quack.gemm_interface")
    interface.gemm_symmetric = lambda left, right, out_dtype: left.float() @ right.float()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "quack", types.ModuleType("quack"))
    monkeypatch.setitem(sys.modules, "quack.gemm_interface", interface)
    benchmark.measure_quack(bench, [layer])
    assert bench.timings[-1].method == "quack gemm_symmetric"
    interface.gemm_symmetric = None  # type: ignore[attr-defined]
    benchmark.measure_quack(bench, [layer])
    assert "quack does not run here" in capsys.readouterr().out


def test_equal_bytes_are_planned_and_no_longer_afterwards(
    bench: benchmark.Bench, layer: benchmark.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    import impasto.kernels

    plans: list[Any] = []
    monkeypatch.setattr(impasto.kernels, "style_loss", lambda *_, **__: plans.append(launch.plan))
    usual = launch.plan
    benchmark.measure_equal_bytes(bench, layer)
    assert plans[0].keywords == {"weighed": False}
    assert launch.plan is usual
