"""Model packages: written whole, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from impasto._version import __version__
from impasto.errors import MissingDependency, OptionError, OutputError, PackageError, install
from impasto.export.tensorrt.cache import locked
from impasto.files import atomic_path, make_folder, sha256, uninterrupted
from impasto.images.sizes import LEAST_WORKING_SIZE
from impasto.package.manifest import LOCK, MANIFEST, BackendCheck, Manifest, PackageFile, read_manifest, write_manifest
from impasto.package.spec import ModelSpec

if TYPE_CHECKING:
    from impasto.training.checkpoint import Checkpoint

MODEL, CONTEXT, CHECKPOINT = "model.onnx", "context.onnx", "checkpoint.safetensors"


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    with_strength: bool = False,
    working_size: int | None = None,
) -> Path:
    """Turn a checkpoint into a model package that `impasto.load` takes.

    checkpoint: a .safetensors file of `impasto train`, another package, or a restorer of another project that spandrel reads.
    folder: where the package goes; by default the checkpoint's own folder, for a restorer of another project a new one beside it.
    name: the model's; by default what the checkpoint says. with_strength: let a restorer that was trained without a strength be asked
    for one from 0 to 1, which needs no training. working_size: of a stylizer, in pixels, where it is to have another than its recipe
    says. Returns the package's folder.

    A package is a checkpoint itself: its graphs hold the weights as training made them. Where they do not (folding changed
    weights, or two that are equal became one), the package holds the checkpoint too, in our format.
    Raises CheckpointError, ExportError, OutputError, OptionError, or MissingDependency without torch.
    """
    checkpoint = Path(checkpoint)
    try:
        import impasto.training.checkpoint as checkpoints
    except ImportError as error:
        raise MissingDependency(f"exporting a checkpoint needs torch ({error}): {install('train')}") from None
    loaded = checkpoints.load(checkpoint)
    lent = _with_strength(loaded) if with_strength else loaded
    if working_size is not None:
        lent = _with_working_size(lent, working_size)
    name = check_name(name or loaded.name)
    if folder is None:
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent if loaded.ours else checkpoint.parent / name
    target = Path(folder)
    in_place = loaded.ours and (_same_file(checkpoint, target) or _same_file(checkpoint, target / CHECKPOINT))
    check_target(target, None if in_place else name, () if loaded.ours else (checkpoint,))
    if loaded.ours and lent is loaded and checkpoint.is_file():
        return _export_ours(loaded, checkpoint, target, name)
    with tempfile.TemporaryDirectory() as temporary:
        ours = Path(temporary) / CHECKPOINT
        checkpoints.save_checkpoint(
            ours, lent.network, name=name, task=lent.task, recipe=lent.recipe, quality=lent.quality
        )
        return _export_ours(checkpoints.load(ours), ours, target, name)


def _with_strength(loaded: Checkpoint) -> Checkpoint:
    """With a network that can be asked for less than it does. Raises OptionError where there is none."""
    from impasto.training.networks import UnetRestorer, build

    network = loaded.network
    if network.strength:
        return loaded
    if not isinstance(network, UnetRestorer):
        learnt = "; train a stylizer with --with-strength" if loaded.task == "stylize" else ""
        raise OptionError(
            f"a strength is put into a unet-restorer, and {loaded.name} is a {network.architecture}{learnt}"
        )
    gated = build(network.architecture, {**network.config, "strength": 1})
    gated.load_state_dict(network.state_dict())
    return replace(loaded, network=gated.eval())


def _with_working_size(loaded: Checkpoint, pixels: int) -> Checkpoint:
    """With a recipe that names it. Raises OptionError for what is no stylizer, and for sizes that cannot be."""
    if loaded.task != "stylize":
        raise OptionError(
            f"a working size is for a stylizer's strokes, and {loaded.name} is a network for {loaded.task}"
        )
    if pixels < LEAST_WORKING_SIZE:
        raise OptionError(f"working size {pixels}: wanted at least {LEAST_WORKING_SIZE} pixels")
    return replace(loaded, recipe={**loaded.recipe, "working_size": pixels})


def _export_ours(loaded: Checkpoint, checkpoint: Path, target: Path, name: str) -> Path:
    """Write the package of a checkpoint file in our format. Returns its folder."""
    from impasto.export.checks.backends import check_backends

    from . import from_torch as canonical

    network = loaded.network.folded()
    spec = replace(canonical.spec_of(network, name, loaded.task), working_size=loaded.recipe.get("working_size"))
    graphs = {MODEL: canonical.export_model(network, spec)}
    if spec.thumbnail:
        graphs[CONTEXT] = canonical.export_context(network)
    held = canonical.hold_weights(graphs.values(), loaded.network)
    about = {"architecture": network.architecture, "config": network.config} if held else {}
    checks = check_backends(spec, graphs, loaded.recipe)
    make_folder(target)
    write_package(
        target,
        spec,
        graphs,
        None if held else checkpoint,
        recipe=loaded.recipe,
        quality=loaded.quality,
        network=about,
        backends=checks,
    )
    return target


def export_perceptual(
    backbone: str, folder: str | os.PathLike[str] | None = None, *, weights: str | os.PathLike[str] | None = None
) -> Path:
    """Turn one of training's backbones into a package for `impasto.runtime.StyleMeter`, which then needs no torch.

    backbone: a name of `impasto.training.backbones.BACKBONES`. folder: where the package goes; by default one of that name in the
    current folder. weights: as `load_backbone` takes them. The package's recipe says which weights it holds.
    Returns the package's folder. Raises OptionError, TrainingError, CheckpointError, ExportError, OutputError, or
    MissingDependency without torch.
    """
    try:
        from impasto.training import backbones

        from . import from_torch as canonical
    except ImportError as error:
        raise MissingDependency(f"exporting a backbone needs torch ({error}): {install('train')}") from None
    target = Path(backbone if folder is None else folder)
    check_target(target, backbone)
    network = backbones.load_backbone(backbone, weights)
    file = backbones.find(type(network), weights)
    spec = canonical.spec_of_backbone(network, backbone)
    graph = canonical.export_backbone(network, spec)
    recipe = {
        "backbone": str(network),
        "style_layers": list(network.style_layers),
        "weights": {"file": file.name, "sha256": sha256(file)},
    }
    make_folder(target)
    write_package(target, spec, {MODEL: graph}, None, recipe=recipe, quality={})
    return target


def check_target(folder: Path, name: str | None, sources: Collection[Path] = ()) -> None:
    """Look, before any work is done, whether a package may be written into `folder`.

    name: the model's; None where whatever package lies there may be replaced. sources: the files that it is made of.
    Raises OptionError where it would take the place of a source or of another model's package, OutputError where the folder cannot
    be made or written.
    """
    check_folder(folder)
    there = _present(folder)
    listed = {file.name for file in there.files} if there else set()
    for file in sorted({MANIFEST, MODEL, CONTEXT, CHECKPOINT} | listed):
        if any(_same_file(source, folder / file) for source in sources):
            raise OptionError(
                f"the package would replace {folder / file}, which it is to be made of; choose another folder with -o"
            )
    if there and name not in (None, there.spec.name):
        raise OptionError(
            f"{folder} holds the package {there.spec.name}, and this one is called {name}; choose another folder with -o, or replace "
            f"it: --name {there.spec.name}"
        )


def check_folder(folder: Path) -> None:
    """Raises OutputError where a folder can neither be written nor made, as far as that is seen beforehand."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"cannot make the folder {folder}: {place} is a file; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{place} cannot be written to; choose another folder with -o, or change its permissions")


def write_package(
    folder: Path,
    spec: ModelSpec,
    graphs: dict[str, onnx.ModelProto],
    checkpoint: Path | None,
    *,
    recipe: dict[str, Any],
    quality: dict[str, Any],
    network: dict[str, Any] | None = None,
    backends: dict[str, BackendCheck] | None = None,
) -> None:
    """Write the graphs, a copy of the checkpoint if one is given, and the manifest into `folder`. Raises OutputError.

    All temporary files are complete before the first one is renamed, and the manifest is renamed last: a failure
    leaves the old package, and a crash between two renames leaves one whose hashes say so. Graphs of an older model that lies
    there, of other precisions or its context, are removed.
    """
    with locked(folder / LOCK):
        stale = _stale(folder, graphs)
        files = []
        with ExitStack() as renames:  # unwinds in reverse: what enters first is renamed last
            manifest_path = renames.enter_context(atomic_path(folder / MANIFEST))
            for file_name, graph in graphs.items():
                path = renames.enter_context(atomic_path(folder / file_name))
                path.write_bytes(graph.SerializeToString(deterministic=True))
                role = "context" if file_name == CONTEXT else "model"
                files.append(PackageFile(file_name, role, sha256(path)))
            if checkpoint is not None:
                if not _same_file(checkpoint, folder / CHECKPOINT):
                    path = renames.enter_context(atomic_path(folder / CHECKPOINT))
                    shutil.copyfile(checkpoint, path)
                files.append(PackageFile(CHECKPOINT, "checkpoint", sha256(checkpoint), "fp16"))
            manifest = Manifest(spec, tuple(files), recipe, quality, network or {}, __version__, backends or {})
            write_manifest(manifest_path, manifest)
            with uninterrupted():
                renames.close()
        for path in stale:
            path.unlink(missing_ok=True)


def check_name(name: str) -> str:
    """The name, if it can be a folder's everywhere. Raises OptionError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise OptionError(
            f"{name!r} cannot be a model's name; use up to 64 lower-case letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name


def _present(folder: Path) -> Manifest | None:
    """Of the package that lies in `folder` already, if one does that can be read."""
    try:
        return read_manifest(folder)
    except PackageError:
        return None


def _stale(folder: Path, graphs: Collection[str]) -> list[Path]:
    """The graphs of the package that lies in `folder` already, but for those that are replaced."""
    there = _present(folder)
    if there is None:
        return []
    return [folder / file.name for file in there.files if file.role in ("model", "context") and file.name not in graphs]


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
