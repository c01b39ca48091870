"""Several training processes as one: sums over all of them, one gradient, and batch statistics of the whole batch.

The loop averages gradients itself, in one sum a step. lightning-fabric and accelerate were judged for it: they wrap
the network, so that its methods and the names of its tensors are reached through a wrapper, they look at each step for
tensors that a phase does not train, and they have no batch statistics of several processes on a CPU. The collectives
below are what would remain of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from wsolpipe.contract.errors import ConfigError
from wsoltrain.methods.base import Processes

#: How long a process waits for another, such as for the first one's evaluation. torchrun notices a dead one.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Group(Processes):
    """Training processes that work on one batch; without arguments, one process on its own.

    Attributes
    ----------
    rank, world : int
        Which of how many this is.
    local : int
        Which of this machine's.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """Rows of a batch that each process takes.

        Raises
        ------
        ConfigError
            If they cannot be shared evenly.
        """
        if batch % self.world:
            msg = f"batch={batch} cannot be shared by {self.world} processes"
            raise ConfigError(msg, hint=f"batch={max(1, batch // self.world) * self.world}, or fewer processes")
        return batch // self.world

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all processes, which get the same; without a gradient."""
        if self.world == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each process's gradients by the mean over all processes."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world == 1 or not grads:
            return
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        flat /= self.world
        for grad, part in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Copy the first process's values to all processes."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()

    def agree(self, value: int, what: str) -> None:
        """Make sure that all processes have the same number.

        Raises
        ------
        ConfigError
            If they have not.
        """
        if self.world == 1:
            return
        ends = torch.tensor([value, -value], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        high, low = int(ends[0]), -int(ends[1])
        if high != low:
            msg = f"processes disagree on {what}: {low} and {high}"
            raise ConfigError(msg, hint="give all machines the same out= on a file system that they share")


def open_group(device: str) -> Group:
    """Join the processes that torchrun started; a group of one without it.

    Parameters
    ----------
    device : str
        ``cpu`` (gloo) or ``cuda`` (NCCL, each process on the GPU of its number).

    Raises
    ------
    ConfigError
        If a single GPU is named for several processes, or this machine has fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Group()
    group = Group(int(os.environ["RANK"]), world, int(os.environ.get("LOCAL_RANK", "0")))
    more: dict[str, Any] = {}
    if device.startswith("cuda"):
        if device != "cuda" or group.local >= torch.cuda.device_count():
            msg = f"device={device} for {world} processes: each takes the GPU of its number, and this machine has "
            msg_0 = f"{msg}{torch.cuda.device_count()}"
            raise ConfigError(msg_0, hint="device=cuda, --nproc-per-node=GPUS")
        torch.cuda.set_device(group.local)
        more = {"device_id": torch.device("cuda", group.local)}
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE, **more)
    return group


def close_group(group: Group) -> None:
    """Leave the group."""
    if group.world > 1:
        dist.destroy_process_group()


M = TypeVar("M", bound=nn.Module)


def synchronised(model: M, group: Group, device: torch.device) -> M:
    """Make batch normalisation see the whole batch; the names of a network's tensors stay.

    Parameters
    ----------
    model : Module
        Changed in place.
    group : Group
        Nothing is changed for one process.
    device : torch.device
        torch's own layers on a GPU; on a CPU, which they refuse, `GroupBatchNorm`.

    Raises
    ------
    ConfigError
        If, on a CPU, the network has another class of batch normalisation.
    """
    if group.world == 1:
        return model
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        converted: M = convert_sync_batchnorm(model)
        return converted
    for name, module in model.named_modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GroupBatchNorm
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            msg = f"{name} is a {type(module).__name__}, whose statistics several processes on a CPU cannot share"
            raise ConfigError(msg, hint="device=cuda, or one process")
    return model


class GroupBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' batches, which must be of one size.

    In evaluation, and with running statistics, as `torch.nn.BatchNorm2d`. Mean first, then the mean squared distance
    from it: as exact as one process, where sums of squares would lose digits.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise [B, C, H, W]."""
        if not self.training:
            return super().forward(input)
        world = dist.get_world_size()
        mean: Tensor = all_reduce(input.mean((0, 2, 3))) / world  # type: ignore[no-untyped-call]
        centred = input - mean[:, None, None]
        variance: Tensor = all_reduce(centred.square().mean((0, 2, 3))) / world  # type: ignore[no-untyped-call]
        self._remember(mean.detach(), variance.detach(), world * input.numel() // input.shape[1])
        scaled: Tensor = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, the variance without bias, as torch does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(1, count - 1), share)


def shares(values: Sequence[Tensor], group: Group) -> list[float]:
    """Means of scalars over all processes, as numbers; waits for a GPU once."""
    means = group.sum(torch.stack([value.detach().float() for value in values])) / group.world
    return [float(value) for value in means.tolist()]
