"""Every recipe of the zoo is a command line that Impasto takes, and one of them is run, small."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from support.small_training import photo
from typer.main import get_command
from typer.testing import CliRunner

from impasto import datasets, images
from impasto.cli import eval as judging
from impasto.cli import export, train
from impasto.cli.console import Commands
from impasto.errors import OptionError
from impasto.training import zoo
from impasto.training.degrade import parse
from impasto.training.loop.run_folder import CHECKPOINT, STATE

APP = typer.Typer(cls=Commands)
APP.add_typer(train.app, name="train")
APP.command()(export.export)
APP.command("eval")(judging.evaluate)

SMALL = """--degrade noise:5-9 --batch 1 --crop 32 --device cpu --config widths=[8,8,8] --config encoder=[1,1] --config middle=1
    --config decoder=[1,1]"""


@pytest.fixture
def places(tmp_path, monkeypatch) -> zoo.Places:
    """All that recipes need, in empty folders, and an empty folder to work in."""
    for part in datasets.PARTS:
        (tmp_path / "data" / part).mkdir(parents=True)
    (tmp_path / "vgg.safetensors").touch()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return zoo.Places(tmp_path / "data", tmp_path / "models", tmp_path / "vgg.safetensors")


def parsed(words):
    """The verb and its parameters; raises what a wrong command line raises."""
    command, context = get_command(APP), None
    while hasattr(command, "resolve_command"):
        context = command.make_context(words[0], words[:1], parent=context, resilient_parsing=True)
        _, command, words = command.resolve_command(context, words)
    return command.name, command.make_context(command.name, list(words)).params


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_each_recipe_is_a_command_line_that_impasto_takes(name, gpu, places):
    for folder in zoo.run_folders(name, gpu):
        folder.mkdir(parents=True)  # by the training, before its evaluation writes there
    given = [parsed(words) for words in zoo.commands(name, places, gpu)]
    recipe = zoo.ZOO[name]
    evaluations = max(len(recipe.paintings), 1)
    *trainings, (export_verb, exported) = given[:-evaluations]
    (eval_verb, judged), *_ = given[-evaluations:]
    assert (export_verb, eval_verb) == ("export", "eval")
    assert {verb for verb, _ in trainings} == {"style" if recipe.paintings else "restore"}
    for verb, options in given[-evaluations:]:
        assert verb == "eval"
        assert list(options["style"] or ()) == ([options["painting"].stem] if evaluations > 1 else [])
    assert exported["checkpoint"] == trainings[-1][1]["output"] / CHECKPOINT
    assert exported["output"] == places.models / name
    assert judged["model"] == str(exported["output"])
    assert trainings[0][1]["start"] == (None if recipe.fresh else places.models / name), (
        "the package is what the next run goes on from"
    )
    for (_, before), (_, after) in itertools.pairwise(trainings):
        assert after["start"] == before["output"] / CHECKPOINT
    for verb, options in trainings:
        assert options["minutes"] == (zoo.GPU_MINUTES if gpu else 0)
        assert list(options["photos"]) == [places.data / part for part in recipe.photos]
        if verb == "restore":
            scale = parse(options["degrade"]).scale
            assert {parse(damage).scale for damage in judged["degrade"]} == {scale}


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_no_recipe_names_a_test_set(name, gpu, places):
    for words in zoo.commands(name, places, gpu):
        for word in words:
            assert places.data / "sets" not in Path(word).parents
    assert not [part for part in (*zoo.ALL, zoo.EVAL) if part.startswith("sets")]
    assert zoo.EVAL not in zoo.ALL, "what is judged by is not learnt"


def run_in_process(monkeypatch) -> list[list[str]]:
    """Commands run in this process from here on; the list of them."""
    run: list[list[str]] = []

    def call(words, check):
        run.append(words[3:])
        return SimpleNamespace(returncode=CliRunner().invoke(APP, words[3:]).exit_code)

    monkeypatch.setattr(zoo, "subprocess", SimpleNamespace(run=call))
    return run


def test_a_recipe_runs_from_photos_to_package_and_goes_on_where_it_stopped(places, monkeypatch, capsys):
    for part in (*zoo.CLEAN, zoo.EVAL):
        for index in range(3):
            images.write(places.data / part / f"{index}.png", photo(64, 80, index + 10 * len(part)))
    stages = ("--steps 1", "--steps 30")
    monkeypatch.setitem(zoo.ZOO, "small", zoo.Recipe("", SMALL, stages, stages, judged_by=("noise:5-9",), fresh=True))
    asked = ["small", "--run", "--data", str(places.data), "--models", str(places.models)]
    first, second, *others = zoo.commands("small", places)

    run = run_in_process(monkeypatch)
    with monkeypatch.context() as patched:
        # The second run is stopped by the clock, as a GPU's is.
        patched.setattr(
            zoo, "trainings",
            lambda *given: [first, [*second, "--minutes", "0.00001"]],
        )  # fmt: skip
        zoo.main(asked)
    assert [words[:2] for words in run] == [["train", "restore"], ["train", "restore"]], (
        "an unfinished run is not exported"
    )
    assert Path("runs/small/2", STATE).exists()
    assert "runs/small/2 is not finished" in capsys.readouterr().out

    run.clear()
    zoo.main(asked)
    assert run == [[*second, "--resume"], *others], "the finished run is skipped, the other one resumed"
    assert (places.models / "small/manifest.json").exists()
    assert Path("runs/small/2/quality.json").exists()

    run.clear()
    capsys.readouterr()
    zoo.main(asked)
    assert run == others
    assert "all runs are finished" in capsys.readouterr().out


def test_the_commands_are_printed_ready_for_a_shell(places, capsys):
    zoo.main(["denoise", "--data", str(places.data), "--models", str(places.models)])
    assert capsys.readouterr().out.splitlines() == [
        shlex.join(["impasto", *words]) for words in zoo.commands("denoise", places)
    ]


def test_a_failing_command_ends_the_recipe_and_unknown_names_are_one_line(monkeypatch, places):
    run = []
    monkeypatch.setattr(
        zoo, "subprocess", SimpleNamespace(run=lambda words, check: run.append(words) or SimpleNamespace(returncode=3))
    )
    with pytest.raises(SystemExit) as stopped:
        zoo.main(["denoise", "--run", "--data", str(places.data)])
    assert (stopped.value.code, len(run)) == (3, 1)
    with pytest.raises(SystemExit, match="no recipe for 'nobody'"):
        zoo.main(["nobody"])


def test_what_is_missing_is_named_with_what_it_should_hold(places, monkeypatch):
    monkeypatch.delenv("IMPASTO_DATA", raising=False)
    monkeypatch.delenv("IMPASTO_VGG", raising=False)
    with pytest.raises(SystemExit, match=r"\$IMPASTO_DATA or give --data: a folder with photos/train"):
        zoo.main(["denoise"])
    monkeypatch.setenv("IMPASTO_DATA", str(places.data))
    (places.data / "photos/bsds").rmdir()
    with pytest.raises(SystemExit, match=r"photos/bsds is missing: .*BSDS500"):
        zoo.main(["denoise"])
    (places.data / "photos/bsds").mkdir()
    with pytest.raises(SystemExit, match=r"no file is named for --vgg or \$IMPASTO_VGG: VGG16's weights"):
        zoo.main(["ejiri"])
    monkeypatch.setenv("IMPASTO_VGG", "nowhere.pth")
    with pytest.raises(SystemExit, match=r"the file nowhere\.pth is missing"):
        zoo.main(["ejiri"])
    (places.data / "styles").rmdir()
    with pytest.raises(OptionError, match="styles is missing: paintings"):
        zoo.commands("ejiri", places)


def test_the_list_names_every_model(capsys):
    zoo.main([])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(zoo.ZOO)
