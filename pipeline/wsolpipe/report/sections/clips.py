"""Film strips: frames of some clips in their order, each with its first box and the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.pages.pictures import Photo
from wsolpipe.report.page import Section
from wsolpipe.report.row_cards import still_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material

STRIPS, FRAMES = 6, 8
STILL = Photo(side=150)


def _facts(material: Material) -> Mapping[str, Any] | None:
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


SECTION = Section(name="clips", title="Clips", order=25, facts=_facts)
