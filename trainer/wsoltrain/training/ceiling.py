"""What a recipe's network could reach: trained on ground truth of the training split, for comparison and nothing else.

It answers whether labels or backbone limit a student. Each pixel's probability of foreground learns the exact mask (or
the filled boxes) by cross-entropy; pseudo-labels, samplers and the method's own losses take no part. Nothing of it is
kept: a network that has seen ground truth must not be chosen, predicted with or searched for.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.config import ItemConfig
from wsoltrain.data.stream import Stream
from wsoltrain.data.views import maps_to_view
from wsoltrain.methods.base import Task
from wsoltrain.training.optimisers import plan_phases
from wsoltrain.training.schedules import Moment

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from wsolpipe.evaluate.truth import Truth
    from wsoltrain.data.config import Labelling
    from wsoltrain.methods.base import Method
    from wsoltrain.training.recipe import Recipe

_log = logging.getLogger(__name__)


def train_ceiling(
    recipe: Recipe, labelling: Labelling, truth: Truth, *, root: str, device: torch.device, workers: int
) -> Method[Any]:
    """Train the network of a recipe on ground truth.

    Parameters
    ----------
    recipe : Recipe
        Network, optimiser, batch and epochs; keys of labels and losses are ignored.
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
        resize=recipe.resize or round(recipe.size * 8 / 7),
    )  # fmt: skip
    stream = Stream(config, batch_size=recipe.batch, workers=workers, drop_last=True)
    classes = stream.items.rows.classes or int(stream.items.rows.labels.max()) + 1
    # Without a labelling, so that no classifier of masked images is loaded.
    model = recipe.build(Task(classes, recipe.size, recipe.seed, recipe.mean, recipe.std, device=device)).to(device)
    running = [each for each in plan_phases(model, recipe) if each.phase.scored][-1]
    masks: dict[int, Tensor] = {}
    for epoch in range(recipe.epochs):
        losses = []
        for step, batch in enumerate(stream):
            model.train()
            for part in running.phase.frozen:
                part.eval()
            running.set_rates(recipe, Moment(epoch, step, len(stream)))
            for row in set(batch["row"].tolist()) - masks.keys():
                masks[row] = torch.from_numpy(true_mask(truth, row, config.side).astype(np.uint8))
            wanted = torch.stack([masks[row] for row in batch["row"].tolist()])[:, None].float().to(device)
            loss = _loss(model, batch, maps_to_view(wanted, batch["window"].to(device), recipe.size), device)
            running.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            running.optimiser.step()
            losses.append(loss.item())
        _log.info("epoch %d of %d on ground truth: loss %.3f", epoch + 1, recipe.epochs, float(np.mean(losses)))
    return model.eval()


def _loss(model: Method[Any], batch: dict[str, Tensor], wanted: Tensor, device: torch.device) -> Tensor:
    """Cross-entropy of the method's maps with masks [B, 1, S, S]."""
    found = model.predict(batch["image"].to(device), batch["label"].to(device))
    if not found.unit or not found.maps.requires_grad:
        msg = f"maps of {type(model).__name__} are not probabilities that can be trained on masks"
        raise ConfigError(msg, hint="a method of foreground and background: dips, dips_workshop, trcam, fcam")
    share = adaptive_avg_pool2d(wanted, (found.maps.shape[1], found.maps.shape[2]))[:, 0]
    return binary_cross_entropy(found.maps.float().clamp(1e-6, 1 - 1e-6), share.clamp(0, 1))


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
