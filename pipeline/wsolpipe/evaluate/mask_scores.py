"""Figures of a stage of masks, such as ``val_masks``, against ground-truth masks or a folder of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.metrics.boxes import centred_box

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]


@dataclass
class MaskEvaluation:
    """Figures of binary masks, row by row, as fractions.

    A row of a class without an object has no IoU; it is a true negative where its mask is empty. Pixels that the
    truth ignores count neither way.

    Attributes
    ----------
    rows : list of int
        Scored rows, in the order of `ious`.
    ious, centre : list of float
        IoU of each of these rows, and of a centred box of 0.8 of each side in the place of its mask.
    errors : list of float
        1 - AUC of each of these rows' masks: half of the object's share that it misses and of the rest that it takes.
    pooled : int array [3]
        Pixels of all these rows: of both, of the mask, of the reference.
    """

    rows: list[int] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    centre: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    pooled: Array = field(default_factory=lambda: np.zeros(3, np.int64))
    empty: int = 0
    objectless: int = 0
    true_negatives: int = 0

    def add(self, row: int, mask: Array, truth: Array, ignore: Array | None, *, objectless: bool) -> None:
        """Count the mask of one row, bool [side, side] like `truth` and `ignore`."""
        if objectless:
            self.objectless += 1
            self.true_negatives += int(not mask.any())
            return
        counted = np.ones_like(truth) if ignore is None else truth | ~ignore
        left, top, right, bottom = np.rint(centred_box(*mask.shape[::-1])).astype(int)
        middle = np.zeros_like(mask)
        middle[top:bottom, left:right] = True
        self.rows.append(row)
        self.ious.append(_iou(mask & counted, truth))
        self.centre.append(_iou(middle & counted, truth))
        missed, taken = (_share(mask_of, of) for mask_of, of in ((~mask, truth), (mask, counted & ~truth)))
        self.errors.append((missed + taken) / 2)
        self.empty += int(not mask.any())
        self.pooled += ((mask & truth).sum(), (mask & counted).sum(), truth.sum())

    def result(self) -> dict[str, Any]:
        """Means over rows, then figures of all pixels together; None where nothing counts."""
        both, found, wanted = (int(value) for value in self.pooled)
        return {
            "rows_scored": len(self.rows),
            "rows_empty_mask": self.empty,
            "rows_objectless": self.objectless,
            "true_negatives": self.true_negatives,
            "mask_iou": float(np.mean(self.ious)) if self.rows else None,
            "mask_iou_centre": float(np.mean(self.centre)) if self.rows else None,
            "mask_error": float(np.mean(self.errors)) if self.rows else None,
            "mask_iou_50": float(np.mean(np.array(self.ious) >= 0.5)) if self.rows else None,
            "pixel_iou": both / max(found + wanted - both, 1) if self.rows else None,
            "pixel_precision": both / found if found else None,
            "pixel_recall": both / wanted if wanted else None,
        }


def score_masks(view: StageView, truth: Truth) -> tuple[dict[str, Any], MaskEvaluation]:
    """Score every row of a finished stage of masks that `truth` has a mask of.

    Returns
    -------
    figures, evaluation
        Quarantined rows and rows without a true mask are counted beside the figures.

    Raises
    ------
    ConfigError
        If `truth` has no masks.
    BadImageError, DataError
        If a mask file cannot be read.
    """
    if not truth.masks:
        msg = f"{truth.name} of {truth.rows.split} holds no masks, and {view.stage} is scored against masks"
        raise ConfigError(msg, hint="name them in the data set's YAML (masks:), or against=FOLDER of mask images")
    found, without, missing, quarantined = MaskEvaluation(), 0, 0, 0
    for record in view.committed().values():
        span = slice(record.start, record.stop)
        columns = view["status"][span], view["masks"][span]
        for row, status, mask in zip(range(record.start, record.stop), *columns, strict=True):
            if status == Status.QUARANTINED or truth.rows.left[row]:
                quarantined += int(not truth.rows.left[row])
                continue
            missing += int(status == Status.ABSENT)
            wanted = truth.mask(row, len(mask))
            if wanted is None:
                without += 1
            else:
                found.add(row, mask != 0, *wanted, objectless=truth.rows.objectless(row))
    rows = without + len(found.rows) + found.objectless
    counted = {"rows": rows, "rows_without_mask": without, "rows_missing": missing}
    return {**counted, **found.result(), "rows_quarantined": quarantined}, found


def compare_masks(found: Truth, truth: Truth, side: int = 224) -> dict[str, Any]:
    """Figures of the masks of an annotator, such as noisy ground truth, in a frame of `side`² pixels.

    Rows without a mask in either are left out.

    Raises
    ------
    ConfigError
        If one of the two has no masks.
    BadImageError, DataError
        If a mask file cannot be read.
    """
    for each in (found, truth):
        if not each.masks:
            msg = f"{each.name} of {each.rows.split} holds no masks to compare"
            raise ConfigError(msg)
    evaluation = MaskEvaluation()
    for row in sorted(truth.masks.keys() & found.masks.keys()):
        mine, wanted = found.mask(row, side), truth.mask(row, side)
        if mine is not None and wanted is not None and wanted[0].any():
            evaluation.add(row, mine[0], *wanted, objectless=truth.rows.objectless(row))
    return evaluation.result()


def _share(mask: Array, of: Array) -> float:
    whole = int(of.sum())
    return int((mask & of).sum()) / whole if whole else 0.0


def _iou(mask: Array, truth: Array) -> float:
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 0.0
