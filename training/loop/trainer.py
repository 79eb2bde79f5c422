"""Gradient descent: seeded, resumable to the bit, with averaged weights."""

from __future__ import annotations

import copy
import datetime
import logging
import math
import os
import platform
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from impasto import images
from impasto._version import __version__
from impasto.errors import OptionError, TrainingError
from impasto.files import make_folder
from impasto.training import losses
from impasto.training.checkpoint import name_of, round_to_half, save_checkpoint
from impasto.training.data.photos import Photos
from impasto.training.networks import Network, qat
from impasto.training.networks.spandrel_models import FOREIGN

from . import stages
from .cuda_graph import Replay
from .device import fast_precision, keep_freed_memory, pick_device
from .interrupt import Interrupt
from .optimizers import new_optimizer
from .options import FitOptions, FitResult, ModelInfo, Report, StepReport, silent
from .processes import Processes, Together, launched
from .run_folder import BOARD, CHECKPOINT, LOG, PREVIEW, STATE, curves, cut_log, is_unfinished, log
from .state import Best, RunState, StateFile, all_finite, fingerprint
from .task import Task
from .tensorboard import Board

LOOK_EVERY = 25
"""Steps between two looks at the losses; each look waits for the device."""


def fit(
    task: Task,
    options: FitOptions,
    folder: str | os.PathLike[str],
    model: ModelInfo,
    *,
    test: Photos | None = None,
    resume: bool = False,
    report: Report = silent,
) -> FitResult:
    """Train task.network and write `checkpoint.safetensors` into `folder`.

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
    _check_beginning(folder, resume, model.name)
    trainer = Trainer(task, options, folder, fingerprint(model.recipe, options, task.network))
    try:
        if resume:
            trainer.load()
        trainer.descend(report)
        return trainer.together.from_chief(lambda: _finish(trainer, folder, model, test))
    finally:
        trainer.close()


def _check_beginning(folder: Path, resume: bool, name: str) -> None:
    unfinished = is_unfinished(folder)
    if resume and not unfinished:
        raise TrainingError(f"{folder} holds no unfinished run to resume; leave --resume out to begin one")
    if unfinished and not resume:
        raise TrainingError(f"{folder} holds an unfinished run; go on with --resume, or choose another folder with -o")
    finished = folder / CHECKPOINT
    # The same name again is the same model made anew. A file that cannot be read is not known to be that.
    if finished.exists() and not resume and (other := name_of(finished)) != name:
        raise TrainingError(
            f"{finished} is {f'the finished model {other!r}' if other else 'of another kind'} and would be overwritten by "
            f"{name!r}; choose another folder with -o, or move the file away"
        )


def _finish(trainer: Trainer, folder: Path, model: ModelInfo, test: Photos | None) -> FitResult:
    """Judge what was trained and write it."""
    task, options = trainer.task, trainer.options
    network = trainer.averaged()
    round_to_half(network)
    if not all_finite(network.state_dict()):
        raise TrainingError(
            "the finished weights are not finite in FP16; begin anew elsewhere with a lower --learning-rate"
        )
    quality, recipe = {}, model.recipe
    if options.qat:
        quality["validation in INT8"] = task.validate(network)
        network, learnt = qat.removed(network)
        recipe = {**recipe, qat.RECIPE: learnt}
    quality["validation"] = task.validate(network)
    if test is not None and not trainer.unfinished:
        quality["test"] = task.judge(network, test)
    recipe = {
        **recipe,
        "optimizer": {f"{options.optimizer}, one-cycle": asdict(options)},
        "losses": dict(task.weights),
        **trainer.history(),
        **_curves(folder),
        **_circumstances(trainer.state.seconds),
    }
    save_checkpoint(folder / CHECKPOINT, network, name=model.name, task=model.task, recipe=recipe, quality=quality)
    _write_preview(folder / PREVIEW, task, network)
    if not trainer.unfinished:
        (folder / STATE).unlink(missing_ok=True)
    return FitResult(
        folder / CHECKPOINT,
        trainer.state.step,
        trainer.state.seconds,
        trainer.last_losses,
        quality["validation"],
        quality.get("test", {}),
        quality.get("validation in INT8", {}),
        len(recipe.get("data", {}).get("skipped", ())),
        trainer.unfinished,
    )


def _curves(folder: Path) -> dict[str, Any]:
    found = curves(folder)
    return {"curves": found} if found else {}


def _write_preview(path: Path, task: Task, network: Network) -> None:
    preview = task.preview(network)
    if preview is None:
        path.unlink(missing_ok=True)  # an earlier run's
    else:
        images.write(path, preview)


def _circumstances(seconds: float) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "seconds": round(seconds),
        "device": device,
        "date": datetime.date.today().isoformat(),
        "versions": {"impasto": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


class Trainer:
    """A network on its way: its optimizer, its averaged weights, and the state that a run is resumed from."""

    def __init__(self, task: Task, options: FitOptions, folder: Path, fingerprint: str) -> None:
        """fingerprint: of `state.fingerprint`. Raises OptionError for options that the device cannot do."""
        self.task, self.options, self._folder = task, options, folder
        processes = launched()
        self._device = _prepared_device(options, processes)
        self._fabric = _launched_fabric(task, options, self._device, processes)
        self.together = Together(processes)
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.qat:
            qat.prepare(task)
        stages.freeze(task.network, options.freeze)
        groups = stages.groups(task.network, options.depth_decay)
        self._shares = [group.share for group in groups]
        parameters = [{"params": group.parameters} for group in groups]
        on_gpu = self._device.type == "cuda"
        optimizer = new_optimizer(options.optimizer, parameters, options.learning_rate, fused=on_gpu)
        self._module, self._optimizer = self._fabric.setup(task, optimizer)
        self._average = AveragedModel(task.network, multi_avg_fn=self._blend)
        self._replay = Replay(self._gradients) if options.replay else None
        self._names = list(task.weights)
        self.state = RunState()
        parts = {"network": task.network, "average": self._average, "optimizer": self._optimizer}
        self._file = StateFile(folder, fingerprint, parts)
        self.last_losses: dict[str, float] = {}
        self.unfinished = False  # whether the time was up before the last step
        self._saved = time.perf_counter()
        self._board: Board | None = None

    def descend(self, report: Report) -> None:
        """All steps that are left, or that `minutes` hold; a run that stops before the last has saved its state.

        Ctrl-C saves the state after the step that it meets, then raises KeyboardInterrupt.
        """
        deadline = time.perf_counter() + 60 * self.options.minutes if self.options.minutes else math.inf
        started = time.perf_counter() - self.state.seconds
        terms: list[Tensor] = []
        state, options, together = self.state, self.options, self.together
        if together.processes.chief:
            self._open_logs()
        with Interrupt(patient=together.processes.count > 1) as interrupt:
            stale = self._has_best_for_long()
            if state.step % LOOK_EVERY == 0 or state.step == options.steps:
                # A run that was stopped leaves this step's validation to the one that resumes it.
                stale = together.from_chief(self._judge_in_turn)
            while state.step < options.steps and not stale:
                with together.watched():
                    terms.append(self._descend_once())
                state.step += 1
                state.seconds = time.perf_counter() - started
                late = state.step < options.steps and time.perf_counter() > deadline
                stop = together.any(interrupt.asked or late)
                if state.step % LOOK_EVERY == 0 or state.step == options.steps or stop:
                    means = together.mean(torch.stack(terms))
                    terms = []
                    self._require_finite(means)
                    stale = together.from_chief(partial(self._look, means, report, stop))
                if stop:
                    self.unfinished = True
                    break
            if together.any(interrupt.asked):  # in a step, or in the last validation
                raise KeyboardInterrupt

    def averaged(self) -> Network:
        """The network with the averaged weights, for inference."""
        network: Network = self._average.module  # type: ignore[assignment]
        if self.state.best is not None:
            network = copy.deepcopy(network)
            network.load_state_dict(self.state.best.network)
        return network.folded()

    def history(self) -> dict[str, Any]:
        """What the recipe says of the end: when a run with patience or little time ended, and which step's weights it ships."""
        step, best = self.state.step, self.state.best
        if best is None and not self.unfinished:
            return {}
        return {"stopped": {"step": step, "shipped": step if best is None else best.step}}

    def close(self) -> None:
        """End the curves, and the company of other processes."""
        if self._board is not None:
            self._board.close()
        self.together.leave()

    def save(self) -> None:
        """Write the state atomically. Raises TrainingError where it is not worth keeping: a weight is not finite."""
        if not (all_finite(self.task.network.state_dict()) and all_finite(self._average.state_dict())):
            raise TrainingError(f"step {self.state.step}: a weight is not finite any more; {self._what_now()}")
        self._file.save(self.state)

    def load(self) -> None:
        """Go back to the saved state. Raises TrainingError where it is broken, or another run's."""
        self.state = self._file.load(self._device)
        if self.together.processes.chief:
            cut_log(self._folder, self.state.step)

    def _open_logs(self) -> None:
        if self.state.step == 0:
            (self._folder / LOG).unlink(missing_ok=True)
        if self.options.tensorboard:
            self._board = Board(self._folder / BOARD, self.state.step)

    def _descend_once(self) -> Tensor:
        """One step. Returns the loss terms, (terms,), still on the device."""
        rate = self.options.rate_at(self.state.step)
        for group, share in zip(self._optimizer.param_groups, self._shares, strict=True):
            group["lr"] = rate * share
        batch = self.task.batch(self.state.step)
        if self._replay is None or not self._replay.recorded:
            self._optimizer.zero_grad(set_to_none=True)
        terms = self._gradients(*batch) if self._replay is None else self._replay(*batch)
        self._fabric.clip_gradients(self._module, self._optimizer, max_norm=self.options.clip, error_if_nonfinite=False)
        self._optimizer.step()
        self._average.update_parameters(self.task.network)
        return terms

    def _gradients(self, *batch: Tensor) -> Tensor:
        """Leave the loss's gradients in the parameters. Returns the loss terms, (terms,)."""
        terms = self._module(*batch)
        self._fabric.backward(losses.weighted(terms, self.task.weights))
        return torch.stack([terms[name].detach().float() for name in self._names])

    def _blend(self, averaged: Any, current: Any, _: Any) -> None:
        get_ema_multi_avg_fn(self.options.averaging_at(self.state.step))(averaged, current, None)

    def _look(self, terms: Tensor, report: Report, stop: bool) -> bool:
        """Log the means of the losses, validate and save where it is time to. terms: (steps, terms).

        A run that is to stop saves at once. Returns whether validation has not become better for long enough.
        """
        step = self.state.step
        self.last_losses = dict(zip(self._names, terms.mean(0).tolist(), strict=True))
        report(StepReport(step, self.options.steps, self.last_losses))
        if self._board is not None:
            self._board.scalars("loss", self.last_losses, step)
        log(self._folder, {"step": step, "seconds": round(self.state.seconds, 2), **self.last_losses})
        done = not stop and (self._judge_in_turn() or step == self.options.steps)
        if stop or done or time.perf_counter() - self._saved > self.options.save_seconds:
            self.save()
            self._saved = time.perf_counter()
        return self._has_best_for_long()

    def _judge_in_turn(self) -> bool:
        """Validate the averaged weights as they would ship, where it is time to.

        Returns whether validation has not become better for long enough.
        """
        if self._judging_is_due():
            self._judge()
        return self._has_best_for_long()

    def _judging_is_due(self) -> bool:
        options, state = self.options, self.state
        if not (options.patience or options.tensorboard) or state.judged == state.step:
            return False
        return (
            state.step == options.steps or state.step // options.validate_every > state.judged // options.validate_every
        )

    def _judge(self) -> None:
        network: Network = self._average.module.folded()  # type: ignore[operator]
        round_to_half(network)
        quality = self.task.validate(network)
        step = self.state.judged = self.state.step
        if self.options.patience:
            self._remember_best(self.task.score(quality))
        log(self._folder, {"step": step, "validation": quality})
        if self._board is not None:
            self._board.scalars("validation", quality, step)
            preview = self.task.preview(network)
            if preview is not None:
                self._board.picture("before and after", preview, step)

    def _remember_best(self, score: float) -> None:
        best = self.state.best
        if best is not None and not score > best.score:
            best.stale += 1
            return
        weights = {key: value.detach().clone() for key, value in self._average.module.state_dict().items()}
        self.state.best = Best(self.state.step, score, 0, weights)

    def _has_best_for_long(self) -> bool:
        return self.state.best is not None and self.state.best.stale >= self.options.patience

    def _require_finite(self, terms: Tensor) -> None:
        """Stop at the first loss that is not finite. terms: (steps, terms)."""
        broken = (~terms.isfinite()).nonzero()
        if len(broken):
            step = self.state.step - len(terms) + int(broken[0, 0])
            causes = sorted({self._names[int(index)] for row, index in broken.tolist() if row == int(broken[0, 0])})
            raise TrainingError(f"step {step}: {' and '.join(causes)} is not finite any more; {self._what_now()}")

    def _what_now(self) -> str:
        last = f" The last good state is {self._file.path}" if self._file.path.exists() else ""
        return f"lower --learning-rate, or look at the data.{last}"


def _prepared_device(options: FitOptions, processes: Processes) -> torch.device:
    """The device, set up for training. Raises OptionError where it is not there, or cannot replay steps that are to be replayed."""
    device = pick_device(options.device)
    on_gpu = device.type == "cuda"
    if not on_gpu:
        keep_freed_memory()
    if options.replay and not on_gpu:
        raise OptionError("only a GPU replays steps; leave --cuda-graph out, or choose --device cuda")
    if options.replay and processes.count > 1:
        raise OptionError("a recorded step knows one process; leave --cuda-graph out, or torchrun")
    # MKL settles how it computes a root at its first one; where two threads do that at once, one of them rounds otherwise.
    torch.ones(1).sqrt()
    torch.backends.cudnn.benchmark = on_gpu  # every step has the same shapes: let cuDNN try its algorithms once
    return device


def _launched_fabric(task: Task, options: FitOptions, device: torch.device, processes: Processes) -> Any:
    import lightning_fabric

    # What it has to say at INFO (that it uses AMP) is no news to the user of a command line.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    wanted = fast_precision(device) if options.precision == "auto" else options.precision
    precision: Any = "bf16-mixed" if wanted == "bf16" else "32-true"
    fabric = lightning_fabric.Fabric(
        accelerator=device.type,
        devices=processes.local_count,
        num_nodes=processes.count // processes.local_count,
        strategy=_strategy(task, processes),
        precision=precision,
    )
    fabric.launch()
    return fabric


def _strategy(task: Task, processes: Processes) -> str:
    if processes.count == 1:
        return "auto"
    # Other projects' networks may hold parameters that only inference uses.
    return "ddp_find_unused_parameters_true" if task.network.architecture == FOREIGN else "ddp"
