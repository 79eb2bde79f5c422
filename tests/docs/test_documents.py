"""The documents are current: links lead somewhere, files that they name exist, generated pages are what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from support.documents import DOCUMENTS, GENERATED
from support.small_models import REPOSITORY

EVERY = [*DOCUMENTS, *sorted(GENERATED.glob("*.md"))]

FOLDERS = ("benchmarks", "docs", "examples", "export", "impasto", "kernels", "models", "runtime", "tests", "training")


TO_WRITE = {"training/networks/small_restorer.py", "training/degrade/haze.py", "runtime/backends/mine.py"}
"""Files that CONTRIBUTING's examples add."""


def tool(name: str) -> ModuleType:
    """A script of docs/tools as a module."""
    path = REPOSITORY / "docs" / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"docs_tools_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(document: Path) -> set[str]:
    """The names by which headings can be linked to, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def prose(document: Path) -> str:
    """Without blocks of code."""
    return re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("document", EVERY, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: no such heading")
    assert not wrong, wrong


@pytest.mark.parametrize("document", EVERY, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_named_files_exist(document: Path) -> None:
    """`folder/file.py`, and `folder/file.py::test` with its test."""
    wrong = []
    for name in re.findall(r"`([a-z]+/[\w./-]+(?:::\w+)?)`", prose(document)):
        path, _, test = name.partition("::")
        if path.split("/")[0] not in FOLDERS or path in TO_WRITE:
            continue
        target = REPOSITORY / path
        if not target.exists() or (test and f"def {test}" not in target.read_text(encoding="utf-8")):
            wrong.append(name)
    assert not wrong, wrong


def test_what_the_design_says_is_in_a_file_is_in_it() -> None:
    """`folder/file.py`: `name` — the file defines that name."""
    text = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`: `(\w+)`", text)
    assert len(named) >= 4
    for path, name in named:
        assert re.search(
            rf"^(def|class) {name}\b|^{name}\b", (REPOSITORY / path).read_text(encoding="utf-8"), re.MULTILINE
        ), name


@pytest.mark.parametrize("folder", FOLDERS)
def test_documents_that_code_names_exist(folder: str) -> None:
    named = [
        (path, name)
        for path in (REPOSITORY / folder).rglob("*.py")
        if path.name not in ("parser_laws.py", "operators.py")  # which name documents of TensorRT's
        for name in re.findall(r"(?<![\w/.])docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    ]
    wrong = [f"{path.relative_to(REPOSITORY)}: {name}" for path, name in named if not (REPOSITORY / name).is_file()]
    assert not wrong, wrong


def test_the_reference_is_what_the_command_line_says() -> None:
    made = tool("reference").pages()
    assert {path.name for path in GENERATED.glob("*.md")} == set(made), "run `make reference`"
    stale = [name for name, text in made.items() if (GENERATED / name).read_text(encoding="utf-8") != text]
    assert not stale, f"run `make reference`: {', '.join(stale)}"


def test_every_model_is_in_the_readme_with_its_picture() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    thumbnails = tool("thumbnails")
    for name, source in thumbnails.sources().items():
        assert f"](models/{name}/README.md)" in readme
        assert f"](docs/pictures/thumbnails/{name}.jpg)" in readme
        small, full = Image.open(thumbnails.FOLDER / f"{name}.jpg"), Image.open(source)
        assert small.size == (thumbnails.WIDTH, round(full.height * thumbnails.WIDTH / full.width))
        assert (thumbnails.FOLDER / f"{name}.jpg").stat().st_size < 40_000


def test_thumbnails_show_what_the_models_pictures_show() -> None:
    """Within what JPEG changes; `make thumbnails` makes them anew."""
    thumbnails = tool("thumbnails")
    for name, source in thumbnails.sources().items():
        small = Image.open(thumbnails.FOLDER / f"{name}.jpg").convert("L").resize((16, 16), Image.Resampling.BOX)
        full = Image.open(source).convert("L").resize((16, 16), Image.Resampling.BOX)
        differences = [abs(one - other) for one, other in zip(small.tobytes(), full.tobytes(), strict=True)]
        assert max(differences) < 12, name


def test_every_guide_and_page_is_on_the_start_page() -> None:
    start = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    for path in sorted((REPOSITORY / "docs" / "guides").glob("*.md")):
        assert f"(guides/{path.name})" in start
    for path in sorted((REPOSITORY / "docs").glob("*.md")):
        assert path.name == "README.md" or f"({path.name})" in start


OLD_WORDS = re.compile(
    r"\b(stranger\w*|islands?|lanes?|dressed|flavours?|spared|sparing|famil(?:y|ies))\b", re.IGNORECASE
)
"""Words that the field has others for: docs/glossary.md."""

OURS = [path for path in DOCUMENTS if path.relative_to(REPOSITORY).parts[0] not in ("models", "tests", "CHANGELOG.md")]


@pytest.mark.parametrize("document", OURS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_use_the_glossarys_words(document: Path) -> None:
    assert not OLD_WORDS.findall(prose(document))
