"""`impasto train style`, `impasto train restore` and `impasto train distill`."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from impasto import training
from impasto.errors import OptionError

from .console import Commands, err, out
from .flags import takes
from .options import located
from .progress import Bar

if TYPE_CHECKING:
    from impasto.training import FitOptions, FitResult

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Train a stylizer or a restorer.")

# Typer evaluates the annotations on Python 3.10, which knows no `Path | None` there: hence Optional.
Photos = Annotated[list[Path], typer.Option(help="Folder of photos. May be repeated.", show_default=False)]
Whole = Annotated[
    Optional[tuple[int, int]],  # noqa: UP045
    typer.Option(
        help="For stylizers: train on whole photos instead of crops. Their longer side is drawn between these two, in pixels."
    ),
]
Crop = Annotated[int, typer.Option(help="Side of the square crops in pixels, a multiple of 8.")]
Steps = Annotated[int, typer.Option(help="Number of training steps.", min=1)]
Batch = Annotated[int, typer.Option(help="Crops in a step. Under torchrun: of each process.", min=1)]


def _branches_are_gone(given: bool) -> bool:
    if given:
        raise OptionError(
            "--branches is gone: it brought 0.05 dB and no model used it (docs/results/training.md); leave it out"
        )
    return given


@dataclass(kw_only=True)
class TrainFlags:
    """What all three verbs take."""

    name: Annotated[str, typer.Argument(help="Name of the model.", show_default=False)]
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Folder for the checkpoint and the log. Default: runs/NAME."),
    ] = None
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate of the one-cycle schedule.")] = 1e-3
    optimizer: Annotated[
        str, typer.Option(help="adam, or muon: Muon for kernels and other matrices, Adam for the rest.")
    ] = "adam"
    start: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--start",
            callback=located,
            help="Begin with the weights of this model, package or checkpoint (transfer learning). It must have the same "
            "architecture; for another scale its head starts at random.",
        ),
    ] = None
    freeze: Annotated[
        str,
        typer.Option(
            help="Stages of --start's network whose weights do not change, such as stem,encoder.", show_default=False
        ),
    ] = ""
    depth_decay: Annotated[
        float, typer.Option(help="Factor on the learning rate for each stage further away from the head.")
    ] = 1.0
    config: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=VALUE (JSON): an argument of the network, such as blocks=5. May be repeated."),
    ] = None
    held_out: Annotated[float, typer.Option(help="Share of the photos that is kept for validation.")] = 0.05
    validation: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of photos for validation. No other photos are held out then."),
    ] = None
    test_share: Annotated[
        float, typer.Option(help="Share of the photos that is kept for a test set, judged once at the end.")
    ] = 0.0
    test: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of photos for the test set, instead of --test-share."),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of the fresh weights, the crops and the damage.", min=0)] = 0
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    precision: Annotated[
        str, typer.Option(help="bf16, fp32 or auto. auto is BF16 where the device has matrix units for it (GPUs, AMX).")
    ] = "auto"
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Record the step as a CUDA graph and replay it. Faster on fast GPUs.")
    ] = False
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after this many validations without a better one, and keep the best. 0: never stop early."
        ),
    ] = 0
    validate_every: Annotated[
        int, typer.Option(help="Steps between two validations, for --patience and --tensorboard.")
    ] = 1000
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write curves and pictures for TensorBoard.")
    ] = False
    minutes: Annotated[
        float,
        typer.Option(
            help="Stop after this many minutes of steps and write a checkpoint. Continue with --resume. 0: no limit."
        ),
    ] = 0.0
    terms: Annotated[
        str, typer.Option(help="Terms of use of the pictures, for the model's recipe. `impasto models` shows them.")
    ] = ""
    resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished run in the output folder.")] = False
    branches: Annotated[bool, typer.Option("--branches", hidden=True, callback=_branches_are_gone)] = False

    def common(self, steps: int, weights: dict[str, float]) -> dict[str, Any]:
        """The arguments of `training.options.TrainingOptions`. weights: the loss's usual ones."""
        return {
            "name": _checked_name(self.name),
            "output": self.output or Path("runs") / self.name,
            "fit": self._fit_options(steps),
            "config": _config(self.config or []),
            "held_out": self.held_out,
            "validation": self.validation,
            "test_share": self.test_share,
            "test": self.test,
            "start": self.start,
            "resume": self.resume,
            "terms": self.terms,
            "command": _command(),
            "weights": weights,
        }

    def _fit_options(self, steps: int) -> FitOptions:
        return training.FitOptions(
            steps=steps,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            replay=self.cuda_graph,
            patience=self.patience,
            validate_every=self.validate_every,
            tensorboard=self.tensorboard,
            minutes=self.minutes,
            freeze=tuple(stage for stage in (part.strip() for part in self.freeze.split(",")) if stage),
            depth_decay=self.depth_decay,
        )


@dataclass(kw_only=True)
class LearnerFlags(TrainFlags):
    """What the two verbs take that learn from pictures alone."""

    backbone: Annotated[
        str,
        typer.Option(help="Classifier whose features compare pictures: vgg16, vgg19, resnet50 or efficientnet-lite0."),
    ] = "vgg16"
    backbone_weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--backbone-weights",
            "--vgg",
            help="File of the backbone's weights, .safetensors or .pth. Default: from the cache, an installed package, or "
            "torchvision's server.",
        ),
    ] = None
    with_strength: Annotated[
        bool,
        typer.Option(
            "--with-strength",
            help="Make the strength adjustable at run time: 0 to 1, or 0 to 2 for a denoiser. Several paintings imply it.",
        ),
    ] = False
    qat: Annotated[
        bool,
        typer.Option(
            "--qat",
            help="Quantization-aware fine-tuning of --start's network. `impasto quantize` then uses the ranges that it learnt.",
        ),
    ] = False

    def common(self, steps: int, weights: dict[str, float]) -> dict[str, Any]:
        """The common options, and what the options of stylizers and restorers have besides."""
        return {
            **super().common(steps, weights),
            "with_strength": self.with_strength,
            "backbone": self.backbone,
            "backbone_weights": self.backbone_weights,
        }

    def _fit_options(self, steps: int) -> FitOptions:
        return replace(super()._fit_options(steps), qat=self.qat)


@dataclass(kw_only=True)
class StyleFlags(LearnerFlags):
    """Options of `impasto train style`."""

    painting: Annotated[
        list[Path],
        typer.Option(help="Picture of the style. Repeat it for one network that can mix styles.", show_default=False),
    ]
    photos: Photos
    steps: Steps = 16000
    batch: Batch = 4
    crop: Crop = 384
    whole: Whole = None
    architecture: Annotated[str, typer.Option(help="thumbnail-stylizer or classic-stylizer.")] = "thumbnail-stylizer"
    weight: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="NAME=VALUE: weight of a loss term: content, 'deep content', style, 'total variation', grid, shift, range, photo, "
            "temporal."
        ),
    ] = None
    scales: Annotated[
        int,
        typer.Option(
            help="Number of sizes at which strokes are compared with the painting's. Each is half the one before."
        ),
    ] = 1
    working_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Longest side in pixels at which larger photos will be drawn, so that strokes grow with the photo.",
            show_default="the photo's own",
        ),
    ] = None


@dataclass(kw_only=True)
class RestoreFlags(LearnerFlags):
    """Options of `impasto train restore`."""

    photos: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Folder of clean photos, which training damages. May be repeated."),
    ] = None
    pairs: Annotated[
        Optional[tuple[Path, Path]],  # noqa: UP045
        typer.Option(
            help="Instead of --photos: a folder of pictures, and one of what they should become. File names match."
        ),
    ] = None
    degrade: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Damage to undo, such as shake:15+noise:0-5, missing:30, down:2 or jpeg:10-40. Default: noise:0-55."
        ),
    ] = None
    steps: Steps = 40000
    batch: Batch = 32
    crop: Crop = 128
    synthetic: Annotated[
        float, typer.Option(help="Share of generated pictures among the photos: text, lines, shapes, gradients.")
    ] = 0.0
    gray: Annotated[float, typer.Option(help="Share of the crops that are turned gray before they are damaged.")] = 0.0
    architecture: Annotated[
        str, typer.Option(help="unet-restorer, or plain-upscaler for a damage that scales down.")
    ] = "unet-restorer"
    weight: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=VALUE: weight of a loss term: charbonnier, psnr, frequency, perceptual."),
    ] = None


@dataclass(kw_only=True)
class DistillFlags(TrainFlags):
    """Options of `impasto train distill`."""

    teacher: Annotated[
        Path,
        typer.Option(
            callback=located, help="Model, package or checkpoint that the student learns from.", show_default=False
        ),
    ]
    photos: Photos
    degrade: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Damage that the teacher undoes, such as noise:0-55. Leave it out for a stylizer."),
    ] = None
    style: Annotated[str, typer.Option(help="Style to learn from a teacher of several.")] = ""
    steps: Steps = 16000
    batch: Batch = 8
    crop: Crop = 128
    whole: Whole = None
    architecture: Annotated[
        str,
        typer.Option(
            help="The student's network. Default: thumbnail-stylizer or unet-restorer, as the teacher's task asks."
        ),
    ] = ""
    weight: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=VALUE: weight of a loss term: teacher, truth."),
    ] = None


@app.command()
@takes(StyleFlags)
def style(flags: StyleFlags) -> None:
    """Train a network to paint photos in the style of a painting."""
    _require_torch()
    from impasto.training.style import STYLE_WEIGHTS

    options = training.StyleOptions(
        **flags.common(flags.steps, _weights(flags.weight or [], STYLE_WEIGHTS)),
        photos=flags.photos,
        batch=flags.batch,
        crop=flags.crop,
        paintings=tuple(flags.painting),
        whole=flags.whole,
        scales=flags.scales,
        working_size=flags.working_size,
        architecture=flags.architecture,
    )
    _show(_with_bar(options, training.train_style))


@app.command()
@takes(RestoreFlags)
def restore(flags: RestoreFlags) -> None:
    """Train a network to undo damage of unknown strength, or to turn one picture of a pair into the other."""
    _require_torch()
    from impasto.training.degrade import parse
    from impasto.training.restoration import RESTORE_WEIGHTS

    if flags.pairs and flags.degrade:
        raise OptionError("pairs show their own damage; leave --degrade out, or name clean photos with --photos")
    options = training.RestoreOptions(
        **flags.common(flags.steps, _weights(flags.weight or [], RESTORE_WEIGHTS)),
        photos=flags.photos,
        batch=flags.batch,
        crop=flags.crop,
        degradation=parse(flags.degrade or "noise:0-55"),
        pairs=flags.pairs,
        synthetic=flags.synthetic,
        gray=flags.gray,
        architecture=flags.architecture,
    )
    _show(_with_bar(options, training.train_restorer))


@app.command()
@takes(DistillFlags)
def distill(flags: DistillFlags) -> None:
    """Train a small network (the student) to draw what a larger one (the teacher) draws."""
    _require_torch()
    from impasto.training.degrade import parse
    from impasto.training.distillation import DISTILL_WEIGHTS

    options = training.DistillOptions(
        **flags.common(flags.steps, _weights(flags.weight or [], DISTILL_WEIGHTS)),
        photos=flags.photos,
        batch=flags.batch,
        crop=flags.crop,
        architecture=flags.architecture,
        teacher=flags.teacher,
        degradation=parse(flags.degrade) if flags.degrade else None,
        style=flags.style,
        whole=flags.whole,
    )
    _show(_with_bar(options, training.distill))


def _with_bar(options: Any, train: Callable[..., FitResult]) -> FitResult:
    from impasto.training.loop.run_folder import STATE

    chief = _is_chief()
    state = options.output / STATE
    anothers = state.exists() and not options.resume
    with Bar("steps", quiet=not chief) as bar:
        bar.say("reading the photos", 0, options.fit.steps)

        def report(now: training.StepReport) -> None:
            text = "  ".join(f"{key} {value:.4f}" for key, value in now.losses.items())
            bar.say(text, now.step, options.fit.steps)

        try:
            return train(options, report)
        except KeyboardInterrupt:
            if not chief:  # the first process has printed it all
                raise typer.Exit(130) from None
            bar.stop()
            if state.exists() and not anothers:
                said = f"the state is saved in {options.output}; continue with the same command and --resume"
            else:
                said = "stopped; nothing was saved"
            err.print(said, markup=False)
            raise


def _is_chief() -> bool:
    """Whether this process prints for all that torchrun has started."""
    from impasto.training.loop.processes import launched

    return launched().chief


def _show(result: FitResult) -> None:
    if not _is_chief():
        return
    out.print(str(result), markup=False, soft_wrap=True)
    if result.unfinished:
        err.print("the time is up; continue with the same command and --resume", markup=False)
    out.print(f"next: impasto export {result.checkpoint}", markup=False)


def _require_torch() -> None:
    """Raises MissingDependency where training's libraries are not installed."""
    training.train_restorer  # noqa: B018 (its first use imports them)


def _checked_name(name: str) -> str:
    from impasto.package.writer import check_name

    return check_name(name)


def _command() -> str:
    """The command line as it was typed, without --resume."""
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
