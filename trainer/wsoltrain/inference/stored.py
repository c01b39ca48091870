"""Predictions of a trained localizer as a stage of a store: made in shards, read like any other labels.

The one module of the trainer that knows what a stage is. ``wsoltrain predict store=`` fills in what the checkpoint
says; whoever runs the stage by ``wsolpipe run`` gives it himself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.images.geometry import View
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import Advice, Array, Batch, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.marks import ExecutionOnly, WeightsSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.inference.model import Trained

STAGE = "predictions"
#: Classes that are stored a row: as many as Top-5 figures read.
TOP = 5


class PredictionsParams(StageParams):
    """Parameters of `Predictions`; ``wsoltrain predict`` takes `tau`, `unit`, `side`, `batch` from the checkpoint.

    Attributes
    ----------
    checkpoint
        best-….safetensors of a run
    tau
        Threshold of the map, at which boxes are cut; null: each map's own, by Otsu's rule
    unit
        Whether the method's maps are in 0..1 and taken as they are; else each is scaled by its own range
    side
        Side of the square in which maps are scored and boxes are cut
    target
        Class of a class map: the row's label, as figures have it, or the likeliest one
    exact
        Keep the maps in float32 too, so that figures of the stage are those of the network to the digit; four bytes a
        pixel more before compression
    batch
        Images in one forward
    """

    checkpoint: Annotated[str | None, WeightsSource()]
    tau: float | None = Field(ge=0, lt=1)
    unit: bool | None
    side: Annotated[int | None, Field(ge=1), Unit("pixels")]
    target: Annotated[Literal["true", "predicted"], BeforeValidator(lambda value: "true" if value is True else value)]
    exact: bool
    batch: Annotated[int, Field(ge=1), ExecutionOnly()]


class _Found(NamedTuple):
    """The network's answer to a batch: maps [B, h, w], whether they are in 0..1, likeliest classes [B, TOP]."""

    maps: Array
    unit: bool
    classes: Array | None
    probabilities: Array | None


class Predictions(Stage[PredictionsParams]):
    """Score maps, boxes and classes by a trained localizer, of whole images squashed to its side."""

    @classmethod
    def advice(cls, params: PredictionsParams) -> tuple[Advice, ...]:  # noqa: ARG003
        """The labels that the localizer learned from, and the choice of its weights and threshold."""
        return (
            (
                "wsoltrain eval checkpoint=…",
                "the localizer beside its labels: where these are low, mend them first",
            ),
            ("wsoltrain select runs=…", "other epochs and thresholds of the run"),
        )

    @classmethod
    def weights_needed(cls, params: PredictionsParams) -> dict[str, str]:
        """The checkpoint and, where its backbone was frozen or loaded from a file, that file.

        Raises
        ------
        ConfigError
            If no checkpoint is named.
        DataError
            If it is damaged.
        """
        from wsolpipe.networks.sources import named
        from wsoltrain.inference.model import checkpoint_file
        from wsoltrain.training.checkpoint import state_of
        from wsoltrain.training.recipe import read_saved

        if params.checkpoint is None:
            msg = f"{STAGE}.checkpoint= names no trained localizer"
            raise ConfigError(msg, hint="wsoltrain predict checkpoint=RUN dataset=NAME store=STORE makes this stage")
        path = checkpoint_file(params.checkpoint)
        recipe: Any = read_saved(state_of(path)["recipe"])
        needed = {"checkpoint": f"file:{path}"}
        if getattr(recipe, "weights", None) is not None:
            needed["backbone"] = named(recipe.weights, getattr(recipe, "backbone", None))
        return needed

    def setup(self) -> None:
        """Load the network.

        Raises
        ------
        ConfigError
            If the parameters are not what the checkpoint says, or it knows other classes than the data set has.
        """
        import torch

        from wsoltrain.inference.model import load_trained

        path = self.context.weights["checkpoint"].path
        self.device = torch.device(self.context.device)
        self.trained: Trained = load_trained(str(path), device=self.device)
        size = self.trained.recipe.size
        found = self._predict(np.zeros((1, 3, size, size), np.uint8), [-1])
        self._grid = found.maps.shape[1:]
        self._slots = None if found.classes is None else found.classes.shape[1]
        own = {"unit": found.unit, "side": self.trained.model.frame_side}
        wrong = [f"{STAGE}.{name}={value}" for name, value in own.items() if getattr(self.params, name) != value]
        if wrong:
            msg = f"the maps of {path} are read with {' '.join(wrong)}"
            raise ConfigError(msg, hint="wsoltrain predict checkpoint=RUN dataset=NAME store=STORE fills this in")
        outputs = len(self.trained.class_names)
        if found.classes is not None and self.context.classes not in (None, outputs):
            msg = f"the network knows {outputs} classes, and {self.context.dataset} has {self.context.classes}"
            raise ConfigError(msg, hint=f"a network that was trained on {self.context.dataset}")

    def arrays(self) -> dict[str, ArraySpec]:
        """Levels and range of the map, its box at τ, and the likeliest classes of a method that classifies."""
        scale = "in 0..1, taken as it is" if self.params.unit else "of any range"
        specs = {
            "maps": ArraySpec(
                dtype="uint8", shape=(1, *self._grid), unit="1/255 of the map's range",
                meaning=f"score map {scale}, of the whole image squashed to a square; min-max per map",
            ),
            "range": ArraySpec(dtype="float32", shape=(1, 2), meaning="low and high of each map: levels 0 and 255"),
            "boxes": boxes_spec(1, "box of the largest region above tau, NaN where the map is zero everywhere"),
            "scores": ArraySpec(dtype="float32", shape=(1,), fill="nan", meaning="mean of the map inside its box"),
            "source": ArraySpec(dtype="int8", shape=(1,), fill=-1, meaning="map of the box, -1 where there is none"),
            "count": ArraySpec(dtype="uint8", meaning="boxes of the row"),
        }  # fmt: skip
        if self.params.exact:
            meaning = "the same map before it was stored as levels"
            specs["values"] = ArraySpec(dtype="float32", shape=(1, *self._grid), meaning=meaning)
        if self._slots is not None:
            shape = (self._slots,)
            specs["classes"] = ArraySpec(dtype="int32", shape=shape, fill=-1, meaning="likeliest classes, best first")
            specs["probabilities"] = ArraySpec(dtype="float32", shape=shape, fill="nan", meaning="of these classes")
        return specs

    def grain(self) -> int:
        """Whole batches."""
        return self.params.batch

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:  # noqa: ARG002
        """Predict on these rows; one whose map is not finite is quarantined."""
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        labels = [-1 if label is None else label for label in rows.labels()]
        size = self.trained.recipe.size
        for batch in rows.batches(self.params.batch, self._squash):
            if batch.present():
                asked = batch.pick(labels) if self.params.target == "true" else [-1] * len(batch.items)
                self._keep(rows, made, batch, self._predict(batch.stack(3, size, size), asked))
            self.context.progress(batch.stop, len(rows))
        return made

    def _squash(self, image: Array, position: int) -> Array:  # noqa: ARG002
        """All of one image as the evaluation of a training sees it, uint8 [3, S, S]."""
        from wsoltrain.data.items import cut

        size = self.trained.recipe.size
        pixels: Array = cut(image, View.squash((image.shape[0], image.shape[1]), (size, size))).numpy()
        return pixels

    def _predict(self, pixels: Array, labels: list[int]) -> _Found:
        import torch

        from wsoltrain.data.views import normalise
        from wsoltrain.methods.base import shaped

        recipe = self.trained.recipe
        images = normalise(torch.from_numpy(pixels).to(self.device), recipe.mean, recipe.std)
        asked = torch.tensor(labels, device=self.device)
        with torch.inference_mode():
            found = shaped(self.trained.model.predict(images, asked), len(images), recipe.method)
            classes = probabilities = None
            if found.scores is not None:
                scores = found.scores.float()
                order = scores.topk(min(TOP, scores.shape[1])).indices
                classes = order.cpu().numpy().astype(np.int32)
                probabilities = scores.softmax(1).gather(1, order).cpu().numpy()
            return _Found(found.maps.float().cpu().numpy(), found.unit, classes, probabilities)

    def _keep(self, rows: Rows, made: dict[str, Array], batch: Batch[Array], found: _Found) -> None:
        from wsolpipe.maps.levels import quantise
        from wsolpipe.metrics import standard_maps
        from wsoltrain.inference.localizer import find_region

        sizes = rows.sizes()
        for slot, position, _ in batch.present():
            values = found.maps[slot]
            if not np.isfinite(values).all():
                rows.quarantine(position, "the network's map holds NaN or infinite values")
                continue
            made["maps"][position], made["range"][position] = quantise(values[None])
            if "values" in made:
                made["values"][position, 0] = values
            if found.classes is not None and found.probabilities is not None:
                made["classes"][position] = found.classes[slot]
                made["probabilities"][position] = found.probabilities[slot]
            framed = standard_maps(values[None], side=self.params.side or 1, normalise=not found.unit)[0]
            region = find_region(values, framed, sizes[position], self.params.tau)
            if region is not None:
                made["boxes"][position, 0], made["scores"][position, 0] = region
                made["count"][position], made["source"][position, 0] = 1, 0
