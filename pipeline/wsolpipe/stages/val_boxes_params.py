"""Parameters of the stage `val_boxes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.kinds import NamesFile, Unit
from wsolpipe.stages.base import StageParams
from wsolpipe.stages.marks import AsBefore, ExecutionOnly, NamesStage

Annotator = Literal["ss", "rpn", "clip", "file", "human"]
#: What annotators without regions read, and the region methods that those with regions take.
NEEDS = {"clip": ("clip_cams",), "human": ("human_boxes",)}
METHODS = {"ss": ("selective_search",), "rpn": ("rpn", "onnx")}
#: Objectness that a detector's region must reach by default; chosen on other rows than those on which it was shown.
DETECTOR_FLOOR = 0.15


class ValBoxesParams(StageParams):
    """Parameters of `ValBoxes`.

    Attributes
    ----------
    annotator
        Where the box comes from: ss (selective search), rpn (regions of a detector: regions.method=rpn or onnx), clip
        (the largest Otsu region of the map of clip_cams), file (released boxes) or human (the first box of human_boxes)
    slots
        Regions of a row that take part, best first; annotator=ss has the classifier score a crop of each
    keep
        Share of the regions that the first step keeps by score, rounded up
    top_by
        Score of the first step: classifier (posterior of the row's label with the rest blurred) or objectness; null:
        classifier with ss, objectness with rpn
    order
        filter-first: keep a share, then play the pointing game; pointing-first: the other way round
    final
        Score of the last step: classifier, objectness, or the product of both, which keeps fragments out where
        objectness falls steeply. agreement takes all regions, without the steps before and without a classifier: IoU
        with the largest Otsu region of the map, with rpn times the root of the objectness
    maps
        Stage of maps whose peak counts, and whose largest region with final=agreement, such as cams or fuse
    map
        Slot of those maps; of clip_cams, the slot used if none is of the row's label
    size
        Side of the grid to which a map is stretched
    blur_kernel
        Width of the Gaussian that blurs what is outside a region, at 224 pixels; scaled with the classifier's input
    blur_sigma
        Standard deviation of that Gaussian, at 224 pixels; scaled likewise
    file
        Boxes of annotator=file, in the localization.txt layout; the key holds its sha256
    prefer_drawn
        Take the first drawn box of human_boxes in each row that somebody looked at, the annotator's in all others
    batch
        Crops scored at once
    images
        Images blurred at once
    """

    annotator: Annotator
    slots: Annotated[int, Field(ge=1), Unit("regions")]
    keep: Annotated[float, Field(gt=0, le=1)]
    top_by: Literal["classifier", "objectness"] | None
    order: Literal["filter-first", "pointing-first"]
    floor: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="Objectness below which a region takes no part, unless none of the row reaches it; the share of "
        f"keep is counted as if all did. null: 0 with ss, {DETECTOR_FLOOR:g} with rpn"
    )
    final: Literal["classifier", "objectness", "product", "agreement"]
    maps: Annotated[str, NamesStage("maps"), AsBefore("cams")]
    map: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=8), Unit("pixels")]
    blur_kernel: Annotated[int, Field(ge=1), Unit("pixels")]
    blur_sigma: Annotated[float, Field(gt=0), Unit("pixels")]
    file: Annotated[str | None, NamesFile()]
    prefer_drawn: Annotated[bool, AsBefore(False)]
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("crops")]
    images: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")]

    @model_validator(mode="after")
    def _consistent(self) -> ValBoxesParams:
        if self.blur_kernel % 2 == 0:
            msg = "blur_kernel is an odd number of pixels"
            raise ValueError(msg)
        if (self.annotator == "file") != (self.file is not None):
            msg = "annotator=file and file=FILE belong together"
            raise ValueError(msg)
        return self

    @property
    def first_score(self) -> Literal["classifier", "objectness"]:
        """`top_by` with its default settled."""
        if self.final == "agreement":
            return "objectness"
        return self.top_by or ("classifier" if self.annotator == "ss" else "objectness")

    @property
    def asks_classifier(self) -> bool:
        """Whether a step needs the classifier."""
        return self.final != "agreement"

    @property
    def least(self) -> float:
        """`floor` with its default settled."""
        return (DETECTOR_FLOOR if self.annotator == "rpn" else 0.0) if self.floor is None else self.floor

    @property
    def needs(self) -> tuple[str, ...]:
        """Stages that are read."""
        own = NEEDS.get(self.annotator, ())
        if self.annotator in METHODS:
            own = ("regions", self.maps, *(("classifier",) if self.asks_classifier else ()))
        return (*own, "human_boxes") if self.prefer_drawn and "human_boxes" not in own else own

    def in_key(self) -> dict[str, Any]:
        """Return the parameters that the annotator uses; a file by its content; a floor of 0 is left out.

        Raises
        ------
        ConfigError
            If the file is not there.
        """
        values = super().in_key()
        drawn = {name: values[name] for name in ("prefer_drawn",) if name in values}
        if self.annotator == "clip":
            return {name: values[name] for name in ("annotator", "map", "size")} | drawn
        if self.annotator == "human":
            return {"annotator": "human"}
        if self.annotator == "file":
            from wsolpipe.networks.pretrained import file_sha256

            try:
                return {"annotator": "file", "file": file_sha256(Path(str(self.file)).expanduser())} | drawn
            except OSError as error:
                msg = f"cannot read the box file {self.file}: {error.strerror}"
                raise ConfigError(msg, hint="val_boxes.file=FILE in the localization.txt layout") from error
        if self.final == "agreement":
            read = ("annotator", "slots", "final", "maps", "map", "size")
            return {name: values[name] for name in read if name in values} | drawn
        del values["file"], values["floor"]
        floor = {"floor": self.least} if self.least else {}
        return {**values, **floor, "top_by": self.first_score}
