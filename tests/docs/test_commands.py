"""Every command of the documents is one that the command line takes; those of the README and the guides run, on tiny pictures."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from PIL import Image
from support.command_line import cli
from support.documents import DOCUMENTS, GUIDES, blocks, commands
from support.external_graphs import restorer
from support.small_models import REPOSITORY, picture
from support.small_training import photo
from support.videos import moving, write_clip
from typer.core import TyperGroup

from impasto import images
from impasto.cli.app import app

pytest.importorskip("torch")


def found(documents: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Document and command, in order."""
    for document in documents:
        for script in blocks(document, "sh"):
            for words in commands(script):
                yield document, words


def verb(words: list[str]) -> tuple[typer.core.TyperCommand, typer.Context, list[str]]:
    """The verb that the words after `impasto` name, its context, and the words after it."""
    command, context = typer.main.get_command(app), None
    context = typer.Context(command, info_name="impasto")
    rest = list(words)
    while isinstance(command, TyperGroup):
        name = rest.pop(0)
        inner = command.get_command(context, name)
        assert inner, f"there is no verb {name}"
        command, context = inner, typer.Context(inner, info_name=name, parent=context)
    return command, context, rest


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_command_line_takes_every_command(document: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for _, words in found([document]):
        program, *rest = words
        if program == "impasto":
            command, context, rest = verb(rest)
            try:
                command.make_context(command.name, rest, parent=context.parent)
            except Exception as error:
                wrong.append(f"{' '.join(words)}: {error}")
        elif rest[:1] == ["-m"]:
            if not importlib.util.find_spec(rest[1]):
                wrong.append(f"{' '.join(words)}: no such module")
        elif not (REPOSITORY / rest[0]).is_file():
            wrong.append(f"{' '.join(words)}: no such file")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_options_in_running_text_exist(document: Path) -> None:
    """Commands within a line may leave arguments out, but name no option that a verb has not."""
    wrong = []
    for text in re.findall(r"(?<!`)`(impasto [a-z][^`]*)`(?!`)", document.read_text(encoding="utf-8")):
        words = text.split()[1:]
        names = {command.name for command in typer.main.get_command(app).commands.values()}
        if words[0] not in names or (words[0] in ("train", "cache") and len(words) < 2):
            continue
        if words[0] == "train" and words[1] not in ("style", "restore", "distill"):
            continue
        command, context, rest = verb(words)
        known = {flag for parameter in command.get_params(context) for flag in parameter.opts}
        wrong += [f"{text}: {word}" for word in rest if re.fullmatch(r"--[a-z][a-z-]*", word) and word not in known]
    assert not wrong, wrong


SMALL = {
    ("train", "style"): "--steps 1 --crop 64 --batch 1 --backbone efficientnet-lite0 --held-out 0.3",
    ("bench",): "--iterations 1 --warmup 0",
    ("compare",): "--rounds 1",
}
"""What makes a command cheap: options added at its end, where they replace those before."""

NOT_RUN = {
    "tensorrt": "needs a GPU",
    "ENGINE.plan": "needs an engine",
    "vgg16": "downloads 528 MB",
    "-": "reads or writes a pipe",
    "--serve": "serves until Ctrl-C",
    **dict.fromkeys(("--ray", "serve"), "starts Ray; tests/batch/test_ray.py runs it"),
    "build": "tests/export/tensorrt builds engines",
    **dict.fromkeys(("denoise,precision=int8", "my-denoise"), "needs graphs that quantize makes in minutes"),
    "--energy": "needs a sensor of energy",
    "my-wave": "needs FP16 and INT8 graphs of a shipped network, which take minutes",
    "try": "the command after it is the same with more steps",
    "distill": "needs a teacher",
    **dict.fromkeys(("xray.dcm", "ct.dcm", "series.dcm", "scans/*.dcm"), "tests/medical draws DICOM files"),
    "--offline": "downloads 33 MB; tests/web runs it",
    "--pairs": "tests/training/data/test_pairs.py trains on pairs",
}
"""Words of a command that is parsed alone, and why."""

TOGETHER = [
    ({"eval", "--painting"}, "needs VGG16, 528 MB"),
    ({"run", "--painting"}, "needs VGG16, 528 MB"),
    *(({"quantize", name}, "a shipped network takes minutes") for name in ("denoise", "great-wave")),
]
"""The same for words that stand in one command."""


def reason_not_to_run(document: Path, words: list[str], lacking: set[str]) -> str | None:
    """Why this command is parsed alone. lacking: what a command above would have made."""
    if document.name != "README.md" and words[0] == "train":
        return "training takes half a minute, and the README's is run"
    if any(name in lacking for word in words for name in (word, word.split(",")[0])):
        return "needs what a command above makes"
    return next(
        (why for some, why in [*(({word}, why) for word, why in NOT_RUN.items()), *TOGETHER] if some <= set(words)),
        None,
    )


def made_by(words: list[str]) -> set[str]:
    """The names under which later commands find what this one makes."""
    made = {words[words.index("-o") + 1]} if "-o" in words else set()
    if words[0] == "train":
        made |= {
            words[2],
            f"runs/{words[2]}/checkpoint.safetensors",
            *(f"{output}/checkpoint.safetensors" for output in made),
        }
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A folder with the files that the guides speak of, all of them tiny; the working folder."""
    for name in ("photos", "photos/below", "cleaned"):
        (tmp_path / name).mkdir()
    for number in range(4):
        Image.fromarray(photo(96, 112, number)).save(tmp_path / "photos" / f"{number}.jpg")
    for name in ("unseen", "album"):
        shutil.copytree(tmp_path / "photos", tmp_path / name)
    Image.fromarray(photo(64, 72, 5)).save(tmp_path / "photos" / "below" / "5.jpg")
    for number, name in enumerate(("photo.jpg", "other.jpg", "holes.png", "painting.jpg", "other-painting.jpg")):
        Image.fromarray(picture(64, 80, number)).save(tmp_path / name)
    gray = np.random.default_rng(0).integers(0, 1 << 16, (64, 72), np.uint16)
    for name in ("scan.png", "scan.tif", "slices.npy"):
        images.write(tmp_path / name, gray)
    for name in ("clip.mp4", "other.mov"):
        write_clip(tmp_path / name, moving(3))
    onnx.save(restorer().model(), str(tmp_path / "other.onnx"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: path.stem)
def test_commands_of_a_guide_run_one_after_another(document: Path, folder: Path) -> None:
    lacking: set[str] = set()
    ran = 0
    for program, *words in (words for _, words in found([document])):
        if program != "impasto":
            continue
        if reason_not_to_run(document, words, lacking):
            lacking |= made_by(words)
            continue
        words = [re.sub(r"^(\d+x\d+|1080p)$", "32x48", word) for word in words]
        small = next((options for start, options in SMALL.items() if tuple(words[: len(start)]) == start), "")
        code, _, stderr = cli(*words, *small.split())
        assert code == 0, f"impasto {' '.join(words)} {small}\n{stderr}"
        ran += 1
    if not ran:
        pytest.skip("no command here runs without a GPU or a download")
