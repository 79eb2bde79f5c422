"""Readers of what comes from anywhere, given bytes that nobody would write: they raise errors of ours, or read.

    python tests/fuzz/foreign_bytes.py [READER …] [--minutes 10]    look for long; what is found goes into tests/fuzz/corpus/READER

`test_foreign_bytes` reads what was found again, and looks for a short while.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import hashlib
import io
import json
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impasto.errors import BackendError, ImpastoError
from impasto.package.manifest import MANIFEST, Manifest, PackageFile
from impasto.package.spec import ModelSpec, SizeRule

sys.path.append(str(Path(__file__).parents[1]))  # where `fuzz` and `support` are, of a script

from fuzz import file_forms

FOUND = Path(__file__).parent / "corpus"

SPEC = ModelSpec("tiny", "denoise", size=SizeRule(4), border=8, receptive_field=7, styles=("a", "b"))


def read_manifest(folder: Path, content: bytes) -> None:
    from impasto.export.inspection import inspect_path
    from impasto.runtime.loading.source import resolve

    (folder / MANIFEST).write_bytes(content)
    inspect_path(str(folder)).to_json()
    resolve(folder)


def read_packaged(folder: Path, content: bytes) -> None:
    from impasto.training.checkpoint import load

    (folder / MANIFEST).write_bytes(content)
    load(folder)


def read_sidecar(folder: Path, content: bytes) -> None:
    from impasto.runtime.loading.source import resolve

    (folder / "graph.onnx").touch()
    (folder / "graph.json").write_bytes(content)
    resolve(folder / "graph.onnx").described_spec().to_json()


def read_metadata(folder: Path, content: bytes) -> None:
    from impasto.runtime.loading.opening import spec_in_metadata

    spec_in_metadata(content.decode(errors="replace"), folder / "graph.onnx").to_json()


def read_record(folder: Path, content: bytes) -> None:
    from support.fake_engines import write_plan

    from impasto.export.inspection import inspect_path
    from impasto.runtime.loading.stored_engines import context_engine, read_stored

    plan = write_plan(folder)
    plan.with_suffix(".json").write_bytes(content)
    stored = read_stored(plan)
    context_engine(stored, [stored])
    inspect_path(str(plan)).to_json()


def read_header(folder: Path, content: bytes) -> None:
    """A safetensors file as `impasto inspect` reads it."""
    from impasto.export.inspection import inspect_path

    path = folder / "c.safetensors"
    path.write_bytes(content)
    inspect_path(str(path)).to_json()


def read_checkpoint(folder: Path, content: bytes) -> None:
    """The same as training reads it."""
    from impasto.training.checkpoint import load, name_of

    path = folder / "c.safetensors"
    path.write_bytes(content)
    name_of(path)
    load(path)


def read_picture(folder: Path, content: bytes) -> None:
    """And written in every format, with what the file says of itself."""
    from impasto import images

    path = folder / "picture.any"
    path.write_bytes(content)
    picture = images.read_deep(path)
    assert picture.rgb.size <= 4 * images.MAX_PIXELS
    for suffix in (".png", ".tif", ".webp", ".jpg", ".npy"):
        if picture.rgb.size < 1 << 20:
            with refused_in_a_line():
                images.write(folder / f"out{suffix}", picture)


def read_scan(folder: Path, content: bytes) -> None:
    """By each kind of window, and written as a derived file."""
    from impasto import medical
    from impasto.medical.derived import Processing

    path = folder / "scan.dcm"
    path.write_bytes(content)
    for window in ("full", "file", "40,400"):
        with refused_in_a_line():
            held = medical.read_scan(path, medical.Window.parse(window))
            held.range_text()
            drawn = np.stack(held.pictures())
            held.restored(drawn)
            medical.write_derived(folder / "out.dcm", held, drawn, Processing("tiny", "denoise, fp32"))


def read_stream(folder: Path, content: bytes) -> None:
    from impasto import videos

    videos.redraw(io.BytesIO(content), io.BytesIO(), lambda frames: frames)


def read_graph(folder: Path, content: bytes) -> None:
    """What the runtime reads of an ONNX file by itself."""
    from impasto.package.shared_weights import self_contained, verify_weights
    from impasto.runtime.backends.inner_values import ValuesBeforeRounding

    def refuse(path: Path) -> Any:
        raise BackendError(f"{path.name} is not to be loaded here; nothing is missing")

    path = folder / "model.onnx"
    path.write_bytes(content)
    (folder / "weights.bin").write_bytes(file_forms.WEIGHTS)
    ValuesBeforeRounding(path, refuse).check(())
    for call in (self_contained, verify_weights):
        with refused_in_a_line():
            call(path)


def _manifest() -> Any:
    files = (PackageFile("model.onnx", "model", "0" * 64), PackageFile("engines/a.plan", "engine", "1" * 64, "fp16"))
    network = {"architecture": "classic-stylizer", "config": {"width": 8, "blocks": 1}}
    return Manifest(SPEC, files, {"seed": 0}, {"validation": {"psnr": 30.5}}, network, "0.1.0").to_json()


def _stored() -> Any:
    from support.fake_engines import record

    return {"sha256": "0" * 64, "record": record(options={"size": [1, 2]}).to_json()}


def _safetensors() -> Any:
    """The header of a small checkpoint; its own JSON is in it as an object, which `_packed` turns into text."""
    network = {"architecture": "classic-stylizer", "config": {"width": 2, "blocks": 1}}
    about = {"schema": 1, "name": "tiny", "task": "stylize", "network": network, "recipe": {"a": 1}, "quality": {}}
    return {"__metadata__": {"impasto": about}, "w": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}


def _packed(header: Any) -> bytes:
    header = copy.deepcopy(header)
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"] = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in header["__metadata__"].items()
        }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()


def _sidecar() -> Any:
    return {"layout": "rgb 0..1", **SPEC.to_json()}


def _whole_files() -> list[bytes]:
    """Pictures whose boxes and markers we read beside Pillow: AVIF, JPEG 2000."""
    from PIL import Image

    files = [io.BytesIO(), io.BytesIO()]
    for file, kind in zip(files, ("AVIF", "JPEG2000"), strict=True):
        Image.new("RGB", (16, 16), (200, 100, 50)).save(file, kind)
    return [file.getvalue() for file in files]


READERS: dict[str, tuple[Callable[[Path, bytes], None], Callable[[], list[Any]], Callable[[Any], bytes]]] = {
    "manifest": (read_manifest, lambda: [_manifest()], _text),
    "packaged": (read_packaged, lambda: [_manifest()], _text),
    "sidecar": (read_sidecar, lambda: [_sidecar()], _text),
    "metadata": (read_metadata, lambda: [SPEC.to_json()], _text),
    "record": (read_record, lambda: [_stored()], _text),
    "header": (read_header, lambda: [_safetensors()], _packed),
    "checkpoint": (read_checkpoint, lambda: [_safetensors()], _packed),
    "png": (
        read_picture,
        lambda: [file_forms.png(), file_forms.png(8), file_forms.png_with_code()],
        file_forms.packed_png,
    ),
    "tiff": (
        read_picture,
        lambda: [file_forms.tiff(), file_forms.tiff_of_tiles(), file_forms.tiff_of_planes()],
        file_forms.packed_tiff,
    ),
    "npy": (read_picture, lambda: [file_forms.array()], file_forms.packed_array),
    "boxes": (read_picture, _whole_files, bytes),
    "dicom": (
        read_scan,
        lambda: [file_forms.scan(), file_forms.scan_of_colours(), file_forms.scan_of_frames()],
        file_forms.packed_scan,
    ),
    "y4m": (read_stream, lambda: [file_forms.stream()], file_forms.packed_stream),
    "onnx": (read_graph, lambda: [file_forms.graph()], file_forms.packed_graph),
}
"""What reads, some things right to begin with, and how one becomes bytes. Bytes are damaged as they are."""

MOST_SECONDS = 20
"""Of computing, for one input of some kilobytes."""
MOST_BYTES = 1 << 31
"""Of memory that Python and NumPy are asked for, touched or not."""

_NASTY = st.sampled_from(
    [
        *(None, True, "", [], {}, 0, -1, 1.5, 1e400, float("nan"), 10**9, 10**18, 10**30, 10**400, [[[]]], [None]),
        *(
            "../../x",
            "/etc/passwd",
            "a\0b",
            "\x1b[2J",
            "\ud800",
            "n" * 5000,
            "..",
            "C:\\x",
            "\u202e",
            "rgb 0..1e9",
            "9" * 5000,
        ),
    ]
)
_VALUES: st.SearchStrategy[Any] = st.one_of(
    _NASTY,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    ),
).map(copy.deepcopy)  # a later change may go into it


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object with each of its keys."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@functools.cache
def _right(name: str) -> list[Any]:
    """Made once, since a colour profile holds the time at which it was made."""
    return READERS[name][1]()


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """What the reader wants, with some values changed, left out or added, and now and then some bytes."""
    packed = READERS[name][2]
    value = copy.deepcopy(draw(st.sampled_from(_right(name))))
    whole = isinstance(value, bytes)
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(value))
        if not places:
            break
        outer, key = places[draw(st.integers(0, len(places) - 1))]
        change = draw(st.sampled_from(["change", "leave out", "add"]))
        if change == "change":
            outer[key] = draw(_VALUES)
        elif change == "leave out":
            del outer[key]
        elif isinstance(outer, dict):
            outer[draw(st.one_of(_NASTY.filter(lambda key: isinstance(key, str)), st.text(max_size=8)))] = draw(_VALUES)
        else:
            outer.append(draw(_VALUES))
    content = bytearray(packed(draw(_VALUES) if not whole and draw(st.integers(0, 19)) == 0 else value))
    for _ in range(draw(st.sampled_from([1, 4, 16] if whole else [0, 0, 0, 1, 4]))):
        if content:
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 9)) == 0 else content)


@contextlib.contextmanager
def refused_in_a_line() -> Iterator[None]:
    """A block that may raise an error of ours. Raises AssertionError where that is more than a line."""
    try:
        yield
    except ImpastoError as error:
        assert len(str(error)) < 2000, f"a message of {len(str(error))} characters: {str(error)[:300]}"
        assert "\n" not in str(error), f"several lines: {error}"


def read(name: str, content: bytes) -> None:
    """Raises what is no error of ours, and AssertionError where that is more than a line, or takes too long or too much memory."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), refused_in_a_line():
            warnings.simplefilter("ignore")
            READERS[name][0](Path(folder), content)
        took, most = time.process_time() - begun, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < MOST_SECONDS, f"{took:.0f} s"
    assert most < MOST_BYTES, f"{most:,} bytes"


def look(name: str, examples: int) -> int:
    """How many inputs were tried, about `examples`.

    Raises what `read` raises; the smallest bytes that were found to do so then lie in `FOUND`'s folder of the reader.
    """
    smallest, tried = b"", 0

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(name))
    def reads(content: bytes) -> None:
        nonlocal smallest, tried
        tried += 1
        try:
            read(name, content)
        except BaseException:
            smallest = content
            raise

    try:
        reads()
    except Exception:
        (FOUND / name).mkdir(parents=True, exist_ok=True)
        (FOUND / name / hashlib.sha256(smallest).hexdigest()[:8]).write_bytes(smallest)
        raise
    return tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--minutes", type=float, default=10, help="for each")
    options = parser.parse_args()
    for name in options.readers or READERS:
        start, tried = time.monotonic(), 0
        while time.monotonic() - start < 60 * options.minutes:
            tried += look(name, 100)
        print(f"{name}: {tried} inputs in {time.monotonic() - start:.0f} s, all read or refused", flush=True)


if __name__ == "__main__":
    main()
