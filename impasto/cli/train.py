"""`impasto train style`, `impasto train restore` and `impasto train distill`."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from impasto.errors import MissingDependency, OptionError

from .console import Commands, err, out
from .options import located

if TYPE_CHECKING:
    from impasto.training.loop.trainer import FitOptions, FitResult

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Train a stylizer or a restorer.")

Name = Annotated[str, typer.Argument(help="What the model is to be called.", show_default=False)]
Photos = Annotated[list[Path], typer.Option(help="Folder of photos; several are joined.", show_default=False)]
Batch = Annotated[int, typer.Option(help="Crops in a step; under torchrun, of each process.", min=1)]
Output = Annotated[
    Optional[Path],  # noqa: UP045 (Typer on Python 3.10 evaluates it)
    typer.Option("--output", "-o", help="Folder for checkpoint and log; runs/NAME by default."),
]
Seed = Annotated[int, typer.Option(help="Of weights, crops and damage.", min=0)]
Rate = Annotated[float, typer.Option(help="The highest learning rate of the one-cycle schedule.")]
Where = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[
    str, typer.Option(help="bf16, fp32, or auto: BF16 where the device has matrix units for it (GPUs, AMX).")
]
HeldOut = Annotated[float, typer.Option(help="Share of the photos kept for validation.")]
Validation = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder of photos to judge by, instead of holding some out."),
]
TestShare = Annotated[float, typer.Option(help="Share of the pictures kept for a test set, judged once at the end.")]
Test = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder of photos for the test set, instead."),
]
Config = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="NAME=VALUE (JSON) for an argument of the network, such as blocks=5."),
]
Replay = Annotated[bool, typer.Option("--cuda-graph", help="Record the step once and replay it; fast GPUs only.")]
Patience = Annotated[
    int, typer.Option(help="Stop after so many validations without a better one, and keep the best; 0 takes all steps.")
]
ValidateEvery = Annotated[int, typer.Option(help="Steps between validations, for --patience and --tensorboard.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write curves and pictures for TensorBoard.")]
Minutes = Annotated[
    float,
    typer.Option(
        help="Stop after so many minutes of steps, with a checkpoint, and go on another time with --resume; 0 takes all steps."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in the output folder.")]
Start = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--start",
        callback=located,
        help="What to begin with (transfer): a model's name, a package or a checkpoint of the same architecture. "
        "Its head is new for another scale.",
    ),
]


Terms = Annotated[
    str, typer.Option(help="What the owners of the pictures allow, for the model's recipe; impasto models shows it.")
]
Whole = Annotated[
    Optional[tuple[int, int]],  # noqa: UP045
    typer.Option(
        help="Of stylizers, instead of crops: whole photos whose longer side is between these two, in pixels."
    ),
]
BackboneName = Annotated[
    str, typer.Option("--backbone", help="What features tell content: vgg16, vgg19, resnet50 or efficientnet-lite0.")
]
BackboneWeights = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--backbone-weights",
        "--vgg",
        help="The backbone's weights, .safetensors or .pth; else from the cache, a package, or torchvision's server.",
    ),
]
Freeze = Annotated[
    str,
    typer.Option(help="Stages of --start's network that stay as they are, such as stem,encoder.", show_default=False),
]
Qat = Annotated[
    bool,
    typer.Option(
        "--qat", help="Fine-tune --start's network for INT8; impasto quantize then takes the ranges it learnt."
    ),
]
Branches = Annotated[
    bool,
    typer.Option(
        "--branches",
        help="Learn each residual block's kernels in more ways than one; merged, they cost nothing in use.",
    ),
]
DepthDecay = Annotated[
    float, typer.Option(help="The learning rate is multiplied by this for each stage further from the head.")
]


@app.command()
def style(
    name: Name,
    painting: Annotated[
        list[Path],
        typer.Option(help="The picture to paint like. Several make a network that can mix them.", show_default=False),
    ],
    photos: Photos,
    backbone: BackboneName = "vgg16",
    backbone_weights: BackboneWeights = None,
    output: Output = None,
    steps: Annotated[int, typer.Option(min=1)] = 16000,
    batch: Batch = 4,
    crop: Annotated[int, typer.Option(help="Side of the crops, a multiple of 8.")] = 384,
    architecture: Annotated[str, typer.Option(help="thumbnail-stylizer or classic-stylizer.")] = "thumbnail-stylizer",
    learning_rate: Rate = 1e-3,
    weight: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="NAME=VALUE for a loss term: content, 'deep content', style, 'total variation', grid, shift, range, photo, temporal."
        ),
    ] = None,
    whole: Whole = None,
    scales: Annotated[
        int, typer.Option(help="Compare strokes with the painting's at so many sizes, each half the one before.")
    ] = 1,
    with_strength: Annotated[
        bool,
        typer.Option("--with-strength", help="Let the strength be chosen at run time; several paintings imply it."),
    ] = False,
    working_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Pixels of the longest side at which larger photos will be drawn, so that strokes grow with them.",
            show_default="every photo's own",
        ),
    ] = None,
    start: Start = None,
    freeze: Freeze = "",
    depth_decay: DepthDecay = 1.0,
    branches: Branches = False,
    qat: Qat = False,
    config: Config = None,
    held_out: HeldOut = 0.05,
    validation: Validation = None,
    test_share: TestShare = 0.0,
    test: Test = None,
    seed: Seed = 0,
    device: Where = "auto",
    precision: Precision = "auto",
    cuda_graph: Replay = False,
    patience: Patience = 0,
    validate_every: ValidateEvery = 1000,
    tensorboard: TensorBoard = False,
    minutes: Minutes = 0.0,
    terms: Terms = "",
    resume: Resume = False,
) -> None:
    """Teach a network to paint photos like a painting."""
    training = _training()
    options = training.StyleOptions(
        name=_checked_name(name),
        photos=photos,
        output=output or Path("runs") / name,
        fit=_fit_options(
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
            precision=precision,
            replay=cuda_graph,
            patience=patience,
            validate_every=validate_every,
            tensorboard=tensorboard,
            minutes=minutes,
            freeze=_stages(freeze),
            depth_decay=depth_decay,
            branches=branches,
            qat=qat,
        ),
        batch=batch,
        crop=crop,
        config=_config(config or []),
        held_out=held_out,
        validation=validation,
        test_share=test_share,
        test=test,
        start=start,
        resume=resume,
        terms=terms,
        command=_command(),
        paintings=tuple(painting),
        whole=whole,
        scales=scales,
        with_strength=with_strength,
        working_size=working_size,
        backbone=backbone,
        backbone_weights=backbone_weights,
        architecture=architecture,
        weights=_weights(weight or [], training.STYLE_WEIGHTS),
    )
    _show(_with_bar(options, training.fit_style))


@app.command()
def restore(
    name: Name,
    photos: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Folder of clean photos, to be damaged; several are joined."),
    ] = None,
    pairs: Annotated[
        Optional[tuple[Path, Path]],  # noqa: UP045
        typer.Option(help="Instead: a folder of pictures and one of what they ought to be, of the same file names."),
    ] = None,
    output: Output = None,
    steps: Annotated[int, typer.Option(min=1)] = 40000,
    batch: Batch = 32,
    crop: Annotated[int, typer.Option(help="Side of the crops, a multiple of 8.")] = 128,
    degrade: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="The damage to undo, such as shake:15+noise:0-5, missing:30, down:2 or jpeg:10-40; by default noise:0-55."
        ),
    ] = None,
    synthetic: Annotated[
        float, typer.Option(help="Share of pictures made by program among the photos: text, lines, shapes, gradients.")
    ] = 0.0,
    gray: Annotated[float, typer.Option(help="Share of the crops whose colour is taken away first.")] = 0.0,
    architecture: Annotated[
        str, typer.Option(help="unet-restorer, or plain-upscaler for a damage that scales down.")
    ] = "unet-restorer",
    learning_rate: Rate = 1e-3,
    weight: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=VALUE for a loss term: charbonnier, psnr, frequency, perceptual."),
    ] = None,
    backbone: BackboneName = "vgg16",
    backbone_weights: BackboneWeights = None,
    with_strength: Annotated[
        bool,
        typer.Option(
            "--with-strength", help="Let the strength be chosen at run time: 0 to 2 for what undoes noise, else 0 to 1."
        ),
    ] = False,
    start: Start = None,
    freeze: Freeze = "",
    depth_decay: DepthDecay = 1.0,
    branches: Branches = False,
    qat: Qat = False,
    config: Config = None,
    held_out: HeldOut = 0.05,
    validation: Validation = None,
    test_share: TestShare = 0.0,
    test: Test = None,
    seed: Seed = 0,
    device: Where = "auto",
    precision: Precision = "auto",
    cuda_graph: Replay = False,
    patience: Patience = 0,
    validate_every: ValidateEvery = 1000,
    tensorboard: TensorBoard = False,
    minutes: Minutes = 0.0,
    terms: Terms = "",
    resume: Resume = False,
) -> None:
    """Teach a network to undo damage of unknown strength, or what pairs of pictures show."""
    training = _training()
    from impasto.training.degrade import parse

    if pairs and degrade:
        raise OptionError("pairs show their own damage; leave --degrade away, or name clean photos with --photos")
    options = training.RestoreOptions(
        name=_checked_name(name),
        photos=photos,
        output=output or Path("runs") / name,
        fit=_fit_options(
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
            precision=precision,
            replay=cuda_graph,
            patience=patience,
            validate_every=validate_every,
            tensorboard=tensorboard,
            minutes=minutes,
            freeze=_stages(freeze),
            depth_decay=depth_decay,
            branches=branches,
            qat=qat,
        ),
        batch=batch,
        crop=crop,
        config=_config(config or []),
        held_out=held_out,
        validation=validation,
        test_share=test_share,
        test=test,
        start=start,
        resume=resume,
        terms=terms,
        command=_command(),
        degradation=parse(degrade or "noise:0-55"),
        pairs=pairs,
        synthetic=synthetic,
        gray=gray,
        architecture=architecture,
        with_strength=with_strength,
        backbone=backbone,
        backbone_weights=backbone_weights,
        weights=_weights(weight or [], training.RESTORE_WEIGHTS),
    )
    _show(_with_bar(options, training.fit_restore))


@app.command()
def distill(
    name: Name,
    teacher: Annotated[
        Path,
        typer.Option(
            callback=located, help="The checkpoint or package to learn from, or a model's name.", show_default=False
        ),
    ],
    photos: Photos,
    output: Output = None,
    steps: Annotated[int, typer.Option(min=1)] = 16000,
    batch: Batch = 8,
    crop: Annotated[int, typer.Option(help="Side of the crops, a multiple of 8.")] = 128,
    degrade: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The damage that the teacher undoes, such as noise:0-55; left away for a stylizer."),
    ] = None,
    style: Annotated[str, typer.Option(help="The style to learn, of a teacher that has several.")] = "",
    architecture: Annotated[
        str,
        typer.Option(help="The student; by default thumbnail-stylizer or unet-restorer, as the teacher's task says."),
    ] = "",
    whole: Whole = None,
    learning_rate: Rate = 1e-3,
    weight: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=VALUE for a loss term: teacher, truth."),
    ] = None,
    start: Start = None,
    freeze: Freeze = "",
    depth_decay: DepthDecay = 1.0,
    branches: Branches = False,
    config: Config = None,
    held_out: HeldOut = 0.05,
    validation: Validation = None,
    test_share: TestShare = 0.0,
    test: Test = None,
    seed: Seed = 0,
    device: Where = "auto",
    precision: Precision = "auto",
    cuda_graph: Replay = False,
    patience: Patience = 0,
    validate_every: ValidateEvery = 1000,
    tensorboard: TensorBoard = False,
    minutes: Minutes = 0.0,
    terms: Terms = "",
    resume: Resume = False,
) -> None:
    """Teach a small network to draw what a larger one draws."""
    _training()
    from impasto.training.degrade import parse
    from impasto.training.distillation import DISTILL_WEIGHTS, DistillOptions, fit_distill

    options = DistillOptions(
        name=_checked_name(name),
        photos=photos,
        output=output or Path("runs") / name,
        fit=_fit_options(
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
            precision=precision,
            replay=cuda_graph,
            patience=patience,
            validate_every=validate_every,
            tensorboard=tensorboard,
            minutes=minutes,
            freeze=_stages(freeze),
            depth_decay=depth_decay,
            branches=branches,
        ),
        batch=batch,
        crop=crop,
        config=_config(config or []),
        held_out=held_out,
        validation=validation,
        test_share=test_share,
        test=test,
        start=start,
        resume=resume,
        terms=terms,
        command=_command(),
        architecture=architecture,
        teacher=teacher,
        degradation=parse(degrade) if degrade else None,
        style=style,
        whole=whole,
        weights=_weights(weight or [], DISTILL_WEIGHTS),
    )
    _show(_with_bar(options, fit_distill))


def _with_bar(options: Any, fit: Callable[..., FitResult]) -> FitResult:
    columns = (
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[speed]:.1f} steps/s"),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    from impasto.training.loop.trainer import STATE

    chief = _is_chief()
    state = options.output / STATE
    anothers = state.exists() and not options.resume
    with Progress(*columns, console=err, transient=True, disable=not chief) as bar:
        task = bar.add_task("", total=options.fit.steps, speed=0.0, losses="reading the photos")

        def report(progress: Any) -> None:
            text = "  ".join(f"{key} {value:.4f}" for key, value in progress.losses.items())
            bar.update(task, completed=progress.step, speed=bar.tasks[0].speed or 0.0, losses=text)

        try:
            return fit(options, report)
        except KeyboardInterrupt:
            if not chief:  # the first process has said it all
                raise typer.Exit(130) from None
            bar.stop()
            if state.exists() and not anothers:
                said = f"the state is saved in {options.output}; go on with the same command and --resume"
            else:
                said = "stopped; nothing was saved"
            err.print(said, markup=False)
            raise


def _is_chief() -> bool:
    """Whether this process speaks for all that torchrun has started."""
    from impasto.training.loop.processes import launched

    return launched().chief


def _show(result: FitResult) -> None:
    if not _is_chief():
        return
    out.print(str(result), markup=False, soft_wrap=True)
    if result.unfinished:
        err.print("the time is up; go on with the same command and --resume", markup=False)
    out.print(f"next: impasto export {result.checkpoint}", markup=False)


def _training() -> Any:
    try:
        from impasto.training import recipes
    except ImportError as error:
        raise MissingDependency(f"training needs torch ({error}): pip install 'impasto[train]'") from None
    return recipes


def _fit_options(**given: Any) -> FitOptions:
    from impasto.training.loop.trainer import FitOptions

    return FitOptions(**given)


def _stages(given: str) -> tuple[str, ...]:
    return tuple(stage for stage in (part.strip() for part in given.split(",")) if stage)


def _checked_name(name: str) -> str:
    from impasto.package.writer import check_name

    return check_name(name)


def _command() -> str:
    """The command line as it was typed, less what only resumed it."""
    return shlex.join(["impasto", *(argument for argument in sys.argv[1:] if argument != "--resume")])


def _weights(given: list[str], defaults: dict[str, float]) -> dict[str, float]:
    weights = dict(defaults)
    for entry in given:
        key, _, value = entry.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1
        if key not in weights or not 0 <= number < math.inf:
            raise OptionError(
                f"cannot read the weight {entry!r}; write NAME=VALUE with NAME one of {', '.join(weights)} and VALUE a number from 0 on"
            )
        weights[key] = number
    return weights


def _config(given: list[str]) -> dict[str, Any]:
    config = {}
    for entry in given:
        key, _, value = entry.partition("=")
        try:
            config[key] = json.loads(value)
        except json.JSONDecodeError:
            raise OptionError(f"cannot read {entry!r}; write NAME=VALUE with VALUE in JSON, such as blocks=5") from None
    return config
