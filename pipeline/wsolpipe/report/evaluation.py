"""Figures of a stage's boxes or maps, or of a folder of maps, against ground truth or pseudo-boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.engine.lookup import find_view, index_of, require_complete
from wsolpipe.metrics.boxes import LEVELS, BoxEvaluation, centred_box, iou_per_box
from wsolpipe.metrics.confidence import compare, interval
from wsolpipe.report.bootstrap import compare_maps, map_intervals, plain
from wsolpipe.report.maps import MapScores, otsu_box, score_maps
from wsolpipe.report.mapsources import StageMaps
from wsolpipe.report.masks import score_masks
from wsolpipe.report.options import Options
from wsolpipe.report.reference import NO_BOX, Reference, boxes_by_row, check_rows, make_reference, truth_boxes
from wsolpipe.report.rows import RowTable, rows_of_index, rows_of_split
from wsolpipe.report.selection import Chooser, folder_source, make_chooser, noise_study, select_tau
from wsolpipe.report.val_boxes import is_val_boxes, score_val_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.reader import Index, StageView
    from wsolpipe.engine.session import Session
    from wsolpipe.report.mapsources import MapSource

__all__ = ["Evaluated", "Options", "Scored", "attach_truth", "evaluate", "otsu_box", "score", "truth_boxes"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Evaluated:
    """Figures, and what their curves and plots are drawn from.

    Attributes
    ----------
    figures : dict
    maps : MapScores or None
    ious : dict of str to float array [rows]
        Of boxes: ``iou_top1``, ``iou_best5``, ``iou_centre`` of each scored row; of masks ``mask_iou``,
        ``mask_iou_centre``.
    """

    figures: dict[str, Any]
    maps: MapScores | None = None
    ious: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """A finished stage of one split beside what its rows are held against.

    Attributes
    ----------
    view : StageView
        What is scored.
    index : Index
        The split's rows as they are known now; ground truth may have been added since the stage ran.
    truth : dict of int to float64 array [M, 4]
        Boxes by row, half-open, pixels of the image.
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


def attach_truth(view: StageView, index: Index, reference: Reference | None = None) -> Scored:
    """Join a stage with the ground truth of its split's index, or with another reference."""
    rows = rows_of_index(index) if reference is None else reference.rows
    truth = boxes_by_row(*truth_boxes(index)) if reference is None else reference.found
    silent = frozenset(row for row in range(len(rows)) if rows.objectless(row)) if rows.silent else frozenset()
    return Scored(view, index, truth, rows.sizes, silent)


def evaluate(
    session: Session,
    stage: str | None,
    split: str,
    *,
    slot: int = 0,
    key: str | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """Figures of `score` alone."""
    return score(session, stage, split, replace(options or Options(), slot=slot, key=key)).figures


def score(session: Session, stage: str | None, split: str, options: Options) -> Evaluated:
    """Score a stage of boxes, of maps or of masks, or a folder of maps.

    Parameters
    ----------
    stage : str or None
        None for the folder ``options.maps``.

    Raises
    ------
    ConfigError
        If the stage holds neither boxes nor maps nor masks, or options contradict each other.
    StoreError
        If it is not there or not finished.
    DataError
        If a map or mask cannot be read or scored.
    """
    if stage is None:
        rows = rows_of_split(session, split)
        head = {"maps": options.maps, "dataset": session.dataset.name, "split": split}
        return _score_maps(session, folder_source(options, rows), rows, options, head, None)
    view = find_view(session, stage, split, key=options.key)
    require_complete(view)
    index = index_of(session, view)
    rows = rows_of_index(index)
    head = {"stage": stage, "dataset": view.dataset, "split": split, "key": view.key}
    arrays = view.manifest.arrays
    if "boxes" in arrays:
        return _score_boxes(session, view, rows, options, head)
    if "maps" in arrays:
        return _score_maps(session, StageMaps(view, options.slot, rows), rows, options, head, view)
    if "masks" in arrays:
        return _score_masks(session, view, rows, options, head)
    msg = f"stage {stage} holds neither boxes nor maps nor masks, but {', '.join(sorted(arrays))}"
    raise ConfigError(msg)


def _score_boxes(
    session: Session, view: StageView, rows: RowTable, options: Options, head: dict[str, Any]
) -> Evaluated:
    _refuse_threshold(view, options, "boxes")
    assert rows.index is not None
    reference = make_reference(session, rows, options.against)
    scored = attach_truth(view, rows.index, reference)
    found, quarantined = (score_val_boxes if is_val_boxes(view) else _box_figures)(scored)
    result = {**head, "against": reference.name, **found, "rows_quarantined": quarantined}
    numbers, ious = _row_ious(scored)
    if options.interval and len(numbers):
        result["intervals"] = {name: plain(interval(values)) for name, values in _box_values(ious).items()}
    if options.beside:
        other = find_view(session, view.stage, view.split, key=options.beside)
        require_complete(other)
        check_rows(other, rows)
        numbers_2, ious_2 = _row_ious(attach_truth(other, rows.index, reference))
        _, first, second = np.intersect1d(numbers, numbers_2, return_indices=True)
        pairs = zip(_box_values(ious).items(), _box_values(ious_2).values(), strict=True)
        tests = {name: plain(compare(mine[first], theirs[second])) for (name, mine), theirs in pairs}
        result["beside"] = {"key": other.key, "rows": len(first), **tests}
    return Evaluated(result, ious=ious)


def _score_masks(
    session: Session, view: StageView, rows: RowTable, options: Options, head: dict[str, Any]
) -> Evaluated:
    _refuse_threshold(view, options, "masks")
    reference = make_reference(session, rows, options.against)
    figures, found = score_masks(view, rows, reference)
    result = {**head, "against": reference.name, **figures}
    if options.interval and found.rows:
        result["intervals"] = {"mask_iou": plain(interval(np.array(found.ious)))}
    if options.beside:
        other = find_view(session, view.stage, view.split, key=options.beside)
        require_complete(other)
        check_rows(other, rows)
        _, second = score_masks(other, rows, reference)
        _, mine, theirs = np.intersect1d(found.rows, second.rows, return_indices=True)
        test = plain(compare(np.array(found.ious)[mine], np.array(second.ious)[theirs]))
        result["beside"] = {"key": other.key, "rows": len(mine), "mask_iou": test}
    return Evaluated(result, ious={"mask_iou": np.array(found.ious), "mask_iou_centre": np.array(found.centre)})


def _refuse_threshold(view: StageView, options: Options, kind: str) -> None:
    given = {name for name in ("tau", "tau_from", "noise", "metric") if getattr(options, name) is not None}
    if given:
        msg = f"{', '.join(sorted(given))}: {view.stage} holds {kind}, which have no threshold"
        raise ConfigError(msg, hint="these words are for maps")


def _box_figures(scored: Scored) -> tuple[dict[str, Any], int]:
    found, quarantined = BoxEvaluation(), 0
    for start, status, (boxes,) in scored.shards("boxes"):
        quarantined += int((status == Status.QUARANTINED).sum())
        for offset in np.flatnonzero(status != Status.QUARANTINED):
            row = start + int(offset)
            truth = scored.truth.get(row, NO_BOX)
            width, height = scored.sizes[row]
            found.add(boxes[offset], truth, size=(width, height), objectless=row in scored.objectless)
    return found.result(), quarantined


def _row_ious(scored: Scored) -> tuple[Array, dict[str, Array]]:
    """Rows that count, and the IoU of each: of its first box, the best of five, the centred box."""
    rows: list[int] = []
    values: list[tuple[float, float, float]] = []
    for start, status, (boxes,) in scored.shards("boxes"):
        for offset in np.flatnonzero(status != Status.QUARANTINED):
            row = start + int(offset)
            truth = scored.truth.get(row, NO_BOX)
            if not len(truth) or row in scored.objectless:
                continue
            ious = iou_per_box(boxes[offset], truth)
            centre = iou_per_box(centred_box(*(float(side) for side in scored.sizes[row])), truth)
            rows.append(row)
            values.append((float(ious[:1].max(initial=0)), float(ious[:5].max(initial=0)), float(centre[0])))
    columns = np.array(values, np.float64).reshape(-1, 3).T
    return np.array(rows, np.int64), dict(zip(("iou_top1", "iou_best5", "iou_centre"), columns, strict=True))


def _box_values(ious: dict[str, Array]) -> dict[str, Array]:
    top = ious["iou_top1"]
    shares = np.mean([top >= level for level in LEVELS], axis=0)
    return {**ious, "recall50_top1": (top >= 0.5).astype(float), "box_maxboxacc_v2": shares}


def _score_maps(
    session: Session,
    source: MapSource,
    rows: RowTable,
    options: Options,
    head: dict[str, Any],
    view: StageView | None,
) -> Evaluated:
    threads = session.config.threads or None
    tau, chosen = options.tau, {"tau_from": "given"} if options.tau is not None else {}
    if options.tau_from is not None:
        tau, chosen = select_tau(make_chooser(session, options, view))
    reference = make_reference(session, rows, options.against)
    keep = options.interval or options.beside is not None
    scores = score_maps(source, reference, options.frame(), threads=threads, keep=keep)
    result = {**head, "against": reference.name, **({"map": options.slot} if view is not None else {})}
    result |= {**scores.result(tau), **chosen, "rows_quarantined": scores.quarantined}
    if options.interval:
        result["intervals"] = map_intervals(scores, tau)
    if options.beside is not None:
        result["beside"] = compare_maps(session, scores, tau, reference, options, view)
    if options.noise is not None:
        chooser = Chooser(source, reference, options.frame(), options.metric, threads)
        if options.tau_from is not None:
            chooser = make_chooser(session, options, view)
        result["noise"] = noise_study(chooser, scores, options.noise, session.config.seed)
    return Evaluated(result, scores)
