"""Every recipe of the zoo is a command line that Impasto takes, and one of them is run, small."""

from __future__ import annotations

import itertools
import shlex
from types import SimpleNamespace

import pytest
import typer
from small_training import photo
from typer.main import get_command
from typer.testing import CliRunner

from impasto import images
from impasto.cli import eval as judging
from impasto.cli import export, train
from impasto.cli.console import Commands
from impasto.training import zoo
from impasto.training.degrade import parse

APP = typer.Typer(cls=Commands)
APP.add_typer(train.app, name="train")
APP.command()(export.export)
APP.command("eval")(judging.evaluate)


def parsed(words):
    """The verb and its parameters; raises what a wrong command line raises."""
    command, context = get_command(APP), None
    while hasattr(command, "resolve_command"):
        context = command.make_context(words[0], words[:1], parent=context, resilient_parsing=True)
        _, command, words = command.resolve_command(context, words)
    return command.name, command.make_context(command.name, list(words)).params


@pytest.mark.parametrize("name", zoo.ZOO)
def test_each_recipe_is_a_command_line_that_impasto_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / name).mkdir(parents=True)  # by the training, before its evaluation writes there
    given = [parsed(words) for words in zoo.commands(name, tmp_path / "shared", tmp_path / "models")]
    paintings = zoo.ZOO[name].paintings
    evaluations = max(len(paintings), 1)
    *trainings, (export_verb, exported) = given[:-evaluations]
    (eval_verb, judged), *_ = given[-evaluations:]
    assert (export_verb, eval_verb) == ("export", "eval")
    assert {verb for verb, _ in trainings} == {"style" if paintings else "restore"}
    for verb, options in given[-evaluations:]:
        assert verb == "eval"
        assert list(options["style"] or ()) == ([options["painting"].stem] if evaluations > 1 else [])
    assert exported["checkpoint"] == trainings[-1][1]["output"] / "checkpoint.safetensors"
    assert exported["output"] == tmp_path / "models" / name
    assert judged["model"] == str(exported["output"])
    for (_, before), (_, after) in itertools.pairwise(trainings):
        assert after["start"] == before["output"] / "checkpoint.safetensors"
    for verb, options in trainings:
        if verb == "restore":
            scale = parse(options["degrade"]).scale
            assert {parse(damage).scale for damage in judged["degrade"]} == {scale}
            assert (options["start"] is None) == (name == "denoise")


def test_a_recipe_runs_from_photos_to_package(tmp_path, monkeypatch, capsys):
    for folder in ("train", "eval"):
        (tmp_path / "shared/data/photos" / folder).mkdir(parents=True)
        for index in range(3):
            images.write(tmp_path / f"shared/data/photos/{folder}/{index}.png", photo(64, 80, index))
    small = """--degrade noise:5-9 --steps 2 --batch 1 --crop 32 --config widths=[8,8,8] --config encoder=[1,1]
        --config middle=1 --config decoder=[1,1]"""
    monkeypatch.setitem(zoo.ZOO, "small", zoo.Recipe("", (zoo.Run(small),), damages=("noise:5-9",)))
    monkeypatch.chdir(tmp_path)
    *makes, judges = zoo.commands("small", tmp_path / "shared", tmp_path / "models")
    run = []
    monkeypatch.setattr(
        zoo, "subprocess", SimpleNamespace(run=lambda words, check: run.append(words[3:]) or in_process(words[3:]))
    )
    zoo.main(["small", "--shared", str(tmp_path / "shared"), "--models", str(tmp_path / "models"), "--run"])
    assert run == [*makes, judges]
    assert capsys.readouterr().out.splitlines()[0].startswith(shlex.join(["impasto", *makes[0][:3]]))
    assert (tmp_path / "models/small/manifest.json").exists()
    assert (tmp_path / "runs/small/quality.json").exists()


def in_process(words):
    return SimpleNamespace(returncode=CliRunner().invoke(APP, words).exit_code)


def test_a_failing_command_ends_the_recipe_and_unknown_names_are_one_line(monkeypatch, tmp_path):
    run = []
    monkeypatch.setattr(
        zoo, "subprocess", SimpleNamespace(run=lambda words, check: run.append(words) or SimpleNamespace(returncode=3))
    )
    with pytest.raises(SystemExit) as stopped:
        zoo.main(["denoise", "--run"])
    assert (stopped.value.code, len(run)) == (3, 1)
    with pytest.raises(SystemExit, match="no recipe for 'nobody'"):
        zoo.main(["nobody"])


def test_the_list_names_every_model(capsys):
    zoo.main([])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(zoo.ZOO)
