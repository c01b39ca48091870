"""Rows of a report: which are shown, their cards, pages of them beside the report, and the list of all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.map_sources import MapBlock
from wsolpipe.evaluate.options import Options
from wsolpipe.metrics.boxes import iou_per_box
from wsolpipe.metrics.scaling import SIDE
from wsolpipe.pages.cards import (
    COLUMNS,
    Box,
    Card,
    Gallery,
    Layer,
    Map,
    embed_json,
    encode_cuts,
    make_card,
    render_gallery,
)
from wsolpipe.pages.document import Part, compose_page, open_environment
from wsolpipe.pages.pictures import Photo, edges_picture, heat, mask_picture
from wsolpipe.report.quality import RANKED, Pick

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
ONE_PAGE = 500
"""Rows up to which a report is one file."""
ROWS = 250
"""Rows of a page beside it."""
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
    table = material.index.table([*COLUMNS], start=first, stop=int(rows.max()) + 1).take(rows - first).to_pylist()
    maps, overlays = _maps(material.map_slots, rows, fineness), _overlays(material, rows)
    views = dict.fromkeys(view for view in (material.boxes, material.rival, *material.others) if view is not None)
    boxes = {view: _boxes(material, view, rows) for view in views if "boxes" in view.manifest.arrays}
    bad = {item["row"]: item for item in material.quarantined}
    quality, cards = material.quality, []
    for pick, info in zip(picks, table, strict=True):
        row, layers, score = pick.row, dict[str, list[Box]](), None
        for view, found in boxes.items():
            own = found.get(row, [])
            if view == material.boxes and own:
                layers |= {"other": own[1:], "top": own[:1]}
                score = own[0].score
            elif view != material.boxes:
                layers["beside" if view == material.rival else layer_name(view)] = own[:1]
        stopped = bad.get(row)
        cards.append(
            make_card(
                info, row, root=material.root, how=fineness.photo,
                class_name=material.class_name, truth=quality.truth_of(row), group=pick.group,
                boxes={name: each for name, each in layers.items() if each}, overlays=overlays.get(row, {}),
                maps=maps.get(row, []), score=score,
                status="quarantined" if stopped else STATUSES[Status(int(quality.status[row]))],
                stage=stopped["stage"] if stopped else "", reason=stopped["reason"] if stopped else "",
                iou=value_of(quality, row), beside=value_of(material.rival_quality, row),
            )
        )  # fmt: skip
    return cards


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


def still_of(material: Material, row: int, box: Array | None, how: Photo, **more: Any) -> Card:
    """A card of a row with one box and the true ones, without maps and layers."""
    (info,) = material.index.table([*COLUMNS], start=row, stop=row + 1).to_pylist()
    boxes = {"top": [Box.of(box)]} if box is not None and np.isfinite(box).all() else {}
    return make_card(
        info, row, root=material.root, how=how, class_name=material.class_name, truth=material.quality.truth_of(row),
        boxes=boxes, **more,
    )  # fmt: skip


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
            Box.of(
                boxes[place, slot],
                score=None if np.isnan(scores[place, slot]) else float(scores[place, slot]),
                source=int(sources[place, slot]),
                source_name=material.map_name(int(sources[place, slot])),
                iou=None if np.isnan(iou) else float(iou),
            )
            for slot, iou in zip(present.tolist(), ious, strict=True)
        ]
    return found


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
            rows=embed_json(columns),
        )
    )
    return Part("all", "All rows", html)
