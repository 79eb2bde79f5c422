"""What can go wrong, one class per thing a caller would want to catch.

Every message says what happened, what was expected and what to do; the command line prints it as it is.
"""

from __future__ import annotations

import shlex
from pathlib import Path


class ImpastoError(Exception):
    """The base of every error that Impasto raises on purpose."""


_LONGEST_LINE = 500
"""Characters of another library's words: some repeat what a file holds."""


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, shortened; its kind where it says nothing, as an EOFError does."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].strip()
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


class ImpastoWarning(UserWarning):
    """Something that works, and may not be what was wanted; the command line prints its message as a note."""


class PictureError(ImpastoError):
    """A picture or video file that cannot be read, or has a form that no model takes."""


class PictureTooLarge(PictureError):
    """The picture has more pixels than are decoded."""


class OutputError(ImpastoError):
    """A file that cannot be written: no permission, no space, no such folder, or it exists already."""


class ShapeError(ImpastoError, ValueError):
    """An array or tensor of the wrong shape, dtype or size."""


class OptionError(ImpastoError, ValueError):
    """An option or argument outside of what it may be."""


class ModelNotFound(ImpastoError):
    """No model of that name or at that path."""


class PackageError(ImpastoError):
    """A model package that is incomplete, altered, or written by a newer Impasto."""


class CheckpointError(ImpastoError):
    """A checkpoint that cannot be read, or does not fit the network that it is loaded into."""


def install(*extras: str) -> str:
    """The command that installs these extras: of the checkout that this runs from, where it runs from one."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "pyproject.toml").exists():
        return f"pip install 'impasto[{','.join(extras)}]'"
    return f"pip install -e {shlex.quote(f'{_seen_from_here(checkout)}[{chr(44).join(extras)}]')}"


def _seen_from_here(checkout: Path) -> str:
    """A dot in the checkout itself, elsewhere its path."""
    try:
        return "." if checkout == Path.cwd().resolve() else str(checkout)
    except OSError:  # the working folder is gone
        return str(checkout)


class MissingDependency(ImpastoError):
    """An optional library is not installed; the message holds the command that installs it."""


_EXTRAS = {
    **dict.fromkeys(("typer", "rich", "PIL", "jinja2"), "cli"),
    **dict.fromkeys(("torch", "onnxscript", "safetensors", "lightning_fabric", "tensorboard"), "train"),
    "onnx": "export",
    "onnxruntime": "cpu",
    "av": "video",
    **dict.fromkeys(("ray", "pyarrow"), "ray"),
    "imagecodecs": "deep",
    "tifffile": "deep",
    "pydicom": "medical",
}
"""Modules that are not Impasto's own -> the extra that brings them."""


def missing(error: ModuleNotFoundError) -> MissingDependency | None:
    """The error with the command that installs the library; None for a library that no extra brings."""
    name = (error.name or "").split(".")[0]
    return MissingDependency(f"{name} is not installed: {install(_EXTRAS[name])}") if name in _EXTRAS else None


class BackendError(ImpastoError):
    """A backend cannot load this model, cannot run here, or failed while running."""


class NoNumbers(BackendError):
    """A network gave values that are no numbers (NaN) for a picture; they would be black in a file."""


class EngineMismatch(BackendError):
    """An engine made for another GPU, TensorRT version or product; the message holds the command that builds a fitting one."""


class TookTooLong(ImpastoError):
    """A graph that was given a time limit gave nothing within it."""


class ExportError(ImpastoError):
    """A network or graph that cannot be written as a canonical ONNX model."""


class PrecisionError(ExportError):
    """A graph that cannot take a precision: wrong operators, an overflow, or a budget that nothing holds."""


class PrecisionMismatch(ExportError):
    """An engine whose layers do not compute in the precision that was asked for."""


class CheckFailed(ImpastoError):
    """Two artifacts that must draw the same picture do not."""


class TrainingError(ImpastoError):
    """Training data that cannot be used, or a training run that cannot go on."""


class KernelError(ImpastoError):
    """A CUDA kernel that cannot be loaded or launched here."""
