"""Pictures in an object store, through pyarrow, with a small server of S3's protocol on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.object_store import ObjectStore, object_store
from support.small_models import picture

from impasto import images
from impasto.errors import OptionError, OutputError, PictureError

pytest.importorskip("pyarrow.fs", reason="reads object stores: install impasto[ray]")

from impasto.batch.stores import Place, StoredFiles, without_secret


@pytest.fixture
def store(monkeypatch):
    """A store with a bucket, to which the environment leads as Amazon's own tools have it."""
    with object_store() as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        yield found


def put(store: ObjectStore, key: str, tmp_path: Path, seed: int = 0) -> None:
    Image.fromarray(picture(20, 30, seed)).save(tmp_path / "put.png")
    store.objects[f"bucket/{key}"] = (tmp_path / "put.png").read_bytes()


def test_pictures_are_listed_read_and_written(store, tmp_path):
    for name in ("a.png", "below/b.png", ".hidden.png", "out/c.png"):
        put(store, f"in/{name}", tmp_path)
    store.objects["bucket/in/notes.txt"] = b"no picture"
    source, target = Place.of("s3://bucket/in/"), Place.of("s3://bucket/in/out")
    assert str(source) == "s3://bucket/in" and source == Place.of("s3://bucket/in") and source.holds(target)
    assert source.pictures(recursive=False, leaving_out=target) == [Path("a.png")]
    assert source.pictures(recursive=True, leaving_out=target) == [Path("a.png"), Path("below/b.png")]
    assert target.files() == {Path("c.png")} and Place.of("s3://bucket/none").files() == set()
    files = StoredFiles(source, target)
    read = files.read(Path("bucket/in/a.png"))
    assert np.array_equal(read.rgb, picture(20, 30))
    asked = len(store.requests)
    assert files.write(Path("bucket/in/out/new/a.webp"), read, 80) is None
    assert [request.split(" ")[0] for request in store.requests[asked:]] == ["PUT"]  # which a store charges for, each
    images.write(tmp_path / "local.webp", read, quality=80)
    assert store.objects["bucket/in/out/new/a.webp"] == (tmp_path / "local.webp").read_bytes()
    with pytest.raises(PictureError, match=r"cannot read bucket/in/none\.png"):
        files.read(Path("bucket/in/none.png"))


def test_large_files_go_in_parts_and_come_back(store, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    files = StoredFiles(Place.of("s3://bucket/in"), Place.of("s3://bucket/in"))
    files.write(Path("bucket/in/large.png"), images.Picture(pixels), 95)
    assert np.array_equal(files.read(Path("bucket/in/large.png")).rgb, pixels)
    assert not store.parts


def test_the_uri_may_say_where_and_who(store, tmp_path, monkeypatch):
    put(store, "in/a.png", tmp_path)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    scheme, _, host = store.url.partition("://")
    place = Place.of(f"s3://anyone:secret@bucket/in?scheme={scheme}&endpoint_override={host}&region=us-east-1")
    assert place.pictures(recursive=False, leaving_out=place) == [Path("a.png")]
    assert "secret" not in str(place)


def test_a_bucket_that_is_not_there_is_told_before_anything_is_drawn(store):
    with pytest.raises(PictureError, match="there is no bucket nowhere"):
        Place.of("s3://nowhere/in").pictures(recursive=False, leaving_out=Place.of("s3://bucket/out"))
    with pytest.raises(OutputError, match="there is no bucket nowhere"):
        Place.of("s3://nowhere/out").check_writable([Path("a.png")])
    Place.of("s3://bucket/out").check_writable([Path("a.png")])
    with pytest.raises(PictureError, match="no picture files in s3://bucket/in"):
        Place.of("s3://bucket/in").pictures(recursive=False, leaving_out=Place.of("s3://bucket/out"))


def test_no_secret_is_told(monkeypatch):
    assert without_secret("s3://key:sec%2Fret@bucket/a@b?region=x") == "s3://bucket/a@b?region=x"
    assert without_secret("folder/a@b") == "folder/a@b"
    with pytest.raises(OptionError, match=r"cannot open s3://bucket/a\?nothing=1") as error:
        Place.of("s3://key:secret@bucket/a?nothing=1")
    assert "secret" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_drawn(tmp_path, monkeypatch):
    """Root may write everywhere, so the question is answered here."""
    place = Place.of(str(tmp_path / "out"))
    place.check_writable([Path("a.png"), Path("below/b.png")])
    assert (tmp_path / "out" / "below").is_dir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "below")
    with pytest.raises(OutputError, match=r"b\.png: no permission"):
        place.check_writable([Path("a.png"), Path("below/b.png")])
