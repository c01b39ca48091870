"""Names of the axes of arrays, for readers that know arrays by their axes, such as xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.contract.schema import ArraySpec

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
