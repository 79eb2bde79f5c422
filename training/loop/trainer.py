"""Gradient descent: seeded, resumable to the bit, with averaged weights."""

from __future__ import annotations

import copy
import datetime
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from impasto import images
from impasto._version import __version__
from impasto.errors import OptionError, TrainingError, first_line
from impasto.files import atomic_path, make_folder, write_text
from impasto.training import losses, qat
from impasto.training.checkpoint import name_of, round_to_half, save_checkpoint
from impasto.training.data.photos import Photos
from impasto.training.networks import Network
from impasto.training.networks.branches import branch_out
from impasto.training.spandrel_models import FOREIGN
from impasto.training.tasks import Task

from . import stages
from .allocator import keep_freed_memory
from .cuda_graph import Replay
from .interrupt import Interrupt
from .processes import Processes, Together, launched
from .run_folder import BOARD, CHECKPOINT, LOG, PREVIEW, STATE, is_unfinished
from .tensorboard import Board

LOOK_EVERY = 25
"""Steps between two looks at the losses; each look waits for the device."""


@dataclass(frozen=True)
class FitOptions:
    """How to train, whatever the task."""

    steps: int
    learning_rate: float = 1e-3
    """The highest of a one-cycle schedule: linear warm-up over 5 % of the steps, then cosine to 1 % of it."""
    averaging: float = 0.999
    """Decay per step of the exponential moving average of the weights, which is what gets shipped."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    seed: int = 0
    device: str = "auto"
    """"auto", "cpu" or "cuda"."""
    precision: str = "auto"
    """What the network computes in: "bf16", "fp32", or "auto" for BF16 where the device is faster with it. Weights,
    losses and averages stay FP32."""
    save_seconds: float = 60
    """Between two saved states; a killed run loses no more than this."""
    replay: bool = False
    """Record the step as a CUDA graph; for GPUs that are faster than Python. The device must be a GPU."""
    patience: int = 0
    """Stop after so many validations in a row without a better one, and ship the best; 0: take all steps, ship the last."""
    validate_every: int = 1000
    """Steps between two validations, where `patience` or `tensorboard` asks for them."""
    tensorboard: bool = False
    """Also write curves and previews to the folder BOARD in the output folder."""
    freeze: tuple[str, ...] = ()
    """Stages of the network, or beginnings of its parameters' names, that stay as they are."""
    depth_decay: float = 1.0
    """What the learning rate is multiplied by for each stage further from the head."""
    qat: bool = False
    """Compute as INT8 will, so that the weights get used to it, and learn the ranges for `impasto quantize`."""
    branches: bool = False
    """Learn the residual blocks' kernels in more ways than one, merged in what ships (`networks.branches`)."""
    minutes: float = 0
    """Stop after so many minutes of steps in this call, with a checkpoint, and the state to go on from; 0: take all steps. The
    learning rate follows the steps, so that the run that went on is the uninterrupted one."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0 or not 0 <= self.averaging < 1 or not self.clip > 0:
            raise OptionError(
                f"steps {self.steps}, learning rate {self.learning_rate}, averaging {self.averaging}, clip {self.clip}: wanted "
                "at least 1, above 0, 0 to 1, above 0"
            )
        if not 0 <= self.seed < 1 << 32:  # generators take 64 bits, and each step has a seed of its own
            raise OptionError(f"seed {self.seed}: wanted a whole number from 0 to {(1 << 32) - 1}")
        if self.qat and self.branches:
            raise OptionError("weights get used to INT8 when branches have done their work; leave one of the two away")
        if not 0 < self.depth_decay <= 1:
            raise OptionError(f"depth decay {self.depth_decay}: wanted above 0, at most 1")
        if not 0 <= self.minutes < math.inf:
            raise OptionError(f"minutes {self.minutes}: wanted above 0, or 0 for no limit")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise OptionError(f"unknown precision {self.precision!r}; choose auto, bf16 or fp32")
        if self.patience < 0 or self.validate_every < 1:
            raise OptionError(
                f"patience {self.patience}, validation every {self.validate_every} steps: wanted at least 0, at least 1"
            )

    def averaging_at(self, step: int) -> float:
        """The moving average's decay at a step, counted from 0: shorter at first, so that it forgets the random start."""
        return min(self.averaging, (1 + step) / (10 + step))

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0: Smith and Topin 2018, with a cosine descent."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


@dataclass(frozen=True)
class FitResult:
    """What training made."""

    checkpoint: Path
    steps: int
    seconds: float
    losses: Mapping[str, float]
    quality: Mapping[str, float]
    """On the pictures held out; empty where there are none."""
    test: Mapping[str, float] = field(default_factory=dict)
    """On the test set, which nothing was chosen by; empty where there is none."""
    int8: Mapping[str, float] = field(default_factory=dict)
    """On the pictures held out, computed as INT8 will; empty but for quantization-aware training."""
    skipped: int = 0
    """Files that could not be used; the checkpoint's recipe names them."""
    unfinished: bool = False
    """Whether the time was up before the last step; the state to go on from lies beside the checkpoint."""

    def __str__(self) -> str:
        measured = _listed(self.quality or self.losses) + (f"; test set: {_listed(self.test)}" if self.test else "")
        measured += f"; in INT8: {_listed(self.int8)}" if self.int8 else ""
        skipped = f"; {self.skipped} broken or small files were left out" if self.skipped else ""
        return f"{self.checkpoint}: {self.steps} steps in {self.seconds:.0f} s; {measured}{skipped}"


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    step: int
    steps: int
    losses: Mapping[str, float]


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" as a device, of several GPUs this process's own. Raises OptionError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise OptionError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("no CUDA device can be used by this torch; choose --device cpu, or see impasto doctor")
    processes = launched()
    if name == "cpu" or processes.count == 1:
        return torch.device(name)
    if processes.local_count > torch.cuda.device_count():
        raise OptionError(
            f"{processes.local_count} processes were started on this machine, which has {torch.cuda.device_count()} GPUs; choose a "
            "smaller --nproc-per-node, or --device cpu"
        )
    return torch.device(name, processes.local_rank)


def fast_precision(device: torch.device) -> str:
    """ "bf16" where the device multiplies matrices of it faster than of FP32 (GPUs, x86-64 with AMX or AVX-512 BF16), else "fp32"."""
    if device.type == "cuda":
        return "bf16"
    # Without such instructions, CPUs emulate BF16. Older releases of torch cannot tell, and train in FP32.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def fit(
    task: Task,
    options: FitOptions,
    folder: str | os.PathLike[str],
    *,
    name: str,
    kind: str,
    recipe: dict[str, Any],
    test: Photos | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> FitResult:
    """Train task.network and write `checkpoint.safetensors` into `folder`.

    name, kind: the model's name and its task for the checkpoint. recipe: what the caller knows of how it is made.
    test: photos to judge the finished network by, once.
    resume: go on from the state in `folder`; the result is the same, to the bit on one device, as without the
    interruption. Ctrl-C saves the state first, and so does the end of the last step: what follows can fail and be done again.
    Where `minutes` are up before the last step, the checkpoint is what is there by then, not judged by `test`, and the state stays.
    Raises TrainingError, with the step and the cause, where a loss or a weight is no longer finite, where `patience` has
    nothing to judge by, and where there is a run in `folder` that is neither resumed nor finished, or another model that is.
    Raises OptionError where all loss terms have weight 0.

    Under torchrun all processes call it alike; gradients are averaged over them, the first alone writes, validates and
    reports, and all get its result.
    """
    if options.patience and not task.can_validate:
        raise TrainingError("patience needs photos to judge by; hold some out, or name a folder with --validation")
    if not any(task.weights.values()):
        raise OptionError(
            f"all loss terms have weight 0 ({', '.join(task.weights)}); give one of them more with --weight"
        )
    folder = make_folder(folder)
    _check_beginning(folder, resume, name)
    run = _Run(task, options, folder, _fingerprint(recipe, options, task.network))
    try:
        if resume:
            run.load()
        run.descend(report)
        return run.together.from_chief(lambda: _finish(run, task, options, folder, name, kind, recipe, test))
    finally:
        run.close()


def _check_beginning(folder: Path, resume: bool, name: str) -> None:
    unfinished = is_unfinished(folder)
    if resume and not unfinished:
        raise TrainingError(f"{folder} holds no unfinished run to resume; leave --resume away to begin one")
    if unfinished and not resume:
        raise TrainingError(f"{folder} holds an unfinished run; go on with --resume, or choose another folder with -o")
    finished = folder / CHECKPOINT
    # The same name again is the same model made anew. A file that cannot be read is not known to be that.
    if finished.exists() and not resume and (other := name_of(finished)) != name:
        raise TrainingError(
            f"{finished} is {f'the finished model {other!r}' if other else 'of another kind'} and would be overwritten by "
            f"{name!r}; choose another folder with -o, or move the file away"
        )


def _finish(
    run: _Run, task: Task, options: FitOptions, folder: Path, name: str, kind: str, recipe: dict[str, Any],
    test: Photos | None,
) -> FitResult:  # fmt: skip
    """Judge what was trained and write it."""
    network = run.averaged()
    round_to_half(network)
    if not _all_finite(network.state_dict()):
        raise TrainingError(
            "the finished weights are not finite in FP16; begin anew elsewhere with a lower --learning-rate"
        )
    quality = {}
    if options.qat:
        quality["validation in INT8"] = task.validate(network)
        network, learnt = qat.removed(network)
        recipe = {**recipe, qat.RECIPE: learnt}
    quality["validation"] = task.validate(network)
    if test is not None and not run.unfinished:
        quality["test"] = task.judge(network, test)
    recipe = {
        **recipe,
        "optimizer": {"adam, one-cycle": asdict(options)},
        "losses": dict(task.weights),
        **run.history(),
        **_circumstances(run.seconds),
    }
    save_checkpoint(folder / CHECKPOINT, network, name=name, task=kind, recipe=recipe, quality=quality)
    preview = task.preview(network)
    if preview is None:
        (folder / PREVIEW).unlink(missing_ok=True)  # an earlier run's
    else:
        images.write(folder / PREVIEW, preview)
    if not run.unfinished:
        (folder / STATE).unlink(missing_ok=True)
    return FitResult(
        folder / CHECKPOINT,
        run.step,
        run.seconds,
        run.last_losses,
        quality["validation"],
        quality.get("test", {}),
        quality.get("validation in INT8", {}),
        len(recipe.get("data", {}).get("skipped", ())),
        run.unfinished,
    )


def _strategy(task: Task, processes: Processes) -> str:
    if processes.count == 1:
        return "auto"
    # Other projects' networks may hold parameters that only inference uses.
    return "ddp_find_unused_parameters_true" if task.network.architecture == FOREIGN else "ddp"


def _branch_out(network: Network, seed: int) -> None:
    """Raises OptionError where nothing can have branches; other projects' networks may look into their convolutions."""
    if network.architecture == FOREIGN or not branch_out(network, seed):
        raise OptionError("branches grow on the residual blocks of networks of ours; leave --branches away")


_MATHEMATICS = ("steps", "learning_rate", "averaging", "clip", "seed", "precision", "patience", "validate_every")
"""The options that the weights depend on."""

_LATER = ("freeze", "depth_decay", "qat", "branches")
"""More of them, which states of earlier versions do not know."""


class _Run:
    """Everything that changes while training, and how it is saved."""

    def __init__(self, task: Task, options: FitOptions, folder: Path, fingerprint: str) -> None:
        import lightning_fabric

        # What it has to say at INFO (that it uses AMP) is no news to the user of a command line.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self._task, self._options, self._folder, self._fingerprint = task, options, folder, fingerprint
        self._device = pick_device(options.device)
        on_gpu = self._device.type == "cuda"
        if not on_gpu:
            keep_freed_memory()
        if options.replay and not on_gpu:
            raise OptionError("only a GPU replays steps; leave --replay away, or choose --device cuda")
        wanted = fast_precision(self._device) if options.precision == "auto" else options.precision
        precision: Any = "bf16-mixed" if wanted == "bf16" else "32-true"
        # MKL settles how it computes a root at its first one; where two threads do that at once, one of them rounds otherwise.
        torch.ones(1).sqrt()
        torch.backends.cudnn.benchmark = on_gpu  # every step has the same shapes: let cuDNN try its algorithms once
        processes = launched()
        if options.replay and processes.count > 1:
            raise OptionError("a recorded step knows one process; leave --cuda-graph away, or torchrun")
        self._fabric = lightning_fabric.Fabric(
            accelerator=self._device.type,
            devices=processes.local_count,
            num_nodes=processes.count // processes.local_count,
            strategy=_strategy(task, processes),
            precision=precision,
        )
        self._fabric.launch()
        self.together = Together(processes)
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.qat:
            qat.prepare(task)
        if options.branches:
            _branch_out(task.network, options.seed)
        stages.freeze(task.network, options.freeze)
        groups = stages.groups(task.network, options.depth_decay)
        self._shares = [group.share for group in groups]
        parameters: Any = [{"params": group.parameters} for group in groups]
        optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, fused=on_gpu)
        self._module, self._optimizer = self._fabric.setup(task, optimizer)
        self._average = AveragedModel(task.network, multi_avg_fn=self._blend)
        self._replay = Replay(self._gradients) if options.replay else None
        self._names = list(task.weights)
        self.step = 0
        self.seconds = 0.0
        self.last_losses: dict[str, float] = {}
        self.unfinished = False  # whether the time was up before the last step
        self._best: _Best | None = None
        self._judged = 0  # the last step that was validated
        self._stale = False
        self._saved = time.perf_counter()
        self._board: Board | None = None

    def descend(self, report: Callable[[Progress], None]) -> None:
        """All steps that are left, or that `minutes` hold; a run that stops before the last has saved its state.

        Ctrl-C saves the state after the step that it meets, then raises KeyboardInterrupt.
        """
        deadline = time.perf_counter() + 60 * self._options.minutes if self._options.minutes else math.inf
        started = time.perf_counter() - self.seconds
        terms: list[Tensor] = []
        options, together = self._options, self.together
        if together.processes.chief:
            if self.step == 0:
                (self._folder / LOG).unlink(missing_ok=True)
            if options.tensorboard:
                self._board = Board(self._folder / BOARD, self.step)
        with Interrupt(patient=together.processes.count > 1) as interrupt:
            if self.step % LOOK_EVERY == 0 or self.step == options.steps:
                # A run that was stopped leaves this step's validation to the one that goes on.
                self._stale = together.from_chief(self._judge_in_turn)
            while self.step < options.steps and not self._stale:
                with together.watched():
                    terms.append(self._descend_once())
                self.step += 1
                self.seconds = time.perf_counter() - started
                late = self.step < options.steps and time.perf_counter() > deadline
                stop = together.any(interrupt.asked or late)
                if self.step % LOOK_EVERY == 0 or self.step == options.steps or stop:
                    means = together.mean(torch.stack(terms))
                    terms = []
                    self._require_finite(means)
                    self._stale = together.from_chief(partial(self._look, means, report, stop))
                if stop:
                    self.unfinished = True
                    break
            if together.any(interrupt.asked):  # in a step, or in the last validation
                raise KeyboardInterrupt

    def averaged(self) -> Network:
        """The network with the averaged weights, for inference."""
        network: Network = self._average.module  # type: ignore[assignment]
        if self._best is not None:
            network = copy.deepcopy(network)
            network.load_state_dict(self._best.network)
        return network.folded()

    def history(self) -> dict[str, Any]:
        """For the recipe: when a run with patience or little time ended, and which step's weights it ships."""
        if self._best is None and not self.unfinished:
            return {}
        return {"stopped": {"step": self.step, "shipped": self.step if self._best is None else self._best.step}}

    def close(self) -> None:
        """End the curves, and the company of other processes."""
        if self._board is not None:
            self._board.close()
        self.together.leave()

    def save(self) -> None:
        """Write the state atomically. Raises TrainingError where it is not worth keeping: a weight is not finite."""
        if not (_all_finite(self._task.network.state_dict()) and _all_finite(self._average.state_dict())):
            raise TrainingError(f"step {self.step}: a weight is not finite any more; {self._what_now()}")
        state = {
            "fingerprint": self._fingerprint,
            "step": self.step,
            "judged": self._judged,
            "seconds": self.seconds,
            "network": self._task.network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best and asdict(self._best),
        }
        with atomic_path(self._folder / STATE) as path:
            torch.save(state, path)

    def load(self) -> None:
        """Go back to the saved state. Raises TrainingError where it is broken, or another run's."""
        path = self._folder / STATE
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            if other := _differences(state["fingerprint"], self._fingerprint):
                raise TrainingError(
                    f"the run in {self._folder} was begun with other options or data: {'; '.join(other)}. Give it the same again, or "
                    "begin anew elsewhere"
                )
            self._task.network.load_state_dict(state["network"])
            self._average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
            self._best = state.get("best") and _Best(**state["best"])
            self._judged = state.get("judged", self.step)
            self._stale = self._has_best_for_long()
            if self.together.processes.chief:
                self._forget_lines_after(self.step)
        except TrainingError:
            raise
        except Exception as error:  # torch.load raises whatever unpickling raises
            raise TrainingError(
                f"cannot resume from {path}: {first_line(error)}; begin anew elsewhere, or remove the file to begin anew here"
            ) from None

    def _descend_once(self) -> Tensor:
        """One step. Returns the loss terms, (terms,), still on the device."""
        rate = self._options.rate_at(self.step)
        for group, share in zip(self._optimizer.param_groups, self._shares, strict=True):
            group["lr"] = rate * share
        batch = self._task.batch(self.step)
        if self._replay is None or not self._replay.recorded:
            self._optimizer.zero_grad(set_to_none=True)
        terms = self._gradients(*batch) if self._replay is None else self._replay(*batch)
        self._fabric.clip_gradients(
            self._module, self._optimizer, max_norm=self._options.clip, error_if_nonfinite=False
        )
        self._optimizer.step()
        self._average.update_parameters(self._task.network)
        return terms

    def _judge_in_turn(self) -> bool:
        """Validate the averaged weights as they would ship, where it is time to.

        Returns whether validation has not become better for long enough.
        """
        if self._judging_is_due():
            self._judge()
        return self._has_best_for_long()

    def _judging_is_due(self) -> bool:
        options = self._options
        if not (options.patience or options.tensorboard) or self._judged == self.step:
            return False
        return (
            self.step == options.steps or self.step // options.validate_every > self._judged // options.validate_every
        )

    def _judge(self) -> None:
        network: Network = self._average.module.folded()  # type: ignore[operator]
        round_to_half(network)
        quality = self._task.validate(network)
        self._judged = self.step
        if self._options.patience:
            self._remember_best(self._task.score(quality))
        self._log({"step": self.step, "validation": quality})
        if self._board is not None:
            self._board.scalars("validation", quality, self.step)
            preview = self._task.preview(network)
            if preview is not None:
                self._board.picture("before and after", preview, self.step)

    def _remember_best(self, score: float) -> None:
        if self._best is not None and not score > self._best.score:
            self._best.stale += 1
            return
        weights = {key: value.detach().clone() for key, value in self._average.module.state_dict().items()}
        self._best = _Best(self.step, score, 0, weights)

    def _gradients(self, *batch: Tensor) -> Tensor:
        """Leave the loss's gradients in the parameters. Returns the loss terms, (terms,)."""
        terms = self._module(*batch)
        self._fabric.backward(losses.weighted(terms, self._task.weights))
        return torch.stack([terms[name].detach().float() for name in self._names])

    def _blend(self, averaged: Any, current: Any, _: Any) -> None:
        get_ema_multi_avg_fn(self._options.averaging_at(self.step))(averaged, current, None)

    def _require_finite(self, terms: Tensor) -> None:
        """Stop at the first loss that is not finite. terms: (steps, terms)."""
        broken = (~terms.isfinite()).nonzero()
        if len(broken):
            step = self.step - len(terms) + int(broken[0, 0])
            causes = sorted({self._names[int(index)] for row, index in broken.tolist() if row == int(broken[0, 0])})
            raise TrainingError(f"step {step}: {' and '.join(causes)} is not finite any more; {self._what_now()}")

    def _what_now(self) -> str:
        state = self._folder / STATE
        return "lower --learning-rate, or look at the data." + (
            f" The last good state is {state}" if state.exists() else ""
        )

    def _look(self, terms: Tensor, report: Callable[[Progress], None], stop: bool) -> bool:
        """Log the means of the losses, validate and save where it is time to. terms: (steps, terms).

        A run that is to stop saves at once. Returns whether validation has not become better for long enough.
        """
        self.last_losses = dict(zip(self._names, terms.mean(0).tolist(), strict=True))
        report(Progress(self.step, self._options.steps, self.last_losses))
        if self._board is not None:
            self._board.scalars("loss", self.last_losses, self.step)
        self._log({"step": self.step, "seconds": round(self.seconds, 2), **self.last_losses})
        done = not stop and (self._judge_in_turn() or self.step == self._options.steps)
        if stop or done or time.perf_counter() - self._saved > self._options.save_seconds:
            self.save()
            self._saved = time.perf_counter()
        return self._has_best_for_long()

    def _has_best_for_long(self) -> bool:
        return self._best is not None and self._best.stale >= self._options.patience

    def _log(self, line: dict[str, Any]) -> None:
        with (self._folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _forget_lines_after(self, step: int) -> None:
        """Drop what the log says of steps that a killed run did after it was last saved, and what a power cut left unreadable."""
        log = self._folder / LOG
        if log.exists():
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            write_text(log, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))


@dataclass
class _Best:
    """The best weights so far, by validation."""

    step: int
    score: float
    stale: int
    """Validations since."""
    network: dict[str, Tensor]


def _step_of(line: str) -> float:
    """The step that a line of the log tells of; infinity for one that is no such line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _all_finite(tensors: Mapping[str, Any]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values() if isinstance(tensor, Tensor))


def _fingerprint(recipe: dict[str, Any], options: FitOptions, network: Network) -> str:
    """All that the result depends on, as text: two runs may be continued one by the other only where it is equal."""
    given, usual = asdict(options), asdict(FitOptions(steps=1))
    mathematics = {key: given[key] for key in _MATHEMATICS}
    mathematics |= {key: given[key] for key in _LATER if given[key] != usual[key]}
    made = {"network": {"architecture": network.architecture, **network.config}}
    return json.dumps([{**recipe, **made, "command": ""}, mathematics], sort_keys=True, default=str)


_UNTOLD = ("network", "split", "digests")
"""What the fingerprints of earlier versions do not tell; their runs can be gone on with."""


def _differences(saved: str, own: str) -> list[str]:
    """What two fingerprints do not agree in, such as "batch was 2 and is 3"; empty where they agree."""
    (recipe, *before), (own_recipe, *now) = json.loads(saved), json.loads(own)
    own_recipe = {key: value for key, value in own_recipe.items() if key in recipe or key not in _UNTOLD}
    return [
        line
        for one, other in zip((recipe, *before), (own_recipe, *now), strict=True)
        for line in _different_entries(one, other, "")
    ]


def _different_entries(one: dict[str, Any], other: dict[str, Any], within: str) -> list[str]:
    found = []
    for key in sorted(one.keys() | other.keys()):
        was, now = one.get(key), other.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            found += _different_entries(was, now, f"{within}{key}: ")
        elif was != now:
            said = f"{within}{key} was {was} and is {now}"
            found.append(said if len(said) < 100 else f"{within}{key}")
    return found


def _circumstances(seconds: float) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "seconds": round(seconds),
        "device": device,
        "date": datetime.date.today().isoformat(),
        "versions": {"impasto": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
