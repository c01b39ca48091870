"""Common part of DiPS, TrCAM-V and F-CAM: background and foreground maps, trained on pixels of pseudo-labels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TypeVar

import torch
from pydantic import Field
from torch import Tensor

from wsoltrain.data.keys import Keys
from wsoltrain.data.views import maps_to_view, normalise, places_of, scaled_to_unit
from wsoltrain.losses.crf import CrfKeys, crf_loss
from wsoltrain.losses.terms import (
    MaskedClassificationKeys,
    PixelKeys,
    SizeKeys,
    WindowKeys,
    absolute_size,
    background_larger,
    barrier_t,
    joint_crf,
    masked_classification,
    partial_cross_entropy,
)
from wsoltrain.methods.base import Batch, Losses, Method, Prediction, Reads, Task
from wsoltrain.networks.encoders import load_judge
from wsoltrain.pseudo.samplers import IGNORE, Drawn, Pseudo, draw_in_boxes


class PixelTrainedKeys(PixelKeys, CrfKeys, SizeKeys, MaskedClassificationKeys, WindowKeys, Keys):
    """Keys of the losses, and of how the map is read.

    Attributes
    ----------
    temperature
        Factor on the map's logits outside of training; above 1, maps are closer to a decision, and a threshold moves
        boxes less
    """

    temperature: float = Field(1.0, ge=1e-6, le=1e6)


K = TypeVar("K", bound=PixelTrainedKeys)


class PixelTrained(Method[K]):
    """A method trained by labelled pixels, map sizes, the CRF energy and a frozen classifier of masked images.

    Attributes
    ----------
    began : int
        Epoch of the run from which barriers grow steeper.
    """

    began = 0

    def __init__(self, keys: K, task: Task) -> None:
        super().__init__(keys, task)
        self.sampler = keys.pixel_sampler()
        judge = None
        if keys.cls_weight and not keys.cls_detached and task.labelling is not None:
            with torch.random.fork_rng(devices=[]):  # so that it does not change the network's first weights
                judge = load_judge(task.labelling, file=keys.classifier, classes=task.classes).to(task.device)
        self.judges = () if judge is None else (judge,)  # in a tuple: not a part of the network

    @classmethod
    def reads(cls, keys: K) -> Reads:
        """Return the stages of the pseudo-labels."""
        return Reads(maps=keys.maps, boxes=keys.boxes, drawn=keys.drawn, neighbours=keys.neighbours())

    @abstractmethod
    def map_logits(self, image: Tensor) -> Tensor:
        """Logits of background and foreground, [B, 2, S, S], of normalised images [B, 3, S, S]."""

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the weighted losses of the maps, and how many images gave no labels."""
        del phase
        with self.task.autocast():
            logits = self.map_logits(batch["image"])
        self.task.lap("forward")
        logits = logits.float()
        prob, maps = logits.softmax(1), self._pseudo_maps(batch)
        drawn = self._draw(maps, batch, epoch)
        parts = {
            "pixels": self._pixels(logits, drawn.labels, batch.get("drawn")),
            **self._sizes(prob, barrier_t(epoch - self.began)),
        }
        for judge in self.judges:
            judged = masked_classification(judge, judge.normalised(batch["rgb"]), prob[:, 1], batch["label"])
            parts["judged"] = self.keys.cls_weight * judged
        self.task.lap("losses")
        return Losses({**parts, **self._crfs(prob, batch)}, drawn.counts)

    def _pixels(self, logits: Tensor, labels: Tensor, human: Tensor | None) -> Tensor:
        processes = self.task.processes
        labelled = processes.sum((labels != IGNORE).sum()).float() / processes.world
        return self.keys.pixel_weight * partial_cross_entropy(
            logits,
            labels,
            labelled=labelled,
            weights=None if human is None else 1 + (self.keys.drawn_weight - 1) * human,
        )

    def _sizes(self, prob: Tensor, t: float) -> dict[str, Tensor]:
        keys = self.keys
        terms = {"size": (keys.size_weight, absolute_size), "larger": (keys.larger_weight, background_larger)}
        return {name: weight * loss(prob, t) for name, (weight, loss) in terms.items() if weight}

    def _crfs(self, prob: Tensor, batch: Batch) -> dict[str, Tensor]:
        keys, parts = self.keys, {}
        if keys.crf_weight:
            energy = crf_loss(
                prob, batch["rgb"], sigma_rgb=keys.crf_sigma_rgb, sigma_xy=keys.crf_sigma_xy, scale=keys.crf_scale,
                sums_to_one=True, normalisation=keys.crf_normalisation,
            )  # fmt: skip
            parts["crf"] = keys.crf_weight * energy
            self.task.lap("crf")
        if keys.joint_crf_weight:
            parts["joint_crf"] = keys.joint_crf_weight * self._joint_crf(prob, batch)
            self.task.lap("joint_crf")
        return parts

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

    def draw_pixels(self, batch: Batch, epoch: int) -> Drawn:
        """Draw the labels of `losses`."""
        return self._draw(self._pseudo_maps(batch), batch, epoch)

    def _draw(self, maps: Tensor, batch: Batch, epoch: int) -> Drawn:
        once = getattr(self.sampler, "draw", "anew") == "once"
        places = places_of(batch["window"].to(maps.device), maps.shape[-1]) if once else None
        pseudo = Pseudo(maps, batch["row"], batch.get("boxes"), batch.get("box_map"), places)
        found = self.sampler(pseudo, seed=self.task.seed, epoch=epoch)
        if "drawn" not in batch:
            return found
        own = draw_in_boxes(replace(pseudo, boxes=batch["drawn_boxes"]), self.sampler, seed=self.task.seed, epoch=epoch)
        return replace(found, labels=torch.where(batch["drawn"][:, None, None], own.labels, found.labels))

    def _pseudo_maps(self, batch: Batch) -> Tensor:
        """Maps of the pseudo-labels in the crop, [B, M, S, S]."""
        maps = maps_to_view(batch["maps"], batch["window"], self.task.size, grid_hw=batch.get("grid_hw"))
        return scaled_to_unit(maps) if self.keys.maps_normalised == "crop" else maps

    def foreground(self, logits: Tensor, scores: Tensor | None) -> Prediction:
        """Prediction of map logits [B, 2, S, S]: the probability of foreground, one map for all classes."""
        if self.keys.temperature != 1:
            logits = logits * self.keys.temperature
        return Prediction(logits.float().softmax(1)[:, 1], True, scores)
