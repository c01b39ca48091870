"""Torch devices: chosen, or refused before anything is read or made; and errors that are faults of a device."""

from __future__ import annotations

import contextlib
import os
import platform
import re

from wsolpipe.contract.errors import ConfigError, DeviceError, error_chain, first_line, is_out_of_memory, shorten

#: How torch and the libraries below it say that a GPU, its driver or the link between GPUs failed.
_FAULT = re.compile(
    r"\b(cuda|hip|cudnn|cublas|nccl|nvrtc|nvml)( driver| runtime)? error|device-side assert"
    r"|\bcuda(error|fail|get|set|launch|stream|memcpy)\w*"
    r"|\b(cublas|cudnn|cusolver|cusparse|nvrtc)_\w+|\bcufft_\w+|\becc error|uncorrectable ecc|\bnccl"
    r"|collective operation timeout|nvidia driver|no cuda gpus|cuda-capable device|\bcuda initialization",
    re.IGNORECASE,
)
_FAULT_TYPES = frozenset(["AcceleratorError", "DistBackendError", "DeferredCudaCallError"])


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


def is_device_fault(error: BaseException) -> bool:
    """Whether an error says that a GPU, its driver or the link between GPUs failed; lack of memory does not count.

    After such an error nothing works on that device in this process any more, whatever the row.
    """
    return not is_out_of_memory(error) and any(
        type(each).__name__ in _FAULT_TYPES or (isinstance(each, RuntimeError) and _FAULT.search(str(each)))
        for each in error_chain(error)
    )


def device_error(error: Exception, device: str) -> DeviceError:
    """The error that ends a worker whose device failed; it names the GPU and its machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    name = device
    with contextlib.suppress(Exception):  # the driver may be gone
        import torch

        name = f"{device} ({torch.cuda.get_device_name(device)})"
    among = f", CUDA_VISIBLE_DEVICES={visible}" if visible else ""
    msg = f"{name} of {platform.node()}{among} failed: {first_line(error)}"
    return DeviceError(msg, hint="no row was blamed: run again, it resumes; nvidia-smi shows the state of the GPU")
