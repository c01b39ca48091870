"""Plain SGD for the scoring classifier: a linear head on frozen features, or every tensor."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.geometry import resize
from wsolpipe.networks.saved_state import Unfinished, part, read_newest, write_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wsolpipe.networks.classifier import ImageClassifier


@dataclass(frozen=True)
class Recipe:
    """How to run SGD.

    Attributes
    ----------
    epochs, batch : int
        Passes over the images, images a step. An incomplete last batch of an epoch is left out.
    lr, momentum, weight_decay : float
        Of SGD; `nesterov` as there. Weight decay spares tensors with one axis when everything is trained.
    schedule : "cosine", "step" or "constant"
        Of the learning rate: to zero over all steps, times `lr_gamma` every `lr_step` epochs, or none.
    warmup : float
        Epochs over which the rate rises linearly from zero, before the schedule's own factor.
    head_lr : float
        Factor on the rate of the last layer where everything is trained.
    label_smoothing : float
        Share of the target spread over all classes.
    frozen_bn : bool
        Keep every BatchNorm layer as it is where everything is trained.
    seed : int
        Of the order of images and of new tensors.
    """

    epochs: int
    batch: int
    lr: float
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    lr_step: int = 15
    lr_gamma: float = 0.1
    warmup: float = 0.0
    head_lr: float = 1.0
    label_smoothing: float = 0.0
    frozen_bn: bool = False
    seed: int = 0

    def factor(self, step: int, steps_a_epoch: int) -> float:
        """Factor on the learning rate at `step` (from 0)."""
        epoch = (step + 1) / steps_a_epoch
        rise = min(1.0, epoch / self.warmup) if self.warmup > 0 else 1.0
        if self.schedule == "cosine":
            return rise * 0.5 * (1 + math.cos(math.pi * step / (steps_a_epoch * self.epochs)))
        if self.schedule == "step":
            return float(rise * self.lr_gamma ** (step // steps_a_epoch // self.lr_step))
        return rise


KIND = "wsolpipe classifier training/1"


def fit_head(
    features: torch.Tensor, labels: torch.Tensor, outputs: int, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Train a linear classifier on frozen features.

    Features are standardised by their own mean and deviation, which are then folded into the weights, so that the
    result acts on features as they come. Weights start at zero.

    Parameters
    ----------
    features : Tensor [n, D], float32
        One row an image and view.
    labels : int64 Tensor [n]
        Classes from 0.
    outputs : int
        Number of classes.
    recipe : Recipe
        `head_lr` is not used.

    Returns
    -------
    weight, bias : Tensor [outputs, D], [outputs], float32
    """
    centre = features.mean(0)
    # A feature that never changes says nothing; dividing by its deviation would turn rounding into signal.
    spread = features.std(0, correction=0)
    spread = torch.where(spread > 1e-6 * features.abs().max(), spread, torch.inf)
    scaled = (features - centre) / spread
    layer = nn.Linear(features.shape[1], outputs, device=features.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    draw = torch.Generator().manual_seed(recipe.seed)
    batch = min(recipe.batch, len(labels))
    steps = len(labels) // batch
    optimiser = torch.optim.SGD(
        layer.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )
    with torch.enable_grad():
        for epoch in range(recipe.epochs):
            order = torch.randperm(len(labels), generator=draw).to(features.device)
            for step in range(steps):
                chosen = order[step * batch : (step + 1) * batch]
                _set_rate(optimiser, recipe.factor(epoch * steps + step, steps))
                _descend(optimiser, layer(scaled[chosen]), labels[chosen], recipe)
    weight = layer.weight.detach() / spread
    return weight, layer.bias.detach() - weight @ centre


def fine_tune(
    classifier: ImageClassifier,
    batches: Callable[[int, int], Iterable[tuple[np.ndarray, np.ndarray]]],
    *,
    steps: int,
    recipe: Recipe,
    done: Callable[[int, int], None],
    keep: Unfinished,
) -> None:
    """Train every tensor of a classifier in place, or all but BatchNorm's; it is left in evaluation mode.

    Goes on from the state that `keep` holds, if it holds one, to the same bytes as a training without a break.

    Parameters
    ----------
    classifier : ImageClassifier
        On the device where it is to be trained.
    batches : callable
        (epoch, first) -> batches of (uint8 images [b, S, S, 3], int64 labels [b]) from number `first` of the epoch on,
        the same for the same epoch.
    steps : int
        Batches an epoch.
    recipe : Recipe
        How.
    done : callable
        Called with (steps done, steps in all).
    keep : Unfinished
        Where the state is saved now and then, and at the end.

    Raises
    ------
    ConfigError
        If BatchNorm is to be frozen and the network has none.
    """
    device = classifier.mean.device
    classifier.train().requires_grad_()
    if recipe.frozen_bn:
        freeze_batchnorm(classifier, what=classifier.record.model)
    last = {id(tensor) for tensor in classifier.last_layer().parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for tensor in filter(lambda tensor: tensor.requires_grad, classifier.parameters()):
        groups.setdefault((tensor.ndim > 1, id(tensor) in last), []).append(tensor)
    rates = [recipe.lr * (recipe.head_lr if head else 1.0) for _, head in groups]
    optimiser = torch.optim.SGD(
        [
            {"params": tensors, "lr": rate, "weight_decay": recipe.weight_decay if decayed else 0.0}
            for ((decayed, _), tensors), rate in zip(groups.items(), rates, strict=True)
        ],
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )
    # Dropout and stochastic depth draw from the global generator; it is put back afterwards.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(recipe.seed)
        start, total = _restore(classifier, optimiser, keep), steps * recipe.epochs
        for epoch in range(start // max(1, steps), recipe.epochs):
            first = max(start - epoch * steps, 0)
            for step, (images, labels) in enumerate(batches(epoch, first), epoch * steps + first):
                _set_rate(optimiser, recipe.factor(step, steps))
                inputs = classifier.normalise(torch.from_numpy(images).to(device))
                _descend(optimiser, classifier(inputs), torch.from_numpy(labels).to(device), recipe)
                if keep.due() or (step + 1 == total and keep.path is not None):
                    _save(classifier, optimiser, keep, step + 1)
                done(step + 1, total)
    classifier.eval().requires_grad_(requires_grad=False)


def _save(classifier: ImageClassifier, optimiser: torch.optim.SGD, keep: Unfinished, step: int) -> None:
    """Write weights, momentum and the state of random draws; a full scratch disk only costs the chance to resume."""
    assert keep.path is not None
    tensors = {f"model.{name}": value for name, value in classifier.state_dict().items()}
    for number, slots in optimiser.state_dict()["state"].items():
        if slots.get("momentum_buffer") is not None:
            tensors[f"momentum.{number}"] = slots["momentum_buffer"]
    tensors["random.cpu"] = torch.get_rng_state()
    if classifier.mean.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(classifier.mean.device)
    with contextlib.suppress(OSError):
        write_state(keep.path, tensors, {"step": step}, kind=KIND)


def _restore(classifier: ImageClassifier, optimiser: torch.optim.SGD, keep: Unfinished) -> int:
    """Take up a saved state; return the number of steps that it holds, 0 without one."""
    found = read_newest(keep.path, kind=KIND) if keep.path is not None else None
    if found is None:
        return 0
    state, tensors = found
    classifier.load_state_dict(part(tensors, "model."))
    momentum = {int(number): {"momentum_buffer": value} for number, value in part(tensors, "momentum.").items()}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": momentum})
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and classifier.mean.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], classifier.mean.device)
    return int(state["step"])


def _set_rate(optimiser: torch.optim.SGD, factor: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group.setdefault("full_lr", group["lr"]) * factor


def _descend(optimiser: torch.optim.SGD, logits: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> None:
    loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def augment(image: np.ndarray, size: int, rng: np.random.Generator, *, flip: float, min_crop: float) -> np.ndarray:
    """Draw one training view of a squashed image: a crop, perhaps mirrored.

    Parameters
    ----------
    image : uint8 array [R, R, 3]
        The whole image, squashed to R >= `size`.
    size : int
        Side of the view.
    rng : Generator
        Of this image and epoch alone.
    flip : float
        Probability of mirroring left and right.
    min_crop : float
        1: the crop is `size` pixels wide and its place uniform. Below 1: its share of the area is uniform in
        [min_crop, 1], its aspect log-uniform in [3/4, 4/3], and it is resized to `size`.

    Returns
    -------
    uint8 array [size, size, 3]
    """
    side = image.shape[0]
    height = width = size
    if min_crop < 1:
        area, aspect = rng.uniform(min_crop, 1.0), math.exp(rng.uniform(-1, 1) * math.log(4 / 3))
        height = min(side, max(1, round(side * math.sqrt(area / aspect))))
        width = min(side, max(1, round(side * math.sqrt(area * aspect))))
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    view = image[top : top + height, left : left + width]
    if rng.random() < flip:
        view = view[:, ::-1]
    view = np.ascontiguousarray(view)
    return view if (height, width) == (size, size) else resize(view, (size, size))


def freeze_batchnorm(net: nn.Module, *, what: str) -> None:
    """Keep statistics, weight and bias of every BatchNorm layer; call it again after each ``net.train()``.

    Weights whose BatchNorm was folded into the convolutions have neutral statistics: with those of a batch in their
    place the network would forget everything in one step.

    Raises
    ------
    ConfigError
        If the network has no such layer; `what` names it.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    layers = [part for part in net.modules() if isinstance(part, _BatchNorm)]
    if not layers:
        msg = f"{what} has no BatchNorm layer to freeze"
        raise ConfigError(msg, hint="frozen_bn=false")
    for layer in layers:
        layer.eval().requires_grad_(requires_grad=False)
