"""The models that ship, and the commands that train them further.

usage: python -m impasto.training.zoo [NAME] [--gpu] [--run] [--data FOLDER] [--vgg FILE] [--models FOLDER]
Without a name, lists them. With one, prints its command lines, ready for a shell: train, export, judge. With --run, does what they say,
one after the other, until one fails; again, it goes on where it stopped: finished runs are skipped, an unfinished one is resumed.

Recipes are for two CPU cores; --gpu takes those for a GPU, of nine minutes a call. --data, or $IMPASTO_DATA, holds photos/* and styles;
--vgg, or $IMPASTO_VGG, is the file of VGG16's weights that stylizers need. Training begins with the package in --models, and the last
command writes the new one there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from impasto.datasets import data_folder, missing
from impasto.errors import ImpastoError, OptionError
from impasto.training.loop.run_folder import CHECKPOINT, is_finished, is_unfinished

VGG_VARIABLE = "IMPASTO_VGG"
GPU_MINUTES = 9
"""Minutes of steps; a GPU that is lent for ten has to read photos and to judge, too."""

CLEAN = ("photos/train", "photos/bsds", "photos/imagenet-half")
"""Photos that can be the truth for a restorer."""

ALL = (*CLEAN, "photos/imagenet")
"""Photos to paint."""

EVAL = "photos/eval"


@dataclass(frozen=True)
class Recipe:
    """How a model of the zoo is trained and judged. Options are as typed in a shell."""

    about: str
    options: str
    """Options of every run."""
    cores: tuple[str, ...]
    """More options for each run on two CPU cores; each run goes on from the one before."""
    gpu: tuple[str, ...]
    """More options for each run on a GPU."""
    paintings: tuple[str, ...] = ()
    """Files of `styles`, which name the styles where there are several; none for a restorer."""
    judged_by: tuple[str, ...] = ()
    """Damages that a restorer is judged by."""
    fresh: bool = False
    """Whether the first run begins with random weights, and not with the package in --models."""

    @property
    def photos(self) -> tuple[str, ...]:
        """Parts of the data folder to train on."""
        return ALL if self.paintings else CLEAN


_STYLE = "--weight shift=0"
_STYLE_CORES = (
    "--crop 256 --batch 2 --steps 3500 --learning-rate 7e-4 --weight grid=5",
    "--crop 384 --batch 1 --steps 800 --learning-rate 3e-4 --weight grid=300 --seed 2",  # nearly whole, no pattern of cells
)
_STYLE_GPU = (
    "--crop 384 --batch 8 --steps 9000 --learning-rate 7e-4 --weight grid=5 --cuda-graph",
    "--crop 384 --batch 8 --steps 1500 --learning-rate 3e-4 --weight grid=300 --seed 2 --cuda-graph",
)
_RESTORER_GPU = ("--crop 128 --batch 64 --steps 16000 --learning-rate 1e-3 --cuda-graph",)

_PSNR = "--weight charbonnier=0 --weight psnr=1"
"""The loss is the logarithm of the error, as PSNR is. So lightly and heavily damaged pictures count alike."""

_NOISE = (
    "10*noise:0-55|gray-noise:0-55|2*grain:0-45|2*bayer:20-2000|bayer:20-2000/2|noise:0-60/2|2*bayer:20-1000+jpeg:70-98|"
    "noise:0-50+jpeg:60-98|grain:0-40+jpeg:60-98|sensor:20-2000|none"
)
"""White noise is what published figures are of; the rest is what cameras, phones, film and files make."""
_BLUR = (
    "4*shake:1-21+noise:0-6|2*motion:1-15+noise:0-6|2*gaussian:0-2.5+noise:0-6|defocus:0-4+noise:0-6|"
    "gaussian:0-2+noise:0-4+jpeg:70-95|none"
)
_JPEG = "4*jpeg:8-95|jpeg444:8-95|2*jpeg-twice:10-95|none"
_STRENGTH = "--with-strength --freeze stem,encoder,down,middle,up,decoder,head --crop 64 --batch 8 --steps 1000 --learning-rate 1e-2"
"""A run in which nothing but strengths above 1 is learnt: it is short, and beside the rest they make each step half as long again."""
_UPSCALE = f"--degrade down:2 --architecture plain-upscaler --synthetic 0.08 --gray 0.05 --optimizer muon {_PSNR}"
_UPSCALE_CORES = ("--crop 48 --batch 16 --steps 30000 --learning-rate 2e-3",)
_UPSCALE_GPU = ("--crop 64 --batch 128 --steps 25000 --learning-rate 2e-3 --cuda-graph",)
_UPSCALE_JUDGED_BY = ("down:2", "down:2+noise:0-10")
_TERMS = "BSDS500 and ImageNet: for non-commercial research and education"

ZOO = {
    "great-wave": Recipe("Hokusai, The Great Wave off Kanagawa", _STYLE, _STYLE_CORES, _STYLE_GPU, ("great-wave.jpg",)),
    "starry-night": Recipe("van Gogh, The Starry Night", _STYLE, _STYLE_CORES, _STYLE_GPU, ("starry-night.jpg",)),
    "composition-viii": Recipe(
        "Kandinsky, Composition VIII", _STYLE, _STYLE_CORES, _STYLE_GPU, ("composition-viii.jpg",)
    ),
    "ejiri": Recipe(
        "Hokusai, Ejiri in Suruga Province: a woodcut look", _STYLE, _STYLE_CORES, _STYLE_GPU, ("ejiri.jpg",)
    ),
    "four-styles": Recipe(
        "the four above in one network, to mix, with a strength slider",
        _STYLE,
        cores=(
            "--crop 256 --batch 1 --steps 5000 --learning-rate 7e-4 --weight grid=20",
            "--crop 384 --batch 1 --steps 1000 --learning-rate 3e-4 --weight grid=300 --seed 2",
        ),
        gpu=(
            "--crop 384 --batch 8 --steps 7000 --learning-rate 7e-4 --weight grid=20",
            "--crop 384 --batch 8 --steps 1500 --learning-rate 3e-4 --weight grid=300 --seed 2",
        ),
        paintings=("great-wave.jpg", "starry-night.jpg", "composition-viii.jpg", "ejiri.jpg"),
    ),
    "denoise": Recipe(
        "noise of unknown strength and kind",
        f"--degrade '{_NOISE}' --synthetic 0.08 --gray 0.1",
        cores=("--crop 64 --batch 16 --steps 12000 --learning-rate 4e-4 --config strength=0", _STRENGTH),
        gpu=(*(f"{run} --config strength=0" for run in _RESTORER_GPU), _STRENGTH),
        judged_by=("noise:0-75", "gray-noise:0-50", "grain:0-40", "bayer:50-2000", "bayer:50-2000+jpeg:80-80", "none"),
    ),
    "deblur": Recipe(
        "camera shake, motion and soft lenses, and noise",
        f"--degrade '{_BLUR}' --synthetic 0.08 --gray 0.05",
        cores=("--crop 128 --batch 8 --steps 30000 --learning-rate 5e-4",),
        gpu=_RESTORER_GPU,
        judged_by=(
            "shake:15+noise:0-5",
            "motion:15+noise:0-5",
            "gaussian:0-2+noise:0-5",
            "defocus:1-4+noise:0-5",
            "none",
        ),
    ),
    "inpaint": Recipe(
        "missing pixels to 45 %, painted magenta",
        f"--degrade missing:45 --synthetic 0.05 --gray 0.05 {_PSNR}",
        cores=("--crop 128 --batch 6 --steps 20000 --learning-rate 6e-4",),
        gpu=_RESTORER_GPU,
        judged_by=("missing:30", "missing:30-50"),
    ),
    "upscale-x2": Recipe("twice the sides", _UPSCALE, _UPSCALE_CORES, _UPSCALE_GPU, judged_by=_UPSCALE_JUDGED_BY),
    "upscale-x2-fast": Recipe(
        "twice the sides, with a quarter of the arithmetic",
        _UPSCALE,
        _UPSCALE_CORES,
        _UPSCALE_GPU,
        judged_by=_UPSCALE_JUDGED_BY,
    ),
    "dejpeg": Recipe(
        "JPEG, once or twice",
        f"--degrade '{_JPEG}' --synthetic 0.12 --gray 0.05 {_PSNR}",
        cores=("--crop 96 --batch 16 --steps 22000 --learning-rate 4e-4",),
        gpu=_RESTORER_GPU,
        judged_by=("jpeg:10-40", "jpeg-twice:10-40", "jpeg:5-90", "none"),
    ),
}
"""The recipes by the models' names."""


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    data: Path
    models: Path
    vgg: Path | None = None
    """VGG16's weights; stylizers alone need them."""


def places(data: Path | None, models: Path, vgg: Path | None) -> Places:
    """Where the options say, else where the environment does. Raises OptionError where no data folder is named."""
    named = Path(os.environ[VGG_VARIABLE]) if os.environ.get(VGG_VARIABLE) else None
    return Places(data_folder(data), models, vgg or named)


def commands(name: str, places: Places, gpu: bool = False) -> list[list[str]]:
    """The arguments of `impasto` that are left to do, in order: runs that are not finished, export, evaluations.

    Raises OptionError for a name that is not in the zoo, and for data or weights that are not there.
    """
    recipe = _recipe(name)
    package, outputs = str(places.models / name), run_folders(name, gpu)
    last = outputs[-1] / CHECKPOINT
    left = [
        words for words, output in zip(trainings(name, places, gpu), outputs, strict=True) if not is_finished(output)
    ]
    judges = [
        ["eval", package, "--photos", str(places.data / EVAL), *judge, "--json", f"{report}.json", "--sheet", f"{report}.png"]
        for said, judge in _judges(recipe, places)
        for report in [last.parent / f"quality{said}"]
    ]  # fmt: skip
    return [*left, ["export", str(last), "-o", package], *judges]


def run_folders(name: str, gpu: bool = False) -> list[Path]:
    """The output folder of each run."""
    recipe = _recipe(name)
    folder = Path("runs") / (f"{name}-gpu" if gpu else name)
    return [folder / str(number) for number, _ in enumerate(recipe.gpu if gpu else recipe.cores, 1)]


def trainings(name: str, places: Places, gpu: bool = False) -> list[list[str]]:
    """All calls of `impasto train`; the one that is unfinished resumes. Raises what `commands` does."""
    recipe = _recipe(name)
    _check(recipe, places)
    before = None if recipe.fresh else places.models / name
    made = []
    for output, options in zip(run_folders(name, gpu), recipe.gpu if gpu else recipe.cores, strict=True):
        made.append(
            ["train", *_task(name, recipe, places), *shlex.split(f"{recipe.options} {options}"), "--terms", _TERMS,
             *(word for part in recipe.photos for word in ("--photos", str(places.data / part))),
             *(["--start", str(before)] if before else []), *(["--minutes", str(GPU_MINUTES)] if gpu else []),
             "-o", str(output), *(["--resume"] if is_unfinished(output) else [])]
        )  # fmt: skip
        before = output / CHECKPOINT
    return made


def _recipe(name: str) -> Recipe:
    if name not in ZOO:
        raise OptionError(f"no recipe for {name!r}; choose one of {', '.join(ZOO)}")
    return ZOO[name]


def _check(recipe: Recipe, places: Places) -> None:
    lacking = missing(places.data, [*recipe.photos, EVAL, *(["styles"] if recipe.paintings else [])])
    if recipe.paintings and (places.vgg is None or not places.vgg.is_file()):
        named = f"the file {places.vgg} is missing" if places.vgg else "no file is named"
        lacking.append(
            f"{named} for --vgg or ${VGG_VARIABLE}: VGG16's weights, .safetensors or .pth, as impasto train style takes them"
        )
    if lacking:
        raise OptionError("; ".join(lacking))


def _task(name: str, recipe: Recipe, places: Places) -> list[str]:
    if not recipe.paintings:
        return ["restore", name]
    paintings = (word for file in recipe.paintings for word in _painting(file, places))
    return ["style", name, *paintings, "--vgg", str(places.vgg)]


def _judges(recipe: Recipe, places: Places) -> Iterator[tuple[str, list[str]]]:
    """The arguments of each evaluation, and what to call it."""
    if not recipe.paintings:
        yield "", [word for damage in recipe.judged_by for word in ("--degrade", damage)]
    for file in recipe.paintings:
        style = Path(file).stem
        one = [*_painting(file, places), "--vgg", str(places.vgg)]
        yield (f"-{style}", [*one, "--style", style]) if len(recipe.paintings) > 1 else ("", one)


def _painting(file: str, places: Places) -> list[str]:
    return ["--painting", str(places.data / "styles" / file)]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--vgg", type=Path)
    parser.add_argument("--models", type=Path, default=Path("models"))
    given = parser.parse_args(arguments)
    try:
        if given.name is None:
            for name, recipe in ZOO.items():
                print(f"{name:<18}{recipe.about}")
            return
        _recipe(given.name)
        _print_or_run(given.name, places(given.data, given.models, given.vgg), given.gpu, given.run)
    except ImpastoError as error:
        sys.exit(f"error: {error}")


def _print_or_run(name: str, places: Places, gpu: bool, run: bool) -> None:
    todo = commands(name, places, gpu)
    outputs = [output for output in run_folders(name, gpu) if not is_finished(output)]
    if not outputs:
        print(
            f"# all runs are finished; to go on from {places.models / name}, move {run_folders(name, gpu)[0].parent} away"
        )
    for number, words in enumerate(todo):
        print(shlex.join(["impasto", *words]), flush=True)
        if not run:
            continue
        if code := subprocess.run([sys.executable, "-m", "impasto", *words], check=False).returncode:
            sys.exit(code)
        if number < len(outputs) and is_unfinished(outputs[number]):
            print(f"# {outputs[number]} is not finished; the same command goes on with it")
            return


if __name__ == "__main__":
    main()
