"""Laws of a training that several processes share: it is the training of one, and all of them stop where one must."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.small_training import SMALL, photo

from impasto.errors import TrainingError
from impasto.training import checkpoint
from impasto.training.data.crops import CropSampler
from impasto.training.data.photos import Photos
from impasto.training.loop.options import FitOptions
from impasto.training.loop.processes import ALONE, Processes, Together, launched
from impasto.training.loop.run_folder import CHECKPOINT, LOG, STATE
from impasto.training.restoration import train_restorer

pytest_plugins = ("support.training_fixtures",)
STEPS = 75
WAIT = 140
"""Seconds; on an idle machine it takes 4."""


@pytest.fixture
def torchrun(photos):
    """A function that begins a tiny denoiser's training in two processes, in a process group of its own, as a terminal does."""
    begun = []

    def run(folder, *more):
        config = [word for k, v in SMALL["unet-restorer"].items() for word in ("--config", f"{k}={json.dumps(v)}")]
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "impasto",
            "train", "restore", "tiny", "--photos", str(photos), "-o", str(folder), "--batch", "2", "--crop", "32",
            "--held-out", "0.2", "--device", "cpu", "--precision", "fp32", *config, *more,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))
        return begun[-1]

    yield run
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def curve(folder):
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return {line["step"]: line["charbonnier"] for line in lines}


def test_two_processes_stopped_and_resumed_train_as_one_with_twice_the_batch(torchrun, restoring, tmp_path):
    folder = tmp_path / "two"
    first = torchrun(folder, "--steps", str(STEPS))
    while not (folder / LOG).exists() and first.poll() is None:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=WAIT)
    assert first.returncode != 0
    assert said.count("the state is saved in") == 1, said
    assert "training/loop/trainer.py" not in said, "torchrun itself shows a traceback, we none"
    step = torch.load(folder / STATE, weights_only=True)["step"]
    assert 25 <= step < STEPS

    second = torchrun(folder, "--steps", str(STEPS), "--resume")
    printed, said = second.communicate(timeout=WAIT)
    assert second.returncode == 0, said
    assert printed.count("steps in") == 1, "one process speaks"
    options = FitOptions(steps=STEPS, device="cpu", precision="fp32")
    one = train_restorer(restoring("one", batch=4, fit=options))

    expected, found = curve(one.checkpoint.parent), curve(folder)
    for at in (50, 75) if step < 50 else (75,):
        assert found[at] == pytest.approx(expected[at], rel=0.02 if at - step < 25 and at - 25 < step else 1e-4)
    mine, theirs = (checkpoint.load(where / CHECKPOINT) for where in (folder, one.checkpoint.parent))
    for key, value in theirs.network.state_dict().items():
        torch.testing.assert_close(mine.network.state_dict()[key], value, atol=2e-3, rtol=0)
    assert mine.quality["validation"] == pytest.approx(theirs.quality["validation"], abs=0.02)
    assert (mine.recipe["processes"], mine.recipe["batch"]) == (2, 2)
    assert not (folder / STATE).exists()


def test_a_loss_that_is_not_finite_stops_all(torchrun, tmp_path):
    run = torchrun(tmp_path / "run", "--steps", "100", "--learning-rate", "1e30")
    _, said = run.communicate(timeout=WAIT)
    assert run.returncode != 0
    assert "charbonnier is not finite any more" in said
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize("turns", [False, True])
def test_processes_share_the_crops_of_one(turns):
    photos = Photos((photo(64, 80), photo(50, 90, 1)), ("a", "b"), ())

    def sampler(processes):
        return CropSampler(photos, 32, 6, torch.device("cpu"), seed=5, turns=turns, around=8, processes=processes)

    whole = sampler(ALONE).batch(3)
    parts = [sampler(Processes(rank, 3)).batch(3) for rank in range(3)]
    for field in ("crops", "photo", "mirrored"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


def test_parts_are_a_partition():
    whole = np.arange(12)
    parts = [whole[Processes(rank, 4).part(12)] for rank in range(4)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert ALONE.part(12) == slice(0, 12)


def test_torchruns_environment_is_read(monkeypatch):
    assert launched() == ALONE
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    assert launched() == ALONE, "other launchers set these too"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert launched() == Processes(5, 8, 1, 4)
    assert not launched().chief


def test_one_alone_asks_nobody():
    together = Together(ALONE)
    assert together.any(True)
    assert not together.any(False)
    assert together.from_chief(lambda: 3) == 3
    with pytest.raises(RuntimeError, match="gloo"), together.watched():
        raise RuntimeError("gloo: of somebody else")


def test_leaving_ends_the_threads(tmp_path):
    """One that lives on when Python shuts down may abort the process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    together = Together(Processes(0, 2))  # in a group of one, so that nobody has to answer
    assert together.any(True)
    assert threads_of_gloo()
    together.leave()
    assert not threads_of_gloo()


def threads_of_gloo():
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


def test_the_loss_of_another_process_is_told_and_other_errors_are_left_alone(monkeypatch):
    together = Together(ALONE)
    monkeypatch.setattr(together, "_group", object())
    with pytest.raises(TrainingError, match="is gone"), together.watched():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), together.watched():
        raise RuntimeError("shapes cannot be multiplied")
