"""Quality of the boxes: IoU, accuracy against the threshold, scores against IoU, by object size and by source map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.pages.charts import Curve, Plot, draw_figure, histogram, reached
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material

SIZES = ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.01))
NAMES = {
    "top1": "first box", "best5": "best of five", "cut": "map at its best threshold", "otsu": "map, Otsu",
    "centre": "centred box",
}  # fmt: skip
CURVES = (("top1", "MaxBoxAcc", "largest 0.5"), ("best5", "V2 at 30", "all 0.3"), ("otsu", "V2 at 70", "all 0.7"),
          ("centre", "mean IoU", "largest iou"))  # fmt: skip
MOST_SOURCES = 16
SCORE_BINS = 10


def _plots(material: Material) -> dict[str, Plot]:
    """Every chart of the section by the stem of its file."""
    quality = material.quality
    if not quality.scored.any():
        scores = quality.score[quality.shown & ~np.isnan(quality.score)]
        if not len(scores) or scores.max() > 1:
            return {}
        column = histogram("score of the first box", scores)
        return {"scores": Plot("Distribution of scores", "score", [column], "steps"), **_by_source(material)}
    lead = quality.lead
    if lead is None:
        return {}
    shown = dict.fromkeys(name for name in (lead, "best5", "otsu", "centre") if name in quality.ious)
    values = {name: quality.ious[name][quality.scored] for name in shown}
    bins = 20 if quality.scored.sum() >= 200 else 10
    pair = [histogram(NAMES[name], values[name], bins=bins, far=100, colour=name) for name in (lead, "centre")]
    every = [reached(NAMES[name], each, colour=name) for name, each in values.items()]
    return {
        "iou": Plot("Distribution of IoU", "IoU with ground truth, per cent", pair, "steps", far=100),
        "success": Plot("Share of rows at each IoU", "at least this IoU, per cent", every, far=100),
        **_against_threshold(material),
        **_reliability(material),
        **_by_size(material, lead),
        **_by_source(material),
    }


def _facts(material: Material) -> Mapping[str, Any] | None:
    plots = _plots(material)
    return {"figures": [draw_figure(plot) for plot in plots.values()]} if plots else None


def _against_threshold(material: Material) -> dict[str, Plot]:
    """Accuracy of the first map at every threshold."""
    scores = material.quality.maps
    if scores is None:
        return {}
    every = np.arange(scores.boxes.thresholds) / scores.boxes.thresholds
    curves = [Curve(label, scores.boxes.curve(name), every, style) for style, label, name in CURVES]
    return {"thresholds": Plot(f"{material.map_slots[0].title} map against its threshold", "threshold", curves)}


def _reliability(material: Material) -> dict[str, Plot]:
    """Mean IoU of the first boxes, by their score: scores that tell good boxes from bad ones rise."""
    quality = material.quality
    rows = quality.scored & ~np.isnan(quality.score)
    if "top1" not in quality.ious or rows.sum() < SCORE_BINS or quality.score[rows].max() > 1:
        return {}
    order = np.argsort(quality.score[rows], kind="stable")
    parts = np.array_split(order, SCORE_BINS)
    scores, ious = quality.score[rows], quality.ious["top1"][rows]
    places = np.array([scores[part].mean() for part in parts])
    means = Curve("mean IoU", np.array([ious[part].mean() for part in parts]), places, "top1")
    right = Curve("share at IoU 50 or more", np.array([(ious[part] >= 0.5).mean() for part in parts]), places, "otsu")
    axis = "score, a tenth of the rows a point"
    return {"reliability": Plot("IoU of first boxes against their score", axis, [means, right])}


def _by_size(material: Material, lead: str) -> dict[str, Plot]:
    """Mean IoU of rows by the share of the image that the largest object takes."""
    quality = material.quality
    groups = [quality.scored & (quality.share >= low) & (quality.share < high) for low, high in SIZES]
    known = [(span, rows) for span, rows in zip(SIZES, groups, strict=True) if rows.any()]
    names = [f"{100 * low:.0f}–{min(100 * high, 100):.0f}\u00a0%" for (low, high), _ in known]
    curves = [
        Curve(label, np.array([quality.ious[name][rows].mean() for _, rows in known]), colour=name)
        for name, label in ((lead, "mean IoU"), ("centre", "centred box"))
    ]
    counts = [int(rows.sum()) for _, rows in known]
    title = "By size of the object"
    return {"sizes": Plot(title, "share of the image", curves, "bars", names=names, counts=counts)} if names else {}


def _by_source(material: Material) -> dict[str, Plot]:
    """Share of rows whose first box comes from each map, and the mean IoU of those boxes."""
    quality = material.quality
    given = quality.source[quality.shown & (quality.source >= 0)]
    positions, counts = np.unique(given, return_counts=True)
    positions, counts = positions[:MOST_SOURCES], counts[:MOST_SOURCES]
    if not len(positions):
        return {}
    curves = [Curve("share of rows", counts / len(given), colour="otsu")]
    if quality.scored.any():
        scored = [quality.scored & (quality.source == position) for position in positions]
        ious = [quality.ious["top1"][rows].mean() if rows.any() else np.nan for rows in scored]
        curves.append(Curve("mean IoU", np.array(ious), colour="top1"))
    names = [material.map_name(int(position)) or f"map {position}" for position in positions]
    title = "Which map gave the first box"
    return {"sources": Plot(title, "map", curves, "bars", names=names, counts=counts.tolist())}


SECTION = Section(name="quality", title="Quality", order=10, facts=_facts, plots=_plots)
