"""Validation pseudo-masks without annotation, for data sets whose ground truth is masks: the map's own foreground."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import Array, Rows, Stage, StageParams, Upstream


class ValMasksParams(StageParams):
    """Parameters of `ValMasks`.

    Attributes
    ----------
    map
        Slot of the maps of cams that is used
    size
        Side of the masks, to which the whole image is squashed
    tau
        Threshold as a share of the map's span, above which is foreground; null: Otsu's threshold
    region
        Foreground that is kept: all of it, or its largest 8-connected region
    """

    map: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=8), Unit("pixels")]
    tau: Annotated[float, Field(ge=0, lt=1)] | None
    region: Literal["all", "largest"]


class ValMasks(Stage[ValMasksParams]):
    """Makes one mask for each row from its class activation map; maps without contrast give empty ones and are counted.

    References
    ----------
    The protocol of the thesis, chapter 4, with masks; the threshold: Otsu, IEEE Transactions on Systems, Man, and
    Cybernetics 1979.
    """

    def arrays(self) -> dict[str, ArraySpec]:
        """The mask and how much of the image it covers."""
        size = self.params.size
        return {
            "masks": ArraySpec(dtype="uint8", shape=(size, size), meaning="1 is foreground; the whole image, squashed"),
            "share": ArraySpec(dtype="float32", unit="share of the image", meaning="area of the mask"),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Cut the maps of these rows.

        Raises
        ------
        ConfigError
            If there is no such map.
        """
        cams = inputs["cams"]
        slots = cams.arrays["maps"].shape[1]
        if self.params.map >= slots:
            msg = f"val_masks.map={self.params.map}: cams holds slots 0 … {slots - 1}"
            raise ConfigError(msg)
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        rows.mark_objectless(self.context.objectless)
        rows.need(cams, "cams holds no map of this row")
        for position in np.flatnonzero(rows.status == Status.OK).tolist():
            mask = self.cut(cams.arrays["maps"][position, self.params.map])
            made["masks"][position], made["share"][position] = mask, mask.mean()
        return made

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Any]:
        """Rows whose map has no foreground."""
        usable = rows.status == Status.OK
        return {"empty_masks": int((arrays["share"][usable] == 0).sum())}

    def cut(self, levels: Array) -> Array:
        """Foreground of one map, uint8 [h, w] -> bool [size, size]."""
        from wsolpipe.maps.foreground import label, otsu_mask
        from wsolpipe.maps.levels import minmax
        from wsolpipe.maps.resize import upsample

        size = self.params.size
        if self.params.tau is None:
            mask = otsu_mask(levels, size)
        else:
            mask = minmax(upsample(levels.astype(np.float32), (size, size))) > self.params.tau
        if self.params.region == "all" or not mask.any():
            return mask
        labels, _ = label(mask)
        return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
