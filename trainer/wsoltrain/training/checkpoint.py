"""Checkpoints: one safetensors file that holds all of a run's state, put into place at once."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsolpipe.contract.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wsoltrain.methods.base import Method
    from wsoltrain.training.average import Average

_MODEL, _AVERAGE, _SLOT, _ARTIFACT = "model.", "average.", "optimiser.", "artifact."


def save(
    path: Path,
    model: Method[Any],
    state: Mapping[str, Any],
    optimisers: Mapping[str, torch.optim.Optimizer],
    average: Average | None = None,
    *,
    artifacts: Mapping[str, bytes] | None = None,
) -> None:
    """Write weights, optimiser buffers and plain state; a kill leaves either the old file or the new one.

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
    average : Average, optional
        Running average of the weights.
    artifacts : mapping of str to bytes, optional
        Files that the method is built from, kept as uint8 tensors.
    """
    from safetensors.torch import save_file

    tensors = {_MODEL + name: value.contiguous() for name, value in model.saved().items()}
    if average is not None:
        tensors |= {_AVERAGE + name: value for name, value in average.tensors.items()}
    for name, optimiser in optimisers.items():
        for number, slots in optimiser.state_dict()["state"].items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"{_SLOT}{name}.{number}.{slot}"] = value.contiguous()
    for name, content in (artifacts or {}).items():
        tensors[_ARTIFACT + name] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors, partial, metadata={"format": "wsoltrain/1", "state": json.dumps(dict(state))})
    partial.replace(path)


def state_of(path: Path) -> dict[str, Any]:
    """Return the plain state of a file, without its tensors.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a checkpoint of wsoltrain.
    """
    return _read(path, prefix=None)[0]


def artifacts_of(path: Path) -> dict[str, bytes]:
    """Return the artifact files that a checkpoint holds, by ``stage/file``.

    Raises
    ------
    DataError
        As `state_of`.
    """
    _, tensors = _read(path, prefix=_ARTIFACT)
    return {name: value.numpy().tobytes() for name, value in _under(_ARTIFACT, tensors).items()}


def load(
    path: Path,
    model: Method[Any],
    optimisers: Mapping[str, torch.optim.Optimizer] | None = None,
    average: Average | None = None,
) -> dict[str, Any]:
    """Put a file's weights and buffers back and return its state.

    Raises
    ------
    DataError
        If the file is damaged or not a checkpoint of wsoltrain.
    ConfigError
        If it was saved from another network.
    """
    state, tensors = _read(path, prefix="")
    model.restore(_under(_MODEL, tensors))
    if average is not None:
        average.take(_under(_AVERAGE, tensors))
    for name, optimiser in (optimisers or {}).items():
        slots: dict[int, dict[str, Tensor]] = {}
        prefix = f"{_SLOT}{name}."
        for key in (key for key in tensors if key.startswith(prefix)):
            number, slot = key.removeprefix(prefix).split(".")
            slots.setdefault(int(number), {})[slot] = tensors[key]
        optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
    return state


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(path: Path, *, prefix: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State, and the tensors whose names begin with a prefix; none of them where it is None."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = [name for name in file.keys() if prefix is not None and name.startswith(prefix)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        msg = f"{path} cannot be read as a checkpoint: {error}"
        raise DataError(msg, hint="wsoltrain fit writes one; remove a damaged one to start again") from error
    if header.get("format") != "wsoltrain/1":
        msg = f"{path} is not a checkpoint of wsoltrain"
        raise DataError(msg, hint="name best-….safetensors of a run's folder")
    return json.loads(header["state"]), tensors
