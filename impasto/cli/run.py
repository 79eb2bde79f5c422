"""`impasto run`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from impasto import images, medical, videos
from impasto.batch.jobs import FORMATS, PIPE, Job, is_one_video, plan
from impasto.batch.pictures import PictureRun, run_pictures
from impasto.batch.scans import run_scan
from impasto.batch.videos import VideoRun, run_video
from impasto.errors import ImpastoError, ImpastoWarning, NoNumbers, OptionError, PictureError, ShapeError
from impasto.files import check_writable, exists, is_file
from impasto.styles import described, painted, parse
from impasto.videos import CRF, Redrawn

from . import options
from .cluster import run_on_cluster
from .console import err, fail, out, write_measured, write_page
from .flags import takes
from .progress import Bar

if TYPE_CHECKING:
    from impasto.runtime import Model, ModelInfo, StyleMeter


@dataclass(kw_only=True)
class RunFlags:
    """Options of `impasto run`."""

    model: options.Model
    inputs: Annotated[
        Optional[list[str]],  # noqa: UP045 (Typer on Python 3.10 evaluates it; no Path, which forgets a slash of s3://)
        typer.Argument(
            help="Pictures, videos, DICOM files, or folders of pictures; - is a video from standard input, as Y4M.",
            show_default=False,
        ),
    ] = None
    output: Annotated[
        Optional[str],  # noqa: UP045 (no Path, which forgets the slash at a folder's end)
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file for one picture or video, otherwise a folder; - is standard output, for a video as Y4M. "
            "By default NAME.MODEL.png or .mp4 beside each.",
        ),
    ] = None
    backend: options.Backend = "auto"
    precision: options.Precision = "auto"
    device: options.Device = 0
    layout: options.Layout = None
    style: options.Style = None
    strength: options.Strength = 1.0
    format: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"Format of pictures whose file -o does not name: {', '.join(FORMATS)}.", show_default="png"),
    ] = None
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Skip pictures whose results exist.")] = False
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive", "-r", help="Also draw the folders below a folder; results go into folders of the same names."
        ),
    ] = False
    working_size: Annotated[
        str,
        typer.Option(
            help="A picture with a longer side is drawn at this size, in pixels, and the drawing enlarged: strokes grow with the "
            "picture. auto takes the model's size, full draws every picture at its own."
        ),
    ] = "auto"
    keep_colors: Annotated[bool, typer.Option("--keep-colors", help="For a stylizer: keep the photo's colours.")] = (
        False
    )
    longest_side: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Scale larger pictures down to this longest side first, in pixels. Strokes and grain are then coarser.",
            min=1,
        ),
    ] = None
    quality: Annotated[int, typer.Option(help="Quality of JPEG and WebP files.", min=1, max=100)] = 95
    crf: Annotated[int, typer.Option(help="Rate factor of x264 for videos, 0 (largest file) to 51.", min=0, max=51)] = (
        CRF
    )
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave out a video's sound.")] = False
    window: Annotated[
        str,
        typer.Option(
            help="Which values of DICOM files are drawn: full (all values), file (the file's own window), or CENTER,WIDTH in the "
            "file's units, such as 40,400. Values outside of a window are cut off."
        ),
    ] = "full"
    painting: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="For a video: measure each frame's style distance to this painting; --json keeps them."),
    ] = None
    network: Annotated[
        str, typer.Option(help="With --painting: the perceptual network, as impasto export vgg16 makes it.")
    ] = "vgg16"
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS",
            help="Draw a folder, or an object store's s3://bucket/prefix, on a Ray cluster: its address, auto, or local for one on "
            "this machine. Pictures whose results exist are skipped.",
        ),
    ] = None
    ray_cores: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="With --ray: cores of each actor, where there are no GPUs.", show_default="at most 4", min=1),
    ] = None
    ray_batch: Annotated[
        int, typer.Option(help="With --ray: number of pictures that an actor gets at a time.", min=1)
    ] = 16
    html: options.Html = None
    json: options.Json = None


@takes(RunFlags)
def run(flags: RunFlags) -> None:
    """Run a model on pictures and videos, and write the results."""
    if not flags.inputs:
        fail(_what_is_missing(flags.model))
        raise typer.Exit(2)
    if flags.ray is None:
        _run_here(flags, [Path(entry) for entry in flags.inputs])
    else:
        _run_on_ray(flags, flags.ray, flags.inputs)


def _run_on_ray(flags: RunFlags, address: str, inputs: list[str]) -> None:
    """Draw a folder on the Ray cluster at this address. Raises OptionError, and Exit with code 1 where pictures failed."""
    from impasto.batch.ray import Cluster, Drawing

    here_only = flags.painting or flags.html or flags.device or flags.no_audio
    if here_only or flags.crf != CRF or flags.window != "full":
        raise OptionError(
            "--ray draws folders of pictures; leave --painting, --html, --device, --no-audio, --crf and --window out"
        )
    drawing = Drawing(
        flags.model,
        flags.backend,
        flags.precision,
        flags.layout,
        _working_size(flags.working_size),
        parse(flags.style) if flags.style else None,
        flags.strength,
        flags.keep_colors,
        flags.longest_side,
        flags.quality,
    )
    cluster = Cluster(address, flags.ray_cores, flags.ray_batch)
    run_on_cluster(
        drawing, inputs, flags.output, cluster, format=flags.format, recursive=flags.recursive, json=flags.json
    )


def _run_here(flags: RunFlags, sources: list[Path]) -> None:
    """Draw on this machine, and write the reports. Raises OptionError, and Exit with code 1 where files failed."""
    import impasto

    if flags.painting and not is_one_video(sources):
        raise OptionError("--painting is for one video; impasto eval --painting judges a stylizer by photos")
    window = medical.Window.parse(flags.window)
    with ExitStack() as opened:
        loaded = opened.enter_context(
            impasto.load(
                flags.model,
                backend=flags.backend,
                precision=flags.precision,
                device=flags.device,
                layout=flags.layout,
                working_size=_working_size(flags.working_size),
            )
        )
        style = _set_up(loaded, flags)
        planned = plan(sources, flags.output, loaded.info.name, format=flags.format, recursive=flags.recursive)
        if flags.window != "full" and not any(job.is_scan for job in planned):
            raise OptionError("--window is for DICOM files, and none is among the inputs; leave it out")
        # Files appear whole or not at all, so a file that is there is finished.
        jobs = [job for job in planned if not (flags.skip_existing and exists(job.target))]
        for job in jobs:
            if job.target != PIPE:
                check_writable(job.target)
        if len(jobs) < len(planned):
            err.print(f"{len(planned) - len(jobs)} of {len(planned)} results were there already")
        how = f"{loaded.info}" + (f"; style: {style}" if style else "")
        written, failed = _draw(jobs, loaded, flags, window, style, how, alone=len(planned) == 1)
    if len(jobs) > 1:
        number = f"{len(written)} of {len(jobs)} files written to {_folders(jobs)}"
        out.print(f"{number} with {how}", markup=False, soft_wrap=True)
    _write_page(flags.html, loaded.info, written, failed)
    write_measured(
        flags.json,
        {
            "model": loaded.info.to_json(),
            "style": style,
            "written": [run.to_json() for run in written],
            "failed": [{"source": str(job.source), "why": str(error)} for job, error in failed],
            "there_already": len(planned) - len(jobs),
        },
    )
    lacking = [run for run in written if isinstance(run, VideoRun) and run.video.lost_s]
    if failed or lacking:
        raise typer.Exit(1)


def _set_up(loaded: Model, flags: RunFlags) -> str | None:
    """Set style, strength and colours. Returns the style in words; None for a network of one style. Raises OptionError."""
    if flags.precision == "auto" and (offer := _int8_offer(loaded.info)):
        err.print(offer, markup=False)
    loaded.keep_colors = flags.keep_colors
    wanted = parse(flags.style) if flags.style else None
    loaded.set_style(wanted, strength=flags.strength)
    styles = loaded.info.spec.styles
    return described(styles, wanted, flags.strength) if len(painted(styles)) > 1 else None


def _draw(
    jobs: list[Job],
    loaded: Model,
    flags: RunFlags,
    window: medical.Window,
    style: str | None,
    how: str,
    *,
    alone: bool,
) -> tuple[list[PictureRun | VideoRun], list[tuple[Job, ImpastoError]]]:
    """Draw the files one after the other. Returns what was written and what failed.

    how: the model and the style, in words. alone: of a single file an error is raised; among several it is reported and passed over.
    """
    written: list[PictureRun | VideoRun] = []
    failed: list[tuple[Job, ImpastoError]] = []
    size, quality = flags.longest_side, flags.quality
    with ExitStack() as opened:
        meter = opened.enter_context(_meter(flags.painting, flags.network, flags.device)) if flags.painting else None
        progress = opened.enter_context(Bar())
        task = progress.add_task("", total=len(jobs), visible=len(jobs) > 1, unit="files")
        outcomes = _outcomes(
            jobs,
            partial(run_pictures, loaded, quality=quality, longest_side=size),
            partial(run_scan, loaded, window=window, how=_told(loaded, style), quality=quality, longest_side=size),
            partial(run_video, loaded, crf=flags.crf, sound=not flags.no_audio, longest_side=size, meter=meter),
            progress,
        )
        for job, outcome in opened.enter_context(closing(outcomes)):
            try:
                written.append(outcome())
            except (PictureError, OptionError, ShapeError, NoNumbers) as error:
                if alone:
                    raise
                fail(error)
                failed.append((job, error))
            else:
                _tell(written[-1], job, loaded, how, quiet=len(jobs) > 1)
            progress.advance(task)
    return written, failed


def _told(loaded: Model, drawn: str | None) -> str:
    """What a derived file says of how its picture was processed."""
    strength = f", strength {loaded.strength:g}" if loaded.info.strengths else ""
    return f"{loaded.info.task}{f', style {drawn}' if drawn else ''}{strength}, {loaded.info.precision}"


def _what_is_missing(model: str) -> str:
    """What is said where nothing but a model is named, or nothing but a picture."""
    if is_file(model) and Path(model).suffix.lower() in (*images.SUFFIXES, *images.ARRAYS, *videos.SUFFIXES):
        return f"{model} is no model, which comes first; for example: impasto run denoise {model} -o result{Path(model).suffix}"
    return f"no picture or video to run {model} on; name one, for example: impasto run {model} photo.jpg -o result.png"


def _int8_offer(info: ModelInfo) -> str | None:
    """What INT8 would bring where "auto" drew in FP32 on a CPU; None where the package has no INT8 that is fast on this CPU."""
    from impasto.package.manifest import read_manifest
    from impasto.package.summary import int8_offer
    from impasto.runtime.backends import preferred

    if (info.precision, info.backend) != ("fp32", "openvino") or not info.path.is_dir():
        return None
    offer = int8_offer(read_manifest(info.path), "openvino")
    # The question whether this CPU computes INT8 right compiles a convolution, so it comes last.
    return offer if offer and preferred("int8").names[0] == "openvino" else None


def _write_page(
    path: Path | None, info: ModelInfo, written: list[PictureRun | VideoRun], failed: list[tuple[Job, ImpastoError]]
) -> None:
    from impasto.benchmarks.measurement.report import describe_machine
    from impasto.report.runs import run_report

    why = [(str(job.source), str(error)) for job, error in failed]
    write_page(path, lambda command: run_report(info, written, why, describe_machine(), command))


def _working_size(text: str) -> int | Literal["auto"] | None:
    """The working size that `impasto.load` takes, from the option's text. Raises OptionError."""
    if text == "auto":
        return "auto"
    if text == "full":
        return None
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"cannot read the working size {text!r}; write auto, full, or pixels such as 1024") from None


def _folders(jobs: Sequence[Job]) -> str:
    folders = list(dict.fromkeys(str(job.target.parent) for job in jobs))
    if len(folders) <= 3:
        return ", ".join(folders)
    return f"{folders[0]}, {folders[1]} and {len(folders) - 2} more folders"


def _outcomes(
    jobs: Sequence[Job],
    pictures: Callable[[list[Job]], Iterator[tuple[Job, Future[PictureRun]]]],
    scan: Callable[[Job], PictureRun],
    video: Callable[..., VideoRun],
    progress: Bar,
) -> Generator[tuple[Job, Callable[[], PictureRun | VideoRun]], None, None]:
    """Each job and what brings its result, in the jobs' order. pictures, scan, video: draw those."""
    for (are_videos, are_scans), group in groupby(jobs, lambda job: (job.is_video, job.is_scan)):
        if not are_videos and not are_scans:
            for job, outcome in pictures(list(group)):
                yield job, outcome.result
            continue
        for job in group:
            if are_scans:
                yield job, partial(scan, job)
                continue
            with _task(progress, job.source.name) as update:
                yield job, partial(video, job, progress=update)


@contextmanager
def _task(progress: Bar, name: str) -> Iterator[Callable[[int, int | None], None]]:
    task = progress.add_task(name, total=None, unit="frames")
    try:
        yield lambda done, total: progress.update(task, completed=done, total=total)
    finally:
        progress.remove_task(task)


def _tell(run: PictureRun | VideoRun, job: Job, loaded: Model, how: str, quiet: bool) -> None:
    """how: by what it was drawn, in words. quiet: of one picture among several only what is unexpected."""
    if isinstance(run, VideoRun):
        _tell_video(run, job, how)
        return
    if run.note:
        warnings.warn(run.note, ImpastoWarning, stacklevel=2)
    if not run.changed and loaded.info.task == "inpaint":
        err.print(
            f"{job.source} had nothing to fill in: missing pixels are exactly magenta (255, 0, 255), and it has none. JPEG does not "
            "keep that colour; save the picture as PNG",
            markup=False,
        )
    if not quiet:
        out.print(f"wrote {job.target} with {how}", markup=False, soft_wrap=True)


def _tell_video(run: VideoRun, job: Job, how: str) -> None:
    told = err if job.target == PIPE else out
    for note in _notes(run.video, job):
        err.print(note, markup=False)
    between = "" if PIPE in (job.source, job.target) else " from file to file"
    speed = f"{run.frames_per_second:.1f} frames/s{between}"
    told.print(f"wrote {run.video}, {speed}, with {how}", markup=False, soft_wrap=True)
    if run.drift:
        told.print(run.drift_text(), markup=False, soft_wrap=True)


def _notes(video: Redrawn, job: Job) -> Iterator[str]:
    """What came through otherwise than one may think."""
    if video.interlaced:
        yield f"{job.source} is interlaced, and its combs were drawn as edges; better: ffmpeg -i {job.source.name} -vf yadif …"
    if video.damaged:
        yield f"{video.damaged} frames of {job.source} are damaged; the decoder filled them in"
    if video.lost_s:
        count, first, last = len(video.lost_s), video.lost_s[0], video.lost_s[-1]
        where = f"at {first:.2f} s" if count == 1 else f"between {first:.2f} and {last:.2f} s"
        yield (
            f"{count} of {count + len(video.times_s)} frames of {job.source} could not be read, {where}: the file is damaged or cut "
            "short, and the result lacks them"
        )
    if video.hidden:
        yield f"{video.hidden} frames of {job.source} are cut off by its edit list, as players do, and were not drawn"
    for moment in video.restarts_s:
        yield f"the clock of {job.source} runs back at {moment:.2f} s; what follows was put behind what was before"
    if video.transparent:
        ending = job.target.suffix or "Y4M"
        yield f"{job.source} is transparent in parts; {ending} videos hold no transparency here, so the result is opaque"
    if video.left_out:
        yield f"left out of {job.source}: {', '.join(video.left_out)}"
    if video.sounds_refused:
        yield (
            f"left out of {job.source}: {', '.join(video.sounds_refused)}, which {job.target.suffix} files cannot hold; "
            + (".mkv files do; or " if video.mkv_holds_refused else "")
            + f"convert it first: ffmpeg -i {job.source.name} -map 0 -c:v copy -c:a aac converted.mkv"
        )
    elif video.sounds_lost:
        yield "Y4M holds no sound; take it from the source where you encode: ffmpeg -i - -i SOURCE -map 0:v -map 1:a …"
    if job.target == PIPE and video.uneven:
        yield f"{job.source} shows its frames for uneven times, and Y4M has one rate: they will move unevenly; a file keeps them"


def _meter(painting: Path, network: str, device: int) -> StyleMeter:
    from impasto.runtime import StyleMeter

    return StyleMeter(painting, network, device=device)
