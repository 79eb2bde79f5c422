"""A restorer's strength: 0 gives the picture back, 1 is the network's own judgement, up to 2 takes more for noise."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.command_line import cli
from support.small_training import SMALL, photo, shaken
from torch.testing import assert_close

import impasto
from impasto import images
from impasto.errors import OptionError, PackageError
from impasto.export.checks.against_torch import check_package
from impasto.export.from_checkpoint import export_checkpoint
from impasto.export.quantization.calibration import read_pictures
from impasto.export.quantization.quality import Budget
from impasto.export.quantization.search import QuantizeOptions, quantize
from impasto.package.manifest import read_manifest
from impasto.package.spec import ModelSpec
from impasto.runtime.backends import open_graph, openvino, target_backend
from impasto.runtime.inference import tile_plan
from impasto.runtime.loading.source import resolve
from impasto.training import checkpoint, losses
from impasto.training.data.photos import Photos
from impasto.training.degrade import parse
from impasto.training.distillation import DistillOptions, distill
from impasto.training.inference import draw
from impasto.training.loop import stages
from impasto.training.loop.options import FitOptions
from impasto.training.loop.processes import ALONE, Processes
from impasto.training.loop.task import TaskOptions
from impasto.training.networks import build, qat
from impasto.training.restoration import RestoreTask, train_restorer

pytest_plugins = ("support.training_fixtures",)
CPU = torch.device("cpu")
NONE = Photos((), (), ())
PHOTOS = Photos(tuple(photo(72, 96, seed) for seed in range(3)), ("a", "b", "c"), ())


def asked(*strengths: float) -> torch.Tensor:
    return torch.tensor(strengths)[:, None]


class TestNetwork:
    def test_0_gives_the_picture_back_and_1_is_the_network_without(self):
        plain, strong = shaken("unet-restorer"), shaken("unet-restorer", strength=2)
        strong.adopt(plain)
        image = torch.rand(2, 3, 48, 64)
        assert torch.equal(strong(image, asked(0, 0)), image)
        assert torch.equal(strong(image, asked(1, 1)), strong(image))
        assert torch.equal(strong(image), plain(image))

    def test_between_0_and_1_the_change_is_a_share(self):
        network, image = shaken("unet-restorer", strength=1), torch.rand(1, 3, 32, 32)
        assert_close(network(image, asked(0.25)) - image, 0.25 * (network(image) - image))

    def test_above_1_learnt_shifts_count_in_proportion_and_each_picture_has_its_own(self):
        network, image = shaken("unet-restorer", strength=2), torch.rand(1, 3, 32, 32)
        drawn = network(image.expand(3, -1, -1, -1), asked(1, 1.01, 2))
        assert_close(drawn[:1], network(image))
        assert 0 < float((drawn[1] - drawn[0]).abs().max()) < 0.05 * float((drawn[2] - drawn[0]).abs().max())

    def test_shifts_begin_as_nothing_and_learn(self):
        network, image = build("unet-restorer", {**SMALL["unet-restorer"], "strength": 2}), torch.rand(1, 3, 32, 32)
        assert torch.equal(network(image, asked(2)), network(image))
        network(image, asked(2)).square().sum().backward()
        assert len(network.more) == 3
        assert all(float(shift.grad.abs().sum()) > 0 for shift in network.more)

    def test_a_network_without_is_described_as_before(self):
        assert "strength" not in build("unet-restorer", SMALL["unet-restorer"]).config

    @pytest.mark.parametrize(
        ("config", "said"),
        [({"strength": 3}, "wanted 1 or 2"), ({"strength": 1, "scale": 2}, "that enlarges has no strength")],
    )
    def test_what_cannot_be_is_refused(self, config, said):
        with pytest.raises(OptionError, match=said):
            build("unet-restorer", config)

    def test_each_parameter_has_one_stage(self):
        network = shaken("unet-restorer", strength=2)
        for name, _ in network.named_parameters():
            assert sum(name.startswith(f"{stage}.") for stage in network.stages()) == 1, name


class Lesson:
    """A batch of a task, and what it asks for."""

    def __init__(self, strength: float = 2, batch: int = 4, processes: Processes = ALONE) -> None:
        self.network = shaken("unet-restorer", strength=strength)
        self.task = RestoreTask(
            self.network,
            PHOTOS,
            NONE,
            TaskOptions(crop=32, batch=batch, seed=0, device=CPU, weights={"charbonnier": 1}, processes=processes),
            degradation=parse("noise:0-55"),
        )


class TestLesson:
    def test_half_of_the_pictures_are_asked_for_more(self):
        task = Lesson().task
        strengths = torch.cat([task.batch(step)[2] for step in range(20)])[:, 0]
        assert torch.equal(task.batch(3)[2], task.batch(3)[2])
        assert strengths.dtype == torch.float32
        assert int((strengths == 1).sum()) == 40
        assert float(strengths.min()) == 1
        assert 1.9 < float(strengths.max()) < 2
        assert task.batch(0)[3].tolist() == [0, 2]

    def test_they_are_to_give_what_the_network_makes_of_so_much_damage(self):
        lesson = Lesson()
        damaged, clean, strengths, places = lesson.task.batch(5)
        with torch.no_grad():
            s = strengths[places]
            truth = clean[places]
            worse = (truth + s[:, :, None, None] * (damaged[places] - truth)).clamp(0, 1)
            wanted = torch.cat([clean, lesson.network(worse).clamp(0, 1)])
            drawn = torch.cat([lesson.network(damaged), lesson.network(damaged[places], s)])
        assert float((wanted[len(clean) :] - truth).abs().max()) > 0.01
        expected = losses.charbonnier(drawn, wanted)
        assert_close(lesson.task(*lesson.task.batch(5))["charbonnier"], expected)

    def test_what_they_are_to_give_has_no_gradient(self, monkeypatch):
        lesson = Lesson()
        calls: list[bool] = []
        lesson.network.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
        lesson.task(*lesson.task.batch(0))["charbonnier"].backward()
        assert calls == [False, True, True]
        assert float(lesson.network.more[0].grad.abs().sum()) > 0

    def test_strength_1_is_not_drawn_where_it_learns_nothing(self):
        lesson = Lesson()
        stages.freeze(lesson.network, [name for name in lesson.network.stages() if name != "more"])
        sizes: list[int] = []
        lesson.network.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
        lesson.task(*lesson.task.batch(0))["charbonnier"].backward()
        assert sizes == [2, 2]
        assert float(lesson.network.more[0].grad.abs().sum()) > 0

    def test_strength_1_learns_as_without_strengths_above(self):
        lesson = Lesson()
        damaged, clean, _, places = batch = lesson.task.batch(0)
        weight = lesson.network.stem.weight
        (learnt,) = torch.autograd.grad(lesson.task(*batch)["charbonnier"], weight)
        (alone,) = torch.autograd.grad(losses.charbonnier(lesson.network(damaged), clean), weight)
        assert_close(learnt, alone * len(clean) / (len(clean) + len(places)))

    def test_one_picture_a_step_is_asked_for_both_in_turn(self):
        task = Lesson(batch=1).task
        assert [float(task.batch(step)[2]) > 1 for step in range(4)] == [True, False, True, False]
        damaged, clean, *_ = task.batch(1)
        assert_close(task(*task.batch(1))["charbonnier"], losses.charbonnier(task.network(damaged), clean))

    def test_processes_share_one_batch(self):
        whole = Lesson(batch=6).task.batch(2)
        parts = [Lesson(batch=3, processes=Processes(rank, 2)).task.batch(2) for rank in range(2)]
        for index in range(3):
            assert_close(torch.cat([part[index] for part in parts]), whole[index])
        assert [part[3].tolist() for part in parts] == [[0, 2], [1]]

    def test_up_to_1_there_is_nothing_to_learn(self):
        assert len(Lesson(strength=1).task.batch(0)) == 2


class TestTraining:
    @pytest.mark.parametrize(("damage", "most"), [("noise:0-55", 2), ("jpeg:10-40", 1)])
    def test_the_damage_says_how_far_it_goes(self, restoring, damage, most):
        result = train_restorer(restoring(steps=2, with_strength=True, degradation=parse(damage)))
        network = checkpoint.load(result.checkpoint).network
        assert network.strength == most
        assert [float(shift.abs().max()) > 0 for shift in network.more] == [True] * (3 if most == 2 else 0)

    def test_a_network_without_lends_all_its_weights(self, restoring):
        start = train_restorer(restoring("start", steps=1)).checkpoint
        still = FitOptions(steps=1, learning_rate=1e-12, device="cpu")
        given = restoring(start=start, config={}, with_strength=True, fit=still)
        lent, made = (checkpoint.load(path).network for path in (start, train_restorer(given).checkpoint))
        held = made.state_dict()
        assert made.strength == 2
        assert all(torch.equal(held[key], value) for key, value in lent.state_dict().items())

    def test_a_strength_stays_as_far_as_the_damage_has_it(self, restoring):
        start = train_restorer(restoring("start", steps=1, with_strength=True)).checkpoint
        for damage, most in (("noise:0-9", 2), ("jpeg:10-40", 1), ("down:2", 0)):
            made = train_restorer(restoring(damage[:4], steps=1, start=start, config={}, degradation=parse(damage)))
            assert checkpoint.load(made.checkpoint).network.strength == most, damage

    def test_what_enlarges_learns_none(self, restoring):
        with pytest.raises(OptionError, match="that enlarges has no strength"):
            train_restorer(restoring(with_strength=True, degradation=parse("down:2")))

    def test_int8_is_learnt_as_without(self, restoring):
        start = train_restorer(restoring("start", steps=1, with_strength=True)).checkpoint
        still = FitOptions(steps=1, device="cpu", qat=True)
        made = checkpoint.load(train_restorer(restoring(start=start, config={}, fit=still)).checkpoint)
        assert made.network.strength == 2
        assert len(made.recipe[qat.RECIPE]["ranges"]) > 5

    def test_a_student_learns_strength_1_alone(self, restoring, photos, tmp_path):
        teacher = train_restorer(restoring("teacher", steps=1, with_strength=True)).checkpoint
        options = DistillOptions(
            name="student",
            photos=photos,
            output=tmp_path / "student",
            fit=FitOptions(steps=1, device="cpu"),
            batch=2,
            crop=32,
            held_out=0.2,
            config=SMALL["unet-restorer"],
            teacher=teacher,
            degradation=parse("noise:0-55"),
        )
        assert "psnr_to_teacher" in distill(options).quality
        with pytest.raises(OptionError, match="a student learns its teacher at strength 1"):
            distill(replace(options, config={**SMALL["unet-restorer"], "strength": 2}))


def saved(tmp_path, **config):
    """A checkpoint of a small network that changes pictures much."""
    network = shaken("unet-restorer", **config)
    checkpoint.round_to_half(network)
    path = tmp_path / f"{config.get('strength', 0)}.safetensors"
    checkpoint.save_checkpoint(path, network, name="tiny", task="denoise", recipe={})
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """One network without a strength, the same given one from 0 to 1, and one that has learnt to go up to 2."""
    folder = tmp_path_factory.mktemp("packages")
    plain = saved(folder)
    return {
        0: export_checkpoint(plain, folder / "none"),
        1: export_checkpoint(plain, folder / "one", with_strength=True),
        2: export_checkpoint(saved(folder, strength=2), folder / "two"),
    }


@pytest.fixture(params=["onnxruntime-cpu", "openvino"])
def backend(request):
    return request.param


class TestPackage:
    def test_one_graph_says_how_far_it_goes_and_is_its_own_checkpoint(self, packages):
        for most, package in packages.items():
            manifest = read_manifest(package)
            assert manifest.spec.strength == most
            assert ("strength" in json.loads((package / "manifest.json").read_text())["model"]) == (most > 0)
            assert [file.name for file in manifest.files] == ["model.onnx", "model.float.onnx"]
            assert checkpoint.load(package).network.strength == most
            assert check_package(package).passed

    def test_0_is_the_picture_and_1_the_network_without(self, packages, backend):
        image = photo(70, 90)
        with impasto.load(packages[0], backend=backend) as plain, impasto.load(packages[1], backend=backend) as model:
            assert (plain.info.strengths, model.info.strengths) == (None, (0, 1))
            assert model.info.to_json()["strengths"] == [0, 1]
            assert model.strength == 1
            np.testing.assert_array_equal(model(image), plain(image))
            model.strength = 0
            np.testing.assert_array_equal(model(image), image)
            assert model.strength == 0

    def test_it_draws_what_torch_draws(self, packages, backend):
        image, network = photo(70, 90), checkpoint.load(packages[2]).network
        with impasto.load(packages[2] / "model.onnx", backend=backend) as model:
            for strength in (0.3, 1.0, 1.7):
                model.strength = strength
                assert np.abs(model(image).astype(int) - draw(network, image, strength=strength)).max() <= 1

    def test_tiles_join_at_half_strength(self, packages, backend, monkeypatch):
        image = photo(300, 420)
        with impasto.load(packages[2], backend=backend) as model:
            model.strength = 0.5
            whole = model(image)
        monkeypatch.setattr(tile_plan, "WHOLE_PIXELS", 1)
        monkeypatch.setattr(tile_plan, "TILE", 64)
        with impasto.load(packages[2], backend=backend) as model:
            model.strength = 0.5
            tiled = model(image)
            assert next(iter(model._buffers.values())).plan.tiled
        assert np.abs(whole.astype(int) - tiled).max() <= 1
        assert (whole != tiled).mean() < 1e-3

    def test_a_stream_takes_a_change_between_frames(self, packages, backend):
        image = photo(40, 56)
        with impasto.load(packages[1], backend=backend) as model:
            full = model(image)
            stream = model.stream((image for _ in range(4)), depth=1)
            np.testing.assert_array_equal(next(stream), full)
            model.strength = 0
            rest = list(stream)
        np.testing.assert_array_equal(rest[-1], image)

    def test_its_computation_can_be_measured(self, packages):
        with impasto.load(packages[1]) as model:
            model.computation(photo(40, 40))()

    @pytest.mark.parametrize("value", [1.01, -0.1, float("nan"), "0.5", None])
    def test_what_is_out_of_range_is_refused(self, packages, value):
        with impasto.load(packages[1]) as model:
            with pytest.raises(OptionError, match=r"wanted a number from 0 \(the picture itself\) to 1"):
                model.strength = value
            assert model.strength == 1
            with pytest.raises(OptionError, match="knows one style alone"):
                model.set_style("wave")

    def test_a_network_without_says_how_it_gets_one(self, packages):
        with impasto.load(packages[0]) as model:
            model.strength = 1
            with pytest.raises(OptionError, match=r"tiny takes no strength; .* --with-strength"):
                model.strength = 0.5

    def test_a_stylizer_that_knows_strength_keeps_its_style(self, tmp_path):
        network = shaken("thumbnail-stylizer", styles=["photo", "wave", "night"])
        checkpoint.save_checkpoint(tmp_path / "s.safetensors", network, name="s", task="stylize", recipe={})
        with impasto.load(export_checkpoint(tmp_path / "s.safetensors", tmp_path / "s")) as model:
            assert model.info.strengths == (0, 1)
            model.set_style("night", strength=0.5)
            expected = model(photo(40, 40))
            model.set_style("night")
            model.strength = 0.5
            np.testing.assert_array_equal(model(photo(40, 40)), expected)
            assert model.strength == 0.5
            with pytest.raises(OptionError, match=r"strength is 1\.5"):
                model.strength = 1.5

    def test_what_has_learnt_none_is_given_none(self, tmp_path):
        network = shaken("thumbnail-stylizer")
        checkpoint.save_checkpoint(tmp_path / "s.safetensors", network, name="s", task="stylize", recipe={})
        with pytest.raises(OptionError, match="s is a thumbnail-stylizer; train a stylizer with --with-strength"):
            export_checkpoint(tmp_path / "s.safetensors", tmp_path / "s", with_strength=True)
        assert not (tmp_path / "s").exists()

    def test_a_package_in_place_is_given_one(self, packages, tmp_path):
        own = shutil.copytree(packages[0], tmp_path / "own")
        export_checkpoint(own, with_strength=True)
        assert read_manifest(own).spec.strength == 1


class TestLowerPrecision:
    @pytest.mark.parametrize("most", [1, 2])
    def test_0_is_the_picture_in_every_precision(self, packages, photos, most, tmp_path, monkeypatch):
        # What convolutions give is multiplied by 0, so that this holds on CPUs where OpenVINO's are wrong.
        monkeypatch.setattr(openvino, "computes_int8", lambda: True)
        own = shutil.copytree(packages[most], tmp_path / "own")
        for to, target_backends in (("fp16", ()), ("int8", ("onnxruntime", "openvino"))):
            quantize(own, QuantizeOptions(photos, to=to, target_backends=target_backends, budget=Budget(psnr=5)))
        image = photo(70, 90)
        for precision in ("fp16", "int8"):
            for backend in ("onnxruntime-cpu", "openvino"):
                with impasto.load(own, backend=backend, precision=precision) as model:
                    assert not np.array_equal(model(image), image)
                    model.strength = 0
                    np.testing.assert_array_equal(model(image), image)
                    path = model.info.path / resolve(own, precision, target_backend=target_backend(backend)).graph_path
                with closing(open_graph(path, backend, 0)) as graph:  # not only because the model leaves it out
                    given, drawn = photo(64, 80)[None], np.empty((1, 64, 80, 3), np.uint8)
                    graph.run((given, np.zeros((1, 1), np.float32)), drawn)
                    np.testing.assert_array_equal(drawn, given)

    def test_ranges_are_found_at_the_most_as_well(self, packages, photos):
        for most, strengths in ((1, {1.0}), (2, {1.0, 2.0})):
            spec = read_manifest(packages[most]).spec
            found = read_pictures(photos, spec, ["image", "context"], None)
            assert {float(feed["context"].item()) for feed in found.calibration} == strengths
            assert {float(one.feed["context"].item()) for one in found.whole} == {1.0}


class TestDescription:
    def test_only_what_has_one_speaks_of_it(self):
        assert "strength" not in ModelSpec("a").to_json()
        spec = ModelSpec("a", task="denoise", strength=2.0)
        assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json())), "x") == spec
        assert ModelSpec.from_json({"name": "a"}, "x").strength == 0

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"strength": "much"}, "'strength' is 'much'"),
            ({"strength": -1}, "'strength' is -1"),
            ({"strength": True}, "'strength' is True"),
            ({"strength": float("inf")}, "'strength' is inf"),
            ({"strength": 1, "thumbnail": 96}, "stands beside a thumbnail"),
            ({"strength": 1, "scale": 2}, "stands beside scale 2"),
        ],
    )
    def test_nonsense_is_refused(self, change, said):
        with pytest.raises(PackageError, match=said):
            ModelSpec.from_json({"name": "a", **change}, "x")


class TestCommandLine:
    def test_run_takes_it(self, packages, tmp_path):
        image = photo(40, 56)
        images.write(tmp_path / "a.png", image)
        target = tmp_path / "out.png"
        assert cli("run", packages[1], tmp_path / "a.png", "-o", target, "--strength", 0)[0] == 0
        np.testing.assert_array_equal(images.read(target).rgb, image)
        code, _, said = cli("run", packages[1], tmp_path / "a.png", "-o", target, "--strength", 1.5)
        assert (code, "to 1, where 1 is the full effect" in said) == (1, True)
        code, _, said = cli("run", packages[0], tmp_path / "a.png", "-o", target, "--strength", 0.5)
        assert (code, "takes no strength" in said) == (1, True)

    def test_export_and_inspect(self, packages, tmp_path):
        code, _, said = cli("export", packages[0], "-o", tmp_path / "given", "--with-strength")
        assert code == 0, said
        assert "0 to 1" in cli("inspect", tmp_path / "given")[1]
        for source in (packages[0] / "model.onnx", "vgg16"):
            code, _, said = cli("export", source, "-o", tmp_path / "x", "--with-strength")
            assert (code, "--with-strength is for the checkpoint or package" in said) == (1, True)

    def test_train(self, photos, tmp_path):
        config = [part for key, value in SMALL["unet-restorer"].items() for part in ("--config", f"{key}={value}")]
        common = (
            "train",
            "restore",
            "tiny",
            "--photos",
            photos,
            "--with-strength",
            "--steps",
            1,
            "--batch",
            2,
            "--crop",
            32,
            "--device",
            "cpu",
            *config,
        )
        assert cli(*common, "-o", tmp_path / "run")[0] == 0
        assert checkpoint.load(tmp_path / "run" / "checkpoint.safetensors").network.strength == 2
        code, _, said = cli(*common, "--degrade", "down:2", "-o", tmp_path / "large")
        assert (code, "that enlarges has no strength" in said) == (1, True)
