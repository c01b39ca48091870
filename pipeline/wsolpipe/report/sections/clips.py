"""Film strips: frames of some clips in their order, each with its first box and the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError
from wsolpipe.pages.pictures import Photo, photo
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material

STRIPS, FRAMES = 6, 8
STILL = Photo(side=150)


def _facts(material: Material) -> Mapping[str, Any] | None:
    if material.root is None or material.boxes is None:
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
        picked = np.unique(np.linspace(0, len(rows) - 1, min(FRAMES, len(rows))).round().astype(int))
        strips.append({"name": str(name), "frames": [_frame(material, int(row)) for row in rows[picked]]})
    return {"strips": strips, "stage": material.boxes.stage, "groups": len(groups)}


def _frame(material: Material, row: int) -> dict[str, Any]:
    assert material.boxes is not None
    assert material.root is not None
    info = material.index.table(start=row, stop=row + 1).to_pylist()[0]
    image, missing = None, ""
    try:
        image = photo(material.root, info["path"], orientation=info["orientation"], sha256=info["sha256"], how=STILL)
    except BadImageError as error:
        missing = error.message
    boxes = np.zeros((0, 4))
    if row < material.boxes.manifest.rows:
        boxes = np.asarray(material.boxes["boxes"][row], np.float64).reshape(-1, 4)[:1]
    width, height = max(int(info["width"] or 0), 1), max(int(info["height"] or 0), 1)
    return {
        "number": info["frame"],
        "image": image,
        "missing": missing,
        "width": width,
        "height": height,
        "line": max(1, max(width, height) / 90),
        "boxes": [_rectangle(box) for box in boxes if np.isfinite(box).all()],
        "truth": [_rectangle(box) for box in material.quality.truth_of(row)],
    }


def _rectangle(box: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (round(float(edge), 1) for edge in box)
    return x0, y0, round(x1 - x0, 1), round(y1 - y0, 1)


STYLE = """
.strip { display: flex; gap: 4px; overflow-x: auto; margin: 0 0 1em; }
.strip figure { margin: 0; flex: 0 0 auto; }
.strip .still { position: relative; width: 150px; }
.strip img { display: block; width: 150px; }
.strip svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.strip rect { fill: none; }
.strip .found { stroke: #e03131; }
.strip .true { stroke: #2f9e44; }
.strip figcaption { font-size: .75em; }
"""

SECTION = Section(name="clips", title="Clips", order=25, facts=_facts, style=STYLE)
