"""Rows of a split: those shown, with maps and boxes; classes; strips of frames; and quarantined rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.engine.quarantine import dropped_ids
from wsolpipe.pages.document import render_gallery
from wsolpipe.pages.pictures import Photo
from wsolpipe.report.page import Section
from wsolpipe.report.quality import Pick
from wsolpipe.report.row_cards import Fineness, make_gallery, still_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.pages.document import Part
    from wsolpipe.report.material import Material

MOST_QUARANTINED = 50


def _draw(material: Material) -> list[Part]:
    picks = material.front
    if not picks:
        return []
    bad = [Pick(item["row"], "quarantined") for item in material.quarantined[:MOST_QUARANTINED]]
    gallery = make_gallery(material, [*picks, *bad], fineness=Fineness.of(len(picks)))
    return [render_gallery(replace(gallery, listed=material.listed, folder=material.pages))]


ROWS = Section(name="rows", title="Rows", order=20, draw=_draw)


OPEN_CLASSES = 20


def _class_facts(material: Material) -> Mapping[str, Any] | None:
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


CLASSES = Section(name="classes", title="Classes", order=40, facts=_class_facts)


STRIPS, FRAMES = 6, 8
STILL = Photo(side=150)


def _clip_facts(material: Material) -> Mapping[str, Any] | None:
    view = material.boxes
    if material.root is None or view is None:
        return None
    table = material.index.table(["group", "frame"])
    names = table.column("group").fill_null("").to_numpy(zero_copy_only=False)
    groups = np.unique(names[names != ""])
    if not len(groups):
        return None
    chosen = np.sort(np.random.default_rng(material.seed).permutation(groups)[:STRIPS])
    frames = table.column("frame").fill_null(-1).to_numpy(zero_copy_only=False)
    strips = []
    for name in chosen:
        rows = np.flatnonzero(names == name)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(FRAMES, len(rows))).round().astype(int))].tolist()
        boxes = {row: view["boxes"][row].reshape(-1, 4)[0] for row in rows if row < view.manifest.rows}
        stills = [still_of(material, row, boxes.get(row), STILL) for row in rows]
        strips.append((str(name), list(zip(frames[rows].tolist(), stills, strict=True))))
    return {"strips": strips, "stage": view.stage, "groups": len(groups)}


CLIPS = Section(name="clips", title="Clips", order=25, facts=_clip_facts)


MOST_ROWS = 200


def _quarantine_facts(material: Material) -> Mapping[str, Any] | None:
    rows = material.quarantined
    if not rows:
        return None
    gone = dropped_ids(material.store.backend, material.dataset, material.split)
    return {
        "rows": rows[:MOST_ROWS],
        "total": len(rows),
        "reasons": Counter(item["reason"] for item in rows).most_common(8),
        "paths": any(item["path"] != item["image_id"] for item in rows),
        "dropped": gone,
        "any_dropped": any(item["image_id"] in gone for item in rows),
    }


QUARANTINE = Section(name="quarantine", title="Quarantined rows", order=30, facts=_quarantine_facts)
