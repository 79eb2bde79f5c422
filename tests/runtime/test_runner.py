"""A graph that never ends: Ctrl-C and time limits abandon its run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.small_models import picture

import impasto
from impasto import images
from impasto.errors import BackendError, ExportError, TookTooLong
from impasto.export import from_onnx
from impasto.runtime.runner import Runner, abandon_runs, has_abandoned_runs, time_limit

BACKENDS = ("onnxruntime-cpu", "openvino")


def endless() -> onnx.ModelProto:
    """Gives its picture back after 2 ** 62 rounds of a loop."""
    sizes = [1, "h", "w", 3]
    kind = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Identity", ["v"], ["vo"])],
        "body",
        [
            kind("i", TensorProto.INT64, []),
            kind("c", TensorProto.BOOL, []),
            kind("v", TensorProto.UINT8, [1, "a", "b", 3]),
        ],
        [kind("co", TensorProto.BOOL, []), kind("vo", TensorProto.UINT8, [1, "a", "b", 3])],
    )
    constants = [numpy_helper.from_array(np.array(2**62), "n"), numpy_helper.from_array(np.array(True), "t")]
    loop = helper.make_node("Loop", ["n", "t", "image"], ["out"], body=body)
    ends = [kind(name, TensorProto.UINT8, sizes) for name in ("image", "out")]
    graph = helper.make_graph([loop], "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def path(tmp_path):
    onnx.save(endless(), str(tmp_path / "endless.onnx"))
    # So that nothing is drawn while it loads.
    (tmp_path / "endless.json").write_text('{"scale": 1}')
    return tmp_path / "endless.onnx"


def interrupted(*command: object, after: str) -> tuple[int, str]:
    """Exit code and stderr of a command that gets Ctrl-C a second after it has printed, or at once is computing, `after`."""
    process = subprocess.Popen(
        [str(word) for word in command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    time.sleep(float(after))
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, told


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_run(path, tmp_path, backend):
    images.write(tmp_path / "in.png", images.Picture(picture(32, 32)))
    words = [path, tmp_path / "in.png", "-o", tmp_path / "out.png", "--backend", backend]
    code, told = interrupted(sys.executable, "-m", "impasto", "run", *words, after="8")
    assert (code, told.strip()) == (130, "stopped; nothing half-written is left")
    assert not (tmp_path / "out.png").exists()


def test_an_export_tries_for_a_limited_time(path, monkeypatch):
    monkeypatch.setattr(from_onnx, "_SECONDS", 0.5)
    with pytest.raises(
        ExportError, match=r"endless.onnx: the graph gave no picture within 0.5 s; it may never end. Nothing"
    ):
        from_onnx.import_onnx(path, path.parent / "package")
    assert not (path.parent / "package").exists()
    deadline = time.monotonic() + 20
    while has_abandoned_runs() and time.monotonic() < deadline:  # ONNX Runtime is asked to stop, and does
        time.sleep(0.05)
    assert not has_abandoned_runs()


def test_work_is_done_in_order_and_its_errors_come_back():
    runner = Runner(lambda: None)
    assert [runner(lambda n=n: n * n) for n in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        runner(lambda: 1 // 0)
    assert runner(lambda: runner(lambda: "within")) == "within"


def test_a_runner_refuses_work_until_its_abandoned_run_has_ended():
    stopped = []
    runner = Runner(lambda: stopped.append(True))
    with time_limit(0.1), pytest.raises(TookTooLong):
        runner(lambda: time.sleep(1))
    assert stopped == [True]
    assert has_abandoned_runs()
    with pytest.raises(
        BackendError, match="an earlier run of this model was stopped and is still computing; load the model again"
    ):
        runner(lambda: None)
    time.sleep(1.2)
    assert runner(lambda: 7) == 7


def test_abandoning_runs_releases_every_thread_that_waits():
    import threading

    told = []

    def wait() -> None:
        try:
            Runner(lambda: None)(lambda: time.sleep(1))
        except BackendError as error:
            told.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    abandon_runs()
    thread.join(0.5)
    assert told == ["the run was stopped"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_array_of_a_run_is_kept(make_package, backend):
    import gc
    import weakref

    with impasto.load(make_package(), backend=backend) as model:
        image, out = picture(32, 32), np.empty((32, 32, 3), np.uint8)
        model.run_into(image, out)
        kept = weakref.ref(out)
        del out
        gc.collect()
        assert kept() is None or backend == "openvino"  # whose request keeps its output to the next run
