"""The rows themselves: image, maps, boxes with scores, ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError
from wsolpipe.contract.schema import Status
from wsolpipe.metrics.boxes import iou_per_box
from wsolpipe.report.page import Section
from wsolpipe.report.pictures import heat, heat_stops, photo
from wsolpipe.report.sample import RANKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material

Array = np.ndarray[Any, Any]
MOST_MAPS = 13
LISTED_BOXES = 5

TITLES = {name: name for name in (*RANKED, "random")}
TITLES_BY_SCORE = {"best": "highest score", "median": "middle score", "worst": "lowest score", "random": "random"}


@dataclass(frozen=True)
class Box:
    """A rectangle to draw, in pixels of the image."""

    rank: int
    x: float
    y: float
    width: float
    height: float
    score: float | None = None
    source: int = -1
    source_name: str = ""
    iou: float | None = None


def _facts(material: Material) -> Mapping[str, Any] | None:
    picks = material.sample
    if not picks:
        return None
    rows = np.array([pick.row for pick in picks])
    infos = [material.index.table(start=row, stop=row + 1).to_pylist()[0] for row in rows.tolist()]
    maps = _sampled(material, rows)
    cards = [
        _card(material, pick.row, pick.group, info, levels)
        for pick, info, levels in zip(picks, infos, maps, strict=True)
    ]
    groups = [name for name in TITLES if any(pick.group == name for pick in picks)]
    return {
        "cards": cards,
        "groups": groups,
        "titles": TITLES if material.quality.scored.any() else TITLES_BY_SCORE,
        "has_truth": any(card["truth"] for card in cards),
        "has_boxes": material.boxes is not None,
        "has_maps": material.maps is not None,
        "listed": LISTED_BOXES,
        "stops": heat_stops(),
    }


def _sampled(material: Material, rows: Array) -> list[Array | None]:
    """Maps of the sampled rows, uint8 [maps, h, w] each; None where a row has none."""
    if material.maps is None:
        return [None] * len(rows)
    inside = rows < material.maps.manifest.rows
    order = np.argsort(rows[inside])
    wanted = rows[inside][order]
    status = material.maps["status"][wanted]
    levels = material.maps["maps"][wanted]
    grids = material.maps["grid_hw"][wanted] if "grid_hw" in material.maps.manifest.arrays else None
    found: dict[int, Array] = {}
    for place, row in enumerate(wanted):
        if status[place] == Status.OK:
            height, width = grids[place] if grids is not None else levels.shape[-2:]
            found[int(row)] = levels[place][:MOST_MAPS, :height, :width]
    return [found.get(int(row)) for row in rows]


def _card(material: Material, row: int, group: str, info: Mapping[str, Any], levels: Array | None) -> dict[str, Any]:
    quality = material.quality
    image, missing = None, ""
    if material.root is not None:
        try:
            image = photo(material.root, info["path"], orientation=info["orientation"], sha256=info["sha256"])
        except BadImageError as error:
            missing = error.message
    labels = [int(label) for label in info["labels"] or []]
    ious = {name: float(values[row]) for name, values in quality.ious.items() if not np.isnan(values[row])}
    boxes = _boxes(material, row)
    return {
        "row": row,
        "group": group,
        "image_id": info["image_id"],
        "width": max(int(info["width"] or 0), 1),
        "height": max(int(info["height"] or 0), 1),
        "image": image,
        "missing": missing,
        "classes": [(label, material.class_name(label)) for label in labels],
        "truth": [Box(0, *_corner(box)) for box in quality.truth_of(row)],
        "boxes": boxes,
        "maps": [(position, material.map_name(position), heat(each)) for position, each in enumerate(levels)]
        if levels is not None
        else [],
        "iou": ious.get("top1", ious.get("otsu")),
        "best5": ious.get("best5"),
        "centre": ious.get("centre"),
        "score": boxes[0].score if boxes else None,
        "no_object": bool(quality.status[row] == Status.NO_OBJECT),
    }


def _boxes(material: Material, row: int) -> list[Box]:
    view = material.boxes
    if view is None or row >= view.manifest.rows:
        return []
    arrays = view.manifest.arrays
    boxes = view["boxes"][row].astype(np.float64)
    scores = view["scores"][row] if "scores" in arrays else np.full(len(boxes), np.nan)
    sources = view["source"][row] if "source" in arrays else np.full(len(boxes), -1)
    truth = material.quality.truth_of(row)
    ious = np.full(len(boxes), np.nan)
    if len(truth):
        ious[~np.isnan(boxes).any(axis=1)] = iou_per_box(boxes, truth)
    return [
        Box(
            rank,
            *_corner(box),
            score=None if np.isnan(score) else float(score),
            source=int(source),
            source_name=material.map_name(int(source)),
            iou=None if np.isnan(iou) else float(iou),
        )
        for rank, (box, score, source, iou) in enumerate(zip(boxes, scores, sources, ious, strict=True), start=1)
        if not np.isnan(box).any()
    ]


def _corner(box: Array) -> tuple[float, float, float, float]:
    return float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])


STYLE = "\n".join(
    [
        *(f".gallery:has(#group-{name}:checked) .card:not(.{name}){{display:none}}" for name in TITLES),
        *(f".card:has(.pick-{position}:checked) .heat-{position}{{display:inline}}" for position in range(MOST_MAPS)),
    ]
)

SECTION = Section(name="gallery", title="Rows", order=20, facts=_facts, style=STYLE)
