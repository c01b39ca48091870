"""Work that is not done yet, kept so that a kill costs little of it: a state as one file, and when it is saved."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import time
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import AccessError, DataError, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

_log = logging.getLogger(__name__)


def write_state(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, kind: str) -> None:
    """Write a safetensors file; a kill or a power cut leaves either the file before it or this one.

    The same tensors and values give the same bytes. The file before it stays as ``NAME.previous``.

    Parameters
    ----------
    path : Path
        The .safetensors file.
    state : mapping
        Whatever JSON holds.
    kind : str
        What the file is a state of, such as ``wsoltrain/1``; `read_state` refuses another.

    Raises
    ------
    AccessError
        If it cannot be written (a full disk, say); the file before it is intact.
    """
    from safetensors.torch import save

    text = json.dumps(dict(state), sort_keys=True)
    data = save({name: tensors[name].detach().contiguous().cpu() for name in sorted(tensors)})
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    header["__metadata__"] = {"format": kind, "sha256": _digest(text, header, body), "state": text}
    # safetensors writes its metadata in an order drawn anew each time; sorted, equal states are equal files.
    head = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    _put(path, struct.pack("<Q", len(head)) + head + body)


def _put(path: Path, data: bytes) -> None:
    """Bytes on the disk under their name; the file that was there becomes the previous one."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                path.replace(previous(path))
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """The state that was written before the last one."""
    return path.with_name(f"{path.name}.previous")


def read_state(path: Path, *, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Plain values and tensors of a file.

    Raises
    ------
    DataError
        If it is missing, damaged, or of another kind.
    AccessError
        If it may not be read: nothing is known of its bytes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        msg = f"{path} cannot be read as a saved state: the file does not exist"
        raise DataError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise AccessError(msg, hint="check its permissions and its disk, then run the same command again") from error
    try:
        tensors = load(data)
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        noted = header.pop("__metadata__", {})
    except (SafetensorError, ValueError, struct.error, AttributeError) as error:
        msg = f"{path} cannot be read as a saved state: {error}"
        raise DataError(msg) from error
    if noted.get("format") != kind:
        msg = f"{path} is not a saved state of {kind}"
        raise DataError(msg)
    text = noted.get("state", "")
    if noted.get("sha256", "") not in ("", _digest(text, header, data[8 + length :])):
        msg = f"{path} is damaged: its bytes are not those that were written"
        raise DataError(msg)
    return json.loads(text), tensors


def read_newest(path: Path, *, kind: str, holds: str = "") -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Read the file by `read_state`, or the one before it where that is damaged; None without either.

    A file whose state lacks the value `holds` counts as damaged: another one was put in its place. A damaged file
    beside an intact previous one is renamed to ``NAME.damaged``, so that the next state does not make it the previous
    one.

    Raises
    ------
    AccessError
        If a file may not be read.
    """
    for candidate in (path, previous(path)):
        try:
            found = read_state(candidate, kind=kind)
        except DataError:
            continue
        if holds and holds not in found[0]:
            continue
        if candidate != path and path.exists():
            _log.warning("%s is damaged: continuing from the state saved before it", path)
            with contextlib.suppress(FileNotFoundError):  # another process of the same training renamed it
                path.replace(path.with_name(f"{path.name}.damaged"))
        return found
    return None


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(text: str, header: Mapping[str, Any], body: bytes) -> str:
    """sha256 of plain values, names and places of tensors, and their bytes."""
    table = {name: entry for name, entry in header.items() if name != "__metadata__"}
    total = hashlib.sha256(f"{text}\n{json.dumps(table, sort_keys=True)}\n".encode())
    total.update(body)
    return total.hexdigest()


class Parts:
    """Named results of parts of a block, which the engine keeps where a kill cannot reach; this one keeps nothing."""

    def get(self, name: str) -> NDArray[Any] | None:
        """The part `name` as an earlier attempt at the same block kept it."""

    def due(self) -> bool:
        """Whether enough time has passed to save progress again."""
        return False

    def keep(self, parts: Mapping[str, NDArray[Any]]) -> None:
        """Keep these parts too."""


class Unfinished:
    """Where an artifact stage keeps work that is not done, so that a kill costs a minute and not all of it.

    Parameters
    ----------
    path : Path, optional
        File that only this stage writes, removed once the artifact is committed; its name holds everything that the
        result depends on. None keeps nothing.
    every : float
        Seconds between two savings.
    stopping : callable
        Whether this process was asked to stop: then it is time to save.
    """

    def __init__(
        self, path: Path | None = None, *, every: float = 30.0, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.path = path
        self._every, self._stopping = every, stopping
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save; counted from the last time that it was."""
        if self.path is None or not (self._stopping() or time.monotonic() - self._last >= self._every):
            return False
        self._last = time.monotonic()
        return True
