"""Boxes of any stage, carried between the frames of a video: a frame's box is chosen with those before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.keys.kinds import Unit
from wsolpipe.metrics.boxes import iou_matrix
from wsolpipe.stages.base import Stage, StageParams
from wsolpipe.stages.beside import Beside
from wsolpipe.stages.marks import NamesStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.stages.base import Array, Rows, Upstream


class PropagateParams(StageParams):
    """Parameters of `Propagate`."""

    boxes: Annotated[str, NamesStage("boxes")] = Field(
        description="Stage of boxes that are carried, such as val_boxes, proposals or predictions"
    )
    by: Literal["median", "vote"] = Field(
        description="Box of a frame: median (each side's median over the first boxes of the frames) or vote (of all "
        "boxes of the frames, the one with the greatest mean IoU with its nearest box in each)"
    )
    frames: Annotated[int, Field(ge=1, le=64), Unit("frames")] = Field(
        description="Frames before and after each that take part, of the same group; fewer at its ends"
    )


class Propagate(Stage[PropagateParams]):
    """Gives each frame one box from those of the frames around it, without optical flow; a frame without one gets one.

    Boxes keep their pixels from frame to frame, and are clipped to the image. A quarantined row stays so.
    """

    Params: ClassVar[type[StageParams]] = PropagateParams

    @classmethod
    def needs(cls, params: PropagateParams, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stage of boxes."""
        return (params.boxes,)

    @classmethod
    def frames_beside(cls, params: PropagateParams) -> int:
        """`PropagateParams.frames`."""
        return params.frames

    def setup(self) -> None:
        """Look at the stage of boxes.

        Raises
        ------
        ConfigError
            If it holds none.
        """
        source = self.context.upstream[self.params.boxes].manifest
        if "boxes" not in source.arrays:
            msg = f"stage {source.stage} holds no boxes to carry, but {', '.join(sorted(source.arrays))}"
            raise ConfigError(msg, hint="propagate.boxes=val_boxes, proposals, predictions or your own")

    def arrays(self) -> dict[str, ArraySpec]:
        """One box a row, and how well the frames agree on it."""
        params = self.params
        meaning = f"{params.by} of the boxes of {params.boxes}, {params.frames} frames before and after"
        support = "mean over these frames of the box's IoU with its nearest there; NaN without a box"
        return {
            "boxes": boxes_spec(1, meaning),
            "support": ArraySpec(dtype="float32", fill="nan", unit="IoU", meaning=support),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Choose the boxes of these rows."""
        near = Beside(self.context.upstream[self.params.boxes], inputs[self.params.boxes], rows)
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        boxes = near.array("boxes").astype(np.float64)
        boxes = boxes.reshape(len(boxes), -1, 4)
        for position, (height, width) in enumerate(rows.sizes()):
            if not rows.usable(position):
                continue
            frames = [found[np.isfinite(found).all(axis=1)] for found in boxes[near.around(position)]]
            frames = [found for found in frames if len(found)]
            if frames:
                box = np.median([found[0] for found in frames], axis=0)[None]
                candidates = box if self.params.by == "median" else np.concatenate(frames)
                support = np.mean([iou_matrix(candidates, found).max(axis=1) for found in frames], axis=0)
                best = int(np.argmax(support))
                made["boxes"][position, 0] = candidates[best].clip(0, [width, height, width, height])
                made["support"][position] = support[best]
        return made
