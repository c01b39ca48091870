"""Figures of a stage of boxes, of maps or of masks, or of a folder of maps, against ground truth or pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.bootstrap import compare_maps, intervals_of, map_values, other_view, plain
from wsolpipe.evaluate.box_scores import BoxScores, score_boxes
from wsolpipe.evaluate.class_ranks import RankedMaps
from wsolpipe.evaluate.map_scores import MapScores, score_maps
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.evaluate.mask_scores import score_masks
from wsolpipe.evaluate.over_time import over_time
from wsolpipe.evaluate.rows import check_rows, rows_of_index
from wsolpipe.evaluate.tau import Chooser, folder_source, make_chooser, noise_study, select_tau
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.evaluate.val_boxes import is_val_boxes, score_val_boxes
from wsolpipe.metrics.confidence import compare, interval

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.map_sources import MapSource, StoredSource
    from wsolpipe.evaluate.options import Options
    from wsolpipe.evaluate.results import Results
    from wsolpipe.evaluate.rows import RowTable
    from wsolpipe.evaluate.truth import Truth
    from wsolpipe.metrics.protocol import Metric

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Evaluated:
    """Figures, and the data of their curves and plots.

    Attributes
    ----------
    figures : dict
    maps : MapScores or None
    view : StageView or None
        The stage that was scored; None for a folder.
    ious : dict of str to float array [rows]
        Of boxes: ``iou_top1``, ``iou_best5``, ``iou_centre`` of each scored row; of masks ``mask_iou``,
        ``mask_iou_centre``.
    """

    figures: dict[str, Any]
    maps: MapScores | None = None
    view: StageView | None = None
    ious: dict[str, Array] = field(default_factory=dict)


def evaluate(results: Results, stage: str | None, split: str, options: Options) -> Evaluated:
    """Score a stage of boxes, of maps or of masks, or a folder of maps.

    Parameters
    ----------
    results : Results
        Where stages and rows are looked up.
    stage : str or None
        None for the folder ``options.maps``.
    split : str
    options : Options

    Raises
    ------
    ConfigError
        If the stage holds neither boxes nor maps nor masks, the folder no map of the split, or options contradict
        each other.
    StoreError
        If the stage is not there or not finished.
    DataError
        If a map or mask cannot be read or scored.
    """
    if stage is None:
        rows = results.rows(split)
        head = {"maps": options.maps, "dataset": results.dataset, "split": split}
        return _score_maps(results, folder_source(options, rows), rows, options, head, None)
    view = results.view(stage, split, options.key)
    rows = rows_of_index(results.index_of(view))
    head = {"stage": stage, "dataset": view.dataset, "split": split, "key": view.key}
    arrays = view.manifest.arrays
    if {"boxes", "maps"} <= arrays.keys():
        return _score_both(results, view, rows, options.of_predictions(view.manifest.params), head)
    if "boxes" in arrays:
        return _score_boxes(results, view, rows, options, head)
    if "maps" in arrays:
        return _score_maps(results, options.source(view, options.slot, rows), rows, options, head, view)
    if "masks" in arrays:
        return _score_masks(results, view, rows, options, head)
    msg = f"stage {stage} holds neither boxes nor maps nor masks, but {', '.join(sorted(arrays))}"
    raise ConfigError(msg)


def _score_both(results: Results, view: StageView, rows: RowTable, options: Options, head: dict[str, Any]) -> Evaluated:
    """Figures of the maps, at the stage's own threshold unless another is asked for, and beside them of its boxes."""
    found = _score_maps(results, options.source(view, options.slot, rows), rows, options, head, view)
    if found.figures.get("tau_from") == "given" and options.tau == view.manifest.params.get("tau"):
        found.figures["tau_from"] = f"the stage {view.stage}"
    truth = _truth(results, rows, options)
    scores = score_boxes(view, truth) if truth.found else None
    if scores is not None:
        found.figures["boxes"] = scores.figures
    found.figures.update(_video(results, view, scores))
    return found


def _truth(results: Results, rows: RowTable, options: Options) -> Truth:
    """What counts as right, of the rows that are asked for."""
    truth = find_truth(results, rows, options.against)
    if options.rows is None:
        return truth
    return truth.of_rows(options.rows.find(rows.ids, dataset=results.dataset, split=rows.split))


def _video(results: Results, view: StageView, scores: BoxScores | None) -> dict[str, Any]:
    """Figures over time, where rows have groups."""
    found = over_time(view, results.index_of(view), scores)
    return {"video": found} if found else {}


def score_view(view: StageView, truth: Truth) -> BoxScores:
    """Figures of a stage of boxes; with those of its steps where it keeps them."""
    return score_val_boxes(view, truth) if is_val_boxes(view) else score_boxes(view, truth)


def _score_boxes(
    results: Results, view: StageView, rows: RowTable, options: Options, head: dict[str, Any]
) -> Evaluated:
    _refuse_threshold(view, options, "boxes")
    truth = _truth(results, rows, options)
    found = score_view(view, truth)
    result = {**head, "against": truth.name, **found.figures, **_video(results, view, found)}
    if options.interval and len(found.rows):
        result["intervals"] = {name: plain(interval(values)) for name, values in found.values().items()}
    if options.beside:
        other = _other(results, view, rows, options.beside)
        second = score_boxes(other, truth)
        result["beside"] = {
            "stage": other.stage,
            "key": other.key,
            **_paired(found.rows, found.values(), second.rows, second.values()),
        }
    ious = {name: found.ious[name] for name in ("iou_top1", "iou_best5", "iou_centre")}
    return Evaluated(result, view=view, ious=ious)


def _score_masks(
    results: Results, view: StageView, rows: RowTable, options: Options, head: dict[str, Any]
) -> Evaluated:
    _refuse_threshold(view, options, "masks")
    truth = _truth(results, rows, options)
    figures, found = score_masks(view, truth)
    result = {**head, "against": truth.name, **figures}
    ious = {"mask_iou": np.array(found.ious)}
    if options.interval and found.rows:
        result["intervals"] = {"mask_iou": plain(interval(ious["mask_iou"]))}
    if options.beside:
        other = _other(results, view, rows, options.beside)
        _, second = score_masks(other, truth)
        tests = _paired(np.array(found.rows), ious, np.array(second.rows), {"mask_iou": np.array(second.ious)})
        result["beside"] = {"stage": other.stage, "key": other.key, **tests}
    return Evaluated(result, view=view, ious={**ious, "mask_iou_centre": np.array(found.centre)})


def _other(results: Results, view: StageView, rows: RowTable, key: str) -> StageView:
    """Another result of the same stage, or another stage, and the same rows."""
    other = other_view(results, view, key)
    check_rows(other, rows)
    return other


def _paired(rows: Array, mine: dict[str, Array], rows_2: Array, theirs: dict[str, Array]) -> dict[str, Any]:
    """Paired test of each figure on the rows that both results are scored on."""
    _, first, second = np.intersect1d(rows, rows_2, return_indices=True)
    tests = {name: plain(compare(values[first], theirs[name][second])) for name, values in mine.items()}
    return {"rows": len(first), **tests}


def _refuse_threshold(view: StageView, options: Options, kind: str) -> None:
    given = {name for name in ("tau", "tau_from", "noise", "metric", "corloc") if getattr(options, name) is not None}
    given |= {"select"} if options.source is not StageMaps else set()
    given |= {"classifier"} if options.ranks is not None else set()
    if given:
        msg = f"{', '.join(sorted(given))}: {view.stage} holds {kind}, which have no threshold"
        raise ConfigError(msg, hint="these words are for maps")


def _score_maps(
    results: Results,
    source: StoredSource,
    rows: RowTable,
    options: Options,
    head: dict[str, Any],
    view: StageView | None,
) -> Evaluated:
    tau: float | None = options.tau
    chosen: dict[str, Any] = {"tau_from": "given"} if options.tau is not None else {}
    if options.tau_from is not None:
        tau, chosen = select_tau(make_chooser(results, options, view))
    truth = _truth(results, rows, options)
    if options.tau_from is not None:
        chosen["oracle"] = chosen["tau_from"] == f"{truth.name} of {rows.split}"
    keep = options.interval or options.beside is not None
    by_class = options.corloc is not None
    ranks = None if options.ranks is None else options.ranks(rows)
    shown: MapSource = source if ranks is None else RankedMaps(source, ranks)
    scores = score_maps(shown, truth, options.frame(), threads=options.threads, keep=keep, classes=by_class)
    result = {**head, "against": truth.name, **source.origin, **({"classifier": ranks.name} if ranks else {})}
    result |= {**scores.result(tau), **chosen}
    if options.corloc == "class" and "CorLoc" in result:
        result["CorLoc"] = scores.boxes.corloc(class_oracle=True)
    if options.interval:
        result["intervals"] = intervals_of(map_values(scores, tau))
    if options.beside is not None:
        result["beside"] = compare_maps(results, scores, tau, options, view)
    if options.noise is not None:
        metric = cast("Metric | None", options.metric)
        chooser = Chooser(source, truth, options.frame(), metric, options.threads)
        if options.tau_from is not None:
            chooser = make_chooser(results, options, view)
        result["noise"] = noise_study(chooser, scores, options.noise, options.seed)
    return Evaluated(result, scores, view)
