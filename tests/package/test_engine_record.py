"""Records of engines: what a file may say, and what is refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import record, write_plan

from impasto.errors import PackageError
from impasto.package.engine_record import EngineLayer, EngineRecord
from impasto.runtime.loading.stored_engines import read_stored


def test_records_survive_json() -> None:
    layer = EngineLayer("c1", "convolution", "fp16", ("Half NHWC",), ())
    original = record(layers=(layer,), precisions_by_target={"8.7": {"fp16": 1}})
    assert EngineRecord.from_json(json.loads(json.dumps(original.to_json())), "here") == original


def test_the_product_keeps_the_key_that_earlier_records_have() -> None:
    data = record(product="tensorrt-rtx").to_json()
    assert data["flavour"] == "tensorrt-rtx"
    assert "product" not in data


SHAPE = [1, 64, 64, 3]
MALFORMED: dict[str, Any] = {
    "profiles": [[], [{}], [{"image": [SHAPE, SHAPE]}], [{"image": [SHAPE, SHAPE, [1]]}], ["image"], None],
    "precision": ["fp8", None],
    "spec": [None, [], {}, {"name": 3}],
    "options": [[1]],
    "precisions_by_target": [[1], {"8.6": 3}, {"8.6": {"fp16": "many"}}],
    "plan_bytes": ["many", True],
    "device_memory_bytes": ["1"],
    "compute_capabilities": [[8, 6], [], "8.6", None],
    "source_sha256": [5, None],
    "key": [None, 7],
    "version": [None],
    "layers": [3, ["layer"], [{"name": None, "kind": "k", "precision": "fp16", "inputs": [], "outputs": []}]],
    "role": ["cook"],
    "gpu": [3],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in MALFORMED.items() for value in values]
)
def test_a_malformed_record_is_a_sentence(field: str, value: Any) -> None:
    data = record().to_json() | {field: value}
    with pytest.raises(PackageError, match="here: "):
        EngineRecord.from_json(json.loads(json.dumps(data)), "here")


@pytest.mark.parametrize("data", [None, [], "text", 3, {}])
def test_what_is_no_record_is_a_sentence(data: Any) -> None:
    with pytest.raises(PackageError, match="here: "):
        EngineRecord.from_json(data, "here")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: None,
        lambda data: [],
        lambda data: data | {"record": "text"},
        lambda data: {"record": data["record"]},
        lambda data: data | {"record": data["record"] | {"key": "../tiny"}},
    ],
    ids=["null", "list", "text", "no hash", "another engine's"],
)
def test_a_file_that_is_no_record_is_a_sentence(tmp_path: Path, damage: Callable[[dict[str, Any]], Any]) -> None:
    plan = write_plan(tmp_path)
    beside = plan.with_suffix(".json")
    beside.write_text(json.dumps(damage(json.loads(beside.read_text()))))
    with pytest.raises(PackageError, match=r"tiny\.json"):
        read_stored(plan)
