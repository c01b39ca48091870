"""Rows beyond one page: pages beside the report, opened when a row is, and the list of all rows that leads to them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.pages.cards import render_gallery
from wsolpipe.pages.document import Part, compose_page, open_environment
from wsolpipe.report.row_cards import STATUSES, Fineness, make_gallery, value_of
from wsolpipe.report.sample import Pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.report.material import Material

Array = np.ndarray[Any, Any]
ONE_PAGE = 500
"""Rows up to which a report is one file."""
ROWS = 250
"""Rows of a page beside it."""


def listed_rows(material: Material) -> Array:
    """Rows of the pages, int64 [n]: quarantined ones too, in row order."""
    bad = [item["row"] for item in material.quarantined]
    return np.union1d([pick.row for pick in material.sample], bad).astype(np.int64)


def write_pages(material: Material, home: str) -> Iterator[tuple[str, str]]:
    """(name of the file, text) of each page, one at a time; `home` is the name of the report's file."""
    rows = listed_rows(material)
    groups = {pick.row: pick.group for pick in material.sample}
    for number, start in enumerate(range(0, len(rows), ROWS)):
        picks = [Pick(row, groups.get(row, "quarantined")) for row in rows[start : start + ROWS].tolist()]
        part = render_gallery(make_gallery(material, picks, fineness=Fineness.of(ROWS)))
        title = f"{material.dataset} {material.split}, rows {picks[0].row} to {picks[-1].row}"
        yield page_name(number), compose_page(title, [part], home=(f"../{home}", "back to the report"))


def page_name(number: int) -> str:
    """File of a page."""
    return f"{number:04d}.html"


def render_list(material: Material, folder: str) -> Part:
    """The list of all rows, and links to every page for a browser without script."""
    from markupsafe import Markup

    rows = listed_rows(material)
    quality, table = material.quality, material.quality.truth.rows
    bad = {item["row"]: item["stage"] for item in material.quarantined}
    stages = sorted(set(bad.values()))
    labels = np.unique(quality.labels[rows])
    statuses = list(STATUSES.values())
    lead = quality.ious[quality.lead] if quality.lead else np.full(len(quality.status), np.nan)
    rival = [value_of(material.rival_quality, row) for row in rows.tolist()] if material.rival else None
    columns: dict[str, Any] = {
        "folder": folder,
        "row": rows.tolist(),
        "page": (np.arange(len(rows)) // ROWS).tolist(),
        "name": [table.ids[row] for row in rows.tolist()],
        "classes": [material.class_name(int(label)) or (f"class {label}" if label >= 0 else "") for label in labels],
        "class": np.searchsorted(labels, quality.labels[rows]).tolist(),
        "statuses": statuses,
        "status": [
            statuses.index("quarantined" if row in bad else STATUSES[Status(int(quality.status[row]))])
            for row in rows.tolist()
        ],
        "stages": stages,
        "stage": [stages.index(bad[row]) if row in bad else -1 for row in rows.tolist()],
        "iou": [None if np.isnan(value) else round(1000 * float(value)) for value in lead[rows]],
        "score": [None if np.isnan(value) else round(float(value), 3) for value in quality.score[rows]],
    }
    if rival is not None:
        columns["difference"] = [
            None if mine is None or theirs is None else round(mine - 1000 * theirs)
            for mine, theirs in zip(columns["iou"], rival, strict=True)
        ]
    spans = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    html = (
        open_environment()
        .get_template("list.html")
        .render(
            total=len(rows),
            links=[(f"{folder}/{page_name(n)}", int(span[0]), int(span[-1])) for n, span in enumerate(spans)],
            classes=sorted({columns["classes"][each] for each in columns["class"]} - {""}),
            stages=stages,
            statuses=sorted({statuses[each] for each in columns["status"]}),
            difference=rival is not None,
            rows=Markup(json.dumps(columns, separators=(",", ":")).replace("<", "\\u003c")),
        )
    )
    return Part("all", "All rows", html)
