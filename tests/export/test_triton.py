"""Triton model repositories: what they say, and that their graphs, run one after the other, draw what the runtime draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.command_line import cli
from support.fake_engines import write_plan
from support.small_models import picture

import impasto
from impasto import images
from impasto.errors import ExportError, OptionError, OutputError
from impasto.export import TritonOptions, export_triton
from impasto.export.triton import ends
from impasto.package.spec import ModelSpec, SizeRule
from impasto.runtime.inference.padding import reflect_into

model_config_pb2 = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="Triton's schema is not installed: pip install tritonclient grpcio"
)


def config(folder: Path):
    """A model's configuration, read by Triton's own schema, which refuses unknown fields and types."""
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def run(model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model))
    names = [port.name for port in session.get_outputs()]
    return dict(
        zip(names, session.run(names, {port.name: feeds[port.name] for port in session.get_inputs()}), strict=True)
    )


def drawn(repository: Path, name: str, batch: np.ndarray) -> np.ndarray:
    """The ensemble's answer, by following its steps as Triton does."""
    tensors = {"image": batch}
    for step in config(repository / name).ensemble_scheduling.step:
        folder = repository / step.model_name
        held = config(folder)
        feeds = {own: tensors[outer] for own, outer in step.input_map.items()}
        assert set(feeds) == {port.name for port in held.input}
        for port in held.input:
            assert all(said in (-1, is_) for said, is_ in zip(port.dims, feeds[port.name].shape[1:], strict=True))
        results = run(folder / "1" / "model.onnx", feeds)
        assert {port.name for port in held.output} == set(results)
        for port in held.output:
            shape = results[port.name].shape[1:]
            assert all(said in (-1, is_) for said, is_ in zip(port.dims, shape, strict=True))
        tensors |= {outer: results[own] for own, outer in step.output_map.items()}
    return tensors["picture"]


class TestEnds:
    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (9, 40), (33, 32)])
    @pytest.mark.parametrize("rule", [SizeRule(), SizeRule(8), SizeRule(4, 64), SizeRule(fixed=(64, 72))])
    def test_borders_are_the_runtimes(self, size, rule):
        spec = ModelSpec("m", size=rule, border=5)
        batch = np.stack([picture(*size, seed) for seed in range(2)])
        wanted = np.empty((2, *rule.padded(size[0] + 10, size[1] + 10), 3), np.uint8)
        for image, padded in zip(batch, wanted, strict=True):
            reflect_into(padded, image, 5, 5)
        assert np.array_equal(run(ends.begin(spec, None).SerializeToString(), {"image": batch})["padded"], wanted)

    @pytest.mark.parametrize("size", [(1, 1), (5, 300), (96, 97), (191, 193), (800, 1234)])
    def test_thumbnails_are_the_runtimes(self, size):
        spec = ModelSpec("m", thumbnail=96)
        batch = np.stack([picture(*size, seed) for seed in range(2)])
        found = run(ends.begin(spec, None).SerializeToString(), {"image": batch})["thumbnail"]
        assert np.array_equal(found, np.stack([images.thumbnail(image, 96) for image in batch]))


class TestPictures:
    @pytest.mark.parametrize(("scale", "border", "thumbnail"), [(1, 0, None), (2, 3, None), (1, 6, 16)])
    @pytest.mark.parametrize("size", [(3, 5), (40, 61)])
    def test_the_ensemble_draws_what_the_model_draws(self, make_package, tmp_path, scale, border, thumbnail, size):
        package = make_package(scale=scale, border=border, thumbnail=thumbnail)
        export_triton(package, tmp_path / "repository")
        batch = np.stack([picture(*size, seed) for seed in range(3)])
        with impasto.load(package, backend="onnxruntime-cpu") as model:
            wanted = np.stack([model(image) for image in batch])
        assert np.abs(drawn(tmp_path / "repository", "tiny", batch).astype(int) - wanted).max() <= 1

    @pytest.mark.parametrize(
        ("name", "options", "change"),
        [
            ("denoise", TritonOptions(strength=0.5), {"strength": 0.5}),
            ("great-wave", TritonOptions(), {}),
            ("four-styles", TritonOptions(style={"ejiri": 0.25, "great-wave": 0.75}, strength=0.8), None),
            ("upscale-x2", TritonOptions(), {}),
        ],
    )
    def test_shipped_models_too(self, tmp_path, name, options, change):
        made = export_triton(name, tmp_path / "repository", options)
        image = picture(75, 110)
        with impasto.load(name, backend="onnxruntime-cpu", working_size=None) as model:
            if change is None:
                model.set_style(options.style, strength=options.strength)
            elif change:
                model.strength = change["strength"]
            wanted = model(image)
        found = drawn(made.path, name, image[None])[0]
        assert np.abs(found.astype(int) - wanted).max() <= 1
        assert (found != wanted).mean() < 1e-3


class TestConfigurations:
    def test_batches_instances_and_warm_up_stand_there(self, make_package, tmp_path):
        package = make_package(border=2, thumbnail=16)
        options = TritonOptions(instances=3, batch=5, delay_us=700, kind="gpu")
        made = export_triton(package, tmp_path / "repository", options)
        assert made.models == ("tiny_begin", "tiny_context", "tiny_graph", "tiny_end", "tiny")
        graph = config(made.path / "tiny_graph")
        assert (graph.max_batch_size, graph.instance_group[0].count) == (5, 3)
        assert graph.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        assert graph.dynamic_batching.max_queue_delay_microseconds == 700
        warm = graph.model_warmup[0]
        assert list(warm.inputs["image"].dims) == [260, 260, 3]
        assert list(warm.inputs["context"].dims) == [5]
        assert graph.platform == "onnxruntime_onnx"
        whole = config(made.path / "tiny")
        assert (whole.platform, whole.max_batch_size) == ("ensemble", 5)
        assert [(port.name, list(port.dims)) for port in whole.input] == [("image", [-1, -1, 3])]

    def test_the_python_backend_has_its_program_beside_the_graph(self, make_package, tmp_path):
        made = export_triton(make_package(), tmp_path / "repository", TritonOptions(backend="python"))
        for name in made.models[:-1]:
            assert config(made.path / name).backend == "python"
            compile((made.path / name / "1" / "model.py").read_text(), "model.py", "exec")

    def test_weights_that_lie_elsewhere_come_along(self, tmp_path):
        from impasto.package.shared_weights import self_contained
        from impasto.runtime.loading.source import resolve

        made = export_triton("denoise", tmp_path / "repository")
        assert [file.name for file in (made.path / "denoise_graph" / "1").iterdir()] == ["model.onnx"]
        assert len(self_contained(resolve("denoise").graph_path)) == pytest.approx(
            (made.path / "denoise_graph" / "1" / "model.onnx").stat().st_size, rel=0.01
        )


class TestRefusals:
    def test_what_is_there_stays(self, make_package, tmp_path):
        package = make_package()
        export_triton(package, tmp_path / "repository")
        with pytest.raises(OutputError, match="tiny_begin is there already"):
            export_triton(package, tmp_path / "repository")
        export_triton(make_package("other"), tmp_path / "repository")
        assert not list((tmp_path / "repository").glob(".*"))

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"backend": "tensorflow"}, "onnxruntime, python"),
            ({"batch": 0}, "give 1, 1 and 0"),
            ({"kind": "npu"}, "gpu"),
            ({"batch": 10**20}, "at most 2,147,483,647"),
            ({"delay_us": 10**20}, "at most 2,147,483,647"),
        ],
    )
    def test_wrong_options(self, options, told):
        with pytest.raises(OptionError, match=told):
            TritonOptions(**options)

    def test_strengths_and_styles_that_were_not_learnt(self, make_package, tmp_path):
        with pytest.raises(OptionError, match="got strength 3; denoise takes no style, and a strength from 0 to 2"):
            export_triton("denoise", tmp_path / "repository", TritonOptions(strength=3))
        with pytest.raises(OptionError):
            export_triton(make_package(), tmp_path / "repository", TritonOptions(style="ejiri"))
        assert not (tmp_path / "repository").exists()

    def test_graphs_of_which_nothing_is_known(self, make_package, tmp_path):
        (tmp_path / "bare").mkdir()
        graph = tmp_path / "bare" / "tiny.onnx"
        graph.write_bytes((make_package() / "model.onnx").read_bytes())
        with pytest.raises(ExportError, match="make a package of it first"):
            export_triton(graph, tmp_path / "repository")

    def test_the_command_line(self, make_package, tmp_path):
        code, stdout, stderr = cli("export-triton", make_package(), "-o", tmp_path / "a repository")
        assert code == 0, stderr
        assert f"--model-repository '{tmp_path / 'a repository'}'" in stdout  # can be pasted into a shell
        assert "tiny, an ensemble of tiny_begin, tiny_graph, tiny_end" in stdout
        assert "not cut into tiles" in stderr
        assert cli("export-triton", make_package("again"), "--backend", "x", "-o", tmp_path / "r")[0] == 1


def test_a_plan_becomes_a_tensorrt_plan_that_takes_one_picture_at_a_time(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, b"an engine", spec=ModelSpec("tiny", task="denoise", border=4).to_json())
    repository = tmp_path / "repository"
    assert export_triton(plan, repository).models[-1] == "tiny"
    drawing = config(repository / "tiny_graph")
    assert (drawing.platform, drawing.max_batch_size) == ("tensorrt_plan", 0)
    assert [list(port.dims) for port in drawing.input] == [[1, -1, -1, 3]]
    assert (repository / "tiny_graph" / "1" / "model.plan").read_bytes() == b"an engine"
    assert config(repository / "tiny").platform == "ensemble"
