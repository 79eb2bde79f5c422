"""`impasto run`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
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
from impasto.files import exists, is_file
from impasto.styles import described, painted, parse
from impasto.videos import CRF, Redrawn

from . import options
from .cluster import run_on_cluster
from .console import err, fail, out, write_measured, write_page
from .progress import Bar

if TYPE_CHECKING:
    from impasto.runtime import Model, ModelInfo, StyleMeter


def run(
    model: options.Model,
    inputs: Annotated[
        Optional[list[str]],  # noqa: UP045 (Typer on Python 3.10 evaluates it; no Path, which forgets a slash of s3://)
        typer.Argument(
            help="Pictures, videos, DICOM files, or folders of pictures; - is a video from standard input, as Y4M.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Optional[str],  # noqa: UP045 (no Path, which forgets the slash at a folder's end)
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file for one picture or video, otherwise a folder; - is standard output, for a video as Y4M. "
            "By default NAME.MODEL.png or .mp4 beside each.",
        ),
    ] = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    device: options.Device = 0,
    layout: options.Layout = None,
    style: options.Style = None,
    strength: options.Strength = 1.0,
    format: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"Format of pictures whose file -o does not name: {', '.join(FORMATS)}.", show_default="png"),
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave results alone that are there already.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Also draw the folders below a folder, into folders of results.")
    ] = False,
    working_size: Annotated[
        str,
        typer.Option(
            help="Pixels of the longest side above which a picture is drawn at that size, and the drawing enlarged: strokes grow "
            "with it. auto takes the model's, full draws at the picture's own size."
        ),
    ] = "auto",
    keep_colors: Annotated[
        bool, typer.Option("--keep-colors", help="A stylizer's strokes in the photo's colours.")
    ] = False,
    longest_side: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Pixels to which what is larger is scaled down first: strokes and grain are then as coarse as in a picture "
            "of that size.",
            min=1,
        ),
    ] = None,
    quality: Annotated[int, typer.Option(help="Quality of JPEG and WebP files.", min=1, max=100)] = 95,
    crf: Annotated[
        int, typer.Option(help="Rate factor of x264 for videos, 0 (largest file) to 51.", min=0, max=51)
    ] = CRF,
    no_audio: Annotated[
        bool, typer.Option("--no-audio", help="Leave a video's sound out, which some files cannot hold.")
    ] = False,
    window: Annotated[
        str,
        typer.Option(
            help="Which values of DICOM files are drawn. full is all that the file holds, file its own window; or CENTER,WIDTH in its "
            "units, such as 40,400. Values outside of a window are cut off."
        ),
    ] = "full",
    painting: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="For a video: measure each frame's style distance to this painting; --json keeps them."),
    ] = None,
    network: Annotated[
        str, typer.Option(help="With --painting: the perceptual network, as impasto export vgg16 makes it.")
    ] = "vgg16",
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS",
            help="Draw a folder, or an object store's s3://bucket/prefix, on a Ray cluster: its address, auto, or local for one on "
            "this machine. What is there already is skipped.",
        ),
    ] = None,
    ray_cores: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="With --ray: cores of each actor, where there are no GPUs.", show_default="at most 4", min=1),
    ] = None,
    ray_batch: Annotated[int, typer.Option(help="With --ray: pictures that an actor gets at a time.", min=1)] = 16,
    html: options.Html = None,
    json: options.Json = None,
) -> None:
    """Run a model on pictures and videos, and write the results."""
    import impasto

    if not inputs:
        fail(_what_is_missing(model))
        raise typer.Exit(2)
    if ray is not None:
        from impasto.batch.ray import Cluster, Drawing

        if painting or html or device or no_audio or crf != CRF or window != "full":
            raise OptionError(
                "--ray draws folders of pictures; leave --painting, --html, --device, --no-audio, --crf and --window out"
            )
        drawing = Drawing(
            model,
            backend,
            precision,
            layout,
            _working_size(working_size),
            parse(style) if style else None,
            strength,
            keep_colors,
            longest_side,
            quality,
        )
        cluster = Cluster(ray, ray_cores, ray_batch)
        run_on_cluster(drawing, inputs, output, cluster, format=format, recursive=recursive, json=json)
        return
    sources = [Path(entry) for entry in inputs]
    if painting and not is_one_video(sources):
        raise OptionError("--painting is for one video; impasto eval --painting judges a stylizer by photos")
    shown = medical.Window.parse(window)
    with ExitStack() as opened:
        loaded = opened.enter_context(
            impasto.load(
                model,
                backend=backend,
                precision=precision,
                device=device,
                layout=layout,
                working_size=_working_size(working_size),
            )
        )
        if precision == "auto" and (offer := _int8_offer(loaded.info)):
            err.print(offer, markup=False)
        loaded.keep_colors = keep_colors
        wanted = parse(style) if style else None
        loaded.set_style(wanted, strength=strength)
        drawn = (
            described(loaded.info.spec.styles, wanted, strength) if len(painted(loaded.info.spec.styles)) > 1 else None
        )
        how = f"{loaded.info}" + (f"; style: {drawn}" if drawn else "")
        planned = plan(sources, output, loaded.info.name, format=format, recursive=recursive)
        if window != "full" and not any(job.is_scan for job in planned):
            raise OptionError("--window is for DICOM files, and none is among the inputs; leave it out")
        # Files appear whole or not at all, so what is there is finished.
        jobs = [job for job in planned if not (skip_existing and exists(job.target))]
        if len(jobs) < len(planned):
            err.print(f"{len(planned) - len(jobs)} of {len(planned)} results were there already")
        meter = opened.enter_context(_meter(painting, network, device)) if painting else None
        progress = opened.enter_context(Bar())
        task = progress.add_task("", total=len(jobs), visible=len(jobs) > 1, unit="files")
        outcomes = _outcomes(
            jobs,
            partial(run_pictures, loaded, quality=quality, longest_side=longest_side),
            partial(
                run_scan, loaded, window=shown, how=_told(loaded, drawn), quality=quality, longest_side=longest_side
            ),
            partial(run_video, loaded, crf=crf, sound=not no_audio, longest_side=longest_side, meter=meter),
            progress,
        )
        written: list[PictureRun | VideoRun] = []
        failed: list[tuple[Job, ImpastoError]] = []
        for job, outcome in opened.enter_context(closing(outcomes)):
            try:
                written.append(outcome())
            except (
                PictureError,
                OptionError,
                ShapeError,
                NoNumbers,
            ) as error:  # one among several is reported and passed over
                if len(planned) == 1:
                    raise
                fail(error)
                failed.append((job, error))
            else:
                _tell(written[-1], job, loaded, how, quiet=len(jobs) > 1)
            progress.advance(task)
    if len(jobs) > 1:
        number = f"{len(written)} of {len(jobs)} files written to {_folders(jobs)}"
        out.print(f"{number} with {how}", markup=False, soft_wrap=True)
    _write_page(html, loaded.info, written, failed)
    write_measured(
        json,
        {
            "model": loaded.info.to_json(),
            "style": drawn,
            "written": [run.to_json() for run in written],
            "failed": [{"source": str(job.source), "why": str(error)} for job, error in failed],
            "there_already": len(planned) - len(jobs),
        },
    )
    lacking = [run for run in written if isinstance(run, VideoRun) and run.video.lost_s]
    if failed or lacking:
        raise typer.Exit(1)


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
