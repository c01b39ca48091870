"""Candidate boxes that know no class: selective search, a region proposal network, or a detector in an ONNX file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from wsolpipe.contract.errors import cores
from wsolpipe.contract.schema import ArraySpec, Status, boxes_spec
from wsolpipe.keys.kinds import Unit
from wsolpipe.models.regions import OnnxLayout  # noqa: TC001 - pydantic reads it
from wsolpipe.stages.base import Stage, StageParams
from wsolpipe.stages.marks import WeightsSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.models.regions import Proposer, Regions
    from wsolpipe.stages.base import Advice, Array, Rows, Upstream

#: Parameters that each method does not use, and which are therefore not in its key.
UNUSED = {
    "selective_search": {"model", "nms", "min_score", "onnx"},
    "rpn": {"mode", "max_side", "min_score", "onnx"},
    "onnx": {"mode", "max_side", "model"},
}


class RegionsParams(StageParams):
    """Parameters of `RegionsStage`.

    Attributes
    ----------
    method
        How boxes are found: selective_search, rpn (region proposals of a torchvision detector) or onnx (a detector in a
        file)
    top_n
        Boxes kept a row
    mode
        Mode of selective search: fast, or quality (more boxes, several times slower)
    max_side
        Longest side at which selective search looks; null: the image as it is
    model
        torchvision detector whose region proposal network method=rpn uses
    weights
        For rpn a file, torchvision:NAME or random:SEED, null: torchvision's weights of the model; for onnx the file
    nms
        IoU above which only the better of two boxes is kept (rpn, onnx)
    min_score
        Score below which a box of an ONNX detector is dropped
    onnx
        What the ONNX file takes and gives; the defaults are those of YOLOX
    """

    method: Literal["selective_search", "rpn", "onnx"]
    top_n: Annotated[int, Field(ge=1, le=65535), Unit("boxes")]
    mode: Literal["fast", "quality"]
    max_side: Annotated[Annotated[int, Field(ge=8)] | None, Unit("pixels")]
    model: str
    weights: Annotated[str | None, WeightsSource()]
    nms: Annotated[float, Field(gt=0, le=1)]
    min_score: float
    onnx: OnnxLayout

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
    """Boxes of each row, best first, with their scores; a row in which nothing is found has ``count`` 0.

    References
    ----------
    Selective search: Uijlings et al., IJCV 2013. Region proposal network: Ren et al., NeurIPS 2015.
    """

    proposer: Proposer

    @classmethod
    def advice(cls, params: RegionsParams) -> tuple[Advice, ...]:
        """A choice among regions, and regions of a detector."""
        chosen = ("stage=val_boxes", "it chooses one of the regions; the first alone is not a label")
        rpn = ("regions.method=rpn", "regions of a detector are whole objects more often")
        return (chosen, rpn) if params.method == "selective_search" else (chosen,)

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
        from wsolpipe.models.regions import OnnxDetector, RegionProposalNetwork, SelectiveSearch

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
            params.onnx,
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
        usable = rows.status == Status.OK
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
        from wsolpipe.models.regions import opencv_alone

        rows.threads = max(rows.threads, threads_here())
        with opencv_alone():
            for batched in rows.batches(1, lambda image, position: proposer(image)):
                for _, position, found in batched.present():
                    yield position, found
                self.context.progress(batched.stop, len(rows))

    def grain(self) -> int:
        """Any row: no image is looked at beside another."""
        return 1


def threads_here() -> int:
    """Threads of this process: OMP_NUM_THREADS as its launcher set it, else as many as cores that it may run on."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdecimal() and int(threads) else cores()
