"""One graph of a lower precision: how it was made, what it costs, and where it was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from impasto.export.graph.fp16 import Fp32Node
from impasto.export.graph.helpers import graph_file
from impasto.package.writer import NewFile
from impasto.public_names import renamed

from .quality import Quality
from .sensitivity import Assignment, LayerLoss


@renamed(family="target_backend")
@dataclass(frozen=True)
class QuantizedGraph:
    """A graph that holds its budget."""

    model: onnx.ModelProto = field(repr=False)
    precision: str
    target_backend: str | None
    layers: int
    """Layers that could compute in the precision."""
    assignment: Assignment
    fp32_nodes: tuple[Fp32Node, ...]
    """Nodes in FP32 beside the layers that were left out, in an FP16 graph."""
    method: str | None
    """How INT8 ranges were calibrated."""
    artificial: float
    """PSNR against FP32 of the artificial picture that came off worst (`calibration.extreme_pictures`), in dB."""
    about: dict[str, Any] = field(default_factory=dict)
    """What else the manifest is to say of it: the pictures, and what was done to them."""
    path: Path = field(default=Path())
    """The file; empty until it is written."""

    @property
    def key(self) -> str:
        """The precision and, where there is one, the target backend: "int8-openvino". A part of the file's name."""
        return f"{self.precision}-{self.target_backend}" if self.target_backend else self.precision

    @property
    def file(self) -> NewFile:
        """The graph as a file of a package."""
        return graph_file(f"model.{self.key}.onnx", self.model, self.precision, self.target_backend)

    @property
    def quality(self) -> Quality:
        return self.assignment.quality

    @property
    def losses(self) -> tuple[LayerLoss, ...]:
        return self.assignment.losses

    @property
    def excluded(self) -> tuple[str, ...]:
        """The layers that are left out of the precision, because the budget would not hold."""
        return self.assignment.excluded_labels

    def for_manifest(self) -> dict[str, Any]:
        """What the package's manifest says of it."""
        calibration = {"calibration": self.method} if self.method else {}
        # Where somebody looked: what each layer alone costs, to be seen in `impasto inspect --html`.
        losses = {"losses": {loss.label: round(loss.psnr, 2) for loss in self.losses}} if self.losses else {}
        return {
            "against FP32": self.quality.to_json(),
            **self.about,
            "artificial pictures": {"psnr": self.artificial},
            "spared": list(self.excluded),
            **calibration,
            **losses,
        }

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "path": str(self.path),
            "precision": self.precision,
            "family": self.target_backend,
            "layers": self.layers,
            "spared": list(self.excluded),
            "islands": [{"node": fp32_node.node, "reason": fp32_node.reason} for fp32_node in self.fp32_nodes],
            "calibration": self.method,
            "quality": self.quality.to_json(),
            "artificial_psnr": self.artificial,
            "losses": [loss.to_json() for loss in self.losses],
        }
