"""Checkpoints: one safetensors file that holds all of a run's state, put into place at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsolpipe.contract.errors import DataError
from wsolpipe.networks.saved_state import part, previous, read_newest, read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wsoltrain.methods.base import Method

KIND = "wsoltrain/1"
_HINT = "wsoltrain fit writes one; if it wrote this, it is damaged: remove it and start again"
_MODEL, _AVERAGE, _SLOT, _ARTIFACT = "model.", "average.", "optimiser.", "artifact."


@dataclass(frozen=True)
class Saved:
    """Content of a file.

    Attributes
    ----------
    state : dict
        Plain values.
    tensors : dict of str to Tensor
        Weights, averages, optimiser buffers and artifact files, by prefixed names.
    """

    state: dict[str, Any]
    tensors: dict[str, Tensor]


def save(
    path: Path,
    model: Method[Any],
    state: Mapping[str, Any],
    optimisers: Mapping[str, torch.optim.Optimizer],
    average: Method[Any] | None = None,
    *,
    artifacts: Mapping[str, bytes] | None = None,
) -> None:
    """Write weights, optimiser buffers and plain state; a kill leaves either the old file or the new one.

    The same state gives the same bytes, and the file holds its digest; see `wsolpipe.networks.saved_state`.

    Parameters
    ----------
    path : Path
        The .safetensors file.
    model : Method
        Its `saved` tensors are kept: a frozen encoder is not copied into each file.
    state : mapping
        Whatever JSON holds.
    optimisers : mapping of str to Optimizer
        By name; none in a file for predictions.
    average : Method, optional
        The network with averaged weights.
    artifacts : mapping of str to bytes, optional
        Files that the method is built from, kept as uint8 tensors.

    Raises
    ------
    AccessError
        If it cannot be written (a full disk, say).
    """
    tensors = {_MODEL + name: value for name, value in model.saved().items()}
    if average is not None:
        tensors |= {_AVERAGE + name: value for name, value in average.saved().items()}
    for name, optimiser in optimisers.items():
        for number, slots in optimiser.state_dict()["state"].items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"{_SLOT}{name}.{number}.{slot}"] = value
    for name, content in (artifacts or {}).items():
        tensors[_ARTIFACT + name] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    write_state(path, tensors, state, kind=KIND)


def state_of(path: Path) -> dict[str, Any]:
    """Return the plain state of a file, without its tensors.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a checkpoint of wsoltrain.
    """
    return read(path).state


def artifacts_of(path: Path) -> dict[str, bytes]:
    """Return the artifact files that a checkpoint holds, by ``stage/file``.

    Raises
    ------
    DataError
        As `state_of`.
    """
    return {name: value.numpy().tobytes() for name, value in part(read(path).tensors, _ARTIFACT).items()}


def load(
    path: Path,
    model: Method[Any],
    optimisers: Mapping[str, torch.optim.Optimizer] | None = None,
    average: Method[Any] | None = None,
) -> dict[str, Any]:
    """Put a file's weights and buffers back and return its state.

    Raises
    ------
    DataError
        If the file is damaged or not a checkpoint of wsoltrain.
    ConfigError
        If it was saved from another network.
    """
    saved = read(path)
    put_back(saved, model, optimisers, average)
    return saved.state


def put_back(
    saved: Saved,
    model: Method[Any],
    optimisers: Mapping[str, torch.optim.Optimizer] | None = None,
    average: Method[Any] | None = None,
) -> None:
    """Put weights and buffers back into what they were saved from.

    Raises
    ------
    ConfigError
        If they were saved from another network.
    """
    tensors = saved.tensors
    model.restore(part(tensors, _MODEL))
    if average is not None:
        average.restore(part(tensors, _AVERAGE))
    for name, optimiser in (optimisers or {}).items():
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in part(tensors, f"{_SLOT}{name}.").items():
            number, slot = key.split(".")
            slots.setdefault(int(number), {})[slot] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})


def read(path: Path) -> Saved:
    """Read a file and check its digest.

    Raises
    ------
    DataError
        If it is missing, damaged or not a checkpoint of wsoltrain.
    """
    try:
        return Saved(*read_state(path, kind=KIND))
    except DataError as error:
        foreign = "name the folder of a training, or one of its .safetensors files"
        raise DataError(error.message, hint=_HINT if path.suffix == ".safetensors" else foreign) from error


def exists(path: Path) -> bool:
    """Whether a training left a checkpoint, or the one before it."""
    return path.exists() or previous(path).exists()


def read_last(path: Path, holds: str = "score") -> Saved:
    """Read the newest undamaged one of a training's checkpoint and the one before it.

    Parameters
    ----------
    holds : str
        Value that its state must have; weights for predictions have a ``score``, a point to resume from ``stream``.

    Raises
    ------
    DataError
        If none of them can be used.
    """
    found = read_newest(path, kind=KIND, holds=holds)
    if found is None:
        read(path)
        msg = f"{path} is another checkpoint than the one that was saved here: it holds no {holds}"
        raise DataError(msg, hint=_HINT)
    return Saved(*found)
