"""Whether an ONNX file keeps tensors in other files, found without the onnx package.

An ONNX file may name further files for its tensors ("external data"). Their bytes are not in the file's sha256, so a
result made with other bytes would have the same key: such files are refused. Only the few message types that lead to
tensors are walked; the field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from wsolpipe.contract.errors import WeightsError

#: Fields of each message type that lead to tensors: field number -> type of what it holds.
FIELDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
#: Of a tensor: entries that say where its bytes lie, and whether they lie elsewhere.
EXTERNAL_DATA, DATA_LOCATION = 13, 14
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5


def refuse_external_data(path: Path) -> None:
    """Refuse an ONNX file whose tensors lie in other files.

    Raises
    ------
    WeightsError
        If it has such tensors, or is not an ONNX file.
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            external = None
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                external = _has_external_data(content)
    if external is None:
        msg = f"{path} is not an ONNX file"
        raise WeightsError(msg, hint="fetch or copy the file again; it may be truncated")
    if external:
        msg = f"{path} keeps tensors in other files, which its sha256 does not cover"
        raise WeightsError(msg, hint="save it as one file: onnx.save(onnx.load('in.onnx'), 'out.onnx')")


def _has_external_data(content: mmap.mmap) -> bool | None:
    """None where the bytes are not those of a protocol buffer."""
    pending = [("model", 0, len(content))]
    try:
        while pending:
            kind, start, stop = pending.pop()
            for number, wire, first, last in _fields(content, start, stop):
                if kind == "tensor" and (number, wire) == (EXTERNAL_DATA, BYTES):
                    return True
                if kind == "tensor" and (number, wire) == (DATA_LOCATION, VARINT) and first:
                    return True
                if wire == BYTES and number in FIELDS[kind]:
                    pending.append((FIELDS[kind][number], first, last))
    except (IndexError, ValueError):
        return None
    return False


def _fields(content: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and start and end of each field's bytes; of a varint its value and 0."""
    while start < stop:
        tag, start = _varint(content, start, stop)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, start = _varint(content, start, stop)
            yield number, wire, value, 0
            continue
        if wire == BYTES:
            length, start = _varint(content, start, stop)
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if wire == EIGHT_BYTES else 4
        else:
            msg = f"wire type {wire}"
            raise ValueError(msg)
        if start + length > stop:
            msg = "a field ends behind its message"
            raise ValueError(msg)
        yield number, wire, start, start + length
        start += length


def _varint(content: mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if start >= stop:
            break
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    msg = "a number without end"
    raise ValueError(msg)
