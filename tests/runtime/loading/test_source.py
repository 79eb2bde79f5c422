"""What a load reads: the manifest once, and each file's hash once."""

from __future__ import annotations

from collections import Counter

import pytest

import impasto
from impasto.errors import EngineMismatch, PackageError
from impasto.package import manifest
from impasto.runtime.loading import source
from impasto.runtime.loading.source import ModelFiles, resolve


@pytest.fixture
def reads(monkeypatch):
    """How often the manifest was read, and each file hashed."""
    counts: Counter[str] = Counter()

    def counted(function, name):
        def call(path, *arguments):
            counts[name or path.name] += 1
            return function(path, *arguments)

        return call

    monkeypatch.setattr(manifest, "sha256", counted(manifest.sha256, None))
    monkeypatch.setattr(source, "read_manifest", counted(source.read_manifest, "manifest"))
    return counts


@pytest.mark.parametrize("backend", ["auto", "onnxruntime-cpu", "openvino"])
def test_a_load_reads_the_manifest_once_and_hashes_each_file_once(make_package, reads, backend):
    with impasto.load(make_package(thumbnail=16), backend=backend):
        pass
    assert reads == {"manifest": 1, "model.onnx": 1, "context.onnx": 1}


def test_a_trusted_load_hashes_nothing(make_package, reads):
    with impasto.load(make_package(), backend="onnxruntime-cpu", trust=True):
        pass
    assert reads == {"manifest": 1}


def test_an_engine_that_is_required_and_not_there_is_an_error(make_package, tmp_path, monkeypatch):
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    files = ModelFiles(make_package())
    assert files.engine_source("auto", 0) is None
    with pytest.raises(
        EngineMismatch, match=r"no fp16 engine has been built\. Build one for this machine: impasto build"
    ):
        files.engine_source("auto", 0, required=True)


def test_a_changed_file_is_found_by_every_source(make_package):
    package = make_package()
    (package / "model.onnx").write_bytes(b"changed")
    for find in (lambda: resolve(package), ModelFiles(package).source):
        with pytest.raises(PackageError, match="is not the file that its manifest describes"):
            find()
    assert resolve(package, trust=True).graph_path == package / "model.onnx"
