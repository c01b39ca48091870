"""Top of the page: what was labelled, its accuracy beside a centred box, and advice; the check of the data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.engine.commit import now
from wsolpipe.engine.data_check import kept_check
from wsolpipe.evaluate.box_scores import is_val_boxes
from wsolpipe.evaluate.scored import BEST, Line, Scored, Threshold
from wsolpipe.metrics.boxes import iou_shares
from wsolpipe.report.page import Section
from wsolpipe.stages.alarm import raise_alarm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material


def _facts(material: Material) -> Mapping[str, Any]:
    quality, manifest = material.quality, material.index.manifest
    lines = _lines(material)
    lead = lines[-1][1] if quality.lead else None
    centre = lines[0][1] if quality.lead else None
    counts = [
        ("rows", len(quality.status)),
        ("done", int(quality.shown.sum())),
        ("quarantined", int((quality.status == Status.QUARANTINED).sum())),
        ("classes", len(np.unique(quality.labels[quality.labels >= 0]))),
        ("rows with ground truth", manifest.rows_with_truth),
    ]
    view = material.boxes or material.maps
    alarm = raise_alarm(lead.iou, centre.iou, view, material.registry) if lead and centre else None
    return {
        "title": manifest.title or material.dataset,
        "licence": manifest.licence or "not stated",
        "made": now()[:16].replace("T", " ") + " UTC",
        "counts": counts,
        "lead": lead,
        "centre": centre,
        "alarm": alarm,
        "scored": int(quality.scored.sum()),
        "lines": lines,
        "selection": ", ".join(f"{key}={value}" for key, value in manifest.selection.items()),
    }


def _lines(material: Material) -> list[tuple[str, Line]]:
    """(style, line) of each method on the same rows, the one that leads the page last."""
    quality = material.quality
    if not quality.scored.any():
        return []
    maps = material.map_slots[0].title if material.map_slots else ""
    names = {
        "centre": ("centred box", "0.8 of each side of every image"),
        "otsu": (f"{maps} map, Otsu", "largest region above the map's own Otsu threshold"),
        "candidates": ("average box", "mean over all boxes of a row"),
        "best5": ("best of five", "upper bound: the best of the first five"),
        "top1": _top_name(material),
    }
    lines: list[tuple[str, Line]] = [
        (key, _line(*names[key], quality.ious[key][quality.scored]))
        for key in ("centre", "otsu", "candidates", "best5", "top1")
        if key in quality.ious
    ]
    if quality.maps is not None:
        each = Scored(f"{maps} map, best thresholds", BEST, quality.maps).line()
        chosen = Threshold(quality.tau, "the best MaxBoxAcc of these rows", oracle=True)
        own = Scored(f"{maps} map, one threshold", chosen, quality.maps).line()
        place = len(lines) - (quality.lead == "top1")
        lines[place:place] = [("otsu", each), ("otsu", own)]
    return lines


def _top_name(material: Material) -> tuple[str, str]:
    if material.boxes is not None and is_val_boxes(material.boxes):
        return "pseudo-box", f"annotator {material.boxes.manifest.params.get('annotator', '')}"
    return (material.boxes.stage if material.boxes else "box"), "first box of each row"


def _line(name: str, meaning: str, ious: Any) -> Line:
    shares = iou_shares(ious)
    return Line(name, 100 * shares["50"], 100 * shares["mean"], float(ious.mean()), meaning, rows=len(ious))


SECTION = Section(name="overview", title="", order=0, facts=_facts)


def _check_facts(material: Material) -> Mapping[str, Any] | None:
    kept = kept_check(material.store[material.dataset], material.index)
    if kept is None:
        return None
    indexes, findings = kept
    return {"splits": [(split, item.manifest) for split, item in sorted(indexes.items())], "findings": findings}


CHECK = Section(name="check", title="Check of the data set", order=28, facts=_check_facts)
