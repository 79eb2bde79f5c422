"""A training's state between two steps: what it holds, its file, and which run may resume it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.errors import TrainingError, first_line
from impasto.files import atomic_path
from impasto.training.networks import Network
from impasto.training.recipe import public_recipe

from .options import FitOptions
from .run_folder import STATE

_MATHEMATICS = ("steps", "learning_rate", "averaging", "clip", "seed", "precision", "patience", "validate_every")
"""The options that the weights depend on."""

_LATER = ("freeze", "depth_decay", "qat", "optimizer")
"""More of them, which states of earlier versions do not know."""

_UNTOLD = ("network", "split", "digests")
"""Parts of a recipe that the fingerprints of earlier versions lack; their runs can be resumed."""


@dataclass
class Best:
    """The best weights so far, by validation."""

    step: int
    score: float
    stale: int
    """Validations since."""
    network: dict[str, Tensor]


@dataclass
class RunState:
    """Where a run is, besides its weights and its optimizer."""

    step: int = 0
    """Steps that are done."""
    seconds: float = 0.0
    judged: int = 0
    """The last step that was validated."""
    best: Best | None = None
    """None without validations that choose."""


class StateFile:
    """The file that a run is resumed from. Its modules are those of one run: networks, averages, the optimizer."""

    def __init__(self, folder: Path, fingerprint: str, parts: Mapping[str, Any]) -> None:
        """parts: what has a `state_dict`, by the key that the file has for it."""
        self.path = folder / STATE
        self._fingerprint, self._parts = fingerprint, parts

    def save(self, state: RunState) -> None:
        """Write the file atomically."""
        content = {
            "fingerprint": self._fingerprint,
            "step": state.step,
            "judged": state.judged,
            "seconds": state.seconds,
            **{key: part.state_dict() for key, part in self._parts.items()},
            "best": state.best and asdict(state.best),
        }
        with atomic_path(self.path) as path:
            torch.save(content, path)

    def load(self, device: torch.device) -> RunState:
        """Restore the parts. Raises TrainingError where the file is damaged, or was written by a run of other options or data."""
        try:
            content = torch.load(self.path, map_location=device, weights_only=True)
            self._require_equal(content["fingerprint"])
            for key, part in self._parts.items():
                part.load_state_dict(content[key])
            best = content.get("best") and Best(**content["best"])
            return RunState(content["step"], content["seconds"], content.get("judged", content["step"]), best)
        except TrainingError:
            raise
        except Exception as error:  # torch.load raises whatever unpickling raises
            raise TrainingError(
                f"cannot resume from {self.path}: {first_line(error)}; begin anew elsewhere, or remove the file to begin anew here"
            ) from None

    def _require_equal(self, saved: str) -> None:
        folder = self.path.parent
        if json.loads(saved)[1].get("branches"):
            raise TrainingError(
                f"the run in {folder} was begun with --branches, which is gone; begin anew in another folder"
            )
        if other := differences(saved, self._fingerprint):
            raise TrainingError(
                f"the run in {folder} was begun with other options or data: {'; '.join(other)}. Resume it with those, or "
                "begin anew elsewhere"
            )


def all_finite(tensors: Mapping[str, Any]) -> bool:
    """Whether no tensor of a state_dict holds NaN or an infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values() if isinstance(tensor, Tensor))


def fingerprint(recipe: dict[str, Any], options: FitOptions, network: Network) -> str:
    """All that the result depends on, as text. A run can be resumed only by one whose fingerprint is equal."""
    given, usual = asdict(options), asdict(FitOptions(steps=1))
    mathematics = {key: given[key] for key in _MATHEMATICS}
    mathematics |= {key: given[key] for key in _LATER if given[key] != usual[key]}
    made = {"network": {"architecture": network.architecture, **network.config}}
    return json.dumps([{**recipe, **made, "command": ""}, mathematics], sort_keys=True, default=str)


def differences(saved: str, own: str) -> list[str]:
    """What two fingerprints do not agree in, such as "batch was 2 and is 3"; empty where they agree."""
    (recipe, before), (own_recipe, now) = json.loads(saved), json.loads(own)
    usual = json.loads(json.dumps(asdict(FitOptions(steps=1))))  # a fingerprint leaves usual values of _LATER out
    before, now = ({**{key: usual[key] for key in _LATER}, **options} for options in (before, now))
    recipe = public_recipe(recipe)  # earlier versions wrote absolute paths
    own_recipe = {key: value for key, value in own_recipe.items() if key in recipe or key not in _UNTOLD}
    return [line for one, other in ((recipe, own_recipe), (before, now)) for line in _different_entries(one, other, "")]


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
