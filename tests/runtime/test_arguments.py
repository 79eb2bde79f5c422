"""Arguments of other types, and environment variables with nonsense, are errors of ours that say what to do."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import impasto
from impasto.errors import ImpastoError, ModelNotFound, OptionError, ShapeError
from impasto.export.tensorrt.cache import EngineCache, cache_limit
from impasto.styles import mixture


@pytest.mark.parametrize("model", [None, 3, b"denoise", ["denoise"], 1.5, object(), ""])
def test_what_names_no_model(model):
    with pytest.raises(OptionError, match="names no model; give a model's name"):
        impasto.load(model)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300 + ".onnx", "\0", "\udcff"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(ModelNotFound) as error:
        impasto.load(name)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "options",
    [
        *({"backend": value} for value in (None, 3, ["openvino"], b"openvino")),
        *({"precision": value} for value in (None, 16, [], {})),
        *({"device": value} for value in ("0", -1, None, 1.0, True)),
        *({"layout": value} for value in (3, b"rgb 0..1", ("rgb", 0, 1))),
    ],
)
def test_options_of_other_types(make_package, options):
    with pytest.raises(OptionError):
        impasto.load(make_package(), **options)


def test_the_number_of_a_device_may_be_numpys(make_package):
    impasto.load(make_package(), device=np.int64(0)).close()


@pytest.mark.parametrize(
    "shares", [3, ["a"], b"a", {"a": "x"}, {"a": "0.5"}, {"a": None}, {"a": [1]}, {"a": 1j}, {3: 1}, {"a": 10**400}]
)
def test_styles_of_other_types(shares):
    with pytest.raises(OptionError):
        mixture(["photo", "a"], shares)


@pytest.mark.parametrize("strength", ["1", None, float("nan"), 1j, [1], np.array([0.5]), 10**400])
def test_strengths_of_other_types(strength):
    with pytest.raises(OptionError, match="strength is"):
        mixture(["photo", "a"], "a", strength)


def test_a_fraction_is_a_number():
    assert mixture(["photo", "a"], "a", Fraction(1, 2)).tolist() == [0.5, 0.5]
    assert mixture(["photo", "a"], {"photo": Fraction(1, 2), "a": np.float32(0.5)}).tolist() == [0.5, 0.5]
    with pytest.raises(OptionError, match=r"strength 0\.5 needs"):
        mixture([], None, Fraction(1, 2))


def test_a_picture_that_is_no_array_is_told_how_to_become_one(make_package):
    pillow = pytest.importorskip("PIL.Image")
    with impasto.load(make_package()) as model:
        for given, remedy in (
            ("photo.png", r'read the file first.*np\.asarray\(Image\.open\(path\)\.convert\("RGB"\)\)'),
            (Path("photo.png"), r"read the file first.*or use impasto run$"),
            (pillow.new("RGBA", (8, 8)), r'pass np\.asarray\(image\.convert\("RGB"\)\)'),
        ):
            for work in (model, model.output_shape, lambda picture: list(model.stream([picture]))):
                with pytest.raises(ShapeError, match=remedy):
                    work(given)
        for frames in (3, "clip.mp4"):
            with pytest.raises(
                ShapeError, match=r"frames is \w+; wanted an iterable of NumPy arrays, uint8 \(H, W, 3\) RGB$"
            ):
                model.stream(frames)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("IMPASTO_MODELS", "x" * 5000),
        ("IMPASTO_CACHE", "x" * 5000),
        ("IMPASTO_CACHE", __file__),
        ("IMPASTO_CACHE_BYTES", "9" * 400 + "T"),
        ("IMPASTO_CACHE_BYTES", "much"),
        ("IMPASTO_CHECK_VALUES", "much"),
    ],
)
def test_variables_with_nonsense_are_named(monkeypatch, make_package, variable, value):
    package = make_package()
    monkeypatch.setenv(variable, value)
    told = set()
    for work in (
        lambda: impasto.load(package),
        lambda: impasto.load("nothing"),
        cache_limit,
        lambda: EngineCache().entries(),
    ):
        try:
            work()
        except ImpastoError as error:
            told.add(str(error))
    assert [text for text in told if f"${variable}" in text and len(text) < 700], told
