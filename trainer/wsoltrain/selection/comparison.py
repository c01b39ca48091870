"""What a localizer is worth: its figures beside those of its pseudo-labels, of a stage's maps and of a centred box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.reader import open_store
from wsolpipe.metrics import BoxEvaluation, MaxBoxEvaluation, standard_boxes, standard_maps
from wsolpipe.metrics.boxes import centred_box
from wsolpipe.metrics.protocol import estimate_tau, figures
from wsoltrain.data.stored_rows import StoredRows
from wsoltrain.selection.evaluation import boxes_of

if TYPE_CHECKING:
    from wsoltrain.data.config import Labelling
    from wsoltrain.selection.evaluation import Boxes


@dataclass(frozen=True)
class Line:
    """One method on one split.

    Attributes
    ----------
    name : str
        Of the method.
    accuracy, v2 : float
        MaxBoxAcc and MaxBoxAccV2, per cent.
    iou : float
        Mean IoU.
    threshold : str
        Where its boxes come from.
    """

    name: str
    accuracy: float
    v2: float
    iou: float
    threshold: str


def box_figures(labelling: Labelling, truth: Boxes, stage: str | None) -> dict[str, Any] | None:
    """Figures of a stage's boxes, or of the centred box where `stage` is None; None where the split lacks the stage."""
    sizes = StoredRows(labelling).sizes
    stored = np.array([centred_box(*map(float, size)) for size in sizes])
    if stage is not None:
        split = open_store(labelling.store)[labelling.dataset][labelling.split]
        try:
            stored = np.asarray(split.stage(stage)["boxes"][:], np.float64)
        except StoreError:
            return None
    score = BoxEvaluation()
    for row, boxes in enumerate(stored.reshape(len(stored), -1, 4)):
        width, height = (float(edge) for edge in sizes[row])
        score.add(boxes, truth.get(row, np.zeros((0, 4))), size=(width, height))
    return dict(score.result())


def map_figures(labelling: Labelling, truth: Boxes, stage: str, *, tau: float | None = None) -> dict[str, Any] | None:
    """Figures of the first map of each row of a stage, at `tau` or at each figure's own best threshold.

    None where the split has no such stage.
    """
    score = _scored(labelling, truth, stage)
    return None if score is None else dict(score.result(tau=tau))


def map_tau(labelling: Labelling, pseudo: Boxes, stage: str) -> float | None:
    """Threshold at which a stage's maps agree best with boxes, or None where the split has no such stage."""
    score = _scored(labelling, pseudo, stage)
    return None if score is None else estimate_tau(figures(score))


def _scored(labelling: Labelling, truth: Boxes, stage: str) -> MaxBoxEvaluation | None:
    split = open_store(labelling.store)[labelling.dataset][labelling.split]
    try:
        stored = split.stage(stage)
    except StoreError:
        return None
    maps = np.asarray(stored["maps"][:], np.float32)[:, 0]
    extents = (
        np.asarray(stored["grid_hw"][:], int) if "grid_hw" in stored.manifest.arrays else [maps.shape[1:]] * len(maps)
    )
    sizes = StoredRows(labelling).sizes
    score = MaxBoxEvaluation(thresholds=1000)
    for row, (grid, (height, width)) in enumerate(zip(maps, extents, strict=True)):
        boxes = standard_boxes(truth[row], tuple(sizes[row])) if row in truth else np.zeros((0, 4))
        score.add([standard_maps(grid[:height, :width])], [boxes])
    return score


def compare(
    localizer: dict[str, Any], tau_from: str, truth: Boxes, labelling: Labelling, *, boxes: str | None,
    maps: str | None, val: Labelling | None = None, by: str = "proposals",
) -> list[Line]:  # fmt: skip
    """Lines of the table: centred box, maps, pseudo-boxes, localizer; without the stages that the split lacks.

    Parameters
    ----------
    localizer : dict
        Its figures, as `MaxBoxEvaluation.result` gives them.
    tau_from : str
        Where its threshold comes from.
    truth : Boxes
        What all are scored against.
    labelling : Labelling
        Store and split.
    boxes, maps : str or None
        Stages to be compared with.
    val : Labelling, optional
        Split on which the maps' threshold is chosen, by the boxes of `by`; without it, only their best one is shown.
    by : str
        Stage, as in `boxes_of`.
    """
    lines = [_of_boxes("centred box", box_figures(labelling, truth, None))]
    if maps is not None:
        if val is not None:
            tau = map_tau(val, boxes_of(val, by), maps)
            chosen = None if tau is None else map_figures(labelling, truth, maps, tau=tau)
            lines.append(_of_maps(maps, chosen, f"{tau:.3f} by {by} of {val.split}" if tau is not None else ""))
        lines.append(_of_maps(maps, map_figures(labelling, truth, maps), "its best on these images"))
    if boxes is not None:
        lines.append(_of_boxes(boxes, box_figures(labelling, truth, boxes)))
    lines.append(_of_maps("localizer", localizer, f"{localizer['tau']:.3f} by {tau_from}"))
    return [line for line in lines if line is not None]


def _of_boxes(name: str, told: dict[str, Any] | None) -> Line | None:
    if told is None:
        return None
    return Line(name, 100 * told["recall50_top1"], 100 * told["box_maxboxacc_v2"], told["iou_top1"], "")


def _of_maps(name: str, told: dict[str, Any] | None, threshold: str) -> Line | None:
    if told is None:
        return None
    return Line(name, told["MaxBoxAcc"], told["MaxBoxAccV2"]["mean"], told["iou"], threshold)


def beats(lines: list[Line]) -> dict[str, bool]:
    """Whether the last line is above each other method in MaxBoxAccV2 and in mean IoU, at all its thresholds."""
    *others, own = lines
    verdict: dict[str, bool] = {}
    for other in others:
        verdict[other.name] = verdict.get(other.name, True) and own.v2 > other.v2 and own.iou > other.iou
    return verdict
