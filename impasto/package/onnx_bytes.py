"""What the runtime reads of an ONNX file by itself, without the onnx library: its nodes, its metadata, where its weights lie.

ONNX files are protobuf messages: fields of a number, a wire type and a value, one behind another. Field numbers are onnx.proto's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

_GRAPH, _METADATA = 7, 14
"""Field numbers of ModelProto, in onnx.proto, as are those below."""
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
"""Field numbers of GraphProto."""
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
"""Field numbers of TensorProto."""
_KEY, _VALUE = 1, 2
"""Field numbers of StringStringEntryProto."""
_NODE_INPUT, _NODE_OUTPUT, _OPERATOR = 1, 2, 4
"""Field numbers of NodeProto."""
_NAME = 1
"""A field number of ValueInfoProto."""
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5

_BOUNDING = frozenset({"Clip", "HardSigmoid", "Max", "Min", "Relu"})
"""Operators that make something of NaN and infinity which a picture does not show: OpenVINO's give a number for NaN."""
_ROUNDING = frozenset({"Cast", "Round"})
"""A Cast makes 0 of NaN; what is rounded is next to it."""
_PASSED = _BOUNDING | _ROUNDING | {"Add", "Div", "Gather", "Identity", "Mul", "Sub", "Transpose"}
"""Operators between a network's result and the picture. Of two inputs, one is a constant."""


@dataclass(frozen=True)
class Unbounded:
    """The values that become a picture, before anything hides that some of them are none."""

    tensor: str
    infinite: bool
    """Whether they may be infinite, since the network itself bounds them afterwards."""


@dataclass(frozen=True)
class _Node:
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def unbounded(model: bytes) -> Unbounded | None:
    """What is bounded and rounded to the model's first output; None where that is neither.

    Raises ValueError for what is no ONNX file.
    """
    nodes: dict[str, _Node] = {}
    outputs: list[str] = []
    for graph in _messages(model, _GRAPH):
        for number, value in _fields(graph):
            if number == _NODE and isinstance(value, memoryview):
                held = _node(value)
                if held.operator != "Constant":
                    nodes.update(dict.fromkeys(held.outputs, held))
            elif number == _OUTPUT and isinstance(value, memoryview):
                outputs += [str(name, "utf-8") for name in _messages(value, _NAME)]
    if not outputs:
        raise ValueError("the file has no graph")
    tensor, found, bounds, rounds = outputs[0], None, 0, False
    while (node := nodes.pop(tensor, None)) and node.operator in _PASSED:  # once each: a damaged graph may be a circle
        computed = [name for name in node.inputs if name in nodes]
        if len(computed) != 1:
            break
        tensor = computed[0]
        rounds |= node.operator in _ROUNDING
        bounds += node.operator in _BOUNDING
        if node.operator in _BOUNDING | _ROUNDING:
            found = Unbounded(tensor, bounds > rounds)  # bytes are bounded anyway
    return found


def with_output(model: bytes, tensor: str) -> bytes:
    """The model with this tensor as one more output. Appending is enough: a protobuf reader joins a message that comes twice."""
    name = tensor.encode()
    value = _delimited(_NAME, name)
    return model + _delimited(_GRAPH, _delimited(_OUTPUT, value))


def metadata(model: bytes) -> dict[str, str]:
    """The entries of the model's metadata. Raises ValueError for what is no ONNX file."""
    return dict(_entry(message) for message in _messages(model, _METADATA))


def weight_files(model: bytes) -> set[str]:
    """The names of the files in which weights of this model lie; nothing where it holds them itself.

    Initializers alone are looked at: graphs of Impasto keep nothing else elsewhere. Raises ValueError for what is no ONNX file.
    """
    tensors = (tensor for graph in _messages(model, _GRAPH) for tensor in _messages(graph, _INITIALIZER))
    return {place["location"] for tensor in tensors if (place := _external(tensor))}


def with_weights(model: bytes, files: Mapping[str, bytes]) -> bytes:
    """The model with all its weights inside.

    files: the content of each of its `weight_files`. Raises ValueError for what is no ONNX file, or a weight beyond a file's end.
    """
    return _changed(
        model, _GRAPH, lambda graph: _changed(graph, _INITIALIZER, lambda tensor: _tensor_with_weights(tensor, files))
    )


def _changed(message: bytes | memoryview, wanted: int, change: Callable[[memoryview], bytes]) -> bytes:
    """The message with its fields of this number, messages themselves, changed."""
    return b"".join(
        _field(number, change(value) if number == wanted and isinstance(value, memoryview) else value)
        for number, value in _fields(message)
    )


def _tensor_with_weights(tensor: memoryview, files: Mapping[str, bytes]) -> bytes:
    place = _external(tensor)
    if not place:
        return bytes(tensor)
    file, offset, length = files[place["location"]], int(place.get("offset", 0)), int(place["length"])
    if min(offset, length) < 0 or offset + length > len(file):
        raise ValueError(f"{length} bytes of weights at byte {offset} of {len(file)}")
    kept = ((number, value) for number, value in _fields(tensor) if number not in (_EXTERNAL_DATA, _DATA_LOCATION))
    return b"".join(_field(number, value) for number, value in kept) + _delimited(
        _RAW_DATA, file[offset : offset + length]
    )


def _external(tensor: memoryview) -> dict[str, str]:
    """Where a tensor's values lie, as ONNX's external_data says; empty where they lie in the tensor itself."""
    return dict(_entry(message) for message in _messages(tensor, _EXTERNAL_DATA))


def _entry(message: memoryview) -> tuple[str, str]:
    texts = {number: str(value, "utf-8") for number, value in _fields(message) if isinstance(value, memoryview)}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _node(message: memoryview) -> _Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _OPERATOR: []}
    for number, value in _fields(message):
        if number in texts and isinstance(value, memoryview):
            texts[number].append(str(value, "utf-8"))
    return _Node("".join(texts[_OPERATOR]), tuple(texts[_NODE_INPUT]), tuple(texts[_NODE_OUTPUT]))


def _messages(message: bytes | memoryview, wanted: int) -> Iterator[memoryview]:
    """The contents of a message's fields of this number."""
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Each field's number and value. Raises ValueError where the bytes are no message."""
    view = memoryview(message)
    place = 0
    while place < len(view):
        key, place = _varint(view, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(view, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(view, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if place + length > len(view):
            raise ValueError(f"a field of {length} bytes at byte {place} of {len(view)}")
        yield key >> 3, view[place : place + length]
        place += length


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(view):
            break
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"no number at byte {place}")


def _field(number: int, value: memoryview | bytes | int) -> bytes:
    """A field as `_fields` gave it."""
    if isinstance(value, int):
        return _number(number << 3 | _VARINT) + _number(value)
    return _delimited(number, bytes(value))


def _delimited(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
