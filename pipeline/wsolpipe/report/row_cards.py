"""Rows of a store as cards: photograph, maps with their cuts, boxes, masks and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError
from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.map_sources import MapBlock
from wsolpipe.evaluate.options import Options
from wsolpipe.metrics.boxes import iou_per_box
from wsolpipe.metrics.scaling import SIDE
from wsolpipe.pages.cards import Box, Card, Gallery, Layer, Map
from wsolpipe.pages.cuts import encode_cuts
from wsolpipe.pages.pictures import Photo, edges_picture, heat, mask_picture, photo
from wsolpipe.report.sample import RANKED, Pick

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wsolpipe.contract.reader import StageView
    from wsolpipe.report.material import MapSlot, Material
    from wsolpipe.report.quality import Quality

Array = np.ndarray[Any, Any]

GROUPS = (*RANKED, "random", "quarantined")
TITLES: dict[str, str] = {name: name for name in GROUPS}
TITLES_BY_SCORE: dict[str, str] = {
    **TITLES, "best": "highest score", "median": "middle score", "worst": "lowest score",
}  # fmt: skip
STATUSES = {
    Status.OK: "ok",
    Status.NO_OBJECT: "no object",
    Status.QUARANTINED: "quarantined",
    Status.ABSENT: "not made",
}
OVERLAYS = {"masks": mask_picture, "labels": edges_picture}
"""Arrays of label images, and how they are drawn: masks in colours, segments by their borders."""


@dataclass(frozen=True)
class Fineness:
    """How finely a card is drawn, so that a page of many stays small enough to send.

    Attributes
    ----------
    photo : Photo
    heat : int
        Pixels of a map's side.
    cut_all : bool
        Every map can be cut on the page, not only the first of each stage.
    """

    photo: Photo
    heat: int
    cut_all: bool

    @classmethod
    def of(cls, rows: int) -> Fineness:
        """As fine as `rows` rows on one page allow: 500 of them stay below 15 MB."""
        if rows <= 60:
            return cls(Photo(440, 78, "JPEG"), 72, cut_all=True)
        if rows <= 160:
            return cls(Photo(360, 70, "WEBP"), 48, cut_all=True)
        return cls(Photo(288, 58, "WEBP"), 28, cut_all=False)


def make_gallery(material: Material, picks: Sequence[Pick], *, fineness: Fineness) -> Gallery:
    """Cards of some rows and their layers."""
    quality = material.quality
    cards = make_cards(material, picks, fineness)
    slots = material.map_slots
    lead = material.boxes or material.maps
    return Gallery(
        cards,
        list(_layers(material, cards)),
        TITLES if quality.scored.any() else TITLES_BY_SCORE,
        lead=lead.stage if lead else "",
        beside=_rival_name(material),
        map_names={place: slot.title for place, slot in enumerate(slots)},
        cut=(0, quality.tau if quality.tau is not None else 0.5) if slots else None,
    )


def _rival_name(material: Material) -> str:
    if material.rival is None:
        return ""
    same = material.rival.stage in {view.stage for view in material.views}
    return f"{material.rival.stage} {material.rival.key[:8]}" if same else material.rival.stage


def _layers(material: Material, cards: Sequence[Card]) -> Iterable[Layer]:
    present = {name for card in cards for name in (*card.boxes, *card.overlays)}
    if material.boxes is not None:
        name = "pseudo-box" if material.boxes.stage.startswith("val_") else "top box"
        yield Layer("top", name)
        if "other" in present:
            yield Layer("other", "other boxes")
    if "beside" in present:
        yield Layer("beside", _rival_name(material))
    if material.map_slots:
        yield Layer("cut", "cut box of the map", shown=material.boxes is None)
    if any(card.truth for card in cards):
        yield Layer("truth", "ground truth")
    for view in material.others:
        if layer_name(view) in present:
            yield Layer(layer_name(view), view.stage, shown=False)


def layer_name(view: StageView) -> str:
    """Word of CSS for the layer of a stage."""
    return "of-" + "".join(letter if letter.isalnum() else "-" for letter in view.stage)


def make_cards(material: Material, picks: Sequence[Pick], fineness: Fineness) -> list[Card]:
    """A card a row, in the order of `picks`."""
    rows = np.array([pick.row for pick in picks], np.int64)
    if not len(rows):
        return []
    first = int(rows.min())
    table = material.index.table(start=first, stop=int(rows.max()) + 1).take(rows - first)
    maps = _maps(material.map_slots, rows, fineness)
    overlays = _overlays(material, rows)
    views = [view for view in (material.boxes, material.rival, *material.others) if view is not None]
    boxes = {view: _boxes(material, view, rows) for view in views if "boxes" in view.manifest.arrays}
    bad = {item["row"]: item for item in material.quarantined}
    return [
        _card(
            material,
            pick,
            info,
            maps.get(pick.row, []),
            overlays.get(pick.row, {}),
            {view: found.get(pick.row, []) for view, found in boxes.items()},
            bad.get(pick.row),
            fineness,
        )
        for pick, info in zip(picks, table.to_pylist(), strict=True)
    ]


def _maps(slots: Sequence[MapSlot], rows: Array, fineness: Fineness) -> dict[int, list[Map]]:
    """Maps by row, those of one stage read at once."""
    found: dict[int, list[Map]] = {}
    blocks: dict[int, tuple[Array, MapBlock]] = {}
    for number, slot in enumerate(slots):
        if id(slot.view) not in blocks:
            wanted = np.sort(rows[rows < slot.view.manifest.rows])
            blocks[id(slot.view)] = wanted, MapBlock(slot.view, wanted)
        wanted, block = blocks[id(slot.view)]
        frame = Options().of_predictions(slot.view.manifest.params).frame()
        cuttable = frame.side == SIDE and (fineness.cut_all or slot.place == 0)
        for at, row in enumerate(wanted.tolist()):
            values = block.map(at, slot.place)
            if values is None or not np.isfinite(values).all():
                continue
            cuts = encode_cuts(frame.map(values, str(row))) if cuttable else ""
            found.setdefault(row, []).append(Map(number, slot.name, heat(values, side=fineness.heat), cuts))
    return found


def _overlays(material: Material, rows: Array) -> dict[int, dict[str, str]]:
    """Pictures of masks and segments by row and layer."""
    found: dict[int, dict[str, str]] = {}
    for view in (*material.views, *material.others):
        name = next((each for each in OVERLAYS if each in view.manifest.arrays), None)
        if name is None or len(view.manifest.arrays[name].shape) != 2:
            continue
        wanted = np.sort(rows[rows < view.manifest.rows])
        for row, status, mask in zip(wanted.tolist(), view["status"][wanted], view[name][wanted], strict=True):
            if status == Status.OK:
                found.setdefault(row, {})[layer_name(view)] = OVERLAYS[name](mask)
    return found


def _card(
    material: Material,
    pick: Pick,
    info: Mapping[str, Any],
    maps: Sequence[Map],
    overlays: dict[str, str],
    found: Mapping[StageView, list[Box]],
    bad: Mapping[str, Any] | None,
    fineness: Fineness,
) -> Card:
    quality, row = material.quality, pick.row
    image, missing = None, ""
    if material.root is not None and info["path"]:
        try:
            image = photo(
                material.root, info["path"], orientation=info["orientation"], sha256=info["sha256"], how=fineness.photo
            )
        except BadImageError as error:
            missing = "" if bad else error.message
    boxes = found.get(material.boxes, []) if material.boxes else []
    layers = {"other": boxes[1:], "top": boxes[:1]} if boxes else {}
    for view, theirs in found.items():
        if view != material.boxes:
            layers["beside" if view == material.rival else layer_name(view)] = theirs[:1]
    ious = {name: float(values[row]) for name, values in quality.ious.items() if not np.isnan(values[row])}
    return Card(
        row,
        pick.group,
        info["image_id"],
        max(int(info["width"] or 0), 1),
        max(int(info["height"] or 0), 1),
        image=image,
        missing=missing,
        classes=[(int(label), material.class_name(int(label))) for label in info["labels"] or []],
        truth=[_box(box) for box in quality.truth_of(row)],
        boxes={name: each for name, each in layers.items() if each},
        overlays=overlays,
        maps=maps,
        status="quarantined" if bad else STATUSES[Status(int(quality.status[row]))],
        stage=bad["stage"] if bad else "",
        reason=bad["reason"] if bad else "",
        iou=None if quality.lead is None else ious.get(quality.lead),
        best5=ious.get("best5"),
        centre=ious.get("centre"),
        score=boxes[0].score if boxes else None,
        beside=value_of(material.rival_quality, row),
        size=None if np.isnan(quality.share[row]) else float(quality.share[row]),
    )


def value_of(quality: Quality | None, row: int) -> float | None:
    """IoU of a row by what leads a result; None without one."""
    if quality is None or quality.lead is None or np.isnan(quality.ious[quality.lead][row]):
        return None
    return float(quality.ious[quality.lead][row])


def _boxes(material: Material, view: StageView, rows: Array) -> dict[int, list[Box]]:
    """Boxes of the rows, best first, with their IoU where there is ground truth."""
    wanted, arrays = np.sort(rows[rows < view.manifest.rows]), view.manifest.arrays
    boxes = view["boxes"][wanted].astype(np.float64).reshape(len(wanted), -1, 4)
    scores = view["scores"][wanted] if "scores" in arrays else np.full(boxes.shape[:2], np.nan)
    sources = view["source"][wanted] if "source" in arrays else np.full(boxes.shape[:2], -1)
    found = {}
    for place, row in enumerate(wanted.tolist()):
        present = np.flatnonzero(~np.isnan(boxes[place]).any(axis=1))
        truth = material.quality.truth_of(row)
        ious = iou_per_box(boxes[place], truth) if len(truth) and len(present) else np.full(len(present), np.nan)
        found[row] = [
            _box(
                boxes[place, slot],
                score=None if np.isnan(scores[place, slot]) else float(scores[place, slot]),
                source=int(sources[place, slot]),
                source_name=material.map_name(int(sources[place, slot])),
                iou=None if np.isnan(iou) else float(iou),
            )
            for slot, iou in zip(present.tolist(), ious, strict=True)
        ]
    return found


def _box(box: Array, **more: Any) -> Box:
    return Box(float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1]), **more)
