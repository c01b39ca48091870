"""Common part of DiPS, TrCAM-V and F-CAM: background and foreground maps, trained on pixels of pseudo-labels."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

import torch
from pydantic import Field

from wsoltrain.data.keys import Keys
from wsoltrain.data.views import maps_to_view, normalise
from wsoltrain.losses.classification import MaskedClassificationKeys, masked_classification
from wsoltrain.losses.crf import CrfKeys, crf_loss
from wsoltrain.losses.pixels import PixelKeys, partial_cross_entropy
from wsoltrain.losses.sizes import SizeKeys, absolute_size, background_larger, barrier_t
from wsoltrain.losses.window import WindowKeys, joint_crf
from wsoltrain.methods.base import Losses, Method, Prediction, Reads, Task
from wsoltrain.networks.judge import load_judge
from wsoltrain.pseudo.samplers import IGNORE, Pseudo

if TYPE_CHECKING:
    from torch import Tensor

    from wsoltrain.methods.base import Batch
    from wsoltrain.pseudo.samplers import Drawn


class PixelTrainedKeys(PixelKeys, CrfKeys, SizeKeys, MaskedClassificationKeys, WindowKeys, Keys):
    """Keys of the losses, and of how the map is read."""

    temperature: float = Field(
        1.0,
        ge=1e-6,
        le=1e6,
        description="Factor on the map's logits outside of training; above 1, maps are closer to a decision, and a "
        "threshold moves boxes less",
    )


K = TypeVar("K", bound=PixelTrainedKeys)


class PixelTrained(Method[K]):
    """A method trained by labelled pixels, map sizes, the CRF energy and a frozen classifier of masked images."""

    def __init__(self, keys: K, task: Task) -> None:
        super().__init__(keys, task)
        self.sampler = keys.pixel_sampler()
        judge = None
        if keys.cls_weight and task.labelling is not None:
            with torch.random.fork_rng(devices=[]):  # so that it does not change the network's first weights
                judge = load_judge(task.labelling, file=keys.classifier, classes=task.classes).to(task.device)
        self.judges = () if judge is None else (judge,)  # in a tuple: not a part of the network

    @classmethod
    def reads(cls, keys: K) -> Reads:
        """Return the stages of the pseudo-labels."""
        return Reads(maps=keys.maps, boxes=keys.boxes, window=keys.window_of())

    def map_losses(self, logits: Tensor, batch: Batch, epoch: int, *, began: int = 0) -> Losses:
        """Weighted losses of map logits [B, 2, S, S], and how many images gave no labels.

        Parameters
        ----------
        epoch, began : int
            Current epoch of the run, and the one from which barriers grow steeper.
        """
        keys, task = self.keys, self.task
        maps = self._pseudo_maps(batch)
        drawn = self._draw(maps, batch, epoch)
        labelled = task.processes.sum((drawn.labels != IGNORE).sum()).float() / task.processes.world
        parts = {"pixels": keys.pixel_weight * partial_cross_entropy(logits, drawn.labels, labelled=labelled)}
        prob = logits.softmax(1)
        t = barrier_t(epoch - began)
        if keys.size_weight:
            parts["size"] = keys.size_weight * absolute_size(prob, t)
        if keys.larger_weight:
            parts["larger"] = keys.larger_weight * background_larger(prob, t)
        for judge in self.judges:
            seen = maps.mean(1) if keys.cls_detached else prob[:, 1]
            image = judge.normalised(batch["rgb"])
            judged = masked_classification(judge, image, seen, batch["label"], detached=keys.cls_detached)
            parts["judged"] = keys.cls_weight * judged
        task.lap("losses")
        if keys.crf_weight:
            energy = crf_loss(
                prob, batch["rgb"], sigma_rgb=keys.crf_sigma_rgb, sigma_xy=keys.crf_sigma_xy, scale=keys.crf_scale,
                sums_to_one=True, normalisation=keys.crf_normalisation,
            )  # fmt: skip
            parts["crf"] = keys.crf_weight * energy
            task.lap("crf")
        if keys.joint_crf_weight:
            parts["joint_crf"] = keys.joint_crf_weight * self._joint_crf(prob, batch)
            task.lap("joint_crf")
        return Losses(parts, drawn.counts)

    def draw_pixels(self, batch: Batch, epoch: int) -> Drawn:
        """Draw the labels of `map_losses`."""
        return self._draw(self._pseudo_maps(batch), batch, epoch)

    def _draw(self, maps: Tensor, batch: Batch, epoch: int) -> Drawn:
        pseudo = Pseudo(maps, batch["row"], batch.get("boxes"), batch.get("box_map"))
        return self.sampler(pseudo, seed=self.task.seed, epoch=epoch)

    def _pseudo_maps(self, batch: Batch) -> Tensor:
        """Maps of the pseudo-labels in the crop, [B, M, S, S]."""
        maps = maps_to_view(batch["maps"], batch["window"], self.task.size, grid_hw=batch.get("grid_hw"))
        return _spread(maps) if self.keys.maps_normalised == "crop" else maps

    def _joint_crf(self, prob: Tensor, batch: Batch) -> Tensor:
        """CRF energy of the frames and those beside; the maps of these have gradients too."""
        keys = self.keys
        frames, there = batch["rgb_beside"], batch["beside"]
        images = normalise(frames.flatten(0, 1), self.task.mean, self.task.std)
        with self.task.autocast():
            others = self.map_logits(images).float()
        others = others.view(*frames.shape[:2], *others.shape[1:])
        maps = torch.cat([prob[:, None], others.softmax(2)], 1)
        colours = torch.cat([batch["rgb"][:, None], frames], 1)
        known = torch.cat([there.new_ones(len(there), 1), there], 1)
        return joint_crf(maps, colours, known, sigma_rgb=keys.crf_sigma_rgb, scale=keys.crf_scale)

    @abstractmethod
    def map_logits(self, image: Tensor) -> Tensor:
        """Logits of background and foreground, [B, 2, S, S], of normalised images [B, 3, S, S]."""

    def foreground(self, logits: Tensor, scores: Tensor | None) -> Prediction:
        """Prediction of map logits [B, 2, S, S]: the probability of foreground, one map for all classes."""
        if self.keys.temperature != 1:
            logits = logits * self.keys.temperature
        return Prediction(logits.float().softmax(1)[:, 1], True, scores)


def _spread(maps: Tensor) -> Tensor:
    """Each map of [B, M, H, W] between its own lowest and highest value; a constant one is 0."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)
