"""Model packages: written whole, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx

from impasto._version import __version__
from impasto.errors import MissingDependency, OptionError, PackageError
from impasto.files import atomic_path, make_folder, sha256
from impasto.runtime.manifest import MANIFEST, Manifest, PackageFile, read_manifest
from impasto.runtime.spec import ModelSpec

MODEL, CONTEXT, CHECKPOINT = "model.onnx", "context.onnx", "checkpoint.safetensors"


def export_checkpoint(
    checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None, *, name: str | None = None
) -> Path:
    """Turn a checkpoint into a model package that `impasto.load` takes.

    checkpoint: a .safetensors file of `impasto train`, another package, or a restorer of another project that spandrel reads.
    folder: where the package goes; by default the checkpoint's own folder, for a restorer of another project a new one beside it.
    name: the model's; by default what the checkpoint says. Returns the package's folder.

    A package is a checkpoint itself: its graphs hold the weights as training made them. Where they do not (folding changed
    weights, or two that are equal became one), the package holds the checkpoint too, in our format.
    Raises CheckpointError, ExportError, OutputError, OptionError, or MissingDependency without torch.
    """
    checkpoint = Path(checkpoint)
    try:
        import impasto.training.checkpoint as checkpoints

        from . import onnx as canonical
    except ImportError as error:
        raise MissingDependency(f"exporting a checkpoint needs torch ({error}): pip install 'impasto[train]'") from None
    loaded = checkpoints.load(checkpoint)
    name = check_name(name or loaded.name)
    if not loaded.ours or checkpoint.is_dir():
        with tempfile.TemporaryDirectory() as temporary:
            ours = Path(temporary) / CHECKPOINT
            checkpoints.save_checkpoint(
                ours, loaded.network, name=name, task=loaded.task, recipe=loaded.recipe, quality=loaded.quality
            )
            return export_checkpoint(ours, folder or (checkpoint if checkpoint.is_dir() else checkpoint.parent / name))
    network = loaded.network.folded()
    spec = canonical.spec_of(network, name, loaded.task)
    graphs = {MODEL: canonical.export_model(network, spec)}
    if spec.thumbnail:
        graphs[CONTEXT] = canonical.export_context(network)
    held = canonical.hold_weights(graphs.values(), loaded.network)
    about = {"architecture": network.architecture, "config": network.config} if held else {}
    target = make_folder(checkpoint.parent if folder is None else folder)
    write_package(
        target, spec, graphs, None if held else checkpoint, recipe=loaded.recipe, quality=loaded.quality, network=about
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

        from . import onnx as canonical
    except ImportError as error:
        raise MissingDependency(f"exporting a backbone needs torch ({error}): pip install 'impasto[train]'") from None
    network = backbones.load_backbone(backbone, weights)
    file = backbones.find(type(network), weights)
    spec = canonical.spec_of_backbone(network, backbone)
    graph = canonical.export_backbone(network, spec)
    recipe = {
        "backbone": str(network),
        "style_layers": list(network.style_layers),
        "weights": {"file": file.name, "sha256": sha256(file)},
    }
    target = make_folder(backbone if folder is None else folder)
    write_package(target, spec, {MODEL: graph}, None, recipe=recipe, quality={})
    return target


def write_package(
    folder: Path,
    spec: ModelSpec,
    graphs: dict[str, onnx.ModelProto],
    checkpoint: Path | None,
    *,
    recipe: dict[str, Any],
    quality: dict[str, Any],
    network: dict[str, Any] | None = None,
) -> None:
    """Write the graphs, a copy of the checkpoint if one is given, and the manifest into `folder`. Raises OutputError.

    All temporary files are complete before the first one is renamed, and the manifest is renamed last: a failure
    leaves the old package, and a crash between two renames leaves one whose hashes say so. Graphs of other precisions that
    were made of an older model are removed.
    """
    stale = _other_precisions(folder)
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
        manifest = Manifest(spec, tuple(files), recipe, quality, network or {}, __version__)
        manifest_path.write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")
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


def _other_precisions(folder: Path) -> list[Path]:
    """The FP16 and INT8 graphs of the package that lies in `folder` already, if one does."""
    try:
        files = read_manifest(folder).files
    except PackageError:
        return []
    return [folder / file.name for file in files if file.role == "model" and file.precision != "fp32"]


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)
