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

    from wsoltrain.methods.localizers import Localizer
    from wsoltrain.training.average import Average

_MODEL, _AVERAGE, _SLOT = "model.", "average.", "optimiser."


def save(
    path: Path,
    model: Localizer,
    state: Mapping[str, Any],
    optimisers: Mapping[str, torch.optim.Optimizer],
    average: Average | None = None,
) -> None:
    """Write weights, optimiser buffers and plain state; a kill leaves either the old file or the new one.

    Parameters
    ----------
    path : Path
        The .safetensors file.
    model : Localizer
        Its `saved` tensors are kept: a frozen encoder is not copied into each file.
    state : mapping
        Whatever JSON holds.
    optimisers : mapping of str to Optimizer
        By name; none for a file that is only to predict with.
    average : Average, optional
        Running average of the weights.
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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors, partial, metadata={"format": "wsoltrain/1", "state": json.dumps(dict(state))})
    partial.replace(path)


def state_of(path: Path) -> dict[str, Any]:
    """Return the plain state of a file, without its tensors.

    Raises
    ------
    DataError
        If the file is missing, damaged or none of ours.
    """
    return _read(path, whole=False)[0]


def load(
    path: Path,
    model: Localizer,
    optimisers: Mapping[str, torch.optim.Optimizer] | None = None,
    average: Average | None = None,
) -> dict[str, Any]:
    """Put a file's weights and buffers back and return its state.

    Raises
    ------
    DataError
        If the file is damaged or none of ours.
    ConfigError
        If it was saved from another network.
    """
    state, tensors = _read(path, whole=True)
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


def _read(path: Path, *, whole: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = list(file.keys()) if whole else []
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        msg = f"{path} cannot be read as a checkpoint: {error}"
        raise DataError(msg, hint="wsoltrain fit writes one; remove a damaged one to start anew") from error
    if header.get("format") != "wsoltrain/1":
        msg = f"{path} is no checkpoint of wsoltrain"
        raise DataError(msg, hint="give best-….safetensors of a run's folder")
    return json.loads(header["state"]), tensors
