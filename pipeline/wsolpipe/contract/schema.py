"""The published schema: what arrays hold, which values mean what, and the version that a reader checks first."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

SCHEMA_VERSION = 2  # 2: manifests name the checksum of chunks; what was written before has none and stays readable
INNER_CHUNK_ROWS = 32
CHECKSUM: Literal["crc32c"] = "crc32c"  # of every chunk of arrays that are made now

#: Columns of ``index.parquet``. ``image`` in a stage's list of columns stands for `IMAGE_COLUMNS`.
INDEX_COLUMNS = (
    "row",
    "image_id",
    "path",
    "labels",
    "width",
    "height",
    "orientation",
    "bytes",
    "sha256",
    "group",
    "frame",
    "reason",
)
#: ``reason`` of a row whose image left the split: it keeps its place and its other columns, and is not counted.
RETIRED = "no longer listed"
#: Columns of a box in ``annotations.parquet``, pixels.
EDGES = ("x0", "y0", "x1", "y1")
IMAGE_COLUMNS = ("sha256", "width", "height", "orientation")


class Status(IntEnum):
    """Values of the ``status`` array, uint8, one a row."""

    ABSENT = 0
    OK = 1
    QUARANTINED = 2
    NO_OBJECT = 3


class Step(IntFlag):
    """Steps of the choice that a candidate of ``val_boxes`` passed; bits of the array ``steps``."""

    TOP = 1
    POINTED = 2
    FINALIST = 4


class Fallback(IntFlag):
    """Replacement of a step of ``val_boxes`` that left no candidate; bits of the array ``fallback``."""

    NO_REGION = 1
    PEAK_OUTSIDE = 2
    NO_SCORE = 4
    NO_PEAK = 8
    BELOW_FLOOR = 16


class ArraySpec(BaseModel, extra="forbid", frozen=True):
    """One named array of a rows stage; axis 0 is the row.

    Attributes
    ----------
    dtype : str
        Numpy name.
    shape : tuple of int
        Extent of the axes after the row axis.
    fill : float, int or "nan"
        What a row without a result holds.
    level : int
        Of zstd; 0 is its default. Negative levels are read faster and take more room.
    unit, meaning : str
        For people and dataset cards.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    fill: float | int | str = 0
    level: int = Field(default=0, ge=-22, le=22)
    unit: str = ""
    meaning: str = ""

    def fill_value(self) -> Any:
        """`fill` as a numpy scalar of `dtype`."""
        return np.dtype(self.dtype).type(self.fill)

    def empty(self, rows: int) -> np.ndarray[Any, Any]:
        """Array of `rows` rows that holds only `fill`."""
        return np.full((rows, *self.shape), self.fill_value(), dtype=self.dtype)


STATUS_SPEC = ArraySpec(
    dtype="uint8", meaning="0 absent, 1 ok, 2 quarantined, 3 no object: the class of this row names no object"
)


def boxes_spec(slots: int, meaning: str) -> ArraySpec:
    """Array of `slots` boxes a row: xyxy, half-open, pixels of the original image, NaN where there is none."""
    return ArraySpec(dtype="float32", shape=(slots, 4), fill="nan", unit="pixel of the original image", meaning=meaning)


class Weights(BaseModel, extra="forbid", frozen=True):
    """A weights file that went into a result: named by content, with where it came from.

    Attributes
    ----------
    source
        file name, or loader:name; never a path of a machine
    """

    name: str
    sha256: str
    source: str


ROW = "row"
#: Axes after the row axis, by the name of the array. ``edge`` is x0, y0, x1, y1; ``bound`` low, high; ``point`` x, y;
#: ``side`` rows, columns.
AXES: dict[str, tuple[str, ...]] = {
    "maps": ("map", "y", "x"),
    "range": ("map", "bound"),
    "class_ids": ("map",),
    "grid_hw": ("side",),
    "boxes": ("box", "edge"),
    "scores": ("box",),
    "source": ("box",),
    "labels": ("box",),
    "top_box": ("box", "edge"),
    "candidates": ("candidate", "edge"),
    "objectness": ("candidate",),
    "posterior": ("candidate",),
    "agreement": ("candidate",),
    "steps": ("candidate",),
    "peak": ("point",),
    "masks": ("y", "x"),
    "rgb": ("channel", "y", "x"),
}


def axis_names(arrays: Mapping[str, ArraySpec]) -> dict[str, tuple[str, ...]]:
    """Names of all axes of the arrays of one stage, the row axis first.

    In one stage an axis name has one extent. An array whose axes have no name here, or whose extent differs from that
    of an earlier array, gets names of its own: ``ARRAY_1``, ``ARRAY_2`` ….

    Examples
    --------
    >>> from wsolpipe.contract.schema import ArraySpec
    >>> specs = {"boxes": (10, 4), "scores": (10,), "mean": (), "tokens": (5, 8)}
    >>> axis_names({name: ArraySpec(dtype="uint8", shape=shape) for name, shape in specs.items()})["boxes"]
    ('row', 'box', 'edge')
    """
    extents: dict[str, int] = {}
    named = {}
    for array, spec in sorted(arrays.items()):
        own = tuple(f"{array}_{axis}" for axis in range(1, 1 + len(spec.shape)))
        known = AXES.get(array, own)
        if len(known) != len(own):
            known = own
        names = []
        for name, unique, extent in zip(known, own, spec.shape, strict=True):
            names.append(name if extents.setdefault(name, extent) == extent else unique)
        named[array] = (ROW, *names)
    return named
