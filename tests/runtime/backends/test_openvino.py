"""OpenVINO beside ONNX Runtime: the same pictures, INT8 that is INT8, and which of the two is chosen."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.small_models import canonical_graph, picture

import impasto
from impasto.errors import BackendError, ImpastoWarning, MissingDependency, PackageError, install
from impasto.files import sha256
from impasto.runtime import backends
from impasto.runtime.backends import openvino as module
from impasto.runtime.backends.base import is_x86_64
from impasto.runtime.backends.openvino import KEPT_SHAPES, OpenVinoBackend


def int8_graph() -> onnx.ModelProto:
    """The canonical graph with signed, symmetric Q/DQ at what its two convolutions read."""
    model = canonical_graph()
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []

    def pair(name: str, scale: np.ndarray, **axis: int) -> str:
        graph.initializer.extend(
            [
                numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"),
                numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{name}.zero"),
            ]
        )
        ends = [f"{name}.scale", f"{name}.zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *ends], [f"{name}.q"], **axis))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *ends], [f"{name}.dq"], **axis))
        return f"{name}.dq"

    for node in graph.node:
        if node.op_type == "Conv":
            node.input[0] = pair(node.input[0], np.array(1.0 / 127 if node.input[0] == "s" else 4.0 / 127))
            node.input[1] = pair(node.input[1], np.abs(weights[node.input[1]]).max((1, 2, 3)) / 127, axis=0)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def saved(path, graph):
    onnx.save(graph, str(path))
    return path


def add_int8(package, *target_backends: str) -> None:
    """Put INT8 graphs for these target backends into a package."""
    manifest = json.loads((package / "manifest.json").read_text())
    for name in target_backends:
        file = saved(package / f"model.int8-{name}.onnx", int8_graph())
        entry = {"role": "model", "precision": "int8", "family": name, "sha256": sha256(file)}
        manifest["files"][file.name] = entry
    (package / "manifest.json").write_text(json.dumps(manifest))


@contextmanager
def told(wanted=True):
    """The notes of Impasto within: one where it is wanted, none otherwise."""
    notes = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
        notes.extend(str(warning.message) for warning in caught if issubclass(warning.category, ImpastoWarning))
    assert len(notes) == int(wanted), notes


def by_both(path, image):
    drawn = []
    for backend in ("onnxruntime-cpu", "openvino"):
        with impasto.load(path, backend=backend) as model:
            drawn.append(model(image).astype(int))
    return drawn


@pytest.mark.parametrize("options", [{}, {"scale": 2}, {"border": 8, "thumbnail": 16}])
def test_both_draw_the_same_picture(make_package, options):
    one, other = by_both(make_package(**options), picture(70, 90))
    assert np.abs(one - other).max() <= 1
    assert (one != other).mean() < 0.01


def cpu_flags() -> set[str]:
    """What Linux says of this CPU; the code under test does not ask it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return set(next((line for line in lines if line.startswith("flags")), "").split())


AVX512_VNNI, AVX2_VNNI = "avx512_vnni" in cpu_flags(), "avx_vnni" in cpu_flags()


@pytest.fixture
def exact_int8():
    if not (AVX512_VNNI or AVX2_VNNI):
        pytest.skip("this CPU has no VNNI, or is no x86-64 under Linux")


@pytest.mark.skipif(not cpu_flags() or not is_x86_64(), reason="wants an x86-64 CPU under Linux")
@pytest.mark.parametrize(
    ("most", "right"),
    [
        (None, AVX512_VNNI or AVX2_VNNI),
        ("AVX512_CORE_AMX", AVX512_VNNI or AVX2_VNNI),
        ("AVX512_CORE_VNNI", AVX512_VNNI or AVX2_VNNI),
        ("AVX2_VNNI", AVX512_VNNI or AVX2_VNNI),
        ("AVX512_CORE", False),
        ("AVX2", False),
    ],
)
def test_int8_is_right_where_the_cpu_may_use_vnni_and_nowhere_else(most, right):
    """most: the instructions that oneDNN may use at most. A CPU with AMX once rounded the right sum to BF16, and was refused."""
    environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": most} if most else {})}
    code = "from impasto.runtime.backends import openvino as o, preferred as p; print(o.computes_int8(), p('int8').names[0])"
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(right), "openvino" if right else "onnxruntime-cpu"]


@pytest.mark.skipif(not is_x86_64(), reason="elsewhere graphs are tried as they run")
def test_the_probe_of_int8_sums_rounds_nothing(monkeypatch):
    """The sum is no BF16 number, so a CPU with AMX, which rounds to those unless it is told, would fail for another reason."""
    told = []
    core = module._core()
    monkeypatch.setattr(module, "_core", lambda: SimpleNamespace(compile_model=compiled))

    def compiled(graph, device, options):
        found = core.compile_model(graph, device, options)
        told.append(found.get_property("INFERENCE_PRECISION_HINT").to_string())
        return found

    module.computes_int8.__wrapped__()
    assert told == ["f32"]


@pytest.fixture(params=[True, False], ids=["VNNI", "no VNNI"])
def vnni(request, monkeypatch):
    """Whether the CPU is said to compute INT8 right."""
    monkeypatch.setattr(module, "computes_int8", lambda: request.param)
    return request.param


def test_the_same_of_an_int8_graph_which_is_not_the_fp32_one(tmp_path, exact_int8):
    image = picture(72, 88)
    one, other = by_both(saved(tmp_path / "int8.onnx", int8_graph()), image)
    plain, _ = by_both(saved(tmp_path / "fp32.onnx", canonical_graph()), image)
    assert np.abs(one - other).max() <= 2
    assert 0 < np.abs(one - plain).max() < 30


def executed(backend: OpenVinoBackend) -> dict[str, set[str]]:
    """What each kind of layer was computed in when the last shape was run, as OpenVINO tells it."""
    request = next(reversed(backend._requests.values()))
    found: dict[str, set[str]] = {}
    for node in request.get_compiled_model().get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        found.setdefault(told["layerType"].value, set()).add(told["runtimePrecision"].value)
    return found


# Without AMX, OpenVINO shifts activations to unsigned ones, which AVX-512's products take. On aarch64 it computes in halves.
INT8 = {"f16"} if platform.machine() == "aarch64" else {"i8", "u8"}


@pytest.mark.parametrize(("graph", "wanted"), [(canonical_graph, {"f32"}), (int8_graph, INT8)])
def test_convolutions_compute_in_what_the_graph_says(tmp_path, graph, wanted, monkeypatch):
    monkeypatch.setattr(module, "computes_int8", lambda: True)
    backend = OpenVinoBackend(saved(tmp_path / "model.onnx", graph()))
    backend.measure((picture(64, 64)[None],))
    assert executed(backend)["Convolution"] <= wanted
    if graph is canonical_graph:
        compiled = next(iter(backend._requests.values())).get_compiled_model()
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"  # not BF16, where the CPU has it


def test_pictures_that_cannot_be_written_to_are_read(make_package):
    image = picture(40, 40)
    image.flags.writeable = False
    with impasto.load(make_package(), backend="openvino") as model:
        assert np.array_equal(model(image), model(image.copy()))


def test_few_compiled_graphs_are_kept(make_package):
    backend = OpenVinoBackend(make_package() / "model.onnx")
    for side in range(4, 40, 4):
        image = picture(side, side)[None]
        out = np.empty_like(image)
        backend.run((image,), out)
    assert len(backend._requests) == KEPT_SHAPES
    backend.close()
    assert not backend._requests
    with pytest.raises(BackendError, match="closed"):
        backend.run((image,), out)


def test_closed_models_leave_ctrl_c_alone(make_package):
    """Seen on CPUs with AMX: the first signal after two models were closed in the order of their opening killed Python."""
    code = f"""
import os, signal, numpy, impasto
models = [impasto.load({str(make_package())!r}, backend="openvino") for _ in range(2)]
for model in models:
    model(numpy.zeros((16, 16, 3), numpy.uint8))
for model in models:
    model.close()
del model, models
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, "interrupted"), run.stderr


def test_models_load_in_many_threads_at_once(make_package):
    """Seen on most runs: one thread waited for Python's lock with a lock of C++'s held, and another the other way round."""
    code = f"""
import threading, impasto
together, models = threading.Barrier(8), []
def load():
    together.wait()
    models.append(impasto.load({str(make_package())!r}, backend="openvino"))
threads = [threading.Thread(target=load, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(models), len({{id(model._backend._core) for model in models}}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert run.stdout.split() == ["8", "1"], run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="wants a system that forks")
def test_after_a_fork_it_says_so_instead_of_waiting_for_ever(make_package):
    """multiprocessing's default on Linux up to Python 3.13. Seen once the parent had closed a model: the child waited for ever."""
    package = make_package()
    code = f"""
import os, platform, sys, warnings
import numpy as np, impasto
platform.machine = lambda: "x86_64"
image = np.zeros((16, 16, 3), np.uint8)
kept = impasto.load({str(package)!r}, backend="openvino")
wanted = kept(image)
with impasto.load({str(package)!r}, backend="openvino") as model:
    model(image)
if os.fork() == 0:
    print(np.array_equal(kept(image), wanted), flush=True)
    for work in (lambda: impasto.load({str(package)!r}, backend="openvino"), lambda: kept(image[:8])):
        try:
            work()
        except impasto.errors.BackendError as error:
            print(str(error)[:56], flush=True)
    with warnings.catch_warnings(record=True) as caught, impasto.load({str(package)!r}) as model:
        model(image)
    print(model.info.backend, "forked" in model.info.note, len(caught), flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    refused = "this process was forked from one that had used OpenVINO,"
    assert run.stdout.splitlines() == ["True", refused, refused, "onnxruntime-cpu True 1", "7"], run.stderr


def test_only_one_thread_at_a_time_is_within_what_openvino_makes_on_first_use(make_package, monkeypatch):
    path = make_package() / "model.onnx"
    OpenVinoBackend(path).close()  # the core is made once, and imports the library within
    within: list[int] = []
    most = 0

    def counted(work):
        def count(*arguments):
            nonlocal most
            within.append(1)
            most = max(most, len(within))
            time.sleep(0.01)
            done = work(*arguments)
            within.pop()
            return done

        return count

    for name in ("_without_telemetry", "_core", "_tensor", "_metadata"):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    threads = [threading.Thread(target=OpenVinoBackend, args=(path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_failed_run_is_told_in_the_vendors_words_and_leaves_the_model_fit(make_package):
    backend = OpenVinoBackend(make_package() / "model.onnx")
    odd, fit = picture(30, 33)[None], picture(32, 32)[None]
    with pytest.raises(BackendError, match="must be a multiple of divisor: 4") as error:
        backend.run((odd,), np.empty_like(odd))
    assert "\n" not in str(error.value)
    out = np.empty_like(fit)
    backend.run((fit,), out)
    assert out.any()


def test_unknown_operators_and_types_are_named(tmp_path):
    path = tmp_path / "strange.onnx"
    for kind, operator, message in (
        (TensorProto.FLOAT, "Foo", r"cannot load .*strange.onnx: .*somewhere\.Foo"),
        (TensorProto.INT64, "Identity", "x is int64; expected uint8"),
    ):
        ends = [helper.make_tensor_value_info(name, kind, [1, 3, 8, 8]) for name in "xy"]
        domain = "" if operator == "Identity" else "somewhere"
        node = helper.make_node(operator, ["x"], ["y"], domain=domain)
        domains = [helper.make_opsetid("", 17), helper.make_opsetid("somewhere", 1)]
        graph = helper.make_graph([node], "strange", [ends[0]], [ends[1]])
        saved(path, helper.make_model(graph, opset_imports=domains, ir_version=8))
        with pytest.raises(BackendError, match=message) as error:
            impasto.load(path, backend="openvino")
        assert "\n" not in str(error.value)


def test_auto_takes_openvino_where_it_was_measured(make_package, monkeypatch):
    for machine, chosen in (("x86_64", "openvino"), ("AMD64", "openvino"), ("aarch64", "onnxruntime-cpu")):
        monkeypatch.setattr(platform, "machine", lambda name=machine: name)
        with impasto.load(make_package(machine, thumbnail=16)) as model:
            assert model.info.backend == chosen


def test_auto_takes_openvino_alone_everywhere(make_package, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    with impasto.load(make_package()) as model:
        assert model.info.backend == "openvino"


def test_a_broken_graph_is_told_where_openvino_is_alone(tmp_path, monkeypatch):
    (tmp_path / "broken.onnx").write_text("hello")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"OpenVINO cannot load .*broken\.onnx"):
        impasto.load(tmp_path / "broken.onnx")


def test_auto_does_without_it(make_package, monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with impasto.load(make_package()) as model:
        assert model.info.backend == "onnxruntime-cpu"


def test_a_missing_openvino_is_a_sentence(make_package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingDependency, match=re.escape(install("openvino"))):
        impasto.load(make_package(), backend="openvino")


def test_nobody_is_told_that_a_model_was_run(make_package, tmp_path):
    """OpenVINO's Python package reports its import to Google Analytics, and keeps an identity in the home folder."""
    code = (
        "import socket, sys, impasto, numpy; asked = []; "
        "socket.getaddrinfo = lambda *a, **k: asked.append(a[0]) or []; "
        f"m = impasto.load({str(make_package())!r}, backend='openvino'); m(numpy.zeros((9, 9, 3), numpy.uint8)); "
        "import openvino_telemetry; print(asked, 'openvino.tools.ovc.telemetry_stub' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"
    assert not list((tmp_path / "home").iterdir())


def test_auto_leaves_to_onnx_runtime_what_openvino_cannot_read(make_package, monkeypatch):
    def refuse(self, path):
        raise BackendError("OpenVINO cannot load it")

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.OpenVinoBackend, "__init__", refuse)
    with told() as notes, impasto.load(make_package()) as model:
        assert model.info.backend == "onnxruntime-cpu"
        assert model.info.to_json()["note"] == model.info.note
    assert notes == [model.info.note] == ["openvino: OpenVINO cannot load it; onnxruntime-cpu runs it"]
    with pytest.raises(BackendError, match="cannot load it"):
        impasto.load(make_package("other"), backend="openvino")


@pytest.mark.parametrize(
    ("held", "chosen", "without"),
    [
        (("onnxruntime", "openvino", "tensorrt"), "openvino", "onnxruntime-cpu"),
        (("openvino",), "openvino", "onnxruntime-cpu"),
        (("onnxruntime", "tensorrt"), "onnxruntime-cpu", "onnxruntime-cpu"),
    ],
)
def test_auto_takes_the_backend_that_the_int8_graph_was_made_for(
    make_package, monkeypatch, vnni, held, chosen, without
):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    package = make_package()
    add_int8(package, *held)
    wanted = chosen if vnni else without
    with told(wanted != "openvino") as notes, impasto.load(package, precision="int8") as model:
        assert (model.info.backend, model.info.precision) == (wanted, "int8")
        model(picture(9, 9))
    reason = "VNNI" if not vnni else "tiny holds no int8 graph for openvino"
    assert notes == ([model.info.note] if wanted != "openvino" else [])
    assert wanted == "openvino" or reason in model.info.note


def test_int8_sums_that_saturate_are_refused_or_left_to_onnx_runtime(make_package, tmp_path, vnni):
    package, bare = make_package(), saved(tmp_path / "bare.onnx", int8_graph())
    add_int8(package, "openvino")
    for path, precision in ((package, "int8"), (bare, "auto")):
        if vnni:
            impasto.load(path, backend="openvino", precision=precision).close()
        else:
            with pytest.raises(BackendError, match=r"does not compute right .* VNNI .*backend='onnxruntime-cpu'"):
                impasto.load(path, backend="openvino", precision=precision)
    with told(not vnni), impasto.load(bare) as model:
        assert (model.info.backend == "openvino") <= vnni
        assert vnni or "VNNI" in model.info.note
    with impasto.load(package, backend="openvino") as model:
        assert model.info.precision == "fp32"


def test_a_named_backend_gets_its_own_int8_graph_or_says_that_there_is_none(make_package, monkeypatch):
    monkeypatch.setattr(module, "computes_int8", lambda: True)
    package = make_package()
    add_int8(package, "tensorrt")
    with pytest.raises(PackageError, match="none for openvino; make one: impasto quantize"):
        impasto.load(package, backend="openvino", precision="int8")
    # ONNX Runtime computes every graph as it is written.
    with impasto.load(package, backend="onnxruntime-cpu", precision="int8") as model:
        assert model.info.precision == "int8"
