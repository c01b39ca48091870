"""Boxes of any stage made tight by Segment Anything: each becomes the box of the mask that it prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.stages.base import Array, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.marks import NamesStage, WeightsSource, require_array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.models.saved_models import Sam

_IMAGES = 4  # decoded ahead; the network sees one at a time
#: What is said of a box and holds of the tight one too.
SAID = ("source", "class_ids", "count")


class SamBoxesParams(StageParams):
    """Parameters of `SamBoxes`.

    Attributes
    ----------
    boxes
        Stage of boxes that are prompts, such as proposals, val_boxes or predictions
    weights
        Name of a SAM on the Hugging Face hub, or a folder as transformers saves it
    several
        Draw three masks a box and take the one that the network expects to fit best; false: its single one
    min_iou
        A mask whose box overlaps the prompt by less than this is not taken, and the prompt is kept
    """

    boxes: Annotated[str, NamesStage("boxes")]
    weights: Annotated[str, WeightsSource()]
    several: bool
    min_iou: Annotated[float, Field(ge=0, le=1)]


class SamBoxes(Stage[SamBoxesParams]):
    """Each box of a row, in its slot: the box of its mask, or the box itself where the mask is empty or elsewhere.

    References
    ----------
    Kirillov et al., "Segment anything", ICCV 2023.
    """

    sam: Sam

    @classmethod
    def needs(cls, params: SamBoxesParams, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stage of boxes."""
        return (params.boxes,)

    @classmethod
    def weights_needed(cls, params: SamBoxesParams) -> dict[str, str]:
        """The folder, under the name ``model``."""
        return {"model": f"transformers:{params.weights.removeprefix('transformers:')}"}

    def setup(self) -> None:
        """Load the network.

        Raises
        ------
        ConfigError
            If the stage holds no boxes, or the folder another kind of model.
        WeightsError
            If the folder holds no whole SAM.
        """
        from wsolpipe.models.saved_models import load_sam

        view, weights = self.context.upstream[self.params.boxes], self.context.weights["model"]
        require_array(view, "boxes", "", "sam_boxes.boxes=proposals, val_boxes, or another stage of boxes")
        self.source = view.manifest.arrays
        assert weights.path is not None
        self.sam = load_sam(weights.path, name=weights.source, device=self.context.device)

    def arrays(self) -> dict[str, ArraySpec]:
        """Boxes, the network's predicted IoU of their masks, and the fields of the stage."""
        slots = self.source["boxes"].shape[0]
        made = {
            "boxes": boxes_spec(slots, f"{self.source['boxes'].meaning}; made tight by Segment Anything"),
            "scores": ArraySpec(
                dtype="float32",
                shape=(slots,),
                fill="nan",
                unit="IoU",
                meaning="fit that the network expects of a mask",
            ),
            "moved": ArraySpec(dtype="uint8", shape=(slots,), meaning="1: box of a mask; 0: box as it was, or none"),
        }
        return made | {name: self.source[name] for name in SAID if name in self.source}

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Prompt each box of these rows."""
        given = inputs[self.params.boxes].arrays
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        counts = {"boxes": 0, "boxes_kept": 0}
        for batch in rows.batches(_IMAGES, lambda image, _: (self.sam.fit(image), image.shape[:2])):
            for _, position, (pixels, size) in batch.present():
                self.context.check()
                for name in SAID:
                    if name in made:
                        made[name][position] = given[name][position]
                boxes = given["boxes"][position]
                there = np.flatnonzero(np.isfinite(boxes).all(axis=1))
                if len(there):
                    tight, fits, moved = self._tighten(pixels, size, boxes[there].astype(np.float64))
                    made["boxes"][position, there], made["scores"][position, there] = tight, fits
                    made["moved"][position, there] = moved
                    counts["boxes"] += len(there)
                    counts["boxes_kept"] += int((~moved).sum())
            self.context.progress(batch.stop, len(rows))
        rows.counts = counts
        return made

    def _tighten(self, pixels: Array, size: tuple[int, int], boxes: Array) -> tuple[Array, Array, Array]:
        """Boxes [K, 4] in pixels of the image, expected fits [K], and which boxes are those of a mask [K]."""
        from wsolpipe.metrics.boxes import iou_matrix

        height, width = pixels.shape[:2]
        scale = np.array([width / size[1], height / size[0]] * 2)
        logits, fits = self.sam.masks(pixels, boxes * scale, several=self.params.several)
        tight, moved = boxes.copy(), np.zeros(len(boxes), np.bool_)
        for number, inside in enumerate(logits > 0):
            down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            if not len(down):
                continue
            found = np.array([across[0], down[0], across[-1] + 1, down[-1] + 1]) / scale
            if iou_matrix(found[None], boxes[number : number + 1])[0, 0] >= self.params.min_iou:
                tight[number], moved[number] = found, True
        return tight, fits, moved

    def grain(self) -> int:
        """Whole batches."""
        return _IMAGES
