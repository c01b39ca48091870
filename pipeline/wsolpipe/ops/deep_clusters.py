"""Segments by a small network that is trained on each image from scratch: deep image clustering (DIC).

Each step takes the likeliest of the network's channels as a pixel's label, replaces it by the majority in its
superpixel, and trains towards that; neighbours of like features end with one label. Networks of many images run side by
side on a GPU: their weights, statistics, losses and steps have nothing in common, and their convolutions are the groups
of one. A CPU, whose cores one image fills, trains one after the other, in the memory of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Clustering:
    """How the networks are built and trained.

    Attributes
    ----------
    width : int
        Channels of the first level; the second and the last have twice as many.
    labels : int
        Channels of the output, the most segments that there can be.
    bases, rounds : int
        Of the expectation-maximisation block: centres, and rounds of their estimation.
    steps : int
        Steps of SGD at most.
    least : int
        Training of an image ends once it has fewer labels.
    lr, momentum : float
    """

    width: int = 64
    labels: int = 100
    bases: int = 32
    rounds: int = 3
    steps: int = 100
    least: int = 4
    lr: float = 0.05
    momentum: float = 0.9


class Networks:
    """One network an image, with weights drawn from the image's own seed.

    Parameters
    ----------
    seeds : sequence of sequence of int
        A seed for numpy's generator an image.
    plan : Clustering
    device : torch.device
    """

    def __init__(self, seeds: Sequence[Sequence[int]], plan: Clustering, device: torch.device) -> None:
        w = plan.width
        sides = {
            "in1": (w, 3, 3), "in2": (w, w, 3), "down1": (2 * w, w, 3), "down2": (2 * w, 2 * w, 3),
            "up1": (2 * w, 3 * w, 3), "up2": (2 * w, 2 * w, 3), "before": (2 * w, 2 * w, 1), "after": (2 * w, 2 * w, 1),
            "out": (plan.labels, 2 * w, 1),
        }  # fmt: skip
        drawn: dict[str, list[NDArray[np.float32]]] = {name: [] for name in (*sides, "bases")}
        for seed in seeds:
            rng = np.random.default_rng(list(seed))
            for name, (out, into, kernel) in sides.items():
                bound = (into * kernel * kernel) ** -0.5
                drawn[name].append(rng.uniform(-bound, bound, (out, into, kernel, kernel)).astype(np.float32))
            drawn["bases"].append(rng.standard_normal((2 * w, plan.bases)).astype(np.float32))
        self.plan, self.count = plan, len(seeds)
        stacked = {name: torch.from_numpy(np.stack(values)).to(device) for name, values in drawn.items()}
        self.bases = F.normalize(stacked.pop("bases"), dim=1)  # [B, C, K]
        self.weights = {name: value.requires_grad_() for name, value in stacked.items()}
        self.gains = {
            name: torch.ones(self.count, sides[name][0], device=device, requires_grad=True)
            for name in sides
            if name != "before"
        }
        self.shifts = {name: torch.zeros_like(gain, requires_grad=True) for name, gain in self.gains.items()}

    def parameters(self) -> list[Tensor]:
        """Everything that is trained."""
        return [*self.weights.values(), *self.gains.values(), *self.shifts.values()]

    def __call__(self, images: Tensor) -> Tensor:
        """Scores of labels, float32 [B, labels, H, W], of images float32 [B, 3, H, W] with even sides."""
        top = self._norm("in2", self._conv("in2", self._norm("in1", self._conv("in1", images)).relu())).relu()
        low = F.max_pool2d(top, 2)
        low = self._norm("down2", self._conv("down2", self._norm("down1", self._conv("down1", low)).relu())).relu()
        wide = F.interpolate(low, size=top.shape[-2:], mode="bilinear", align_corners=True)
        both = torch.cat([top, wide], dim=1)
        features = self._norm("up2", self._conv("up2", self._norm("up1", self._conv("up1", both)).relu())).relu()
        return self._norm("out", self._conv("out", self._cluster(features)))

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[name]
        around = weight.shape[-1] // 2
        joint = F.conv2d(x.flatten(0, 1)[None], weight.flatten(0, 1), padding=around, groups=self.count)
        return joint.reshape(self.count, -1, *joint.shape[-2:])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """Batch normalisation of a batch of one image."""
        shape = (*self.gains[name].shape, 1, 1)
        return F.instance_norm(x, eps=_NORM_EPS) * self.gains[name].view(shape) + self.shifts[name].view(shape)

    def _cluster(self, features: Tensor) -> Tensor:
        """Features rebuilt of a few centres, which expectation and maximisation estimate (Li et al., ICCV 2019)."""
        x = self._conv("before", features).flatten(2)  # [B, C, N]
        bases = self.bases
        with torch.no_grad():
            for _ in range(self.plan.rounds):
                shares = (x.mT @ bases).softmax(dim=2)  # [B, N, K]
                bases = F.normalize(x @ (shares / (shares.sum(dim=1, keepdim=True) + 1e-6)), dim=1)
        rebuilt = (bases @ (x.mT @ bases).softmax(dim=2).mT).relu().reshape(features.shape)
        return (features + self._norm("after", self._conv("after", rebuilt))).relu()


def cluster_images(
    images: NDArray[np.uint8],
    superpixels: Sequence[NDArray[np.integer[Any]]],
    seeds: Sequence[Sequence[int]],
    plan: Clustering,
    *,
    device: str = "cpu",
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.uint16]:
    """Segment images, each by a network of its own; on a GPU all at once, on a CPU one after the other.

    Parameters
    ----------
    images : uint8 array [B, H, W, 3]
        Even sides.
    superpixels : sequence of B int arrays [H, W]
        Labels from 0.
    seeds : sequence of B sequences of int
        Decide each network's first weights.
    plan : Clustering
    device : str
    check : callable
        Called before each step.

    Returns
    -------
    uint16 array [B, H, W]
        Labels from 0 without gaps, in raster order; every superpixel has one.
    """
    where = torch.device(device)
    if where.type == "cpu" and len(images) > 1:
        singly = [slice(at, at + 1) for at in range(len(images))]
        return np.concatenate(
            [cluster_images(images[at], superpixels[at], seeds[at], plan, device=device, check=check) for at in singly]
        )
    pixels = torch.from_numpy(images).to(where).permute(0, 3, 1, 2).float() / 255
    pieces = torch.from_numpy(np.stack(superpixels).astype(np.int64)).to(where).flatten(1)
    networks = Networks(seeds, plan, where)
    optimiser = torch.optim.SGD(networks.parameters(), plan.lr, momentum=plan.momentum)
    found = torch.zeros_like(pieces)
    going = torch.ones(len(pixels), dtype=torch.bool, device=where)
    for _ in range(plan.steps):
        check()
        scores = networks(pixels).flatten(2)
        target = majority(scores.detach().argmax(dim=1), pieces, plan.labels)
        found = torch.where(going[:, None], target, found)
        going = going & (_distinct(target, plan.labels) >= plan.least)
        if not going.any():
            break
        optimiser.zero_grad()
        # A sum over images: the step of one does not depend on how many there are.
        losses = F.cross_entropy(scores, target, reduction="none").mean(dim=1)
        torch.autograd.backward(losses.sum())
        optimiser.step()
    return np.stack([_renumber(labels) for labels in found.reshape(len(images), *images.shape[1:3]).cpu().numpy()])


def majority(labels: Tensor, pieces: Tensor, count: int) -> Tensor:
    """Most frequent label in each pixel's superpixel, the lowest on a tie.

    Parameters
    ----------
    labels, pieces : int64 tensor [B, N]
        Below `count`, and superpixels from 0.
    count : int

    Returns
    -------
    int64 tensor [B, N]
    """
    most = int(pieces.max()) + 1
    votes = labels.new_zeros(len(labels), most * count)
    votes.scatter_add_(1, pieces * count + labels, torch.ones_like(labels))
    return votes.reshape(-1, most, count).argmax(dim=2).gather(1, pieces)


def _distinct(labels: Tensor, count: int) -> Tensor:
    """How many labels occur in each row."""
    seen = labels.new_zeros(len(labels), count, dtype=torch.bool)
    return seen.scatter_(1, labels, True).sum(dim=1)  # noqa: FBT003


def _renumber(labels: NDArray[np.int64]) -> NDArray[np.uint16]:
    names, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(names), np.uint16)
    order[np.argsort(first, kind="stable")] = np.arange(len(names), dtype=np.uint16)
    return order[inverse].reshape(labels.shape)
