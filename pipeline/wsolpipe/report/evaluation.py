"""Figures of a stage's boxes or maps against the ground truth of its split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.engine.lookup import find_view, index_of, require_complete
from wsolpipe.maps.components import largest_region_box
from wsolpipe.maps.normalise import minmax, to_uint8
from wsolpipe.maps.otsu import otsu_threshold
from wsolpipe.maps.upsample import upsample
from wsolpipe.metrics.boxes import BoxEvaluation
from wsolpipe.report.val_boxes import is_val_boxes, score_val_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.reader import Index, StageView
    from wsolpipe.engine.session import Session

Array = np.ndarray[Any, Any]
EVALUATION_SIZE = 224


@dataclass(frozen=True)
class Scored:
    """A finished stage of one split beside the ground truth of its rows.

    Attributes
    ----------
    view : StageView
        What is scored.
    index : Index
        The split's rows as they are known now; ground truth may have been added since the stage ran.
    truth : dict of int to float64 array [M, 4]
        Ground-truth boxes by row, half-open, pixels of the image.
    sizes : int array [rows, 2]
        (width, height) of every image.
    objectless : frozenset of int
        Rows whose class names no object.
    """

    view: StageView
    index: Index
    truth: dict[int, Array]
    sizes: Array
    objectless: frozenset[int]

    def shards(self, *names: str) -> Iterator[tuple[int, Array, tuple[Array, ...]]]:
        """First row, status and the named arrays of every shard."""
        for record in self.view.committed().values():
            arrays = tuple(self.view[name][record.start : record.stop] for name in names)
            yield record.start, self.view["status"][record.start : record.stop], arrays


def attach_truth(view: StageView, index: Index) -> Scored:
    """Join a stage with the ground truth of its split's index."""
    rows, boxes = truth_boxes(index)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    truth = {int(rows[start]): part for start, part in zip(starts, np.split(boxes, starts[1:]), strict=False)}
    columns = index.table(["width", "height", "labels"])
    sizes = np.stack([columns.column(name).to_numpy() for name in ("width", "height")], axis=1)
    empty = set(index.manifest.objectless)
    labels = columns.column("labels").to_pylist() if empty else []
    objectless = frozenset(row for row, values in enumerate(labels) if values and values[0] in empty)
    return Scored(view, index, truth, sizes, objectless)


def truth_boxes(index: Index) -> tuple[Array, Array]:
    """Ground-truth boxes of a split in the order of their rows: rows int64 [A] and boxes float64 [A, 4]."""
    import pyarrow.compute as pc

    table = index.annotations()
    table = table.filter(pc.equal(table.column("kind"), "box"))
    rows = table.column("row").to_numpy().astype(np.int64)
    boxes = np.stack([table.column(name).to_numpy().astype(np.float64) for name in ("x0", "y0", "x1", "y1")], axis=1)
    order = np.argsort(rows, kind="stable")
    return rows[order], boxes[order]


def evaluate(session: Session, stage: str, split: str, *, slot: int = 0, key: str | None = None) -> dict[str, Any]:
    """Score a stage of boxes or of maps.

    Parameters
    ----------
    key : str, optional
        Which of several results, see `wsolpipe.engine.lookup.find_view`.
    slot : int
        Which map of a stage of maps; 0 is the mean of ``cls_maps``.

    Raises
    ------
    ConfigError
        If the stage holds neither boxes nor maps.
    StoreError
        If it is not finished.
    """
    view = find_view(session, stage, split, key=key)
    require_complete(view)
    scored = attach_truth(view, index_of(session, view))
    arrays = scored.view.manifest.arrays
    if is_val_boxes(view):
        figures, quarantined = score_val_boxes(scored)
    elif "boxes" in arrays:
        figures, quarantined = _score_boxes(scored)
    elif "maps" in arrays:
        figures, quarantined = _score_maps(scored, slot)
    else:
        msg = f"stage {stage} holds neither boxes nor maps, but {', '.join(sorted(arrays))}"
        raise ConfigError(msg)
    head = {"stage": stage, "dataset": scored.view.dataset, "split": split, "key": scored.view.key}
    return {**head, **figures, "rows_quarantined": quarantined}


def _score_boxes(scored: Scored) -> tuple[dict[str, Any], int]:
    figures, quarantined = BoxEvaluation(), 0
    for start, status, (boxes,) in scored.shards("boxes"):
        quarantined += int((status == Status.QUARANTINED).sum())
        for offset in np.flatnonzero(status != Status.QUARANTINED):
            row = start + int(offset)
            truth = scored.truth.get(row, np.zeros((0, 4)))
            width, height = scored.sizes[row]
            figures.add(boxes[offset], truth, size=(width, height), objectless=row in scored.objectless)
    return figures.result(), quarantined


def _score_maps(scored: Scored, slot: int) -> tuple[dict[str, Any], int]:
    slots = scored.view.manifest.arrays["maps"].shape[0]
    if not 0 <= slot < slots:
        msg = f"map={slot}: stage {scored.view.stage} holds {slots} maps, numbered from 0"
        raise ConfigError(msg)
    figures, quarantined = BoxEvaluation(), 0
    for start, status, (maps,) in scored.shards("maps"):
        quarantined += int((status == Status.QUARANTINED).sum())
        for offset in np.flatnonzero(status != Status.QUARANTINED):
            row = start + int(offset)
            width, height = (int(side) for side in scored.sizes[row])
            box = otsu_box(maps[offset, slot], width, height)
            truth = scored.truth.get(row, np.zeros((0, 4)))
            figures.add(box, truth, size=(width, height), objectless=row in scored.objectless)
    result = figures.result()
    names = ("rows", "rows_scored", "rows_without_box", "rows_objectless", "iou_centre")
    return {"map": slot, "iou_otsu": result["iou_top1"], **{name: result[name] for name in names}}, quarantined


def otsu_box(levels: Array, width: int, height: int) -> Array:
    """Box of the largest Otsu region of a stored map.

    Parameters
    ----------
    levels : uint8 array [h, w]

    Returns
    -------
    float32 array [n, 4]
        One box in pixels of the image of `width` × `height`, or none where the map is constant.
    """
    large = to_uint8(minmax(upsample(levels.astype(np.float32), (EVALUATION_SIZE, EVALUATION_SIZE))))
    box = largest_region_box(large > otsu_threshold(large))
    if box is None:
        return np.zeros((0, 4), np.float32)
    scale = np.array([width, height, width, height], np.float32) / EVALUATION_SIZE
    return (box * scale)[None]
