"""Packs a training for a machine without network, such as one with a GPU that is lent for minutes: code, photos, weights, command.

usage: python -m impasto.packing -o PACK [--limit MIB] [--minutes M] style|restore|distill NAME --photos FOLDER …
       python -m impasto.packing -o PACK [--limit MIB] [--minutes M] [--data FOLDER] [--vgg FILE] [--models FOLDER] NAME

After PACK come the words that `impasto train` takes; or a model of the zoo alone, for the next run of its recipe for a GPU
(`python -m impasto.training.zoo NAME --gpu`). PACK is a new folder, or a file whose name ends in .tar, of at most --limit
MiB (60). There, `sh run.sh` trains for --minutes (9) of steps, and leaves checkpoint.safetensors, state.pt and log.jsonl in $OUT; of
files above 15 MiB, parts. Put what it left into the pack's folder `run`, and the next `sh run.sh` goes on. A run goes on with the
photos that it began with: keep the pack.

Photos are packed as they are, files of other formats than JPEG as lossless WebP. Where that is too much, those become JPEG of quality
97 without chroma subsampling; where that is too much, too, every photo is cut down to its middle, and JPEG files keep their own
quality. Those of a stylizer are scaled down instead, as JPEG of quality 85. Pictures of the standard sets are never packed.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from impasto import images
from impasto.errors import ImpastoError, OptionError, OutputError, PictureError
from impasto.files import atomic_path, check_writable, write_bytes, write_text
from impasto.training import zoo
from impasto.training.loop.run_folder import is_finished

from .photos import packed_photos

MIB = 1 << 20
ROOMS = ("training", "export", "runtime", "kernels", "benchmarks", "models")
CARRIED = ("lightning-fabric", "lightning-utilities")
"""Libraries that machines with torch often lack. They are Python alone, so what is installed here runs there."""

NEEDED = ("torch", "numpy", "PIL", "safetensors", "onnx", "typer", "rich", "lightning_fabric", "fsspec")
"""What run.sh looks for before it begins."""

_FOLDERS = 64 << 10
"""Bytes kept free for what folders take, and for a tar's end."""

PHOTOS = ("--photos", "--validation", "--test")
FILES = ("--painting",)
WEIGHTS = ("--start", "--teacher", "--vgg", "--backbone-weights")
OURS = ("-o", "--output", "--resume", "--minutes")
"""Options of `impasto train` that run.sh gives."""

RUN = """#!/bin/sh
# Trains for MINUTES (@minutes@) of steps; leaves checkpoint.safetensors, state.pt and log.jsonl in OUT (./out).
# What an earlier call left there goes on when it lies in ./run. PYTHON (python3) is to have @needed@.
set -eu
out="${OUT:-$(dirname "$0")/out}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
cd "$(dirname "$0")"
export PYTHONPATH="$PWD/code:$PWD/carried" PYTHONUNBUFFERED=1
python="${PYTHON:-python3}"
"$python" -c '
import importlib.util, sys
missing = [name for name in "@needed@".split() if importlib.util.find_spec(name) is None]
sys.exit(f"error: missing here: {missing}; carry them as wheels" if missing else 0)'
resume=
if [ -d run ]; then
    find run -type f ! -name '*.part-*' -exec cp {} "$out" \\;
    for first in run/*.part-00; do
        [ ! -e "$first" ] || cat "${first%00}"* > "$out/$(basename "$first" .part-00)"
    done
fi
[ ! -e "$out/state.pt" ] || resume=--resume
code=0
"$python" -m impasto train @command@ --minutes "${MINUTES:-@minutes@}" -o "$out" $resume || code=$?
find "$out" -type f -size +15M -exec split -b 15M -d {} {}.part- \\; -exec rm {} \\;
exit $code
"""


@dataclass
class Pack:
    """What was packed."""

    path: Path
    command: str
    """The training's, with the places in the pack."""
    sizes: Counter[str] = field(default_factory=Counter)
    """Bytes by kind."""
    counts: Counter[str] = field(default_factory=Counter)
    """Files by kind."""
    left_out: list[str] = field(default_factory=list)
    photos: str = ""
    """What became of the photos."""

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return self.sizes.total()

    def __str__(self) -> str:
        kinds = [f"  {kind:10}{size / MIB:7.2f} MiB  {self.counts[kind]} files" for kind, size in self.sizes.items()]
        return "\n".join(
            [
                f"{self.path}: {self.bytes / MIB:.1f} MiB",
                *kinds,
                f"  photos: {self.photos}",
                *(f"  left out: {line}" for line in self.left_out),
                f"there: sh run.sh    (impasto train {self.command})",
            ]
        )


def pack(words: Sequence[str], output: Path, *, limit_mib: float = 60, minutes: float = 9) -> Pack:
    """Write a pack of the training that `impasto train WORDS` would be.

    output: a new folder, or a file that ends in .tar. Raises OptionError for a command that cannot be packed, or that is larger than
    the limit with the smallest photos; OutputError where `output` is there already.
    """
    if output.suffix == ".tar":
        check_writable(output)
        with tempfile.TemporaryDirectory() as folder:
            made = _pack(words, Path(folder) / "pack", limit_mib, minutes, _padded)
            # Python's own form would spend a block on each file's fractions of a second.
            with atomic_path(output) as path, tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
                tar.add(Path(folder) / "pack", arcname=output.stem)
        made.path = output
        return made
    if output.exists():
        raise OutputError(f"{output} is there already; name a new folder")
    try:
        return _pack(words, output, limit_mib, minutes, lambda size: size)
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise


def _padded(size: int) -> int:
    """What a file of so many bytes takes of a tar, whose blocks are of 512: a header of one."""
    return 1024 + -(-size // 512) * 512  # or two, for a long name


def _pack(words: Sequence[str], folder: Path, limit_mib: float, minutes: float, taking: Callable[[int], int]) -> Pack:
    """taking: how many bytes a file of a size takes."""
    words = _checked(words)
    made = Pack(folder, "")
    sources: dict[Path, Path] = {}
    command = list(_placed(words, sources))
    made.command = shlex.join(command)
    _copy_code(folder, made, with_kernels=words[0] == "style")
    _copy_libraries(folder, made)
    photos = {}
    for place, source in sources.items():
        if place.parts[0] == "photos":
            photos[place] = source
        else:
            _copy(place, source, folder, made)
    script = RUN.replace("@command@", made.command).replace("@needed@", " ".join(NEEDED))
    write_text(folder / "run.sh", script.replace("@minutes@", f"{minutes:g}"))
    _note(made, "command", folder / "run.sh")
    others = sum(taking(file.stat().st_size) for file in folder.rglob("*") if file.is_file())
    _copy_photos(photos, folder, made, int(limit_mib * MIB) - others - _FOLDERS, taking, truth=words[0] != "style")
    return made


def _checked(words: Sequence[str]) -> list[str]:
    """The command's words, those of the form --option=value taken apart. Raises OptionError for what cannot be packed."""
    apart = [part for word in words for part in (word.split("=", 1) if _names_path(word) else [word])]
    if len(apart) < 2 or apart[0] not in ("style", "restore", "distill"):
        raise OptionError(
            f"got {shlex.join(words)!r}; wanted what `impasto train` takes, such as: restore NAME --photos FOLDER"
        )
    if given := [word for word in apart if word in OURS]:
        raise OptionError(f"run.sh gives {given[0]} itself; leave it out")
    if "--pairs" in apart:
        raise OptionError(
            "pairs cannot be packed: a picture and its target must stay as they are; name photos and a damage"
        )
    return apart


def _names_path(word: str) -> bool:
    return "=" in word and word.split("=", 1)[0] in PHOTOS + FILES + WEIGHTS


def _placed(words: Sequence[str], sources: dict[Path, Path]) -> Iterator[str]:
    """The words with places in the pack for paths; the paths go into `sources`, by their places."""
    before = ""
    for word in words:
        if before in PHOTOS:
            yield str(_place("photos", _photo_folder(Path(word)), sources))
        elif before in FILES:
            yield str(_place("paintings", Path(word), sources))
        elif before in WEIGHTS:
            yield str(_place("weights", _weights(word), sources))
        else:
            yield word
        before = word


def _place(kind: str, source: Path, sources: dict[Path, Path]) -> Path:
    """Where a file or folder goes: under its own name, in a folder of its own where another has that name."""
    place, number = Path(kind) / source.resolve().name, 2
    while sources.get(place, source) != source:
        place, number = Path(kind) / str(number) / source.resolve().name, number + 1
    sources[place] = source
    return place


def _photo_folder(folder: Path) -> Path:
    if "sets" in folder.resolve().parts:
        raise OptionError(f"{folder} lies below `sets`: the standard pictures are never trained on, nor chosen by")
    if not folder.is_dir():
        raise PictureError(f"{folder} is not a folder; give a folder of photos")
    return folder


def _weights(word: str) -> Path:
    from impasto.runtime.loading.source import known_names

    path = Path(word)
    found = path if path.exists() else known_names().get(word, path)
    if not found.exists():
        raise OptionError(f"{word} is no file, package or model's name")
    return found


def _copy_code(folder: Path, made: Pack, with_kernels: bool) -> None:
    """Impasto's own modules, in the layout that they have as a package."""
    for room in ("", *ROOMS):
        spec = find_spec(f"impasto.{room}".rstrip("."))
        assert spec is not None
        assert spec.submodule_search_locations
        here = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(here.rglob("*.py")):
            _take(file, folder / "code" / "impasto" / room / file.relative_to(here), "code", made)
        if room == "kernels" and with_kernels:
            _take(here / "gram.zip", folder / "code" / "impasto" / room / "gram.zip", "code", made)
    made.left_out.append("models but those to begin with, results")
    if not with_kernels:
        made.left_out.append("kernels/gram.zip, which stylizers alone need")


def _copy_libraries(folder: Path, made: Pack) -> None:
    for name in CARRIED:
        try:
            files = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError:
            made.left_out.append(f"{name}, which is not installed here")
            continue
        for file in files:
            if file.suffix != ".pyc" and ".." not in file.parts:
                _take(Path(str(file.locate())), folder / "carried" / file, "libraries", made)


def _copy(place: Path, source: Path, folder: Path, made: Pack) -> None:
    """A painting, a file of weights, or of a package what its weights are in."""
    kind = place.parts[0]
    if source.is_file():
        _take(source, folder / place, kind, made)
        return
    from impasto.package.manifest import MANIFEST, read_manifest

    held = [file.name for file in read_manifest(source).files if "engine" not in file.role and file.precision == "fp32"]
    for name in (MANIFEST, *held):
        _take(source / name, folder / place / name, kind, made)


def _take(source: Path, target: Path, kind: str, made: Pack) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    _note(made, kind, target)


def _note(made: Pack, kind: str, file: Path) -> None:
    made.sizes[kind] += file.stat().st_size
    made.counts[kind] += 1


def _copy_photos(
    folders: dict[Path, Path], folder: Path, made: Pack, room: int, taking: Callable[[int], int], *, truth: bool
) -> None:
    """Into `room` bytes. Raises OptionError where they do not fit."""
    files = {place / file.name: file for place, source in folders.items() for file in images.list_folder(source)}
    found = packed_photos(files, room, taking, truth=truth)
    made.photos = found.how
    made.left_out += found.skipped
    for photo in found.photos:
        (folder / photo.place).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / photo.place, photo.content)
        _note(made, "photos", folder / photo.place)


def next_training(name: str, places: zoo.Places) -> list[str]:
    """The words of the first run of a recipe for a GPU that is not finished. Raises OptionError where all are."""
    for words, output in zip(zoo.trainings(name, places, gpu=True), zoo.run_folders(name, gpu=True), strict=True):
        if not is_finished(output):
            ours = {words.index(option) + shift for option in ("-o", "--minutes") for shift in (0, 1)}
            return [word for place, word in enumerate(words[1:], 1) if place not in ours and word != "--resume"]
    raise OptionError(
        f"all runs of {name} are finished; move {zoo.run_folders(name, gpu=True)[0].parent} away to go on"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PACK")
    parser.add_argument("--limit", type=float, default=60, metavar="MIB")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--vgg", type=Path)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="style|restore|distill NAME ...")
    given = parser.parse_args(arguments)
    try:
        words = given.words
        if len(words) == 1:
            words = next_training(words[0], zoo.places(given.data, given.models, given.vgg))
        print(pack(words, given.output, limit_mib=given.limit, minutes=given.minutes))
    except ImpastoError as error:
        sys.exit(f"error: {error}")
