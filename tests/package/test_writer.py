"""A package that could not be written leaves nothing."""

from __future__ import annotations

import pytest

from impasto.package.manifest import Manifest
from impasto.package.spec import ModelSpec
from impasto.package.writer import NewFile, write_package


def test_a_new_folder_goes_with_the_package_that_failed_and_an_old_one_stays(tmp_path):
    unwritable = Manifest(ModelSpec("tiny"), (), {"loss": float("nan")})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes.txt").touch()
    for folder in ("old", "new"):
        with pytest.raises(ValueError):
            write_package(tmp_path / folder, unwritable, [NewFile("model.onnx", "model", b"")])
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
