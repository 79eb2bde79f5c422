"""Laws of a training run: repeatable, resumable to the bit, and stopped by what is wrong rather than by a crash."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.interruption import Cut, cut_at
from support.small_training import photo

from impasto import images
from impasto.errors import OptionError, TrainingError
from impasto.training import checkpoint, degrade, restoration
from impasto.training.loop import trainer as fit
from impasto.training.loop.device import fast_precision, pick_device
from impasto.training.loop.interrupt import Interrupt
from impasto.training.loop.options import FitOptions
from impasto.training.loop.run_folder import BOARD, CHECKPOINT, LOG, PREVIEW, STATE
from impasto.training.restoration import train_restorer
from impasto.training.style import train_style

pytest_plugins = ("support.training_fixtures",)


def weights(folder):
    return checkpoint.load(folder / CHECKPOINT).network.state_dict()


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(fit, "LOOK_EVERY", 2)


def test_same_seed_same_weights_other_seed_other_weights(restoring):
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        options = restoring(folder)
        train_restorer(replace(options, fit=replace(options.fit, seed=seed)))
    runs = restoring().output.parent
    assert_same_weights(weights(runs / "a"), weights(runs / "b"))
    other = weights(runs / "c")
    assert any(not torch.equal(value, other[key]) for key, value in weights(runs / "a").items())


def test_a_fresh_process_computes_the_same(restoring):
    options = restoring("here", steps=2)
    train_restorer(options)
    program = (
        "import pickle, sys; from impasto.training import train_restorer; "
        "train_restorer(pickle.loads(sys.stdin.buffer.read()))"
    )
    there = restoring("there", steps=2)
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(there), check=True)
    assert_same_weights(weights(options.output), weights(there.output))


@pytest.mark.parametrize("kind", ["restore", "style"])
def test_killed_and_resumed_is_uninterrupted(kind, restoring, stylizing):
    options, train = (restoring, train_restorer) if kind == "restore" else (stylizing, train_style)
    steps = 6 if kind == "restore" else 4
    train(options("whole", steps=steps))
    cut = options("cut", steps=steps)
    always_saved = replace(cut, fit=replace(cut.fit, save_seconds=0))
    with pytest.raises(Cut):
        train(always_saved, cut_at(4))  # steps 3 and 4 are lost: they were done but not yet saved
    assert (cut.output / STATE).exists()
    train(replace(cut, resume=True))
    assert_same_weights(weights(cut.output), weights(options("whole").output))
    assert not (cut.output / STATE).exists()
    logged = [json.loads(line)["step"] for line in (cut.output / LOG).read_text().splitlines()]
    assert logged == list(range(2, steps + 1, 2)), "the lost steps' line is in the log once"


def press_in_step(step, patched):
    """Let Ctrl-C come while this step draws its damage."""
    steps = []
    damage = degrade.GaussianNoise.damage

    def damage_and_press(*arguments):
        steps.append(0)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return damage(*arguments)

    patched.setattr(degrade.GaussianNoise, "damage", damage_and_press)


def test_ctrl_c_saves_a_whole_step_and_resuming_changes_nothing(restoring, monkeypatch):
    train_restorer(restoring("whole"))
    options = restoring("stopped")
    press_in_step(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_restorer(options)
    state = torch.load(options.output / STATE, weights_only=True)
    assert state["step"] == 3
    train_restorer(replace(options, resume=True))
    assert_same_weights(weights(options.output), weights(restoring("whole").output))


def pressed(*_):
    os.kill(os.getpid(), signal.SIGINT)
    raise KeyboardInterrupt  # what Python does a moment later


def test_what_comes_after_the_last_step_can_be_done_again(restoring, monkeypatch):
    train_restorer(restoring("whole"))
    options = restoring("stopped")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(restoration.RestoreTask, "validate", pressed)
        train_restorer(options)
    assert torch.load(options.output / STATE, weights_only=True)["step"] == 6
    train_restorer(replace(options, resume=True))
    assert_same_weights(weights(options.output), weights(restoring("whole").output))


@pytest.mark.parametrize("when", ["reading", "training", "reading beside another's state"])
def test_what_ctrl_c_says_is_true(when, restoring, monkeypatch, capsys):
    from impasto.cli.train import _with_bar

    options = restoring()

    def train(given, report):
        if when == "training":
            (given.output / STATE).write_bytes(b"a state")
        raise KeyboardInterrupt

    options.output.mkdir()
    if when.endswith("state"):
        (options.output / STATE).write_bytes(b"a state")
    with pytest.raises(KeyboardInterrupt):
        _with_bar(options, train)
    said = capsys.readouterr().err
    assert ("nothing was saved" in said) == (when != "training")
    assert ("--resume" in said) == (when == "training")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_waits_and_the_second_does_not(first):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        os.kill(os.getpid(), first)
        assert interrupt.asked
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_unfinished_run_is_neither_overwritten_nor_mistaken(restoring):
    options = restoring()
    always_saved = replace(options, fit=replace(options.fit, save_seconds=0))
    with pytest.raises(Cut):
        train_restorer(always_saved, cut_at(4))
    with pytest.raises(TrainingError, match="--resume"):
        train_restorer(options)
    with pytest.raises(TrainingError, match="other options"):
        train_restorer(replace(options, resume=True, batch=3))
    with pytest.raises(TrainingError, match="other options"):
        train_restorer(replace(options, resume=True, fit=replace(options.fit, learning_rate=1e-4)))
    with pytest.raises(TrainingError, match="other options"):
        train_restorer(replace(options, resume=True, weights={**options.weights, "frequency": 0.05}))
    for content, said in (
        (b"not a state", "cannot resume"),
        (b"", "cannot resume from .*: (EOFError|Ran out of input)"),
    ):
        (options.output / STATE).write_bytes(content)
        with pytest.raises(TrainingError, match=said):
            train_restorer(replace(options, resume=True))


def test_a_resumed_run_has_the_data_and_the_network_it_began_with(stylizing, photos, tmp_path):
    painting = tmp_path / "painting.png"
    images.write(painting, photo(48, 64, 3))
    own = tmp_path / "photos"
    shutil.copytree(photos, own)
    options = stylizing(paintings=(painting,), photos=own, steps=4)
    with pytest.raises(Cut):
        train_style(replace(options, fit=replace(options.fit, save_seconds=0)), cut_at(4))
    again = replace(options, resume=True)
    with pytest.raises(TrainingError, match="network: thumbnail was 32 and is 48"):
        train_style(replace(again, config={**again.config, "thumbnail": 48}))
    images.write(painting, photo(48, 64, 4))
    with pytest.raises(TrainingError, match="digests: paintings"):
        train_style(again)
    images.write(painting, photo(48, 64, 3))
    images.write(own / "3.png", photo(96, 104, 9))
    with pytest.raises(TrainingError, match="digests: training"):
        train_style(again)


def test_a_log_that_a_power_cut_left_unreadable_does_no_harm(restoring):
    options = restoring()
    with pytest.raises(Cut):
        train_restorer(replace(options, fit=replace(options.fit, save_seconds=0)), cut_at(4))
    with (options.output / LOG).open("ab") as log:
        log.write(b'\0\0\0\0\n{"step": 3}x\n[1]\n\xff\n{"step": 2, "lo')
    train_restorer(replace(options, resume=True))
    assert [json.loads(line)["step"] for line in (options.output / LOG).read_text().splitlines()] == [2, 4, 6]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_weights_of_losses_are_numbers_from_0_on(restoring, weight):
    with pytest.raises(OptionError, match="numbers from 0 on"):
        restoring(weights={"charbonnier": weight})


def test_something_is_to_be_learnt(restoring):
    with pytest.raises(OptionError, match="all loss terms have weight 0"):
        train_restorer(restoring(weights={"charbonnier": 0.0, "psnr": 0.0}))


def test_weights_that_are_not_finite_are_neither_kept_nor_shipped(restoring, monkeypatch):
    monkeypatch.setattr(FitOptions, "rate_at", lambda *_: float("inf"))
    options = restoring(steps=1)
    with pytest.raises(TrainingError, match="step 1: a weight is not finite any more"):
        train_restorer(options)
    assert not (options.output / STATE).exists()
    assert not (options.output / CHECKPOINT).exists()


def test_a_finished_model_is_not_overwritten_by_another(restoring):
    options = restoring(name="first")
    train_restorer(options)
    before = (options.output / CHECKPOINT).read_bytes()
    with pytest.raises(
        TrainingError, match="is the finished model 'first' and would be overwritten by 'second'; choose"
    ):
        train_restorer(replace(options, name="second"))
    assert (options.output / CHECKPOINT).read_bytes() == before
    train_restorer(options)  # the same again is wanted
    (options.output / CHECKPOINT).write_bytes(b"something else")
    with pytest.raises(TrainingError, match="of another kind"):
        train_restorer(options)


def test_a_run_whose_time_is_up_leaves_a_checkpoint_and_goes_on_as_if_nothing_had_been(restoring, monkeypatch):
    whole, cut = restoring("whole", steps=5), restoring("cut", steps=5)
    train_restorer(whole)
    ticks = itertools.count(step=20)  # seconds; a step asks the clock a few times
    with monkeypatch.context() as patched:
        patched.setattr(fit.time, "perf_counter", lambda: next(ticks))
        stopped = train_restorer(replace(cut, fit=replace(cut.fit, minutes=1)))
    assert stopped.unfinished
    assert 1 <= stopped.steps < 5
    assert checkpoint.load(stopped.checkpoint).recipe["stopped"] == {"step": stopped.steps, "shipped": stopped.steps}
    assert (cut.output / STATE).exists()
    again = train_restorer(replace(cut, resume=True, fit=replace(cut.fit, minutes=60)))
    assert (again.steps, again.unfinished) == (5, False)
    assert not (cut.output / STATE).exists()
    assert_same_weights(weights(whole.output), weights(cut.output))


def test_a_run_that_is_interrupted_while_its_time_is_up_is_interrupted(restoring, monkeypatch):
    options = restoring(steps=5)
    monkeypatch.setattr(Interrupt, "__enter__", lambda self: setattr(self, "asked", True) or self)
    with pytest.raises(KeyboardInterrupt):
        train_restorer(replace(options, fit=replace(options.fit, minutes=1e-9)))
    assert (options.output / STATE).exists()
    assert not (options.output / CHECKPOINT).exists()


def test_nothing_to_resume(restoring):
    with pytest.raises(TrainingError, match="no unfinished run"):
        train_restorer(restoring(resume=True))


def test_a_loss_that_is_not_finite_stops_with_step_and_cause(restoring):
    options = restoring(fit=FitOptions(steps=40, learning_rate=1e30, device="cpu"))
    with pytest.raises(TrainingError, match=r"step \d+: charbonnier is not finite"):
        train_restorer(options)
    assert not (options.output / CHECKPOINT).exists()


def test_training_makes_the_loss_smaller(restoring):
    seen = []
    train_restorer(restoring(steps=120, batch=4), lambda progress: seen.append(progress.losses["charbonnier"]))
    assert np.mean(seen[-10:]) < 0.8 * np.mean(seen[:10])


def test_checkpoint_tells_how_it_was_made(stylizing):
    options = stylizing(command="impasto train style tiny")
    result = train_style(options)
    made = checkpoint.load(result.checkpoint)
    assert (made.name, made.task) == ("tiny", "stylize")
    assert made.recipe["command"] == "impasto train style tiny"
    assert made.recipe["seed"] == 0
    assert made.recipe["data"]["photos"] == 4
    assert made.recipe["data"]["validation"]["files"] == ["0.png", "5.png"]
    assert len(made.recipe["data"]["skipped"]) == 2
    assert made.recipe["losses"] == {
        name: weight for name, weight in options.weights.items() if name not in ("photo", "temporal", "deep content")
    }
    assert made.recipe["versions"]["torch"] == torch.__version__
    assert set(made.quality["validation"]) == {"content", "style", "objective", "grid_levels"}
    assert f"objective {result.quality['objective']:.4g}" in str(result)
    assert images.read(options.output / PREVIEW).rgb.shape[1] == 2 * 104


def test_an_earlier_run_s_preview_does_not_stay(restoring):
    options = restoring(steps=1)
    train_restorer(options)
    assert (options.output / PREVIEW).exists()
    train_restorer(replace(options, held_out=0.0))
    assert not (options.output / PREVIEW).exists()


def test_photos_too_small_to_judge_by_are_left_out(restoring, tmp_path):
    for name, sides in (("train", (128,)), ("judged", (40, 64))):
        (tmp_path / name).mkdir()
        for side in sides:
            images.write(tmp_path / name / f"{side}.png", photo(side, 128, side))
    made = train_restorer(
        restoring(
            steps=1, photos=tmp_path / "train", validation=tmp_path / "judged", degradation=degrade.parse("down:4+down:2"),
        )
    )  # fmt: skip
    assert checkpoint.load(made.checkpoint).recipe["split"]["validation"] == ["64.png"]
    assert np.isfinite(list(made.quality.values())).all()


def test_what_is_judged_is_what_ships(restoring):
    options = restoring()
    result = train_restorer(options)
    from impasto.training.data.photos import read_photos
    from impasto.training.validation import denoise_psnr

    held_out = read_photos(options.photos, smallest=32).split(options.held_out)[1]
    assert denoise_psnr(checkpoint.load(result.checkpoint).network, held_out.pictures) == result.quality


def test_a_folder_to_judge_by_leaves_all_photos_to_train_on(restoring, photos, others):
    result = train_restorer(restoring(validation=others))
    recipe = checkpoint.load(result.checkpoint).recipe
    assert recipe["data"]["photos"] == 6
    assert recipe["data"]["validation"]["folder"] == others.name
    assert sum("tiny.png" in line for line in recipe["data"]["skipped"]) == 2, "of both folders"
    with pytest.raises(OptionError, match=r"6 of the photos for validation are also for training, such as 0\.png"):
        train_restorer(restoring(validation=photos))
    with pytest.raises(OptionError, match="6 of the photos for test are also for validation"):
        train_restorer(restoring(validation=others, test=others))


def test_training_goes_on_from_a_checkpoint(restoring):
    first = train_restorer(restoring("first"))
    options = restoring("second", steps=1, start=first.checkpoint, config={})
    second = train_restorer(replace(options, fit=replace(options.fit, learning_rate=1e-12)))
    one, other = weights(first.checkpoint.parent), weights(second.checkpoint.parent)
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-3
    with pytest.raises(OptionError, match="this training wants a"):
        train_restorer(restoring("third", start=first.checkpoint, architecture="classic-stylizer", config={}))


def test_the_terms_of_the_pictures_go_on_with_what_was_learnt_from_them(restoring):
    first = train_restorer(restoring("first", steps=1, terms="for research"))
    assert checkpoint.load(first.checkpoint).recipe["terms"] == "for research"
    second = train_restorer(restoring("second", steps=1, start=first.checkpoint, terms="CC-BY"))
    assert checkpoint.load(second.checkpoint).recipe["terms"] == "CC-BY; for research"
    assert "terms" not in checkpoint.load(train_restorer(restoring("third", steps=1)).checkpoint).recipe


def test_arguments_of_the_network_may_change_with_a_new_start(restoring):
    first = train_restorer(restoring("first", steps=1))
    before = checkpoint.load(first.checkpoint).network
    deeper = {**before.config, "middle": before.config["middle"] + 1}
    options = restoring("deeper", steps=1, start=first.checkpoint, config={"middle": deeper["middle"]})
    second = train_restorer(replace(options, fit=replace(options.fit, learning_rate=1e-12)))
    after = checkpoint.load(second.checkpoint).network
    assert after.config == deeper
    kept = before.state_dict()
    assert max(float((after.state_dict()[key] - kept[key]).abs().max()) for key in kept) < 1e-3


def test_only_a_training_on_missing_pixels_alone_marks_them(restoring):
    def marker(result):
        return checkpoint.load(result.checkpoint).network.config["marker"]

    inpainter = train_restorer(restoring("inpaint", steps=1, degradation=degrade.parse("missing:30")))
    assert marker(inpainter) == [1.0, 0.0, 1.0]
    common = {"steps": 1, "start": inpainter.checkpoint, "config": {}}
    assert marker(train_restorer(restoring("denoise", degradation=degrade.parse("noise:0-50"), **common))) is None
    # What lies beside a hole is noisy as well, and to be mended.
    assert (
        marker(train_restorer(restoring("both", degradation=degrade.parse("noise:0-50+missing:30"), **common))) is None
    )


def test_the_learning_rate_warms_up_and_falls():
    options = FitOptions(steps=1000, learning_rate=1e-3)
    rates = [options.rate_at(step) for step in range(1000)]
    assert max(rates) == rates[50] == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(2e-5)
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[50:]))


def test_averaging_forgets_the_start_and_then_remembers_long():
    options = FitOptions(steps=10)
    assert options.averaging_at(0) == 0.1
    assert options.averaging_at(100_000) == options.averaging


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"minutes": -1},
        {"learning_rate": 0},
        {"averaging": 1},
        {"clip": 0},
        {"learning_rate": float("nan")},
        {"seed": -1},
        {"seed": 20261125212134},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError):
        FitOptions(**{"steps": 5, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"crop": 30},
        {"crop": 36},
        {"held_out": 0.9},
        {"held_out": 0.5, "test_share": 0.5},
        {"backbone": "vgg61"},
    ],
)
def test_recipes_out_of_range_are_refused(restoring, wrong):
    with pytest.raises(OptionError):
        restoring(**wrong)


def test_only_a_gpu_replays(restoring):
    with pytest.raises(OptionError, match="only a GPU"):
        train_restorer(restoring(fit=FitOptions(steps=2, device="cpu", replay=True)))


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(OptionError, match="no CUDA device"):
        pick_device("cuda")
    with pytest.raises(OptionError, match="unknown device"):
        pick_device("tpu")


@pytest.mark.parametrize(
    ("able", "wanted"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx512_f": True}, "fp32"), ({}, "fp32")],
)
def test_cpus_with_instructions_for_bf16_train_in_it(monkeypatch, able, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert fast_precision(torch.device("cpu")) == wanted


def test_a_torch_that_cannot_tell_trains_in_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fast_precision(torch.device("cpu")) == "fp32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_replayed_run_is_an_eager_run(restoring):
    on_gpu = FitOptions(steps=12, device="cuda")
    train_restorer(restoring("eager", fit=on_gpu))
    train_restorer(restoring("replayed", fit=replace(on_gpu, replay=True)))
    one, other = (weights(restoring(folder).output) for folder in ("eager", "replayed"))
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 2e-3


def judged_as(monkeypatch, scores):
    """Let validations find these scores, one after the other, and the last ever after."""
    given = iter(scores)
    monkeypatch.setattr(restoration.RestoreTask, "score", lambda *_: next(given, scores[-1]))


def test_patience_stops_and_ships_the_best(restoring, monkeypatch):
    short = restoring("short", steps=4)
    kept = {}

    def keep(progress):
        kept[progress.step] = progress

    judged_as(monkeypatch, [1.0, 3.0, 2.0, 2.5, 9.0])
    options = restoring("patient", steps=40)
    patient = replace(options, fit=replace(options.fit, patience=2, validate_every=2))
    result = train_restorer(patient, keep)
    assert result.steps == max(kept) == 8
    made = checkpoint.load(result.checkpoint)
    assert made.recipe["stopped"] == {"step": 8, "shipped": 4}
    # The best were the weights of step 4: those of the same run cut there.
    monkeypatch.setattr(FitOptions, "rate_at", lambda *_: 1e-3)
    judged_as(monkeypatch, [1.0, 3.0, 2.0, 2.5])
    again = train_restorer(replace(patient, output=patient.output.parent / "again"))
    assert_same_weights(weights(again.checkpoint.parent), weights(train_restorer(short).checkpoint.parent))


def test_patience_survives_a_power_cut(restoring, monkeypatch):
    def run(folder):
        options = restoring(folder, steps=40)
        return replace(options, fit=replace(options.fit, patience=2, validate_every=2, save_seconds=0))

    scores = [1.0, 3.0, 2.0, 2.5]
    judged_as(monkeypatch, scores)
    train_restorer(run("whole"))
    judged_as(monkeypatch, scores)
    with pytest.raises(Cut):
        train_restorer(run("cut"), cut_at(8))
    judged_as(monkeypatch, scores[3:])
    result = train_restorer(replace(run("cut"), resume=True))
    assert result.steps == 8
    assert_same_weights(weights(run("cut").output), weights(run("whole").output))


def test_patience_needs_something_to_judge_by(restoring):
    options = restoring(held_out=0.0)
    seen = []
    with pytest.raises(TrainingError, match="--validation"):
        train_restorer(replace(options, fit=replace(options.fit, patience=1)), seen.append)
    assert not seen, "that is known before the first step"


def test_a_stop_is_no_validation_more_and_none_less(restoring, monkeypatch):
    """Looks are at 2, 4 and 6: a stop at 3 is none of them, and one at 4 comes before a validation."""
    monkeypatch.setattr(restoration.RestoreTask, "validate", lambda *_: {"psnr": 1.0})

    def run(folder):
        options = restoring(folder, steps=6)
        return replace(options, fit=replace(options.fit, patience=9, validate_every=3))

    def validated(options):
        lines = map(json.loads, (options.output / LOG).read_text().splitlines())
        return [line["step"] for line in lines if "validation" in line]

    train_restorer(run("whole"))
    for stop in (3, 4):
        stopped = run(f"stopped {stop}")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            press_in_step(stop, patched)
            train_restorer(stopped)
        assert validated(stopped) == []
        train_restorer(replace(stopped, resume=True))
        assert validated(stopped) == validated(run("whole")) == [4, 6]


def test_tensorboard_gets_curves_and_pictures(restoring):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = restoring()
    train_restorer(replace(options, fit=replace(options.fit, tensorboard=True, validate_every=4)))
    board = EventAccumulator(str(options.output / BOARD)).Reload()
    assert [point.step for point in board.Scalars("loss/charbonnier")] == [2, 4, 6]
    assert [point.step for point in board.Scalars("validation/psnr_sigma_25")] == [4, 6]
    assert [picture.step for picture in board.Images("before and after")] == [4, 6]


def test_a_run_that_was_begun_with_branches_says_that_they_are_gone(restoring):
    options = restoring()
    with pytest.raises(Cut):
        train_restorer(replace(options, fit=replace(options.fit, save_seconds=0)), cut_at(4))
    path = options.output / STATE
    saved = torch.load(path, weights_only=True)
    recipe, mathematics = json.loads(saved["fingerprint"])
    torch.save({**saved, "fingerprint": json.dumps([recipe, {**mathematics, "branches": True}])}, path)
    with pytest.raises(TrainingError, match="was begun with --branches, which is gone; begin anew in another folder"):
        train_restorer(replace(options, resume=True))
