"""Tensors of a TorchScript archive, read without running the program in it.

OpenAI published CLIP as such archives. ``torch.jit.load`` compiles the program inside, and ``torch.load`` refuses them
where only weights are wanted. The tensors themselves lie in plain files beside a pickle that names them, and of that
pickle only what rebuilds tensors is understood here: every class of the archive becomes an empty shell with
attributes, and any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsolpipe.contract.errors import WeightsError

#: Storage types that the pickle may name, and what they hold.
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Shell:
    """Stands for an object of the archive: its attributes and nothing else."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            msg = "an object of the archive has no plain attributes"
            raise pickle.UnpicklingError(msg)
        self.__dict__.update({str(name): value for name, value in state.items()})


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with a program in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_archive(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of a TorchScript archive.

    Parameters
    ----------
    path : Path
        As ``torch.jit.save`` writes it.

    Returns
    -------
    dict of str to Tensor
        By their dotted names, on the CPU, in the precision of the file.

    Raises
    ------
    WeightsError
        If the archive is truncated, or its pickle holds more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("/data.pkl")
            tree = _Reader(archive, root).load()
    except pickle.UnpicklingError as error:
        msg = f"{path} is a TorchScript archive that holds more than tensors: {error}"
        raise WeightsError(msg, hint="only tensors are read; save the model's state_dict as safetensors") from error
    except Exception as error:  # what a truncated zip or pickle raises differs with where it ends
        msg = f"cannot read {path} as a TorchScript archive: {str(error) or type(error).__name__}"
        raise WeightsError(msg, hint="fetch or copy the file again; it may be truncated") from error
    return dict(_tensors(tree, ""))


def _tensors(shell: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(shell).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, Shell):
            yield from _tensors(value, f"{prefix}{name}.")


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return Shell
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return _untagged
        msg = f"it names {module}.{name}"
        raise pickle.UnpicklingError(msg)

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            msg = f"it refers to {kind!r}"
            raise pickle.UnpicklingError(msg)
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            values = torch.frombuffer(data, dtype=dtype) if data else torch.zeros(0, dtype=dtype)
            self.storages[key] = values[: int(count)]
        return self.storages[key]


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), int(offset))


def _untagged(value: Any, _: Any) -> Any:
    return value
