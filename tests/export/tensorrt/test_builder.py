"""Real engines of TensorRT-RTX, which builds without a GPU: built for named targets, read back, kept, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.command_line import interrupted
from support.engine_graphs import half, network, quantized
from support.small_models import picture

from impasto.errors import ExportError, OptionError, PrecisionMismatch
from impasto.export.tensorrt import builder as engine
from impasto.export.tensorrt.builder import EngineBuilder
from impasto.export.tensorrt.cache import EngineCache
from impasto.export.tensorrt.options import BuildOptions, Sizes
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.backends.tensorrt.api import Log, tensorrt

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'impasto[rtx]'")

SPEC = ModelSpec("tiny", size=SizeRule(4))
SIZES = (Sizes.parse("64x64:128x128:256x256"),)
STOPPED = "stopped; nothing half-written is left"


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same small network in three precisions."""
    folder = tmp_path_factory.mktemp("graphs")
    paths = {name: folder / f"model{'' if name == 'fp32' else '.' + name}.onnx" for name in ("fp32", "fp16", "int8")}
    plain = network(4, 32, 1)
    onnx.save(plain, str(paths["fp32"]))
    onnx.save(half(plain), str(paths["fp16"]))
    quantized(paths["fp32"], paths["int8"], [picture(64, 64, seed) for seed in range(3)])
    return paths


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_engine_computes_in_the_precision_asked_for(
    graphs: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    options = BuildOptions(precision, SIZES, targets=("sm86", "sm120"))
    entry, built = EngineBuilder(graphs[precision], SPEC, options, cache=EngineCache(tmp_path)).build()
    assert built
    record = entry.record
    assert record.precisions().get(precision, 0) >= 2
    assert record.compute_capabilities == ("12.0", "8.6")
    assert (record.gpu, record.product) == (None, "tensorrt-rtx")
    assert record.profiles == ({"image": ((1, 64, 64, 3), (1, 128, 128, 3), (1, 256, 256, 3))},)
    assert any("NHWC" in text for layer in record.layers for text in layer.outputs)


def test_a_fixed_size_needs_no_kernel_for_sizes(graphs: dict[str, Path], tmp_path: Path) -> None:
    kinds = {}
    for sizes in ("128x128", "64x64:128x128:256x256"):
        options = BuildOptions("fp16", (Sizes.parse(sizes),), targets=("sm86",))
        record = EngineBuilder(graphs["fp16"], SPEC, options, cache=EngineCache(tmp_path)).build()[0].record
        kinds[sizes] = {layer.kind for layer in record.layers}
    assert kinds["64x64:128x128:256x256"] - kinds["128x128"] == {"shape_call"}


def test_an_engine_of_another_precision_is_not_called_int8(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PrecisionMismatch, match="in fp32"):
        EngineBuilder(
            graphs["fp32"], SPEC, BuildOptions("int8", SIZES, targets=("sm86",)), cache=EngineCache(tmp_path)
        ).build()
    assert not list(tmp_path.glob("*.plan"))


def test_turing_ignores_int8_and_is_found_out(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PrecisionMismatch, match=r"compute capability 7\.5 is not int8"):
        EngineBuilder(
            graphs["int8"], SPEC, BuildOptions("int8", SIZES, targets=("sm75",)), cache=EngineCache(tmp_path)
        ).build()


def test_the_same_engine_is_built_once(graphs: dict[str, Path], tmp_path: Path) -> None:
    options = BuildOptions("fp16", SIZES, targets=("sm89",))
    first, built = EngineBuilder(graphs["fp16"], SPEC, options, cache=EngineCache(tmp_path)).build()
    second, built_again = EngineBuilder(graphs["fp16"], SPEC, options, cache=EngineCache(tmp_path)).build()
    assert (built, built_again) == (True, False)
    assert second.record == first.record


def test_two_builders_of_one_engine_build_it_once(graphs: dict[str, Path], tmp_path: Path) -> None:
    options = BuildOptions("fp16", SIZES, targets=("sm89",))
    built: list[bool] = []

    def build() -> None:
        built.append(EngineBuilder(graphs["fp16"], SPEC, options, cache=EngineCache(tmp_path)).build()[1])

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(built) == [False, False, True]


def test_progress_is_told_by_phase(graphs: dict[str, Path], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    options = BuildOptions("fp16", SIZES, targets=("sm89",))
    builder = EngineBuilder(graphs["fp16"], SPEC, options, cache=EngineCache(tmp_path))
    builder.build(progress=lambda phase, done=0, total=None: seen.append((phase, done, total)))
    assert len({phase for phase, _, _ in seen}) > 1
    assert all(total is not None and 0 <= done <= total for _, done, total in seen)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stops_the_builder_and_leaves_nothing(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pressed: list[str] = []
    returned: list[bool] = []

    def press_once(phase: str, done: int = 0, total: int | None = None, /) -> None:
        if not pressed:
            pressed.append(phase)
            press_ctrl_c()

    def serialize(*arguments: Any, real: Callable[..., Any] = engine._serialize) -> Any:
        try:
            return real(*arguments)
        finally:
            returned.append(True)

    monkeypatch.setattr(engine, "_serialize", serialize)
    options = BuildOptions("fp16", SIZES, targets=("sm89",))
    with pytest.raises(KeyboardInterrupt):
        EngineBuilder(graphs["fp16"], SPEC, options, cache=EngineCache(tmp_path)).build(progress=press_once)
    assert returned  # Python's end under TensorRT's threads would abort the process
    assert not list(tmp_path.glob("*.plan"))


def test_ctrl_c_while_tensorrt_talks_is_not_swallowed(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT drops what its log raises, and in the main thread Ctrl-C may be raised anywhere."""
    receive, speakers = Log.receive, []

    def press_at_the_first_word(self: Log, severity: str, message: str) -> None:
        speakers.append(threading.current_thread())
        if len(speakers) == 1:
            press_ctrl_c()
        receive(self, severity, message)

    monkeypatch.setattr(Log, "receive", press_at_the_first_word)
    with pytest.raises(KeyboardInterrupt):
        EngineBuilder(
            graphs["fp16"], SPEC, BuildOptions("fp16", SIZES, targets=("sm89",)), cache=EngineCache(tmp_path)
        ).build()
    assert speakers
    assert threading.main_thread() not in speakers
    assert not list(tmp_path.glob("*.plan"))


def test_ctrl_c_on_the_command_line_is_one_line_and_130(graphs: dict[str, Path], tmp_path: Path) -> None:
    command = ("build", graphs["fp32"], "--precision", "fp32", "--size", "256x256", "--target", "sm86,sm89,sm120")
    environment = {"IMPASTO_CACHE": str(tmp_path / "cache")}
    code, stderr = interrupted(tmp_path, lambda: list(tmp_path.glob("cache/*.lock")), *command, environment=environment)
    assert (code, stderr.strip()) == (130, STOPPED)


STUBBORN = """
import os, signal, sys, threading, time
from impasto.export.tensorrt import builder, builder_thread
def compile(*arguments):  # as TensorRT 8.x, which has no progress monitor and so cannot be stopped
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(20)
builder.EngineBuilder._compile, builder_thread._PATIENCE_S = compile, 0.2
from impasto.cli.app import app
app()
"""


def test_a_builder_that_cannot_stop_ends_with_the_command(graphs: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUBBORN, "build", str(graphs["fp32"]), "--precision", "fp32", "--target", "sm86"]
    environment = os.environ | {"IMPASTO_CACHE": str(tmp_path)}
    begun = time.monotonic()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.strip(), ended.stdout) == (130, STOPPED, "")
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"targets": ("sm90",)}, "no target sm90"),
        ({"workspace_bytes": 1 << 30}, "no workspace limit"),
        ({"tactic_sources": ("jit_convolutions",)}, "takes no tactic sources"),
        ({"hardware_compatible": True}, "no hardware-compatible engines; .* --target"),
    ],
)
def test_options_without_effect_are_refused(
    graphs: dict[str, Path], tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    options = BuildOptions("fp16", SIZES, **({"targets": ("sm86",)} | changed))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=message):
        EngineBuilder(graphs["fp16"], SPEC, options, cache=EngineCache(tmp_path)).build()


def test_without_a_gpu_the_error_asks_for_targets(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--target sm"):
        EngineBuilder(graphs["fp16"], SPEC, BuildOptions("fp16", SIZES), api=tensorrt("tensorrt-rtx"))


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(range(256)) * 40], ids=["empty", "text", "bytes"])
def test_files_that_are_no_graph_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.fp16.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"broken\.fp16\.onnx"):
        EngineBuilder(path, SPEC, BuildOptions("fp16", SIZES, targets=("sm86",)), cache=EngineCache(tmp_path)).build()
