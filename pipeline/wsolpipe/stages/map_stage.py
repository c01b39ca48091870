"""The loop of the stages that make score maps of an image: batch, run the network, store each map as levels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from wsolpipe.contract.schema import ArraySpec
from wsolpipe.images.geometry import resize
from wsolpipe.stages.base import Array, Batch, Rows, Stage, StageParams, Upstream

P = TypeVar("P", bound=StageParams)


class MapStage(Stage[P]):
    """A stage whose result is maps; a subclass defines the network's input and its maps.

    `side` is the side of the squashed image in pixels, set by `setup`; `stage` is its name in ``stages.yaml``,
    `maps_are` names the maps in messages, and `no_target` is the target of a slot of a batch without an image.
    """

    stage: ClassVar[str] = ""
    side: int
    maps_are: ClassVar[str]
    no_target: Any = None

    @abstractmethod
    def targets_of(self, rows: Rows) -> Sequence[Any]:
        """Return the target of each row, such as its label; rows without one are quarantined here."""

    @abstractmethod
    def make_maps(self, pixels: Array, targets: Sequence[Any], numbers: Sequence[int]) -> tuple[Array, Array | None]:
        """Maps before storage.

        Parameters
        ----------
        pixels : uint8 array [B, H, W, 3]
            RGB.
        targets : sequence of B
            Of `targets_of`.
        numbers : sequence of B int
            Row numbers in the index, which seed random draws.

        Returns
        -------
        maps : float32 array [B, T, h, w]
        classes : int32 array [B, T] or None
            -1 where there is no map; None where maps belong to no class.
        """

    def fit(self, image: Array, position: int) -> Array:  # noqa: ARG002
        """Return the network's input of one image: the whole image, squashed to uint8 [side, side, 3]."""
        return resize(image, (self.side, self.side))

    def batch_size(self) -> int:
        """Images in one forward."""
        return int(self.params.batch)  # type: ignore[attr-defined]

    def grain(self) -> int | None:
        """Whole batches."""
        return self.batch_size()

    def groups(self, batch: Batch[Array]) -> Iterator[tuple[list[int | None], Array]]:
        """Parts of a batch that run together: positions in the block (None: no image) and pixels [b, H, W, 3].

        All of the batch at once, and always full, so that a row's maps do not depend on which others are usable.
        """
        positions: list[int | None] = [None] * len(batch.items)
        for slot, position, _ in batch.present():
            positions[slot] = position
        yield positions, batch.stack(self.side, self.side, 3)

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:  # noqa: ARG002
        """Make the maps of these rows; a row whose maps are not finite is quarantined.

        Raises
        ------
        ConfigError
            If a label has no name, or no output of the classifier.
        """
        targets, numbers = self.targets_of(rows), rows.numbers.tolist()
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        for batch in rows.batches(self.batch_size(), self.fit):
            for positions, pixels in self.groups(batch) if batch.present() else ():
                asked = [self.no_target if at is None else targets[at] for at in positions]
                maps, classes = self.make_maps(pixels, asked, [numbers[-1 if at is None else at] for at in positions])
                for slot, position in enumerate(positions):
                    if position is not None:
                        self._keep(rows, made, position, maps[slot], None if classes is None else classes[slot])
            self.context.progress(batch.stop, len(rows))
        return made

    def true_labels(self, rows: Rows, check: Callable[[int], object]) -> list[int]:
        """First label of each row, `no_target` where it takes no part; rows without one are quarantined."""
        rows.need_labels(f"no label: the map is that of the true class (or {self.stage}.target=predicted)", check)
        return [
            label if label is not None and rows.usable(at) else self.no_target for at, label in enumerate(rows.labels())
        ]

    def label_lists(self, rows: Rows, reason: str, check: Callable[[int], object]) -> list[list[int]]:
        """Labels of each row, each once, none where it takes no part; rows without one are quarantined."""
        rows.need_labels(reason, check)
        lists = [list(dict.fromkeys(int(label) for label in labels)) for labels in rows.columns["labels"]]
        return [labels if rows.usable(at) else [] for at, labels in enumerate(lists)]

    def _keep(self, rows: Rows, made: dict[str, Array], position: int, maps: Array, classes: Array | None) -> None:
        """Store the maps of one row, or quarantine it."""
        from wsolpipe.maps.levels import quantise

        present = np.ones(len(maps), bool) if classes is None else classes >= 0
        if not np.isfinite(maps[present]).all():
            rows.quarantine(position, f"{self.maps_are} hold NaN or infinite values")
            return
        height, width = maps.shape[1:]
        made["maps"][position, present, :height, :width], made["range"][position, present] = quantise(maps[present])
        if classes is not None:
            made["class_ids"][position] = classes
        if "grid_hw" in made:
            made["grid_hw"][position] = height, width


def map_arrays(
    slots: int, grid: tuple[int, int], *, meaning: str, optional: bool = False, unit: str = ""
) -> dict[str, ArraySpec]:
    """The arrays of maps with a class each.

    Parameters
    ----------
    slots : int
        Maps a row.
    grid : (height, width)
        Of a map.
    meaning : str
        What the maps are.
    optional : bool
        Whether a slot may hold no map.
    unit : str
        Of the maps' values before they were scaled to levels.
    """
    no_class = ", -1 where there is none" if optional else ""
    classes = ArraySpec(dtype="int32", shape=(slots,), fill=-1, meaning=f"class of each map{no_class}")
    return {**level_arrays(slots, grid, f"{meaning}; min-max per map", unit, optional=optional), "class_ids": classes}


def level_arrays(
    slots: int, grid: tuple[int, int], meaning: str, unit: str = "", *, optional: bool = False
) -> dict[str, ArraySpec]:
    """The arrays of maps that are stored as levels of their own range; see `map_arrays`."""
    levels = ArraySpec(dtype="uint8", shape=(slots, *grid), unit="1/255 of the map's range", meaning=meaning)
    return {"maps": levels, "range": range_spec(slots, unit, optional=optional)}


def range_spec(slots: int, unit: str = "", *, optional: bool = False) -> ArraySpec:
    """The array of the values that are level 0 and level 255 of each map."""
    gap = "; NaN where there is no map" if optional else ""
    return ArraySpec(
        dtype="float32",
        shape=(slots, 2),
        fill="nan" if optional else 0,
        unit=unit,
        meaning=f"low and high of each map: levels 0 and 255{gap}",
    )


def class_slots(labels: Sequence[Sequence[int]], slots: int) -> Array:
    """The first `slots` labels of each row as int32 [rows, slots], -1 where there are fewer."""
    found = np.full((len(labels), slots), -1, np.int32)
    for row, known in enumerate(labels):
        first = list(known)[:slots]
        found[row, : len(first)] = first
    return found
