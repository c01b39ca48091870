"""Where score maps come from: a slot of a stage, or a folder of files; batch by batch, every row accounted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.reader import StageView
    from wsolpipe.metrics.scoremaps import ScoreMaps
    from wsolpipe.report.rows import RowTable

Array = np.ndarray[Any, Any]
BATCH = 128


@dataclass(frozen=True)
class MapBatch:
    """Some rows: their maps (None where one is missing), and predicted classes [B, K] where the maps are of those."""

    rows: Array
    maps: list[Array | None]
    predicted: Array | None = None


class MapSource(Protocol):
    """Where maps come from."""

    labels: str
    quarantined: int

    def batches(self) -> Iterator[MapBatch]:
        """Every row that was not given up, in order."""


class StageMaps:
    """One slot of a stage of maps.

    Parameters
    ----------
    view : StageView
    slot : int
    rows : RowTable

    Attributes
    ----------
    labels : str
        ``"true"`` if the slot's maps are of their image's own class or of no class, else ``"predicted"``.
    """

    def __init__(self, view: StageView, slot: int, rows: RowTable) -> None:
        slots = view.manifest.arrays["maps"].shape[0]
        if not 0 <= slot < slots:
            msg = f"map={slot}: stage {view.stage} holds {slots} maps, numbered from 0"
            raise ConfigError(msg)
        self.view, self.slot, self.rows, self.quarantined = view, slot, rows, 0
        target = view.manifest.params.get("target", "true")
        self.labels = "true" if "class_ids" not in view.manifest.arrays else self._labels(str(target))
        # Slots of one method are its likeliest classes, best first.
        methods = view.manifest.params.get("methods") if target == "top5" else None
        count = slots // len(methods) if methods else 1
        self.ranked = slice(slot // count * count, slot // count * count + count)

    def _labels(self, target: str) -> str:
        """By the parameter that says so, else by the classes themselves."""
        if "target" in self.view.manifest.params:
            return "true" if target == "true" else "predicted"
        for record in self.view.committed().values():
            classes = self.view["class_ids"][record.start : record.stop].reshape(record.stop - record.start, -1)
            for row, label in enumerate(classes[:, self.slot], start=record.start):
                if label >= 0 and label not in self.rows.labels[row]:
                    return "predicted"
        return "true"

    def batches(self) -> Iterator[MapBatch]:
        """Dequantised maps (float32, cropped where they are padded), at most `BATCH` rows at once."""
        self.quarantined = 0
        for record in self.view.committed().values():
            for start in range(record.start, record.stop, BATCH):
                yield self._batch(start, min(start + BATCH, record.stop))

    def _batch(self, start: int, stop: int) -> MapBatch:
        arrays = self.view.manifest.arrays
        status, levels = self.view["status"][start:stop], self.view["maps"][start:stop][:, self.slot]
        ranges = self.view["range"][start:stop][:, self.slot] if "range" in arrays else None
        grids = self.view["grid_hw"][start:stop] if "grid_hw" in arrays else None
        kept = np.flatnonzero(status != Status.QUARANTINED)
        self.quarantined += stop - start - len(kept)
        maps: list[Array | None] = []
        for at in kept:
            usable = status[at] == Status.OK and (ranges is None or np.isfinite(ranges[at]).all())
            maps.append(_dequantised(levels[at], ranges, grids, at) if usable else None)
        predicted = None
        if self.labels == "predicted":
            predicted = self.view["class_ids"][start:stop].reshape(stop - start, -1)[kept, self.ranked]
        return MapBatch(start + kept, maps, predicted)


def _dequantised(levels: Array, ranges: Array | None, grids: Array | None, at: int | np.integer[Any]) -> Array:
    if grids is not None:
        height, width = grids[at]
        levels = levels[:height, :width]
    low, high = (0.0, 255.0) if ranges is None else (float(edge) for edge in ranges[at])
    return (low + levels.astype(np.float32) * np.float32((high - low) / 255)).astype(np.float32)


class FolderMaps:
    """A folder of ``<image_id>.npy`` or ``.npz``; an image without a file is a missing map.

    Rows whose image cannot be read have no size that boxes could be scaled by: they are given up and counted.
    """

    def __init__(self, maps: ScoreMaps, rows: RowTable, labels: str) -> None:
        self.maps, self.rows, self.labels, self.quarantined = maps, rows, labels, 0

    def batches(self) -> Iterator[MapBatch]:
        """Maps as the files have them, at most `BATCH` at once."""
        usable = np.flatnonzero((self.rows.sizes > 0).all(axis=1))
        self.quarantined = len(self.rows) - len(usable)
        for start in range(0, len(usable), BATCH):
            rows = usable[start : start + BATCH]
            yield MapBatch(rows, [self.maps.read(self.rows.ids[row]) for row in rows])
