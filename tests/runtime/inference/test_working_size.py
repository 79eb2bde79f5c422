"""Strokes that grow with the picture, and strokes in the photo's colours."""

from __future__ import annotations

import json
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
from PIL import Image
from support.command_line import cli
from support.small_models import picture

import impasto
from impasto import images
from impasto.errors import OptionError, PackageError
from impasto.package.spec import ModelSpec
from impasto.runtime.inference.colour_transfer import keep_colours, luma
from impasto.runtime.inference.working_size import Scaling, drawn_size
from impasto.runtime.loading.source import resolve, search_path

SIZES = [((300, 500), 128), ((501, 333), 100), ((65, 64), 64), ((2000, 3), 64), ((40, 700), 33)]


class TestScaling:
    @pytest.mark.parametrize(("size", "longest"), SIZES)
    def test_the_longest_side_becomes_the_working_size(self, size, longest):
        small = drawn_size(*size, longest)
        assert max(small) == longest
        assert min(small) == max(1, round(min(size) * longest / max(size)))
        assert Scaling(*size, longest).small.shape == (*small, 3)

    def test_what_is_not_larger_stays(self):
        assert drawn_size(64, 48, 64) == (64, 48)
        assert drawn_size(64, 48, None) == (64, 48)

    @pytest.mark.parametrize(("size", "longest"), SIZES[:2])
    def test_both_ways_are_what_pillow_makes(self, size, longest):
        scaling, image = Scaling(*size, longest), picture(*size)
        small = scaling.shrink(image)
        box = Image.fromarray(image).resize(small.shape[1::-1], Image.Resampling.BOX)
        assert np.abs(small.astype(int) - np.asarray(box)).mean() < 4  # its box takes whole pixels
        scaling.drawn[...] = small
        out = np.empty_like(image)
        scaling.enlarge(out)
        cubic = np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))
        far = 2 * (max(size) // longest + 1)  # from the edges, where it repeats no pixel
        difference = np.abs(out.astype(int) - cubic)[far:-far, far:-far]
        assert difference.max() <= 2  # it rounds between the two ways
        assert difference.mean() < 0.3

    def test_a_mean_is_exact_where_cells_are_whole(self):
        image = picture(64, 96)
        small = Scaling(64, 96, 24).shrink(image)
        assert np.array_equal(small, np.rint(image.reshape(16, 4, 24, 4, 3).mean((1, 3))).astype(np.uint8))

    def test_one_colour_stays(self):
        image = np.full((301, 517, 3), (3, 77, 255), np.uint8)
        scaling, out = Scaling(301, 517, 128), np.empty_like(image)
        scaling.drawn[...] = scaling.shrink(image)
        scaling.enlarge(out)
        assert np.array_equal(out, image)

    def test_a_4k_picture_takes_well_under_a_second_of_one_core(self):
        scaling, image = Scaling(2160, 3840, 1024), np.zeros((2160, 3840, 3), np.uint8)
        began = time.process_time()
        scaling.shrink(image)
        scaling.enlarge(image)
        assert time.process_time() - began < 0.9


class TestColours:
    def test_the_brightness_is_the_drawings_and_the_rest_the_photos(self):
        photo, drawing = (picture(40, 56, seed) // 4 + 96 for seed in (0, 1))  # nothing is clipped
        strokes = drawing.copy()
        keep_colours(photo, drawing)
        assert np.abs(luma(drawing).astype(int) - luma(strokes)).max() <= 1
        change = drawing.astype(int) - photo
        assert (change == change[..., :1]).all()
        assert np.array_equal(change[..., 0], luma(strokes).astype(int) - luma(photo))

    def test_the_same_brightness_changes_nothing_and_ends_are_clipped(self):
        photo = picture(33, 47)
        drawing = photo.copy()
        keep_colours(photo, drawing)
        assert np.array_equal(drawing, photo)
        white = np.full_like(photo, 255)
        keep_colours(photo, white)
        assert np.array_equal(white.max(2), np.full(photo.shape[:2], 255))


@pytest.fixture
def stylizer(make_package):
    """A function that makes a package of a stylizer, with a working size where one is given, in pixels."""

    def make(size: int | None = 64, **options):
        folder = make_package("brush", task="stylize", thumbnail=32, border=4, **options)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["model"]["working_size"] = size
        path.write_text(json.dumps(manifest))
        return folder

    return make


@pytest.fixture(params=["onnxruntime-cpu", "openvino"])
def load(request):
    return partial(impasto.load, backend=request.param)


class TestModel:
    def test_larger_pictures_are_drawn_smaller_and_enlarged(self, load, stylizer):
        package, image = stylizer(), picture(90, 130)
        with load(package) as model, load(package, working_size=None) as full:
            assert (model.info.working_size, full.info.working_size) == (64, None)
            assert ("working size 64" in str(model.info), "working size" in str(full.info)) == (True, False)
            assert model.info.to_json()["working_size"] == 64
            scaling, expected = Scaling(90, 130, 64), np.empty_like(image)
            scaling.drawn[...] = full(scaling.shrink(image))
            scaling.enlarge(expected)
            assert np.array_equal(model(image), expected)
            assert model(image).shape == image.shape
            assert not np.array_equal(full(image), expected)
            assert np.array_equal(model(image[:64, :50]), full(image[:64, :50]))

    def test_it_is_chosen_when_loading(self, stylizer):
        package = stylizer(None)
        for given, held in (("auto", None), (None, None), (100, 100), (np.int64(100), 100)):
            with impasto.load(package, working_size=given) as model:
                assert model.info.working_size == held

    @pytest.mark.parametrize("given", [0, 31, -5, True, 100.0, "full"])
    def test_nonsense_is_refused(self, stylizer, given):
        with pytest.raises(OptionError, match=r"working_size is .*, or 32 pixels or more$"):
            impasto.load(stylizer(), working_size=given)

    @pytest.mark.parametrize(("task", "scale"), [("denoise", 1), ("upscale", 2)])
    def test_restorers_have_neither(self, make_package, task, scale):
        package = make_package(task=task, scale=scale)
        with pytest.raises(OptionError, match=f"a network for {task}"):
            impasto.load(package, working_size=64)
        with impasto.load(package) as model, pytest.raises(OptionError, match=f"a network for {task}.*--keep-colors"):
            model.keep_colors = True

    def test_load_still_takes_keep_colors_and_warns(self, stylizer, make_package):
        said = r"^impasto\.load no longer takes keep_colors; set model\.keep_colors after loading$"
        with pytest.warns(DeprecationWarning, match=said) as told, impasto.load(stylizer(), keep_colors=True) as model:
            assert model.keep_colors
        assert [warning.filename for warning in told] == [__file__]
        with pytest.warns(DeprecationWarning, match=said), impasto.load(make_package(), keep_colors=False) as model:
            assert not model.keep_colors
        with pytest.raises(OptionError, match="a network for denoise"):
            impasto.load(make_package("other"), keep_colors=True)

    def test_load_refuses_keywords_that_it_never_took(self, stylizer):
        with pytest.raises(TypeError, match=r"^load\(\) got an unexpected keyword argument 'keep_colours'$"):
            impasto.load(stylizer(), keep_colours=True)

    @pytest.mark.parametrize("size", [64, None])
    def test_streams_and_pictures_are_drawn_alike(self, load, stylizer, size):
        image = picture(90, 130)
        with load(stylizer(size)) as model:
            model.keep_colors = True
            (streamed,) = model.stream([image])
            assert np.array_equal(streamed, model(image))

    def test_the_photos_colours_are_kept_from_when_it_is_said(self, load, stylizer):
        image = picture(90, 130)
        with load(stylizer()) as model:
            plain = model(image)
            model.keep_colors = True
            expected = plain.copy()
            keep_colours(image, expected)
            assert np.array_equal(model(image), expected)
            assert not np.array_equal(plain, expected)
            in_place = image.copy()
            model.run_into(in_place, in_place)
            assert np.array_equal(in_place, expected)
            model.keep_colors = False
            assert np.array_equal(model(image), plain)

    def test_after_the_first_picture_nothing_large_is_allocated(self, stylizer):
        image = picture(1000, 1500)
        with impasto.load(stylizer(512)) as model:
            model.keep_colors = True
            out = model(image)
            tracemalloc.start()
            model.run_into(image, out)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < image.nbytes / 2

    def test_its_computation_is_that_of_the_small_picture(self, stylizer):
        with impasto.load(stylizer()) as model:
            model.computation(picture(90, 130))()
            assert list(model._buffers) == []


def test_only_what_has_one_speaks_of_it():
    assert "working_size" not in ModelSpec("a").to_json()
    spec = ModelSpec("a", task="stylize", working_size=1024)
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json())), "x") == spec
    for change, said in (
        ({"working_size": 8}, "'working_size' is 8"),
        ({"working_size": "auto"}, "'working_size' is 'auto'"),
        ({"working_size": 64, "task": "denoise"}, "is a stylizer's, and this is a network for denoise"),
    ):
        with pytest.raises(PackageError, match=said):
            ModelSpec.from_json({"name": "a", "task": "stylize", **change}, "x")


def test_the_stylizers_that_ship_have_one():
    for folder in sorted(path.parent for path in search_path()[-1].glob("*/manifest.json")):
        spec = resolve(folder).manifest.spec
        assert spec.working_size == (1024 if spec.task == "stylize" else None), folder.name
        with impasto.load(folder / "model.onnx") as model:
            assert model.info.spec == spec, "the graph says the same as the manifest"


def test_the_command_line(stylizer, make_package, tmp_path):
    image, target = picture(90, 130), tmp_path / "out.png"
    images.write(tmp_path / "a.png", image)
    package, restorer = stylizer(), make_package()

    def run(*options: str, model=package):
        return cli("run", model, tmp_path / "a.png", "-o", target, *options)

    for options, changes, keep_colors in (
        ((), {}, False),
        (("--working-size", "full"), {"working_size": None}, False),
        (("--working-size", "100"), {"working_size": 100}, False),
        (("--keep-colors",), {}, True),
    ):
        assert run(*options)[0] == 0
        with impasto.load(package, **changes) as model:
            model.keep_colors = keep_colors
            assert np.array_equal(images.read(target).rgb, model(image)), options
    assert "working size 64" in run()[1]
    for options, model, said in (
        (("--working-size", "large"), package, "write auto, full, or pixels such as 1024"),
        (("--working-size", "5"), package, "or 32 pixels or more"),
        (("--working-size", "64"), restorer, "a working size is for stylizers, and "),
        (("--keep-colors",), restorer, "is a network for denoise"),
    ):
        code, _, error = run(*options, model=model)
        assert (code, said in error) == (1, True), error
