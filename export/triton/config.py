"""The text of a Triton model's config.pbtxt, which Triton's ModelConfig protobuf describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DATA_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
"""NumPy's name to Triton's."""

Value = str | int | bool | Sequence["Value"] | Mapping[str, "Value"]


class Word(str):
    """A value of an enumeration: written without quotes."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model in the repository."""

    name: str
    dtype: str
    """NumPy's name, one of DATA_TYPES."""
    dims: tuple[int, ...]
    """Without the batch's; -1 for a free one."""

    def to_pbtxt(self, batched: bool) -> dict[str, Value]:
        """Its entry. batched: whether Triton puts the batch's dimension in front; otherwise a batch is 1."""
        dims = self.dims if batched else (1, *self.dims)
        return {"name": self.name, "data_type": Word(DATA_TYPES[self.dtype]), "dims": list(dims)}


def pbtxt(fields: Mapping[str, Value]) -> str:
    """Protobuf's text format, one field a line; a list is a repeated field."""
    return "".join(_lines(fields, 0))


def _lines(fields: Mapping[str, Value], depth: int) -> list[str]:
    found = []
    for name, value in fields.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        for one in value if repeated else [value]:  # type: ignore[union-attr]
            if isinstance(one, Mapping):
                found += [f"{'  ' * depth}{name} {{\n", *_lines(one, depth + 1), f"{'  ' * depth}}}\n"]
            else:
                found.append(f"{'  ' * depth}{name}: {_scalar(one)}\n")
    return found


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Word | int):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
