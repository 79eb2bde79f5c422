"""Laws of `impasto eval`: what equals the truth is perfect, figures are those of training, errors are one line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import typer
from small_training import photo
from typer.testing import CliRunner

from impasto import images
from impasto.cli.console import Commands
from impasto.cli.eval import evaluate
from impasto.errors import CheckpointError, OptionError, PictureError
from impasto.evaluation import EQUAL_PSNR, Score, evaluate_restorer, evaluate_stylizer
from impasto.export.package import export
from impasto.training import checkpoint, metrics
from impasto.training.backbones import load_vgg16
from impasto.training.losses import StyleTarget
from impasto.training.networks import build
from impasto.training.recipes import read_painting

pytest_plugins = ("training_fixtures",)
EXAMPLE = ("restorer", "--degrade", "noise:0-50")
