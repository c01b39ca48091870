"""What a step minimises: the weighted losses of a recipe on one batch, the same for one process and for several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import cross_entropy

from wsoltrain.data.views import maps_to_view
from wsoltrain.losses.crf import crf_loss
from wsoltrain.losses.terms import (
    absolute_size,
    background_larger,
    barrier_t,
    masked_classification,
    partial_cross_entropy,
)
from wsoltrain.pseudo.samplers import IGNORE, Pseudo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from wsoltrain.networks.judge import Judge
    from wsoltrain.pseudo.samplers import Drawn, Sampler
    from wsoltrain.training.parallel import Group
    from wsoltrain.training.recipe import Recipe

    Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """Losses of the class head and of the maps.

    Every loss is a mean over rows or labelled pixels of the whole batch, so that the mean of all processes' gradients
    is the gradient of one process.

    Attributes
    ----------
    recipe : Recipe
        Weights, and what the losses are made of.
    sampler : Sampler
        Draws labelled pixels.
    group : Group
        Processes that share the batch.
    judge : Judge or None
        Frozen classifier of masked images; None where the recipe gives it no weight.
    lap : callable
        Told what was just done, for timing.
    """

    recipe: Recipe
    sampler: Sampler
    group: Group
    judge: Judge | None
    lap: Callable[[str], None]

    def head(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of class logits [B, classes]."""
        return {"classes": cross_entropy(logits, batch["label"])}

    def maps(self, logits: Tensor, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
        """Weighted losses of map logits [B, 2, S, S], and how many images gave no labels.

        Parameters
        ----------
        epoch : int
            Of the whole run; barriers grow steeper from the first epoch of the maps on.
        """
        recipe = self.recipe
        maps = maps_to_view(batch["maps"], batch["window"], recipe.size, grid_hw=batch.get("grid_hw"))
        drawn = self._draw(maps, batch, epoch)
        labelled = self.group.sum((drawn.labels != IGNORE).sum()).float() / self.group.world
        pixels = partial_cross_entropy(logits, drawn.labels, labelled=labelled)
        parts = {"pixels": recipe.pixel_weight * pixels}
        prob = logits.softmax(1)
        t = barrier_t(epoch - recipe.head_epochs)
        if recipe.size_weight:
            parts["size"] = recipe.size_weight * absolute_size(prob, t)
        if recipe.larger_weight:
            parts["larger"] = recipe.larger_weight * background_larger(prob, t)
        if self.judge is not None:
            seen = maps.mean(1) if recipe.cls_detached else prob[:, 1]
            image = self.judge.normalised(batch["rgb"])
            judged = masked_classification(self.judge, image, seen, batch["label"], detached=recipe.cls_detached)
            parts["judged"] = recipe.cls_weight * judged
        self.lap("losses")
        if recipe.crf_weight:
            energy = crf_loss(
                prob, batch["rgb"], sigma_rgb=recipe.crf_sigma_rgb, sigma_xy=recipe.crf_sigma_xy,
                scale=recipe.crf_scale, sums_to_one=True,
            )  # fmt: skip
            parts["crf"] = recipe.crf_weight * energy
            self.lap("crf")
        return parts, drawn.counts

    def _draw(self, maps: Tensor, batch: Batch, epoch: int) -> Drawn:
        pseudo = Pseudo(maps, batch["row"], batch.get("boxes"), batch.get("box_map"))
        return self.sampler(pseudo, seed=self.recipe.seed, epoch=epoch)
