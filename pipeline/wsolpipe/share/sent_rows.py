"""Which rows to send out for correction: a range, those with the worst boxes, or those that are most disputed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.box_scores import score_boxes
from wsolpipe.evaluate.doubt import doubtful_rows
from wsolpipe.evaluate.rows import rows_of_index
from wsolpipe.keys.row_list import names_list, read_row_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]
_RANGE = re.compile(r"(\d{0,15}):(\d{0,15})")
_RANKED = re.compile(r"(worst|disputed|doubtful):([1-9]\d{0,14})")


def sent_rows(
    word: str | None, view: StageView, truth: Truth | None, others: Callable[[], Iterable[StageView]] = tuple
) -> Array:
    """Rows that a word names, bool [N].

    Parameters
    ----------
    word : str or None
        ``start:stop``; ``@FILE``, a list that a report saved; ``worst:n``, the n rows whose first box fits `truth`
        least, or without it has the lowest score, rows without a box first; ``disputed:n``, the same, which needs
        a `truth`, such as another annotator; ``doubtful:n``, the n rows of `wsolpipe.evaluate.doubt`. None is
        every row.
    truth : Truth or None
        What first boxes are compared with; rows that it holds no box of are neither worst nor disputed.
    others : callable
        Gives further stages of the same rows, which may disagree with this one.

    Raises
    ------
    ConfigError
        If the word is another, `truth` is needed and missing, or the stage has no boxes.
    """
    rows = np.zeros(view.manifest.rows, np.bool_)
    if word is None:
        return ~rows
    if names_list(word):
        ids = view.index().table(["image_id"]).column("image_id").to_pylist()[: len(rows)]
        rows[read_row_list(word).find(ids, dataset=view.dataset, split=view.split)] = True
        return rows
    if match := _RANGE.fullmatch(word):
        rows[int(match[1] or 0) : int(match[2]) if match[2] else None] = True
        if not rows.any():
            msg = f"rows={word} holds none of the {len(rows)} rows"
            raise ConfigError(msg, hint="rows=start:stop counts from 0 and leaves out the stop")
        return rows
    ranked = _RANKED.fullmatch(word)
    if ranked is None:
        msg = f"rows={word}: write start:stop, @FILE, worst:n, disputed:n or doubtful:n"
        raise ConfigError(msg, hint="rows=worst:200 sends the 200 rows with the worst boxes")
    if ranked[1] == "doubtful":
        order = doubtful_rows([view, *others()], rows_of_index(view.index()), truth)
        rows[order[: int(ranked[2])]] = True
        return rows
    if "boxes" not in view.manifest.arrays:
        msg = f"rows={word}: stage {view.stage} has no boxes that could be compared"
        raise ConfigError(msg, hint="rows=start:stop works with every stage")
    if truth is None and ranked[1] == "disputed":
        msg = f"rows={word} needs against=, with which the boxes are compared"
        raise ConfigError(msg, hint="such as against=val_boxes, against=truth or against=localization.txt")
    rows[(_by_fit(view, truth) if truth is not None else _by_score(view))[: int(ranked[2])]] = True
    return rows


def _by_fit(view: StageView, truth: Truth) -> Array:
    scores = score_boxes(view, truth)
    if not len(scores.rows):
        msg = f"{truth.name} holds no box of a row of {view.stage} of {view.split}"
        raise ConfigError(msg, hint="against= names boxes of the same split")
    return scores.rows[np.argsort(scores.ious["iou_top1"], kind="stable")]


def _by_score(view: StageView) -> Array:
    if "scores" not in view.manifest.arrays:
        msg = f"stage {view.stage} keeps no scores by which its worst rows are known"
        raise ConfigError(msg, hint="against=truth or against=STAGE compares boxes instead")
    scores = np.full(view.manifest.rows, np.nan)
    for record in view.committed().values():
        span = slice(record.start, record.stop)
        first = np.asarray(view["scores"][span], np.float64).reshape(record.stop - record.start, -1)[:, 0]
        scores[span] = np.where(view["status"][span] == Status.OK, first, np.nan)
    usable = np.flatnonzero(view.status() == Status.OK)
    own = np.nan_to_num(scores[usable], nan=-np.inf)
    return np.asarray(usable[np.argsort(own, kind="stable")])
