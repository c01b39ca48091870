"""Labels of a finished stage as images with boxes, masks or maps, which the formats write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.images.geometry import resize_mask
from wsolpipe.images.importers.lines import path_fault
from wsolpipe.images.label_lines import LabelBox, LabelledImage
from wsolpipe.share.formats.base import class_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.rows import RowTable

Array = np.ndarray[Any, Any]
AT_ONCE = 1024
KINDS = ("boxes", "masks", "maps")


@dataclass(frozen=True)
class Chosen:
    """What of a stage is exported.

    Attributes
    ----------
    rows : bool array [N]
        Which rows.
    top : int or None
        Boxes of a row, best first; None for all.
    slot : int
        Which map of a stage of maps.
    """

    rows: Array
    top: int | None = None
    slot: int = 0


def kind_of_stage(view: StageView) -> str:
    """``boxes``, ``masks`` or ``maps``, whichever a stage is of.

    Raises
    ------
    ConfigError
        If it holds none of them.
    """
    found = next((kind for kind in KINDS if kind in view.manifest.arrays), None)
    if found is None:
        held = ", ".join(sorted(view.manifest.arrays))
        msg = f"stage {view.stage} holds neither boxes nor masks nor maps, but {held}"
        raise ConfigError(msg, hint="export boxes of val_boxes, proposals or regions, or maps of cams")
    return found


def labelled(view: StageView, rows: RowTable, chosen: Chosen) -> Iterator[LabelledImage]:
    """Images of the chosen rows in their order; quarantined rows are left out, rows without an object have no box.

    Raises
    ------
    DataError
        If an image id or path of the index, which may be somebody else's, leads out of a folder.
    """
    assert rows.index is not None
    paths = rows.index.table(["path"]).column("path").to_pylist()
    usable = view.status()
    kept = chosen.rows & ((usable == Status.OK) | (usable == Status.NO_OBJECT)) & (rows.sizes > 0).all(axis=1)
    for row, parts in _READERS[kind_of_stage(view)](view, rows, chosen, kept):
        for text in (rows.ids[row], paths[row]):
            if fault := path_fault(text.replace("#", "/")):
                msg = f"row {row} of {view.split}: {fault}"
                raise DataError(msg, hint="the index of this store names files outside of its folder")
        width, height = (int(side) for side in rows.sizes[row])
        yield LabelledImage(row, rows.ids[row], paths[row], width, height, tuple(rows.labels[row]), **parts)


def _blocks(view: StageView, kept: Array) -> Iterator[tuple[slice, list[int]]]:
    """Runs of rows within a shard, with those of them that are wanted."""
    for record in view.committed().values():
        for start in range(record.start, record.stop, AT_ONCE):
            span = slice(start, min(start + AT_ONCE, record.stop))
            wanted = (start + np.flatnonzero(kept[span])).tolist()
            if wanted:
                yield span, wanted


def _boxes(view: StageView, rows: RowTable, chosen: Chosen, kept: Array) -> Iterator[tuple[int, dict[str, Any]]]:
    """Boxes with the class that they have in their stage, else with that of their image."""
    held = view.manifest.arrays
    assert rows.index is not None
    names = {int(label): name for label, name in rows.index.manifest.class_names.items()}
    slots = held["boxes"].shape[0]
    for span, wanted in _blocks(view, kept):
        count = span.stop - span.start
        edges = np.asarray(view["boxes"][span], np.float64).reshape(count, -1, 4)
        beside: dict[str, Array] = {
            name: np.asarray(view[name][span]).reshape(count, -1)
            for name in ("scores", "source", "labels")
            if name in held and held[name].shape == (slots,)
        }
        for row in wanted:
            at, own = row - span.start, rows.labels[row]
            found = []
            for slot in np.flatnonzero(~np.isnan(edges[at]).any(axis=1))[: chosen.top].tolist():
                label, score, source = (_number(beside, name, at, slot) for name in ("labels", "scores", "source"))
                label = int(label) if label is not None and label >= 0 else own[0] if own else None
                x0, y0, x1, y1 = edges[at, slot].tolist()
                found.append(LabelBox((x0, y0, x1, y1), class_name(names, label), label, score,
                                      None if source is None or source < 0 else int(source)))  # fmt: skip
            yield row, {"boxes": tuple(found)}


def _number(arrays: dict[str, Array], name: str, row: int, slot: int) -> float | None:
    if name not in arrays:
        return None
    value = float(arrays[name][row, slot])
    return None if np.isnan(value) else value


def _masks(view: StageView, rows: RowTable, chosen: Chosen, kept: Array) -> Iterator[tuple[int, dict[str, Any]]]:  # noqa: ARG001
    """Foreground at the size of the image."""
    for span, wanted in _blocks(view, kept):
        masks = view["masks"][span]
        for row in wanted:
            width, height = (int(side) for side in rows.sizes[row])
            yield row, {"mask": resize_mask(masks[row - span.start] == 1, (height, width))}


def _maps(view: StageView, rows: RowTable, chosen: Chosen, kept: Array) -> Iterator[tuple[int, dict[str, Any]]]:
    for batch in StageMaps(view, chosen.slot, rows).batches():
        for row, values in zip(batch.rows.tolist(), batch.maps, strict=True):
            if kept[row] and values is not None:
                yield row, {"map": values}


_READERS: dict[str, Callable[[StageView, RowTable, Chosen, Array], Iterator[tuple[int, dict[str, Any]]]]] = {
    "boxes": _boxes,
    "masks": _masks,
    "maps": _maps,
}
