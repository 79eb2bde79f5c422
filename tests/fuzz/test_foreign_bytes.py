"""What comes from anywhere is read, or refused with an error of ours that is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.foreign_bytes import FOUND, READERS, look, read
from impasto.package import schema

NEEDED = {
    **dict.fromkeys(("packaged", "checkpoint"), ("torch",)),
    **dict.fromkeys(("png", "tiff", "npy", "boxes"), ("imagecodecs", "tifffile", "PIL")),
    "dicom": ("pydicom",),
    "y4m": ("av",),
}
"""Libraries by reader."""


@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_refused_in_a_line(path: Path) -> None:
    for library in NEEDED.get(path.parent.name, ()):
        pytest.importorskip(library)
    read(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", READERS)
def test_nobodys_bytes_bring_an_error_of_ours(name: str) -> None:
    for library in NEEDED.get(name, ()):
        pytest.importorskip(library)
    look(name, 30)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, "9" * 5000, '{"a": ' + "1" * 20 + "}", "{", b"\xff", "[" * 40 + "]" * 40]
)
def test_json_that_costs_too_much_is_malformed(text: str | bytes) -> None:
    with pytest.raises(schema.Malformed):
        schema.parse_json(text)


@pytest.mark.parametrize("name", ["great-wave", "My Model (1)", "写真", "café", "a" * 200, "x.y_z-1"])
def test_names_of_any_alphabet_are_names(name: str) -> None:
    assert schema.name(name, "name") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "a\\b", "a\0b", "\x1b[2J", "a\nb", "\ud800", "\u202ea", "a" * 201, 3, None]
)
def test_what_leads_elsewhere_or_orders_a_terminal_is_no_name(name: object) -> None:
    with pytest.raises(schema.Malformed, match="'name' is"):
        schema.name(name, "name")


@pytest.mark.parametrize("path", ["model.onnx", "engines/a.plan", "写真.onnx"])
def test_paths_inside_of_a_package(path: str) -> None:
    assert schema.inner_path(path) == path


@pytest.mark.parametrize(
    "path", ["/a", "../a", "a/../../b", "a\\b", "C:a", "C:/a", "", ".", "a\0b", "x" * 5000, "\x1b[2J"]
)
def test_paths_that_leave_a_package_are_malformed(path: str) -> None:
    with pytest.raises(schema.Malformed):
        schema.inner_path(path)
