"""The ceiling of a recipe's network: trained on ground truth of the training split, for comparison and nothing else.

It answers whether labels or backbone limit a student. Each pixel's probability of foreground learns the exact mask (or
the filled boxes) by cross-entropy; pseudo-labels, samplers and the method's own losses take no part. Nothing of it is
kept: a network that has seen ground truth must not be chosen, predicted with or searched for.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.config import ItemConfig, Labelling
from wsoltrain.data.stream import Stream
from wsoltrain.data.views import maps_to_view
from wsoltrain.methods.base import Method, Task
from wsoltrain.training.optimisation import Moment, plan_phases

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from wsolpipe.evaluate.truth import Truth
    from wsoltrain.training.recipe import Recipe

_log = logging.getLogger(__name__)
#: Shares of the recipe's learning rate, which was chosen for other losses and may be too high for exact masks.
LOWER = (0.3, 0.1, 0.03)


def train_ceiling(
    recipe: Recipe, labelling: Labelling, truth: Truth, *, root: str, device: torch.device, workers: int
) -> Method[Any]:
    """Train the network of a recipe on ground truth.

    Parameters
    ----------
    recipe : Recipe
        Network, optimiser, batch and epochs; keys of labels and losses are ignored. Where an epoch at
        its learning rate is no better than a constant map, the best of `LOWER` is taken, by the loss of an epoch.
    labelling : Labelling
        Store, data set and split to train on; its stages of maps and boxes are not read.
    truth : Truth
        Masks, or boxes where there are none, of the rows of that split.
    root : str
        Folder of the image files.

    Raises
    ------
    ConfigError
        If the method's maps are not probabilities that gradients flow through, or no row has ground truth.
    """
    config = ItemConfig(
        labelling, root=root, size=recipe.size, mean=recipe.mean, std=recipe.std, flip=recipe.flip, seed=recipe.seed,
        resize=recipe.squashed,
    )  # fmt: skip
    stream = Stream(config, batch_size=recipe.batch, workers=workers, drop_last=True)
    classes = stream.items.rows.classes or int(stream.items.rows.labels.max()) + 1
    task = Task(classes, recipe.size, recipe.seed, recipe.mean, recipe.std, device=device)  # no labels: no masked judge
    masks = _Masks(truth, config.side)

    def begin(share: float) -> tuple[float, _Training]:
        own = recipe.model_copy(update={"lr": share * recipe.lr})
        training = _Training(own, own.build(task).to(device), stream, masks, device)
        return training.epoch(0), training

    loss, chosen = begin(1.0)
    if not loss < chosen.constant:
        for share in LOWER:
            other, training = begin(share)
            if not loss <= other:
                loss, chosen = other, training
        _log.warning("lr=%g learns nothing of exact masks in an epoch: lr=%g does it best", recipe.lr, chosen.recipe.lr)
    for epoch in range(1, recipe.epochs):
        chosen.epoch(epoch)
    return chosen.model.eval()


@dataclass
class _Training:
    """A training on true masks; `constant` is the loss, in the last epoch, of one value for all pixels."""

    recipe: Recipe
    model: Method[Any]
    stream: Stream
    masks: _Masks
    device: torch.device
    constant: float = np.inf

    def __post_init__(self) -> None:
        self.running = [each for each in plan_phases(self.model, self.recipe) if each.phase.scored][-1]

    def epoch(self, number: int) -> float:
        """Train for an epoch; its mean loss."""
        losses, shares = [], []
        for step, batch in enumerate(self.stream):
            self.model.train()
            for part in self.running.phase.frozen:
                part.eval()
            self.running.set_rates(self.recipe, Moment(number, step, len(self.stream)))
            masks = self.masks.of(batch["row"].tolist()).to(self.device)
            wanted = maps_to_view(masks, batch["window"].to(self.device), self.recipe.size)
            loss = _loss(self.model, batch, wanted, self.device)
            self.running.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.running.optimiser.step()
            losses.append(loss.item())
            shares.append(wanted.mean().item())
        found, share = float(np.mean(losses)), float(np.mean(shares))
        if 0 < share < 1:
            self.constant = float(-share * np.log(share) - (1 - share) * np.log1p(-share))
        _log.info("epoch %d of %d on ground truth: loss %.3f", number + 1, self.recipe.epochs, found)
        return found


@dataclass
class _Masks:
    """True masks of rows, uint8 [S, S], each made once."""

    truth: Truth
    side: int
    made: dict[int, Tensor] = field(default_factory=dict)

    def of(self, rows: list[int]) -> Tensor:
        """Float [B, 1, S, S]."""
        for row in set(rows) - self.made.keys():
            self.made[row] = torch.from_numpy(true_mask(self.truth, row, self.side).astype(np.uint8))
        return torch.stack([self.made[row] for row in rows])[:, None].float()


def _loss(model: Method[Any], batch: dict[str, Tensor], wanted: Tensor, device: torch.device) -> Tensor:
    """Cross-entropy of the method's maps with masks [B, 1, S, S]."""
    found = model.predict(batch["image"].to(device), batch["label"].to(device))
    if not found.unit or not found.maps.requires_grad:
        msg = f"maps of {type(model).__name__} are not probabilities that can be trained on masks"
        raise ConfigError(msg, hint="a method of foreground and background: dips, dips_workshop, trcam, fcam")
    share = adaptive_avg_pool2d(wanted, (found.maps.shape[1], found.maps.shape[2]))[:, 0]
    maps = found.maps.float().nan_to_num(0.5)  # of weights that overflowed
    return binary_cross_entropy(maps.clamp(1e-6, 1 - 1e-6), share.clamp(0, 1))


def true_mask(truth: Truth, row: int, side: int) -> NDArray[np.bool_]:
    """Ground truth of a row, bool [side, side]: its mask, or the pixels whose centres lie in one of its boxes."""
    stored = truth.mask(row, side)
    if stored is not None:
        return np.asarray(stored[0])
    width, height = (float(edge) for edge in truth.rows.sizes[row])
    centre = (np.arange(side) + 0.5) / side
    inside = np.zeros((side, side), np.bool_)
    for x0, y0, x1, y1 in truth.boxes(row):
        across, down = (centre >= x0 / width) & (centre < x1 / width), (centre >= y0 / height) & (centre < y1 / height)
        inside |= down[:, None] & across[None, :]
    return inside
