"""The models that ship, and the commands that make them.

usage: python -m impasto.training.zoo [NAME] [--shared FOLDER] [--models FOLDER] [--run]
Without a name, lists them. With one, prints its command lines, ready for a shell; with --run, does what they say, one after
the other, until one fails. --shared holds data/photos/{train,eval}, data/styles and weights; the last command writes the
package into --models.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from impasto.errors import ImpastoError, OptionError

VGG = "weights/vgg16_caffe_relu4_3.safetensors"


@dataclass(frozen=True)
class Run:
    """One call of `impasto train`, the photos and the output left away."""

    options: str
    """As typed in a shell."""
    start: str | None = None
    """A model of the zoo, in --models, that it begins with."""


@dataclass(frozen=True)
class Recipe:
    """How a model of the zoo is made and judged."""

    about: str
    runs: tuple[Run, ...]
    """Each goes on from the one before."""
    paintings: tuple[str, ...] = ()
    """Files of data/styles, which name the styles where there are several; none for a restorer."""
    damages: tuple[str, ...] = ()
    """What a restorer is judged by; the training's own kinds first."""

    def commands(self, name: str, shared: Path, models: Path) -> list[list[str]]:
        """Train, export, judge."""
        commands, before = [], None
        for number, run in enumerate(self.runs, 1):
            output = Path("runs") / (name if number == len(self.runs) else f"{name}-{number}")
            start = before or (models / run.start if run.start else None)
            commands.append(
                ["train", *self._task(name, shared), "--photos", str(shared / "data/photos/train"),
                 *shlex.split(run.options), *(["--start", str(start)] if start else []), "-o", str(output)]
            )  # fmt: skip
            before = output / "checkpoint.safetensors"
        commands.append(["export", str(before), "-o", str(models / name)])
        for said, judges in self._judges(shared):
            report = Path("runs") / name / f"quality{said}"
            commands.append(
                ["eval", str(models / name), "--photos", str(shared / "data/photos/eval"), *judges,
                 "--json", f"{report}.json", "--sheet", f"{report}.png"]
            )  # fmt: skip
        return commands

    def _task(self, name: str, shared: Path) -> list[str]:
        if not self.paintings:
            return ["restore", name]
        return ["style", name, *(word for file in self.paintings for word in _painting(file, shared)), *_vgg(shared)]

    def _judges(self, shared: Path) -> Iterator[tuple[str, list[str]]]:
        """The arguments of each evaluation, and what to call it."""
        if not self.paintings:
            yield "", [word for damage in self.damages for word in ("--degrade", damage)]
        for file in self.paintings:
            style = Path(file).stem
            one = [*_painting(file, shared), *_vgg(shared)]
            yield (f"-{style}", [*one, "--style", style]) if len(self.paintings) > 1 else ("", one)


def _painting(file: str, shared: Path) -> list[str]:
    return ["--painting", str(shared / "data/styles" / file)]


def _vgg(shared: Path) -> list[str]:
    return ["--vgg", str(shared / VGG)]


def _style(about: str, painting: str, *more: Run) -> Recipe:
    """From great-wave, which has learnt to draw: what is new is the painting. Without `shift` a step takes half the time."""
    first = Run("--crop 256 --batch 2 --steps 3500 --learning-rate 7e-4 --weight shift=0 --weight grid=5", "great-wave")
    return Recipe(about, (first, *more), (painting,))


_WITHOUT_GRID = Run("--crop 384 --batch 1 --steps 600 --learning-rate 3e-4 --weight shift=0 --weight grid=300 --seed 2")
"""Nearly whole pictures, and no pattern of cells."""


def _restorer(about: str, options: str, *damages: str, more: tuple[str, ...] = ()) -> Recipe:
    """Fine-tuned from the denoiser, with crops as small as two CPU cores like them. more: options of further runs."""
    first, *others = (f"--degrade {damages[0]} --batch 8 {run}" for run in (options, *more))
    return Recipe(about, (Run(first, "denoise"), *map(Run, others)), damages=damages)


ZOO = {
    "great-wave": Recipe(
        "Hokusai, The Great Wave off Kanagawa",
        # Wide crops first, then more and smaller ones.
        (
            Run("--crop 448 --batch 3 --steps 13000 --cuda-graph"),
            Run("--crop 384 --batch 4 --steps 6750 --cuda-graph"),
            Run("--crop 256 --batch 8 --steps 7500 --cuda-graph --weight grid=5"),
            # Nearly whole pictures, one a step, for a CPU; without `shift`, which costs style and by now has done its work.
            Run("--crop 384 --batch 1 --steps 7000 --learning-rate 4e-4 --weight shift=0 --weight grid=5 --seed 4"),
            Run("--crop 384 --batch 1 --steps 800 --learning-rate 2e-4 --weight shift=0 --weight grid=300 --seed 5"),
        ),
        ("great-wave.jpg",),
    ),
    "starry-night": _style(
        "van Gogh, The Starry Night", "starry-night.jpg",
        # Takes most of the grid away, and some of the brush strokes.
        Run("--crop 256 --batch 2 --steps 600 --learning-rate 4e-4 --weight shift=40 --weight grid=5"),
        Run("--crop 384 --batch 1 --steps 1000 --learning-rate 3e-4 --weight shift=0 --weight grid=300 --seed 3"),
    ),
    "composition-viii": _style("Kandinsky, Composition VIII", "composition-viii.jpg", _WITHOUT_GRID),
    "ejiri": _style("Hokusai, Ejiri in Suruga Province: a woodcut look", "ejiri.jpg", _WITHOUT_GRID),
    "four-styles": Recipe(
        "the four above in one network, to mix, with a strength slider",
        (
            Run("--crop 256 --batch 1 --steps 5000 --learning-rate 7e-4 --weight shift=0 --weight grid=20", "great-wave"),
            Run("--crop 384 --batch 1 --steps 1000 --learning-rate 3e-4 --weight shift=0 --weight grid=300 --seed 2"),
        ),
        ("great-wave.jpg", "starry-night.jpg", "composition-viii.jpg", "ejiri.jpg"),
    ),
    "denoise": Recipe(
        "blind noise", (Run("--degrade noise:0-55 --steps 16500"),), damages=("noise:0-75", "sensor:50-2000")
    ),
    "deblur": _restorer(
        "camera shake to 15 pixels, and noise", "--crop 128 --steps 12000 --learning-rate 5e-4",
        "shake:15+noise:0-5", "shake:15-25+noise:0-5", "defocus:1-4+noise:0-5",
        more=("--crop 128 --steps 6000 --learning-rate 4e-4", "--crop 128 --steps 30000 --learning-rate 5e-4 --seed 1"),
    ),
    "inpaint": _restorer(
        "missing pixels to 30 %, painted magenta", "--crop 96 --steps 16000 --learning-rate 1e-3", "missing:30", "missing:30-50",
        more=("--crop 96 --steps 10000 --learning-rate 6e-4 --seed 1",),
    ),
    "upscale-x2": _restorer(
        "twice the sides", "--crop 64 --steps 16000 --learning-rate 1e-3", "down:2", "down:2+noise:0-10"
    ),
    "dejpeg": _restorer(
        "JPEG of quality 10 to 40", "--crop 96 --steps 8000 --learning-rate 5e-4",
        "jpeg:10-40", "jpeg:5-90", "jpeg:10-40+noise:0-10",
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--run", action="store_true")
    given = parser.parse_args(arguments)
    try:
        if given.name is None:
            for name, recipe in ZOO.items():
                print(f"{name:<18}{recipe.about}")
            return
        for command in commands(given.name, given.shared, given.models):
            print(shlex.join(["impasto", *command]), flush=True)
            if given.run and (
                code := subprocess.run([sys.executable, "-m", "impasto", *command], check=False).returncode
            ):
                sys.exit(code)
    except ImpastoError as error:
        sys.exit(f"error: {error}")


def commands(name: str, shared: Path, models: Path) -> list[list[str]]:
    """The arguments of `impasto` that make a model, in order. Raises OptionError for one that is not in the zoo."""
    if name not in ZOO:
        raise OptionError(f"no recipe for {name!r}; choose one of {', '.join(ZOO)}")
    return ZOO[name].commands(name, shared, models)


if __name__ == "__main__":
    main()
