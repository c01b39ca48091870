"""A stage of another package: how bright each part of an image is, and a box around its brightest part."""

from typing import Annotated

import numpy as np
from pydantic import Field

from wsolpipe.contract.schema import boxes_spec
from wsolpipe.maps.levels import quantise
from wsolpipe.stages.base import Stage, StageParams
from wsolpipe.stages.map_stage import map_arrays
from wsolpipe.stages.marks import ExecutionOnly


class LuminanceParams(StageParams):
    """Parameters of the stage."""

    grid: int = Field(ge=2, description="Cells along each side of the map")
    share: float = Field(gt=0, lt=1, description="Share of cells, the darkest ones, outside of the box")
    batch: Annotated[int, ExecutionOnly()] = Field(ge=1, description="Images decoded at once")


class Luminance(Stage[LuminanceParams]):
    """A map of mean grey levels and the box of its brightest cells."""

    def arrays(self):
        grid = self.params.grid
        made = map_arrays(1, (grid, grid), meaning="mean grey levels", unit="grey level")
        return {**made, "boxes": boxes_spec(1, "brightest cells")}

    def cells(self, image, position):
        """Mean grey level of each cell."""
        grid, grey = self.params.grid, image.mean(axis=2)
        rows = np.array_split(grey, grid, axis=0)
        return np.array([[cell.mean() for cell in np.array_split(row, grid, axis=1)] for row in rows], np.float32)

    def process(self, rows, inputs):
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        sizes, labels = rows.sizes(), rows.labels()
        for batch in rows.batches(self.params.batch, self.cells):
            for _, position, cells in batch.present():
                made["maps"][position], made["range"][position] = quantise(cells[None])
                made["class_ids"][position] = -1 if labels[position] is None else labels[position]
                bright = np.argwhere(cells >= np.quantile(cells, self.params.share))
                (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
                height, width = sizes[position]
                edges = np.array([left * width, top * height, right * width, bottom * height])
                made["boxes"][position, 0] = edges / self.params.grid
            self.context.progress(batch.stop, len(rows))
        return made
