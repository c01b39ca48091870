"""Every class: rows, how many were measured, mean IoU; the weakest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material

OPEN_CLASSES = 20


def _facts(material: Material) -> Mapping[str, Any] | None:
    quality = material.quality
    labels = np.unique(quality.labels[quality.labels >= 0])
    if not len(labels):
        return None
    lead = quality.lead
    rows = [_line(material, int(label), lead) for label in labels]
    rows.sort(key=lambda item: (item["iou"] is None, item["iou"] or 0.0, -item["rows"], item["label"]))
    return {"first": rows[:OPEN_CLASSES], "rest": rows[OPEN_CLASSES:], "measured": lead is not None, "lead": lead or ""}


def _line(material: Material, label: int, lead: str | None) -> dict[str, Any]:
    quality = material.quality
    mine = quality.labels == label
    scored = mine & quality.scored
    line = {
        "label": label, "name": material.class_name(label), "rows": int(mine.sum()), "scored": int(scored.sum()),
        "iou": None, "best5": None, "centre": None, "recall": None,
    }  # fmt: skip
    if lead is not None and scored.any():
        line["iou"] = float(quality.ious[lead][scored].mean())
        line["centre"] = float(quality.ious["centre"][scored].mean())
        line["recall"] = float((quality.ious[lead][scored] >= 0.5).mean())
        if "best5" in quality.ious:
            line["best5"] = float(quality.ious["best5"][scored].mean())
    return line


SECTION = Section(
    name="classes",
    title="Classes",
    order=40,
    facts=_facts,
)
