"""From a checkpoint, or a backbone that training uses, to a model package."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from impasto._version import __version__
from impasto.errors import MissingDependency, OptionError, install
from impasto.files import sha256
from impasto.images.sizes import LEAST_WORKING_SIZE
from impasto.package.manifest import CHECKPOINT, CONTEXT, MODEL, Manifest
from impasto.package.writer import NewFile, check_name, check_target, same_file, write_package

if TYPE_CHECKING:
    from impasto.training.checkpoint import Checkpoint


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    with_strength: bool = False,
    working_size: int | None = None,
) -> Path:
    """Turn a checkpoint into a model package that `impasto.load` takes.

    A package is a checkpoint itself: its graphs hold the weights as training made them. Where they do not (folding changed
    weights, or two that are equal became one), the package holds the checkpoint too, in our format.

    Args:
        checkpoint: a .safetensors file of `impasto train`, another package, or a restorer of another project that spandrel reads.
        folder: where the package goes; by default the checkpoint's own folder, for a restorer of another project a new one beside it.
        name: the model's; by default what the checkpoint says.
        with_strength: let a restorer that was trained without a strength be asked for one from 0 to 1, which needs no training.
        working_size: of a stylizer, in pixels, where it is to have another than its recipe says.

    Returns:
        The package's folder.

    Raises:
        CheckpointError: for a checkpoint that cannot be read.
        ExportError: for a network that cannot become a graph.
        OptionError: for a name, a folder or options that do not fit.
        OutputError: where the package cannot be written.
        MissingDependency: without torch.

    Example:
        >>> from impasto.export import export_checkpoint
        >>> package = export_checkpoint(checkpoint, folder / "mine")
        >>> (package / "model.onnx").is_file()
        True
    """
    checkpoint = Path(checkpoint)
    try:
        import impasto.training.checkpoint as checkpoints
    except ImportError as error:
        raise _missing("a checkpoint", error) from None
    loaded = checkpoints.load(checkpoint)
    lent = _with_strength(loaded) if with_strength else loaded
    if working_size is not None:
        lent = _with_working_size(lent, working_size)
    name = check_name(name or loaded.name)
    if folder is None:
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent if loaded.ours else checkpoint.parent / name
    target = Path(folder)
    in_place = loaded.ours and (same_file(checkpoint, target) or same_file(checkpoint, target / CHECKPOINT))
    check_target(target, None if in_place else name, () if loaded.ours else (checkpoint,))
    if loaded.ours and lent is loaded and checkpoint.is_file():
        return _export_ours(loaded, checkpoint, target, name)
    with tempfile.TemporaryDirectory() as temporary:
        ours = Path(temporary) / CHECKPOINT
        checkpoints.save_checkpoint(
            ours, lent.network, name=name, task=lent.task, recipe=lent.recipe, quality=lent.quality
        )
        return _export_ours(checkpoints.load(ours), ours, target, name)


def _missing(what: str, error: ImportError) -> MissingDependency:
    """Says which extra brings the library that could not be imported."""
    library, extra = ("onnx", "export") if (error.name or "").split(".")[0] == "onnx" else ("torch", "train")
    return MissingDependency(f"exporting {what} needs {library} ({error}): {install(extra)}")


def _with_strength(loaded: Checkpoint) -> Checkpoint:
    """The checkpoint with a network that takes a strength from 0 to 1. Raises OptionError where the network cannot."""
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
    """The checkpoint with a recipe that names the working size. Raises OptionError for another network, and for a wrong size."""
    if loaded.task != "stylize":
        raise OptionError(f"a working size is for stylizers, and {loaded.name} is a network for {loaded.task}")
    if pixels < LEAST_WORKING_SIZE:
        raise OptionError(f"working size {pixels}: wanted at least {LEAST_WORKING_SIZE} pixels")
    return replace(loaded, recipe={**loaded.recipe, "working_size": pixels})


def _export_ours(loaded: Checkpoint, checkpoint: Path, target: Path, name: str) -> Path:
    """Write the package of a checkpoint file in our format. Returns its folder."""
    from impasto.export.checks.backends import check_backends

    from . import from_torch as canonical
    from .graph.float_ends import float_files
    from .graph.helpers import graph_file

    network = loaded.network.folded()
    spec = replace(canonical.spec_of(network, name, loaded.task), working_size=loaded.recipe.get("working_size"))
    graphs = {MODEL: canonical.export_model(network, spec)}
    if spec.thumbnail:
        graphs[CONTEXT] = canonical.export_context(network)
    held = canonical.hold_weights(graphs.values(), loaded.network)
    about = {"architecture": network.architecture, "config": network.config} if held else {}
    manifest = Manifest(spec, (), loaded.recipe, loaded.quality, about, __version__)
    files = [graph_file(name, graph) for name, graph in graphs.items()]
    files += float_files(spec.name, graphs[MODEL], files[0], spec.size)
    manifest = replace(manifest, backends=check_backends(manifest, files))
    own = [] if held else [NewFile(CHECKPOINT, "checkpoint", checkpoint, "fp16")]
    return write_package(target, manifest, [*files, *own])


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
        from .graph.helpers import graph_file
    except ImportError as error:
        raise _missing("a backbone", error) from None
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
    return write_package(target, Manifest(spec, (), recipe, impasto=__version__), [graph_file(MODEL, graph)])
