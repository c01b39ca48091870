"""Figures of a stage's boxes and of a centred box, against boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.metrics.boxes import LEVELS, BoxEvaluation, centred_boxes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]
AT_ONCE = 4096


@dataclass(frozen=True)
class BoxScores:
    """Figures of boxes, and what each row adds to them.

    Attributes
    ----------
    figures : dict
        Of `wsolpipe.metrics.boxes.BoxEvaluation`, and ``rows_quarantined``: rows outside all other counts.
    rows : int64 array [n]
        Scored rows.
    ious : dict of str to float64 array [n]
        ``iou_top1``, ``iou_best5``, ``iou_candidates``, ``iou_upper`` and ``iou_centre`` of each scored row.
    """

    figures: dict[str, Any]
    rows: Array
    ious: dict[str, Array]

    def as_maps(self) -> dict[str, Any]:
        """Return the figures under the names and in the units of those of maps, for tables that hold both."""

        def share(name: str) -> float | None:
            value = self.figures.get(name)
            return None if value is None else 100 * value

        levels = {f"{100 * level:g}": share(f"box_maxboxacc_{100 * level:g}") for level in LEVELS}
        return {
            "MaxBoxAcc": share("recall50_top1"),
            "MaxBoxAccV2": {**levels, "mean": share("box_maxboxacc_v2")},
            "iou": self.figures["iou_top1"],
            "top1_loc": share("top1_loc"),
        }

    def values(self) -> dict[str, Array]:
        """Return the values of intervals and paired tests: one value of each figure a scored row."""
        top = self.ious["iou_top1"]
        shares = np.mean([top >= level for level in LEVELS], axis=0)
        named = {name: self.ious[name] for name in ("iou_top1", "iou_best5", "iou_centre")}
        return {**named, "recall50_top1": (top >= 0.5).astype(float), "box_maxboxacc_v2": shares}


def score_boxes(view: StageView, truth: Truth) -> BoxScores:
    """Score the boxes of every row of a stage that has a commit record and is not quarantined."""
    return score_blocks(_stored(view, truth), truth)


def score_centred(truth: Truth, left_out: Array | None = None) -> BoxScores:
    """Score a centred box of 0.8 of each side in every row.

    Parameters
    ----------
    left_out : bool array [N], optional
        Rows counted as quarantined; those whose image cannot be read by default.
    """
    rows = np.arange(len(truth.rows))
    boxes = centred_boxes(truth.rows.sizes.astype(np.float64))[:, None]
    return score_blocks([(rows, truth.rows.quarantined if left_out is None else left_out, boxes)], truth)


def score_blocks(blocks: Iterable[tuple[Array, Array, Array]], truth: Truth) -> BoxScores:
    """Score boxes block by block.

    Parameters
    ----------
    blocks : iterable of (int [B], bool [B], float [B, K, 4])
        Rows, which of them are quarantined, and their boxes, best first: half-open xyxy in pixels of the image, NaN
        where there is none.
    """
    found, quarantined = BoxEvaluation(), 0
    rows: list[Array] = [np.zeros(0, np.int64)]
    ious: list[dict[str, Array]] = []
    for numbers, bad, boxes in blocks:
        left = truth.rows.left[numbers]
        kept = np.flatnonzero(~bad & ~left)
        quarantined += int((bad & ~left).sum())
        mine = numbers[kept]
        objectless = np.array([truth.rows.objectless(int(row)) for row in mine], np.bool_)
        seen = found.add_rows(boxes[kept], *truth.stacked(mine), truth.rows.sizes[mine], objectless)
        rows.append(mine[seen.places])
        ious.append(seen.values)
    return gather_scores({**found.result(), "rows_quarantined": quarantined}, rows, ious)


def gather_scores(figures: dict[str, Any], rows: list[Array], ious: list[dict[str, Array]]) -> BoxScores:
    """Scores of blocks of rows; `ious` as `wsolpipe.metrics.boxes.RowIous.values`."""
    names = ("iou_top1", "iou_best5", "iou_candidates", "iou_upper", "iou_centre")
    columns = {name: np.concatenate([np.zeros(0), *(each[name] for each in ious)]) for name in names}
    return BoxScores(figures, np.concatenate(rows), columns)


def _stored(view: StageView, truth: Truth) -> Iterator[tuple[Array, Array, Array]]:
    for record in view.committed().values():
        for start in range(record.start, min(record.stop, len(truth.rows)), AT_ONCE):
            stop = min(start + AT_ONCE, record.stop, len(truth.rows))
            boxes = np.asarray(view["boxes"][start:stop], np.float64).reshape(stop - start, -1, 4)
            yield np.arange(start, stop), view["status"][start:stop] == Status.QUARANTINED, boxes
