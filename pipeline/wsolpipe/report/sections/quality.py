"""Quality of the boxes: IoU, accuracy against the threshold, scores against IoU, by object size and by source map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.pages.charts import Curve, Series, histogram, legend, lines, success
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


def _facts(material: Material) -> Mapping[str, Any] | None:
    quality = material.quality
    if quality.scored.any():
        lead = quality.lead
        if lead is None:
            return None
        shown = [name for name in (lead, "best5", "otsu", "centre") if name in quality.ious]
        series = [Series(name, NAMES[name], quality.ious[name][quality.scored]) for name in dict.fromkeys(shown)]
        pair = [item for item in series if item.style in {lead, "centre"}]
        bins = 20 if quality.scored.sum() >= 200 else 10
        return {
            "charts": [
                (
                    "Distribution of IoU",
                    histogram(pair, bins=bins, title="Histogram of IoU", axis="IoU with ground truth"),
                    legend(pair),
                ),
                (
                    "Share of rows at each IoU",
                    success(series, title="Share of rows at or above each IoU", axis="at least this IoU"),
                    legend(series),
                ),
                *_against_threshold(material),
                *_reliability(material),
            ],
            "sizes": _by_size(material, lead),
            "sources": _by_source(material),
            "lead": lead,
            "scored": True,
        }
    scores = quality.score[quality.shown & ~np.isnan(quality.score)]
    if not len(scores) or scores.max() > 1:
        return None
    series = [Series("top1", "score of the top proposal", scores)]
    chart = histogram(series, bins=20, title="Histogram of scores", axis="score")
    return {
        "charts": [("Distribution of scores", chart, legend(series))],
        "sizes": [],
        "sources": _by_source(material),
        "lead": "top1",
        "scored": False,
    }


def _against_threshold(material: Material) -> list[tuple[str, Any, Any]]:
    """Accuracy of the first map at every threshold."""
    scores = material.quality.maps
    if scores is None:
        return []
    every = np.arange(scores.boxes.thresholds) / scores.boxes.thresholds
    curves = [Curve(style, label, every, scores.boxes.curve(name)) for style, label, name in CURVES]
    name = material.map_slots[0].name
    chart = lines(curves, title=f"Accuracy of the {name} map against its threshold", axis="threshold")
    return [(f"Accuracy of the {name} map against its threshold", chart, legend(curves))]


def _reliability(material: Material) -> list[tuple[str, Any, Any]]:
    """Mean IoU of the first boxes, by their score: scores that tell good boxes from bad ones rise."""
    quality = material.quality
    rows = quality.scored & ~np.isnan(quality.score)
    if "top1" not in quality.ious or rows.sum() < SCORE_BINS or quality.score[rows].max() > 1:
        return []
    order = np.argsort(quality.score[rows], kind="stable")
    parts = np.array_split(order, SCORE_BINS)
    scores, ious = quality.score[rows], quality.ious["top1"][rows]
    places = np.array([scores[part].mean() for part in parts])
    means = Curve("top1", "mean IoU", places, np.array([ious[part].mean() for part in parts]))
    right = Curve("otsu", "share at IoU 50 or more", places, np.array([(ious[part] >= 0.5).mean() for part in parts]))
    title = "IoU of first boxes against their score"
    return [
        (title, lines([means, right], title=title, axis="score, a tenth of the rows a point"), legend([means, right]))
    ]


def _by_size(material: Material, lead: str) -> list[dict[str, Any]]:
    """Mean IoU of rows by the share of the image that the largest object takes."""
    quality, found = material.quality, []
    for low, high in SIZES:
        rows = quality.scored & (quality.share >= low) & (quality.share < high)
        if rows.any():
            found.append(
                {
                    "label": f"{100 * low:.0f} to {min(100 * high, 100):.0f} %",
                    "rows": int(rows.sum()),
                    "lead": float(quality.ious[lead][rows].mean()),
                    "centre": float(quality.ious["centre"][rows].mean()),
                }
            )
    return found


def _by_source(material: Material) -> list[dict[str, Any]]:
    """Share of rows whose top box comes from each map, and the mean IoU of those boxes."""
    quality, found = material.quality, []
    given = quality.source[quality.shown & (quality.source >= 0)]
    for position in np.unique(given)[:MOST_SOURCES]:
        rows = quality.scored & (quality.source == position)
        found.append(
            {
                "label": material.map_name(int(position)) or f"map {position}",
                "share": float((given == position).mean()),
                "rows": int((given == position).sum()),
                "iou": float(quality.ious["top1"][rows].mean()) if rows.any() else None,
            }
        )
    return found


SECTION = Section(
    name="quality",
    title="Quality",
    order=10,
    facts=_facts,
)
