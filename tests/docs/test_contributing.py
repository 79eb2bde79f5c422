"""What CONTRIBUTING says works: its examples of a network, a damage and a backend run, and its hooks are the checks of `make`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from support.documents import blocks
from support.small_models import REPOSITORY, picture

from impasto.errors import BackendError, MissingDependency


class Library(ModuleType):
    """A vendor's library of the form that the example has, over ONNX Runtime."""

    Error = onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf

    @staticmethod
    def load(path: Path) -> SimpleNamespace:
        session = onnxruntime.InferenceSession(path)
        ports = [
            [SimpleNamespace(name=p.name, type="uint8", shape=tuple(s if isinstance(s, int) else None for s in p.shape)) for p in some]
            for some in (session.get_inputs(), session.get_outputs())
        ]  # fmt: skip

        def run_all(inputs: list[np.ndarray]) -> list[np.ndarray]:
            return session.run(None, {port.name: array for port, array in zip(ports[0], inputs, strict=True)})

        def run(inputs: list[np.ndarray], out: np.ndarray) -> None:
            out[:] = run_all(inputs)[0]

        metadata = dict(session.get_modelmeta().custom_metadata_map)
        return SimpleNamespace(inputs=ports[0], outputs=ports[1], metadata=metadata, run=run, run_all=run_all)


def example(name: str, package: str) -> type:
    """A class of an example, run as a module of this package."""
    (program,) = [text for text in blocks(REPOSITORY / "CONTRIBUTING.md", "python") if f"class {name}" in text]
    names = {"__name__": f"{package}.example", "__package__": package}
    exec(compile(program, "CONTRIBUTING.md", "exec"), names)
    return names[name]  # type: ignore[return-value]


@pytest.fixture
def backend() -> type:
    return example("MineBackend", "impasto.runtime.backends")


def test_the_example_of_a_network_draws() -> None:
    torch = pytest.importorskip("torch")
    network = example("SmallRestorer", "impasto.training.networks")()
    again = type(network).from_config(network.config)
    again.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 24, 40)
    assert network(image).shape == image.shape
    assert torch.equal(again(image), network(image))


def test_the_example_of_a_damage_is_seeded_and_joins_others() -> None:
    torch = pytest.importorskip("torch")
    from impasto.training.degrade import Compose, parse

    haze = example("Haze", "impasto.training.degrade")(10, 60)
    clean = torch.rand(2, 3, 16, 16)
    one, other = (haze(clean, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, clean)
    assert Compose((haze, parse("noise:0-5"))).task == "restore"


def test_the_example_of_a_backend_draws(backend, make_package, tmp_path, monkeypatch) -> None:
    graph = make_package() / "model.onnx"
    with pytest.raises(MissingDependency, match="pip install"):
        backend(graph)
    monkeypatch.setitem(sys.modules, "mine", Library("mine"))
    image = picture(40, 48)[None]
    drawing, out = backend(graph), np.empty_like(image)
    drawing.run([image], out)
    wanted = onnxruntime.InferenceSession(graph).run(None, {"image": image})[0]
    np.testing.assert_array_equal(out, wanted)
    drawing.close()
    (tmp_path / "broken.onnx").write_bytes(b"\x00broken")
    with pytest.raises(BackendError, match="cannot load"):
        backend(tmp_path / "broken.onnx")


def test_the_hooks_before_a_commit_are_the_checks_of_make() -> None:
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    make = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for check in ("ruff check", "ruff format --check", "python tests/check_types.py"):
        assert check in make
        assert f".venv/bin/{check}" in hooks
    assert ".venv/bin/python -m pytest -q tests/test_architecture.py" in hooks
