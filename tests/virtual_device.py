"""A GPU that a machine without one pretends to have: values of the CPU, and the rules and costs of another device.

Inside `virtual_gpu` torch takes ``device="cuda"``. A tensor "on" it wraps one of the CPU and computes the same values,
but, as on a GPU, an operation that mixes devices raises, and NumPy cannot read it. What would cost time on a GPU is
counted: copies in either direction, and waits, where the host needs a value before the device has made it. Gradients
flow through it. Kernels, their order and their memory are not simulated.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

if TYPE_CHECKING:
    from collections.abc import Iterator

GPU = torch.device("cuda", 0)
PACKAGES = ("/wsolpipe/", "/wsoltrain/")
WAITS = frozenset(
    ["_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
     "repeat_interleave", "bincount", "histc"]
)  # fmt: skip
"""Operations whose result, or its shape, the host has to wait for."""
INDEXING = frozenset(["index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"])
COPIES = frozenset(["copy_", "_to_copy", "set_"])
FAULT = "CUDA error: an illegal memory access was encountered"


@dataclass
class Counts:
    """What was asked of the device, by place in the product.

    Attributes
    ----------
    waits, up, down : Counter of str
        Waits for a value, copies to the device, and copies from it, each of which is a wait too.
    """

    waits: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    fails_in: int | None = None
    """Operations on the device until it fails, and everything after with it; None for never."""

    def totals(self) -> dict[str, int]:
        """How many there were of each."""
        return {"waits": self.waits.total(), "up": self.up.total(), "down": self.down.total()}

    def clear(self) -> None:
        """Count anew."""
        for counter in (self.waits, self.up, self.down):
            counter.clear()


class OnGpu(torch.Tensor):
    """A tensor of the device: `values` lie on the CPU, and so it does for C++, which then computes gradients."""

    values: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            layout=values.layout, device=values.device,
        )  # fmt: skip
        made.values = values
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.values})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copy: torch.Tensor = OnGpu(self.values.clone())
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _compute(operation, args, kwargs or {})


_counts = Counts()
_leaving = [False]
"""Whether the copy under way was asked for by the product; for C++ all tensors lie on the CPU."""
_called_with_gpu = [False]
"""Whether the call of Python under way was given a tensor of the device: what torch makes within is there too."""


def _compute(operation: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Run an operation on the values, as its tensors' devices allow."""
    name = operation._schema.name.removeprefix("aten::")
    tensors = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, torch.Tensor)]
    on_gpu = any(isinstance(each, OnGpu) for each in tensors)
    asked = given.get("device")
    goes_up = _is_gpu(asked) if asked is not None else on_gpu
    goes_up = goes_up or (not tensors and _called_with_gpu[-1])
    goes_up = goes_up or (name == "_to_copy" and on_gpu and not _leaving[-1])  # a gradient returns to where it was
    if name in {"is_pinned", "_pin_memory"}:
        return False if name == "is_pinned" else args[0]
    if on_gpu and name not in COPIES:
        _refuse_mixed(name, args, tensors)
    _count(name, args, tensors, on_gpu=on_gpu, goes_up=goes_up)
    generator = given.get("generator")
    if goes_up and generator is not None and generator.device.type != "cuda":
        msg = f"Expected a 'cuda' device type for generator but found 'cpu' ({name}) at {_place()}"
        raise RuntimeError(msg)
    args, given = tree_map(lambda leaf: leaf.values if isinstance(leaf, OnGpu) else leaf, (args, given))
    if _is_gpu(asked):
        given["device"] = torch.device("cpu")
    if given.get("pin_memory"):
        given["pin_memory"] = False
    made = operation(*args, **given)
    changed = _changed(operation, tensors, args, given)
    if changed is not None:
        return changed
    if name == "_local_scalar_dense" or not goes_up:
        return made
    return tree_map(lambda leaf: OnGpu(leaf) if isinstance(leaf, torch.Tensor) else leaf, made)


def _refuse_mixed(name: str, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    """Raise as CUDA does where tensors lie on both devices; single numbers of the host may take part."""
    others = [each for each in tensors if not isinstance(each, OnGpu) and each.dim() > 0]
    if name in INDEXING and isinstance(args[0], OnGpu):  # indices may come from the host: that is a copy
        indices = [each for each in args[1] if isinstance(each, torch.Tensor) and not isinstance(each, OnGpu)]
        _counts.up[_place()] += len(indices)
        others = [each for each in others if not any(each is index for index in indices)]
    if others:
        shapes = [tuple(each.shape) for each in others]
        msg = (
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({name}, {shapes}) at {_place()}"
        )
        raise RuntimeError(msg)


def _count(name: str, args: tuple[Any, ...], tensors: list[torch.Tensor], *, on_gpu: bool, goes_up: bool) -> None:
    if not (on_gpu or goes_up):
        return
    if _counts.fails_in is not None:
        _counts.fails_in -= 1
        if _counts.fails_in < 0:
            raise torch.AcceleratorError(FAULT)
    if name == "copy_":
        pair = isinstance(args[0], OnGpu), isinstance(args[1], OnGpu)
        _counts.up[_place()] += pair == (True, False)
        _counts.down[_place()] += pair == (False, True)
    elif name == "_to_copy":
        _counts.up[_place()] += goes_up and not on_gpu
        _counts.down[_place()] += on_gpu and not goes_up
    elif name in WAITS or (name in INDEXING and any(each.dtype == torch.bool for each in tensors[1:])):
        _counts.waits[_place()] += 1


def _changed(operation: Any, tensors: list[torch.Tensor], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """The tensor that an operation in place returns: the one that it was given."""
    schema = operation._schema
    if not schema.is_mutable or len(schema.returns) != 1:
        return None
    alias = schema.returns[0].alias_info
    if alias is None or not alias.is_write:
        return None
    for number, wanted in enumerate(schema.arguments):
        if wanted.alias_info is not None and wanted.alias_info.is_write:
            value = args[number] if number < len(args) else given.get(wanted.name)
            return next((each for each in tensors if (each.values if isinstance(each, OnGpu) else each) is value), None)
    return None


def _place() -> str:
    """The innermost line of the product."""
    frame = sys._getframe(1)
    while frame is not None:
        for package in PACKAGES:
            folder, found, file = frame.f_code.co_filename.rpartition(package)
            if found and "/tests/" not in folder:
                return f"{package[1:]}{file}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


class _Operations(TorchDispatchMode):
    """Operations without a tensor of the device, such as those that make one."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _compute(operation, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Calls that torch answers in C++ before any operation is looked at."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        args, given = (
            tuple(map(_with_index, args)),
            {name: _with_index(value) for name, value in (kwargs or {}).items()},
        )
        leaves = tree_leaves((args, given))
        _called_with_gpu.append(any(isinstance(leaf, OnGpu) for leaf in leaves))
        try:
            return self._call(function, args, given)
        finally:
            _called_with_gpu.pop()

    def _call(self, function: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        if function in MAKERS and _is_gpu(given.get("device")):
            _called_with_gpu[-1] = False
            return torch.ops.aten._to_copy(function(*args, **{**given, "device": "cpu"}), device=GPU)
        if not args or not isinstance(args[0], OnGpu):
            moves = function in {torch.Tensor.to, torch.Tensor.type_as} and _called_with_gpu[-1]
            if moves or function is torch.Tensor.cuda:
                return args[0].to(GPU, args[1].dtype if moves else args[0].dtype)
            return args[0] if function is torch.Tensor.pin_memory else function(*args, **given)
        if function in {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}:
            return _moved(args[0], *args[1:], *(["cpu"] if function is torch.Tensor.cpu else []), **given)
        if function is torch.Tensor.numpy:
            msg = f"can't convert cuda:0 device type tensor to numpy, at {_place()}"
            raise TypeError(msg)
        if function is torch.Tensor.tolist:
            return _moved(args[0], "cpu").tolist()
        if function is torch.Tensor.new_tensor:
            return torch.ops.aten._to_copy(torch.tensor(args[1], **{"dtype": args[0].dtype, **given}), device=GPU)
        if function in {torch.Tensor.__getitem__, torch.Tensor.__setitem__}:
            chosen = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(map(_as_index, chosen)), *args[2:])
        return function(*args, **given)


def _with_index(value: Any) -> Any:
    """``cuda`` as ``cuda:0``: torch would ask the driver which one is meant."""
    named = isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))
    return GPU if named and _is_gpu(value) else value


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _moved(tensor: OnGpu, *args: Any, **given: Any) -> torch.Tensor:
    """What ``to``, ``cpu`` and ``cuda`` do with a tensor of the device."""
    asked = [*args, *given.values()]
    dtype = next((each for each in asked if isinstance(each, torch.dtype)), None)
    device = next((each for each in asked if isinstance(each, str | torch.device)), None)
    other = next((each for each in asked if isinstance(each, torch.Tensor)), None)
    if other is not None:
        device, dtype = other.device, other.dtype
    if device is not None and not _is_gpu(device):
        _leaving.append(True)
        try:
            return torch.ops.aten._to_copy(tensor, dtype=dtype, device=torch.device("cpu"))
        finally:
            _leaving.pop()
    layout = {name: value for name, value in given.items() if name == "memory_format"}
    return tensor.to(dtype or tensor.dtype, **layout)


def _as_index(chosen: Any) -> Any:
    """A list or an array that picks elements is copied to the device first."""
    if isinstance(chosen, list) or (type(chosen).__module__ == "numpy" and getattr(chosen, "ndim", 0)):
        return torch.ops.aten._to_copy(torch.as_tensor(chosen), device=GPU)
    return chosen


MAKERS = frozenset([torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor])
REPLACED = {
    "_lazy_init": lambda: None, "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
    "set_device": lambda device: None, "synchronize": lambda *device: None, "empty_cache": lambda: None,
    "is_initialized": lambda: True, "get_device_name": lambda *device: "virtual", "manual_seed": lambda seed: None,
    "get_device_capability": lambda *device: (9, 0), "manual_seed_all": lambda seed: None,
    "get_rng_state_all": lambda: [], "is_bf16_supported": lambda *given, **named: True,
}  # fmt: skip


@contextlib.contextmanager
def virtual_gpu() -> Iterator[Counts]:
    """Run the body on a machine with one GPU; what is counted starts at zero."""
    kept = {name: getattr(torch.cuda, name) for name in REPLACED}
    inference, overwrite = torch.inference_mode, torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()
    begin = torch.autocast.__init__
    torch.autocast.__init__ = lambda self, device_type, *given, **named: begin(self, "cpu", *given, **named)
    for name, function in REPLACED.items():
        setattr(torch.cuda, name, function)
    _counts.clear()
    _counts.fails_in = None
    try:
        with _Operations(), _Calls():
            yield _counts
    finally:
        _counts.fails_in = None
        torch.inference_mode, torch.autocast.__init__ = inference, begin
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
        for name, function in kept.items():
            setattr(torch.cuda, name, function)
