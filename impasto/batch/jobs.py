"""What goes where when a model runs over files."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from impasto import images, medical, videos
from impasto.errors import BackendError, ImpastoWarning, OptionError, OutputError, ShapeError
from impasto.files import check_name, check_writable, exists, is_folder, list_files, location, make_folder

PIPE = Path("-")
"""Standard input or output, which carry video as Y4M."""

FORMATS = ("png", "jpg", "webp", "tiff", "npy", "dcm")
"""What pictures are written as where no file name says it; the first by default."""


@dataclass(frozen=True)
class Job:
    """One picture or video to run."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return is_one_video([self.source])

    @property
    def is_scan(self) -> bool:
        """Whether it is a DICOM file, by its name."""
        return not self.is_video and medical.is_dicom(self.source)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Models know pictures and no files: their errors get the source's name in front."""
        try:
            yield
        except (ShapeError, BackendError) as error:
            if self.source == PIPE or str(self.source) in str(error):
                raise
            raise type(error)(f"{self.source}: {error}") from error


def is_one_video(inputs: Sequence[Path]) -> bool:
    """Whether they are one video and nothing else, by its name."""
    return len(inputs) == 1 and (inputs[0] == PIPE or (videos.is_video(inputs[0]) and not is_folder(inputs[0])))


def plan(
    inputs: Sequence[Path],
    output: str | os.PathLike[str] | None,
    model: str,
    *,
    format: str | None = None,
    recursive: bool = False,
) -> list[Job]:
    """Which file becomes which. Folders stand for the pictures in them; recursive: and in the folders below, which results repeat.

    output: for a single file a file or folder, otherwise a folder (made where missing); what ends in a slash is a folder. None
    writes NAME.MODEL.png (.mp4 for a video) beside each file, and a folder's results into FOLDER-MODEL beside it. PIPE may be
    the only input, and the output of one video. format: one of FORMATS, for pictures whose file `output` does not name.
    Raises PictureError, OptionError and OutputError, so that nothing is computed which could not be written.
    """
    if format not in (None, *FORMATS):
        raise OptionError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    target = None if output is None else Path(output)
    if PIPE in (*inputs, target):
        return [_piped(inputs, target)]
    if target is not None and _names_file(inputs, os.fspath(output or "")):
        if format is not None:
            raise OptionError(f"{target} says by its ending what it is to be; leave --format out")
        jobs, folders = [Job(inputs[0], target)], set()
    else:
        if target is not None and exists(target) and not is_folder(target):
            raise OutputError(f"{target} is a file; give a folder to write into, or another name")
        jobs = [job for entry in inputs for job in _jobs(entry, target, model, f".{format or FORMATS[0]}", recursive)]
        folders = {job.target.parent for job in jobs if target is not None or job.target.parent != job.source.parent}
    _check(jobs, folders)
    for folder in folders:  # last, so that what is refused leaves none behind
        make_folder(folder)
    return jobs


def _names_file(inputs: Sequence[Path], output: str) -> bool:
    """Whether the output is the one file that a single input becomes, rather than a folder."""
    if output.endswith(("/", os.sep)) or is_folder(output):
        return False
    return len(inputs) == 1 and not is_folder(inputs[0]) and bool(Path(output).suffix)


def _jobs(entry: Path, output: Path | None, model: str, suffix: str, recursive: bool) -> list[Job]:
    """A file, or the pictures in a folder. suffix: of pictures."""
    if is_folder(entry):
        folder = output or _beside(entry, model)
        sources = pictures_in(entry, recursive=recursive, leaving_out=folder, everything=True)
        names = results_of([source.relative_to(entry) for source in sources], suffix)
        return [Job(source, folder / name) for source, name in zip(sources, names, strict=True)]
    ending = ".mp4" if videos.is_video(entry) else suffix
    return [Job(entry, (output or entry.parent) / f"{entry.stem}.{model}{ending}")]


def results_of(names: Sequence[Path], suffix: str) -> list[Path]:
    """What a folder's pictures become; of photo.jpg and photo.heic beside each other photo.jpg.png and photo.heic.png.

    names: of the pictures, in their folder. suffix: of the results, with its dot.
    """
    times = Counter(name.with_suffix(suffix) for name in names)
    return [
        name.with_name(name.name + suffix) if times[name.with_suffix(suffix)] > 1 else name.with_suffix(suffix)
        for name in names
    ]


def _beside(folder: Path, model: str) -> Path:
    named = (
        folder if folder.name not in ("", "..") else Path(location(folder))
    )  # the current folder, and those above it
    if not named.name:
        raise OptionError(f"{folder} has no name and nothing beside it; say where the results go: -o FOLDER")
    return named.with_name(f"{named.name}-{model}")


def pictures_in(
    folder: Path, *, recursive: bool, leaving_out: Path | None = None, everything: bool = False
) -> list[Path]:
    """What `images.list_folder` gives and raises; a warning tells what else is there. Arguments as of that."""
    if os.access(folder, os.R_OK | os.X_OK):
        _tell_passed_over(list_files(folder, recursive=recursive, leaving_out=leaving_out))
    return images.list_folder(folder, recursive=recursive, leaving_out=leaving_out, everything=everything)


def _tell_passed_over(files: Iterable[Path]) -> None:
    """A folder stands for its pictures of the usual kinds; whoever put clips and other pictures there too should hear of it.

    files: all of the folder's.
    """
    files = list(files)
    clips = [file for file in files if videos.is_video(file)]
    named = [file for file in files if file.suffix.lower() in images.READ_BY_NAME]
    others = [file for file in files if file.suffix.lower() in images.PASSED_OVER and file not in clips]
    of_a_folder = f"of a folder {', '.join(images.SUFFIXES)} files are read"
    example = f"impasto run MODEL {named[0].parent / f'*{named[0].suffix}'} -o RESULTS" if named else ""
    for found, kind, why in (
        (clips, "video", "a folder stands for its pictures; name the videos to run them"),
        (named, "picture", f"{of_a_folder}; name such files themselves to run them, for example: {example}"),
        (others, "picture", f"{of_a_folder}; convert the others"),
    ):
        if found:
            more = f" and {len(found) - 1} more {kind}{'s' if len(found) > 2 else ''}" if len(found) > 1 else ""
            warnings.warn(f"{found[0]}{more} passed over: {why}", ImpastoWarning, stacklevel=5)


def _piped(inputs: Sequence[Path], output: Path | None) -> Job:
    if len(inputs) > 1:
        raise OptionError("- is one video, from standard input or to standard output; run the others by themselves")
    if output is None:
        raise OptionError(
            "a video from standard input has no name to write beside; add -o FILE, or -o - for standard output"
        )
    job = Job(inputs[0], output)
    if not job.is_video:
        raise OptionError(f"standard output carries video alone, and {job.source} is none; give a file to write to")
    _check([job], set())
    return job


def _check_picture(job: Job) -> None:
    """Raises OptionError where the target is no picture file's name, and where it would be a video's."""
    if medical.is_dicom(job.target):
        if not job.is_scan:
            raise OptionError(
                f"{job.target} is to be a derived DICOM file, and {job.source} is none that it could derive from"
            )
        check_name(job.target)
        return
    if job.target.suffix.lower() not in videos.WRITTEN:
        images.check_suffix(job.target)
        return
    if job.source.suffix.lower() in (*images.SUFFIXES, *images.ARRAYS, ".gif"):
        raise OptionError(
            f"{job.source} is a picture, and {job.target.name!r} is a video's name; let it end in one of {', '.join(images.SUFFIXES)}"
        )
    raise OptionError(
        f"{job.source}: {job.source.suffix or 'a name without an ending'} is no video file type that is read "
        f"({', '.join(videos.SUFFIXES)})"
    )


def _check(jobs: Sequence[Job], folders: set[Path]) -> None:
    """folders: those that are made afterwards."""
    sources = {location(job.source) for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        if job.target == PIPE:
            continue
        if job.is_video:
            videos.check_suffix(job.target)
        else:
            _check_picture(job)
        target = location(job.target)
        if target == location(job.source):
            raise OptionError(
                f"{job.target} is the {'video' if job.is_video else 'picture'} itself and would be overwritten; choose another output"
            )
        if target in sources:
            raise OptionError(
                f"{job.source} would be written to {job.target}, which is an input too and would be overwritten; "
                "give a folder for the results: -o FOLDER"
            )
        if target in taken:
            raise OptionError(
                f"{taken[target]} and {job.source} would both be written to {job.target}; run them one by one with -o"
            )
        taken[target] = job.source
        if job.target.parent not in folders and exists(job.source):  # of one that is missing, reading tells
            check_writable(job.target)
