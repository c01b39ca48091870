"""A localizer beside its pseudo-labels, a stage's maps and a centred box: one table, every line scored alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.evaluate.box_scores import score_boxes, score_centred
from wsolpipe.evaluate.frame import Frame
from wsolpipe.evaluate.map_scores import score_maps
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.evaluate.otsu_scores import score_otsu
from wsolpipe.evaluate.rows import check_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.box_scores import BoxScores
    from wsolpipe.evaluate.map_scores import MapScores
    from wsolpipe.evaluate.tau import Chooser
    from wsolpipe.evaluate.truth import Truth

OTSU = "Otsu of each map"
"""Text of a line for boxes for which no threshold was chosen."""


@dataclass(frozen=True)
class Line:
    """One method on one split; figures that its truth has no boxes or masks for are None.

    Attributes
    ----------
    name : str
        Of the method.
    accuracy, v2 : float or None
        MaxBoxAcc and MaxBoxAccV2, per cent.
    iou : float or None
        Mean IoU of boxes; pixel IoU where the truth is masks alone.
    threshold : str
        Threshold of its boxes and where it comes from.
    pxap : float or None
        PxAP, per cent.
    top1, top5, accuracy_top1 : float or None
        Top-1 and Top-5 localization and accuracy, per cent, where classes are predicted.
    oracle : bool
        Whether the threshold was chosen by the truth of the very images that are scored.
    rows, rows_quarantined : int
        Scored rows, and rows left out because their image cannot be read.
    """

    name: str
    accuracy: float | None
    v2: float | None
    iou: float | None
    threshold: str = ""
    pxap: float | None = None
    rows: int = 0
    rows_quarantined: int = 0
    top1: float | None = None
    top5: float | None = None
    accuracy_top1: float | None = None
    oracle: bool = False


def line_of_boxes(name: str, scores: BoxScores, threshold: str = "") -> Line:
    """Line of boxes for which no split chooses a threshold; `threshold` says what they were made by."""
    found, counts = scores.as_maps(), scores.figures
    rows, quarantined = counts["rows_scored"], counts["rows_quarantined"]
    v2 = found["MaxBoxAccV2"]["mean"]
    return Line(name, found["MaxBoxAcc"], v2, found["iou"], threshold, rows=rows, rows_quarantined=quarantined)


def line_of_maps(name: str, scores: MapScores, threshold: str, *, tau: float | None = None) -> Line:
    """Line of maps at `tau`, or with each figure at its own best threshold."""
    found = scores.result(tau)
    boxes = scores.metric != "PxAP"
    pixels = scores.pixels
    rows = scores.boxes.rows_scored if boxes or pixels is None else pixels.rows - pixels.rows_without_mask
    return Line(
        name, found["MaxBoxAcc"], found["MaxBoxAccV2"]["mean"], found["iou"] if boxes else found["pixel_iou"],
        threshold, found["PxAP"], rows, found["rows_quarantined"],
        found["top1_loc"], found["top5_loc"], found["accuracy_top1"], oracle=tau is None,
    )  # fmt: skip


def baselines(
    truth: Truth,
    *,
    boxes: Sequence[StageView] = (),
    maps: StageView | None = None,
    chooser: Chooser | None = None,
    otsu: bool = False,
) -> list[Line]:
    """Lines of a centred box, of the first map of a stage and of stages of boxes.

    Parameters
    ----------
    truth : Truth
        What all are scored against; boxes are left out where it holds masks alone.
    boxes, maps : StageView
        Finished stages of the rows of `truth`.
    chooser : Chooser, optional
        What chooses the threshold of the maps; a second line shows them at their best.
    otsu : bool
        Whether a line more shows the maps' boxes at each one's own Otsu threshold.

    Raises
    ------
    ConfigError
        If a stage was made of other rows.
    """
    for view in (*boxes, *([maps] if maps is not None else [])):
        check_rows(view, truth.rows)
    lines = [line_of_boxes("centred box", score_centred(truth))] if truth.found else []
    if maps is not None:
        scores = score_maps(StageMaps(maps, 0, truth.rows), truth, Frame(), details=False)
        if chooser is not None:
            tau, _ = chooser.choose()
            by = f"{tau:.3f} by {chooser.truth.name} of {chooser.truth.rows.split}"
            lines.append(line_of_maps(maps.stage, scores, by, tau=tau))
        lines.append(line_of_maps(maps.stage, scores, "its best on these images"))
        if otsu and truth.found:
            own = score_otsu(StageMaps(maps, 0, truth.rows), truth)
            lines.append(line_of_boxes(maps.stage, own, OTSU))
    if truth.found:
        lines += [line_of_boxes(view.stage, score_boxes(view, truth)) for view in boxes]
    return lines


def beats(own: Line, others: Sequence[Line]) -> dict[str, bool]:
    """Whether a line is above each other method in MaxBoxAccV2 (PxAP for masks) and in IoU, at all its thresholds."""
    verdict: dict[str, bool] = {}
    for other in others:
        pairs = [(own.iou, other.iou), (own.pxap, other.pxap) if own.v2 is None else (own.v2, other.v2)]
        better = all(mine is not None and theirs is not None and mine > theirs for mine, theirs in pairs)
        verdict[other.name] = verdict.get(other.name, True) and better
    return verdict
