"""What every figure is called, what it means and how it is printed; the one convention of numbers.

Printed: shares and IoU in per cent with one decimal (78.7), thresholds in 0..1 with three (0.312), counts whole. Files
and ``--json`` keep what scripts read: IoU and shares of boxes as fractions, accuracies of maps in per cent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

UNITS = "IoU and shares in per cent, thresholds of 0 to 1; wsolpipe eval glossary=true says what each word means"
Kind = Literal["fraction", "per cent", "threshold", "count", "text"]


@dataclass(frozen=True)
class Entry:
    """A figure.

    Attributes
    ----------
    name : str
        In JSON.
    shown : str
        In tables and on pages.
    kind : str
        How JSON holds it: ``fraction`` is printed times 100.
    meaning : str
        One sentence.
    """

    name: str
    shown: str
    kind: Kind
    meaning: str


GLOSSARY = (
    Entry(
        "iou",
        "mean IoU",
        "fraction",
        "Overlap of a box with the ground-truth box that it fits best, divided by their union; mean over "
        "rows. Of maps: of the largest contour, at the threshold that the line names.",
    ),
    Entry(
        "MaxBoxAcc",
        "MaxBoxAcc",
        "per cent",
        "Share of rows whose box has IoU of at least 50 %; of maps, at the threshold that makes it largest "
        "unless one was chosen beforehand (Choe et al., CVPR 2020).",
    ),
    Entry(
        "MaxBoxAccV2",
        "MaxBoxAccV2",
        "per cent",
        "Mean of that share at IoU 30, 50 and 70 %, over all contours of a map, each level at its own best "
        "threshold unless one was chosen beforehand.",
    ),
    Entry(
        "box_maxboxacc_v2",
        "MaxBoxAccV2 of boxes",
        "fraction",
        "Mean of the shares of rows whose first box has IoU of at least 30, 50 and 70 %: there is no "
        "threshold to choose.",
    ),
    Entry(
        "MaxBoxAcc_area",
        "MaxBoxAcc, all thresholds",
        "per cent",
        "Mean of that share over all thresholds: how little it matters which one is taken.",
    ),
    Entry(
        "errors",
        "errors",
        "fraction",
        "Shares of rows by outcome, in this order: wrong class; right (IoU above 50 %); multi-instance, MIE (the box "
        "covers over 30 % of two objects); then, of the object that fits best, part, LPE (over half of the box lies in "
        "it) and more, LME (70 % of it lies in the box); wrong (Gao et al., ICCV 2021).",
    ),
    Entry(
        "values_inside",
        "values inside",
        "fraction",
        "Shares of pixels inside objects by the value of the map, in ten bins from 0 to 1.",
    ),
    Entry(
        "values_outside",
        "values outside",
        "fraction",
        "The same for pixels outside.",
    ),
    Entry(
        "PxAP",
        "PxAP",
        "per cent",
        "Area under the curve of pixel precision against pixel recall over all thresholds, pixels of all "
        "images together.",
    ),
    Entry(
        "pixel_iou",
        "pixel IoU",
        "fraction",
        "Foreground pixels of all images together: of both, divided by of either.",
    ),
    Entry(
        "tau",
        "threshold τ",
        "threshold",
        "Part of a map's peak above which pixels are foreground.",
    ),
    Entry(
        "pixel_tau",
        "threshold of pixels",
        "threshold",
        "Threshold at which pixel IoU was computed.",
    ),
    Entry(
        "iou_top1",
        "IoU, first box",
        "fraction",
        "Mean IoU of the first box of each row.",
    ),
    Entry(
        "iou_best5",
        "IoU, best of five",
        "fraction",
        "Mean IoU of the best of the first five boxes of each row: an upper bound, since ground truth chooses.",
    ),
    Entry(
        "iou_candidates",
        "IoU, all boxes",
        "fraction",
        "Mean IoU over all boxes of each row, then over rows.",
    ),
    Entry(
        "iou_upper",
        "IoU, best of all",
        "fraction",
        "Mean IoU of the best of all boxes of each row: an upper bound.",
    ),
    Entry(
        "iou_centre",
        "IoU, centred box",
        "fraction",
        "Mean IoU of a box of 0.8 of each side in the middle of each image; labels below it are worse than none.",
    ),
    Entry(
        "iou_otsu",
        "IoU, Otsu",
        "fraction",
        "Mean IoU of the largest region above each map's own Otsu threshold: no threshold is chosen.",
    ),
    Entry(
        "iou_at_tau",
        "IoU at τ",
        "fraction",
        "Mean IoU at the threshold that was chosen beforehand.",
    ),
    Entry(
        "recall50_top1",
        "first box right",
        "fraction",
        "Share of rows whose first box has IoU of at least 50 %: MaxBoxAcc of boxes, also called CorLoc.",
    ),
    Entry(
        "recall50_candidates",
        "objects found",
        "fraction",
        "Share of ground-truth boxes that some box of their row meets with IoU of at least 50 %.",
    ),
    Entry(
        "top1_loc",
        "Top-1 localization",
        "per cent",
        "Share of rows whose label is the first prediction and whose box, of the label's map, has IoU of at "
        "least 50 %.",
    ),
    Entry(
        "top5_loc",
        "Top-5 localization",
        "per cent",
        "The same with the label among the first five predictions.",
    ),
    Entry(
        "top1_loc_v2",
        "Top-1 localization V2",
        "per cent",
        "Top-1 localization at IoU 30, 50 and 70 %, and their mean.",
    ),
    Entry(
        "top5_loc_v2",
        "Top-5 localization V2",
        "per cent",
        "Top-5 localization at IoU 30, 50 and 70 %, and their mean.",
    ),
    Entry(
        "accuracy_top1",
        "Top-1 accuracy",
        "per cent",
        "Share of rows whose label is the first prediction.",
    ),
    Entry(
        "accuracy_top5",
        "Top-5 accuracy",
        "per cent",
        "Share of rows whose label is among the first five predictions.",
    ),
    Entry(
        "CL",
        "CL",
        "per cent",
        "Top-1 accuracy of the rows that have ground truth, as the papers on video report beside CorLoc.",
    ),
    Entry(
        "CorLoc",
        "CorLoc",
        "per cent",
        "Share of rows whose box is right, pooled over rows and as a mean over classes.",
    ),
    Entry(
        "top1",
        "Top-1 accuracy of the classifier",
        "fraction",
        "Measured when the classifier was made.",
    ),
    Entry(
        "top5",
        "Top-5 accuracy of the classifier",
        "fraction",
        "Measured when the classifier was made.",
    ),
    Entry(
        "mask_iou",
        "IoU of masks",
        "fraction",
        "Mean over rows of the IoU of a mask with the true mask.",
    ),
    Entry(
        "mask_iou_centre",
        "IoU of masks, centred box",
        "fraction",
        "The same for a centred box in the mask's place.",
    ),
    Entry(
        "mask_error",
        "error of masks",
        "fraction",
        "1 - AUC of a binary mask, mean over rows: half of what it misses of the object plus half of what it takes of "
        "the rest; of an eroded mask, half of the area lost.",
    ),
    Entry(
        "mask_iou_50",
        "masks right",
        "fraction",
        "Share of rows whose mask has IoU of at least 50 %.",
    ),
    Entry(
        "pixel_precision",
        "pixel precision",
        "fraction",
        "Share of the mask's pixels that are true.",
    ),
    Entry(
        "pixel_recall",
        "pixel recall",
        "fraction",
        "Share of true pixels that the masks hold.",
    ),
    Entry(
        "pointing_accuracy",
        "pointing game",
        "fraction",
        "Share of rows whose peak lies in a ground-truth box.",
    ),
    Entry(
        "true_negative_rate",
        "true negatives",
        "fraction",
        "Share of rows without an object on which nothing is found.",
    ),
    Entry(
        "rows",
        "rows",
        "count",
        "Rows that are not quarantined.",
    ),
    Entry(
        "rows_scored",
        "rows scored",
        "count",
        "Rows with ground truth, of a class that has an object: the denominator.",
    ),
    Entry(
        "rows_without_box",
        "rows without a true box",
        "count",
        "Outside the denominator, counted beside it.",
    ),
    Entry(
        "rows_missing",
        "rows without a result",
        "count",
        "Rows with ground truth and no map or box: they score 0.",
    ),
    Entry(
        "rows_unusable",
        "rows of an unusable map",
        "count",
        "Maps that are constant or hold NaN: they score 0.",
    ),
    Entry(
        "rows_objectless",
        "rows without an object",
        "count",
        "Rows of a class that has no object: outside the denominator.",
    ),
    Entry(
        "true_negatives",
        "rows rightly empty",
        "count",
        "Rows without an object on which nothing is found.",
    ),
    Entry(
        "rows_without_mask",
        "rows without a true mask",
        "count",
        "Outside the denominator of pixel figures.",
    ),
    Entry(
        "box_maxboxacc_30",
        "boxes right at IoU 30",
        "fraction",
        "Share of rows whose first box has IoU of at least 30 %.",
    ),
    Entry(
        "box_maxboxacc_50",
        "boxes right at IoU 50",
        "fraction",
        "Share of rows whose first box has IoU of at least 50 %.",
    ),
    Entry(
        "box_maxboxacc_70",
        "boxes right at IoU 70",
        "fraction",
        "Share of rows whose first box has IoU of at least 70 %.",
    ),
    Entry(
        "rows_quarantined",
        "rows quarantined",
        "count",
        "Rows whose image cannot be read: outside every other count.",
    ),
)
_BY_NAME = {entry.name: entry for entry in GLOSSARY}
#: Beginnings of names whose values are fractions, such as ``iou_pointing_mean_of_boxes`` and ``recall50_…``.
FRACTIONS = ("iou_", "recall", "mask_iou", "pixel_iou", "box_maxboxacc")


def kind_of(name: str) -> Kind | None:
    """How a figure of this name is held; the part before a blank counts (``MaxBoxAccV2 mean``). None: as it is."""
    first, *rest = name.split(" ")
    if first in {"intervals", "beside"} and rest:
        return kind_of(" ".join(rest))
    if name.endswith("tau"):
        return "threshold"
    if first in _BY_NAME:
        return _BY_NAME[first].kind
    return "fraction" if first.startswith(FRACTIONS) else None


def shown_name(name: str) -> str:
    """What a figure is called in tables: ``MaxBoxAccV2 30`` keeps its second word."""
    first, *rest = name.split(" ")
    if first in {"intervals", "beside"} and rest:
        return f"{first} {shown_name(' '.join(rest))}"
    return " ".join([_BY_NAME[first].shown if first in _BY_NAME else first, *rest])


def format_figure(name: str, value: Any) -> Any:
    """A figure as it is printed, anything that is no figure as it is."""
    if not isinstance(value, float):
        return value
    kind = kind_of(name)
    if kind == "fraction":
        return f"{100 * value:.1f}"
    if kind == "per cent":
        return f"{value:.1f}"
    return f"{value:.3f}" if kind == "threshold" else value
