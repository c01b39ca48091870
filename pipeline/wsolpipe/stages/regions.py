"""Candidate boxes that know no class: selective search, a region proposal network, or a detector in an ONNX file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.stages.base import Stage, StageParams, WeightsSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.models.regions import Proposer, Regions
    from wsolpipe.stages.base import Array, Rows, Upstream

#: Parameters that each method does not use, and which are therefore not in its key.
UNUSED = {
    "selective_search": {"model", "nms", "min_score", "onnx"},
    "rpn": {"mode", "max_side", "min_score", "onnx"},
    "onnx": {"mode", "max_side", "model"},
}


class OnnxParams(BaseModel):
    """Layout of an ONNX detector; see `wsolpipe.models.regions.OnnxLayout` for each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Literal["rgb", "bgr"] = "bgr"
    scale: float = 1.0
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0
    fit: Literal["letterbox", "squash"] = "letterbox"
    pad: float = 114.0
    size: Annotated[int, Field(ge=1)] | None = None
    output: str | None = None
    boxes: Literal["yolox", "xyxy", "cxcywh"] = "yolox"
    strides: tuple[Annotated[int, Field(ge=1)], ...] = (8, 16, 32)
    box: Annotated[int, Field(ge=0)] = 0
    objectness: Annotated[int, Field(ge=0)] = 4
    classes: Annotated[int, Field(ge=0)] | None = 5
    score: Literal["objectness", "product"] = "objectness"


class RegionsParams(StageParams):
    """Parameters of `RegionsStage`.

    Attributes
    ----------
    method
        ``selective_search``, ``rpn`` or ``onnx``.
    top_n
        Boxes kept a row.
    mode
        ``fast`` or ``quality`` selective search.
    max_side
        Longest side at which selective search looks, in pixels; None for the image as it is.
    model
        torchvision detector whose region proposal network is used.
    weights
        Of ``rpn``: file, ``torchvision:NAME``, ``random:SEED``, None for torchvision's own of `model`. Of ``onnx``: the
        file.
    nms
        Of boxes that overlap by more than this IoU, the best is kept.
    min_score
        Boxes of an ONNX detector below this score are dropped.
    onnx
        What the ONNX file takes and gives.
    """

    method: Literal["selective_search", "rpn", "onnx"]
    top_n: Annotated[int, Field(ge=1, le=65535)]
    mode: Literal["fast", "quality"]
    max_side: Annotated[int, Field(ge=8)] | None
    model: str
    weights: Annotated[str | None, WeightsSource()]
    nms: Annotated[float, Field(gt=0, le=1)]
    min_score: float
    onnx: OnnxParams

    @model_validator(mode="after")
    def _a_detector_is_a_file(self) -> RegionsParams:
        if self.method == "onnx" and (self.weights is None or not self.weights.endswith(".onnx")):
            msg = "method=onnx needs the detector's file: regions.weights=FILE.onnx"
            raise ValueError(msg)
        return self

    def in_key(self) -> dict[str, Any]:
        """No parameter of another method."""
        return {name: value for name, value in super().in_key().items() if name not in UNUSED[self.method]}


class RegionsStage(Stage[RegionsParams]):
    """Boxes of each row, best first, with their scores; a row in which nothing is found has ``count`` 0."""

    Params: ClassVar[type[StageParams]] = RegionsParams

    proposer: Proposer

    @classmethod
    def weights_needed(cls, params: RegionsParams) -> dict[str, str]:
        """The detector, under the name ``model``."""
        if params.method == "selective_search":
            return {}
        return {"model": params.weights or f"torchvision:{params.model}"}

    def setup(self) -> None:
        """Load the detector.

        Raises
        ------
        ConfigError
            If the model is not there, or the layout is not that of the file.
        WeightsError
            If the weights do not fit.
        """
        from wsolpipe.models.regions import OnnxDetector, OnnxLayout, RegionProposalNetwork, SelectiveSearch

        params = self.params
        if params.method == "selective_search":
            self.proposer = SelectiveSearch(mode=params.mode, max_side=params.max_side, top_n=params.top_n)
            return
        weights = self.context.weights["model"]
        if params.method == "rpn":
            self.proposer = RegionProposalNetwork(
                params.model, weights, top_n=params.top_n, nms=params.nms, device=self.context.device
            )
            return
        assert weights.path is not None
        self.proposer = OnnxDetector(
            weights.path,
            OnnxLayout(**params.onnx.model_dump()),
            top_n=params.top_n,
            nms=params.nms,
            min_score=params.min_score,
        )

    def arrays(self) -> dict[str, ArraySpec]:
        """Boxes, scores and how many."""
        slots = self.params.top_n
        unit = "share of the image" if self.params.method == "selective_search" else "objectness"
        return {
            "boxes": boxes_spec(slots, f"regions of {self.params.method}, best first; clipped to the image"),
            "scores": ArraySpec(dtype="float32", shape=(slots,), fill="nan", unit=unit, meaning="score of each box"),
            "count": ArraySpec(dtype="uint8" if slots < 256 else "uint16", meaning="boxes of this row"),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:  # noqa: ARG002
        """Find the regions of these rows, on all cores where the method lets threads share it."""
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        for position, found in self._found(rows):
            count = len(found.boxes)
            made["boxes"][position, :count] = found.boxes
            made["scores"][position, :count] = found.scores
            made["count"][position] = count
        return made

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Any]:
        """Regions found, and rows without any."""
        usable = np.array([rows.usable(position) for position in range(len(rows))], bool)
        return {
            "regions": int(arrays["count"].sum()),
            "rows_without_region": int((arrays["count"][usable] == 0).sum()),
        }

    def _found(self, rows: Rows) -> Iterator[tuple[int, Regions]]:
        proposer = self.proposer
        if not proposer.concurrent:
            for batch in rows.batches(1, lambda image, position: image):
                for _, position, image in batch.present():
                    yield position, proposer(image)
                self.context.progress(batch.stop, len(rows))
            return
        rows.threads = max(rows.threads, cores())
        for batched in rows.batches(4 * rows.threads, lambda image, position: proposer(image)):
            for _, position, found in batched.present():
                yield position, found
            self.context.progress(batched.stop, len(rows))


def cores() -> int:
    """Cores that are this process's share: what its launcher says, else all that it may run on."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else len(os.sched_getaffinity(0))
