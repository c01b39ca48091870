"""The frame in which score maps meet boxes and masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.maxbox import CONVENTIONS, Convention
from wsolpipe.metrics.scaling import SIDE, scaled_boxes, standard_boxes, standard_maps

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Frame:
    """How maps and boxes are brought to one size.

    Attributes
    ----------
    convention : Convention
        Of boxes and areas; the standard one truncates boxes to whole pixels.
    side : int
        Both sides of the frame in pixels.
    normalise : bool
        Min-max each map. Without it maps must lie in 0..1 and are taken as they are.
    """

    convention: Convention = CONVENTIONS["standard"]
    side: int = SIDE
    normalise: bool = True

    def map(self, raw: Array, name: str) -> Array:
        """Bring a map [h, w] into the frame (float64 [side, side]); one that holds NaN or infinity becomes zeros.

        Raises
        ------
        DataError
            If a value is outside 0..1 and maps are not normalised.
        """
        if not np.isfinite(raw).all():
            return np.zeros((self.side, self.side))
        if not self.normalise and (raw.min() < 0 or raw.max() > 1):
            msg = f"the map of {name} leaves 0..1: {raw.min():g} to {raw.max():g}"
            raise DataError(msg, hint="leave out normalise=false: every map is then scaled by its own range")
        return standard_maps(raw, side=self.side, normalise=self.normalise)

    def boxes(self, boxes: Array, size: tuple[int, int]) -> Array:
        """Boxes [M, 4] of an image of `size` (width, height) in the frame."""
        if self.convention.inclusive:
            return standard_boxes(boxes, size, side=self.side)
        return scaled_boxes(boxes, size, (self.side, self.side))


@dataclass(frozen=True)
class FramedBatch:
    """Maps of some rows as metrics get them.

    Attributes
    ----------
    rows : int64 array [B]
    raw : sequence of float array [h, w] or None
        As they were made; None where a map is missing.
    framed : sequence of float64 array [side, side] or None
        The same in the frame, in 0..1.
    labels : int64 array [B]
        First label of each row, −1 where it has none.
    objectless : bool array [B]
        Rows whose class has no object.
    predicted : int array [B, K] or None
        Predicted classes, best first.
    of_label : mapping of int to float64 array [side, side] or None
        By position, the map of the row's own label where `framed` holds that of another class.
    """

    rows: Array
    raw: Sequence[Array | None]
    framed: Sequence[Array | None]
    labels: Array
    objectless: Array
    predicted: Array | None
    of_label: Mapping[int, Array | None]
    _shared: dict[str, Any] = field(default_factory=dict)

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what metrics make of these maps whatever they are scored against, made once for each batch."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]
