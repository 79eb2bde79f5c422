"""A static site of models: a page, the graphs, and the library or where it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto.errors import MissingDependency, OptionError, OutputError
from impasto.package.spec import PERCEPTUAL
from impasto.package.summary import lead
from impasto.runtime.loading.source import Source, resolve

from . import library

PAGES = Path(__file__).parent / "pages"
_COPIED = ("page.css", "page.js", "runtime.js")


@dataclass(frozen=True)
class Site:
    """What was written."""

    folder: Path
    models: tuple[str, ...]
    bytes: int
    """Size of all files together."""
    offline: bool

    def __str__(self) -> str:
        where = (
            "with the library beside it"
            if self.offline
            else f"which loads {library.PACKAGE} {library.VERSION} from a CDN"
        )
        return f"wrote {self.folder}/index.html for {', '.join(self.models)}, {self.bytes / 1e6:.1f} MB, {where}"


def make_site(models: Sequence[str], folder: Path, *, offline: bool = False, ort: Path | None = None) -> Site:
    """Write a page that runs these packages (by path or name) on its visitors' devices.

    folder: new, empty, or a site of before, which is written over. offline: copy ONNX Runtime Web beside the page instead of naming a
    CDN. ort: its unpacked package, for `offline`; None fetches it by npm. FP32 graphs are taken, which every browser runs.
    Raises OptionError, OutputError, MissingDependency, and what `resolve` raises.
    """
    sources = [_source(model) for model in models]
    names = [source.manifest.spec.name for source in sources if source.manifest]
    if not names or len(set(names)) < len(names):
        raise OptionError(f"got {', '.join(names) or 'no models'}; name one or more, each once")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "runtime.js").is_file():
        raise OptionError(f"{folder} holds other files than a site of impasto web; choose a new folder with -o")
    page = _page([_described(source) for source in sources], offline)
    try:
        if offline:
            library.fetch(folder / "ort", ort)
        for source in sources:
            _copy_graphs(source, folder)
        for file in _COPIED:
            shutil.copyfile(PAGES / file, folder / file)
        (folder / "index.html").write_text(page, encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another folder with -o") from None
    return Site(folder, tuple(names), size, offline)


def _source(model: str) -> Source:
    source = resolve(model)
    if source.manifest is None:
        raise OptionError(f"{source.path} is a graph by itself; make a package of it first: impasto export")
    if source.manifest.spec.task == PERCEPTUAL or source.manifest.spec.size.fixed:
        raise OptionError(
            f"{source.path} draws no pictures of any size, which is what a visitor brings; choose another model"
        )
    return source


def _described(source: Source) -> dict[str, Any]:
    assert source.manifest
    spec = source.manifest.spec
    place = f"models/{spec.name}"
    graphs = {"model": source.graph_path, "context": source.context_path}
    return {
        "name": spec.name,
        "about": lead(source.path),
        "spec": {
            "scale": spec.scale,
            "size": {"multiple": spec.size.multiple, "minimum": spec.size.minimum},
            "border": spec.border,
            "receptive_field": spec.receptive_field,
            "thumbnail": spec.thumbnail,
            "styles": list(spec.styles),
            "strength": spec.strength or 0,
            "working_size": spec.working_size or 0,
        },
        **{role: {"address": f"{place}/{path.name}"} if path else None for role, path in graphs.items()},
    }


def _copy_graphs(source: Source, folder: Path) -> None:
    assert source.manifest
    place = folder / "models" / source.manifest.spec.name
    place.mkdir(parents=True, exist_ok=True)
    for path in (source.graph_path, source.context_path):
        if path:
            shutil.copyfile(path, place / path.name)


def _page(models: list[dict[str, Any]], offline: bool) -> str:
    try:
        import jinja2
    except ImportError:
        raise MissingDependency("pages are made with jinja2: pip install 'impasto[cli]'") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    modules = {
        library.address(file, offline): hashed for file, hashed in library.FILES.items() if file.endswith(".mjs")
    }
    site = {"models": models, "library": library.addresses(offline)}
    return environment.get_template("index.html").render(site=site, importmap={"imports": {}, "integrity": modules})
