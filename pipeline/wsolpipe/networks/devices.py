"""Torch devices: chosen, or refused before anything is read or made."""

from __future__ import annotations

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import shorten
from wsolpipe.networks.weights import first_line


def choose_device(asked: str | None) -> str:
    """Device to work on.

    Parameters
    ----------
    asked : str or None
        ``cpu``, ``cuda``, ``cuda:N`` or another torch device; ``auto`` or None for a GPU if one is available.

    Raises
    ------
    ConfigError
        If torch knows no such device, or this machine does not have it.
    """
    if asked == "cpu":
        return asked  # torch is not needed to say so, and takes seconds to import
    import torch

    if asked in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    asked = str(asked)
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        msg = f"device={shorten(asked)} is not a torch device"
        raise ConfigError(msg, hint="write device=cpu, device=cuda or device=cuda:0") from error
    if device.type == "cpu":
        return asked
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            have = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
            msg = f"device={asked}: torch sees {have} on this machine"
            raise ConfigError(msg, hint="write device=cpu, or run wsolpipe doctor to see what is missing")
        return asked
    try:
        torch.empty(1, device=device)
    except Exception as error:  # each backend that is missing says so in its own way
        msg = f"device={asked} cannot be used on this machine: {first_line(error)}"
        raise ConfigError(msg, hint="write device=cpu or device=cuda") from error
    return asked
