"""Rows of a report: which are shown, their cards, pages of them beside the report, and the list of all rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.evaluation import Options
from wsolpipe.evaluate.map_sources import MapBlock
from wsolpipe.evaluate.otsu_scores import otsu_box
from wsolpipe.metrics.boxes import iou_matrix, iou_per_box
from wsolpipe.metrics.scaling import SIDE
from wsolpipe.pages.cards import COLUMNS, Box, Card, Layer, Map, encode_cuts, make_card
from wsolpipe.pages.document import Gallery, compose_page, facts_of, page_name, render_gallery
from wsolpipe.pages.pictures import Photo, edges_picture, heat, mask_picture
from wsolpipe.report.quality import RANKED, Group, Pick, Quality

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from wsolpipe.contract.reader import StageView
    from wsolpipe.report.material import Material

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
#: Rows up to which a report is one file.
ONE_PAGE = 500
#: Rows of a page beside it.
ROWS = 250
#: Arrays of label images, and how they are drawn: masks in colours, segments by their borders.
OVERLAYS = {"masks": mask_picture, "labels": edges_picture}


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
        """Choose the resolution of pictures for `rows` rows on one page, so that 500 rows stay below 15 MB."""
        if rows <= 60:
            return cls(Photo(440, 78, "JPEG"), 72, cut_all=True)
        if rows <= 160:
            return cls(Photo(360, 70, "WEBP"), 48, cut_all=True)
        return cls(Photo(288, 58, "WEBP"), 28, cut_all=False)


def make_gallery(material: Material, picks: Sequence[Pick], *, fineness: Fineness) -> Gallery:
    """Cards of some rows and their layers."""
    quality = material.quality
    cards = _make_cards(material, picks, fineness)
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
        indexes={"": material.index}, over="" if material.over is None else material.over.stage,
        predicted_by="" if material.likeliest is None else material.likeliest[0].stage,
    )  # fmt: skip


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


@dataclass
class _Seen:
    """Everything that the stages hold of a row.

    Attributes
    ----------
    opinions : list of float [4]
        Where each stage and map says that the object is.
    """

    maps: list[Map] = field(default_factory=list)
    overlays: dict[str, str] = field(default_factory=dict)
    layers: dict[str, list[Box]] = field(default_factory=dict)
    opinions: list[Array] = field(default_factory=list)
    spread: float | None = None
    predicted: int | None = None

    @property
    def agreement(self) -> float | None:
        """Mean IoU of every pair of first boxes of different stages; None with fewer than two."""
        if len(self.opinions) < 2:
            return None
        pairs = np.triu_indices(len(self.opinions), 1)
        return float(iou_matrix(np.array(self.opinions), np.array(self.opinions))[pairs].mean())


def _make_cards(material: Material, picks: Sequence[Pick], fineness: Fineness) -> list[Card]:
    """One card for each row, in the order of `picks`."""
    rows = np.array([pick.row for pick in picks], np.int64)
    if not len(rows):
        return []
    first = int(rows.min())
    table = material.index.table([*COLUMNS], start=first, stop=int(rows.max()) + 1).take(rows - first).to_pylist()
    seen = {row: _Seen() for row in rows.tolist()}
    _read_maps(material, seen, fineness)
    _read_overlays(material, seen)
    for view in dict.fromkeys(view for view in (material.boxes, material.rival, *material.others) if view is not None):
        if "boxes" in view.manifest.arrays:
            _read_boxes(material, view, seen)
    bad = {item["row"]: item for item in material.quarantined}
    quality, cards = material.quality, []
    for pick, info in zip(picks, table, strict=True):
        row, own = pick.row, seen[pick.row]
        stopped, score = bad.get(row), next((box.score for box in own.layers.get("top", ())), None)
        cards.append(
            make_card(
                info, row, root=material.root, how=fineness.photo, class_name=material.class_name,
                truth=quality.truth_of(row), group=pick.group, boxes=own.layers, overlays=own.overlays, maps=own.maps,
                agreement=own.agreement, spread=own.spread, predicted=own.predicted, score=score,
                status="quarantined" if stopped else STATUSES[Status(int(quality.status[row]))],
                stage=stopped["stage"] if stopped else "", reason=stopped["reason"] if stopped else "",
                iou=value_of(quality, row), beside=value_of(material.rival_quality, row),
                **({"missing": ""} if stopped else {}),
            )
        )  # fmt: skip
    return cards


def _of_view(view: StageView, seen: Mapping[int, _Seen]) -> Array:
    """The rows that a stage may hold, in their order."""
    return np.array(sorted(row for row in seen if row < view.manifest.rows), np.int64)


def _read_maps(material: Material, seen: Mapping[int, _Seen], fineness: Fineness) -> None:
    """Maps of the rows, those of one stage read at once; and the likeliest class where a stage says one."""
    blocks: dict[int, tuple[Array, MapBlock]] = {}
    sizes = material.quality.sizes
    for number, slot in enumerate(material.map_slots):
        if id(slot.view) not in blocks:
            wanted = _of_view(slot.view, seen)
            blocks[id(slot.view)] = wanted, MapBlock(slot.view, wanted)
        wanted, block = blocks[id(slot.view)]
        frame = Options().of_predictions(slot.view.manifest.params).frame()
        cuttable = frame.side == SIDE and (fineness.cut_all or slot.place == 0)
        for at, row in enumerate(wanted.tolist()):
            values, own = block.map(at, slot.place), seen[row]
            if values is None or not np.isfinite(values).all():
                continue
            cuts = encode_cuts(frame.map(values, str(row))) if cuttable else ""
            own.maps.append(Map(number, slot.name, heat(values, side=fineness.heat), cuts))
            own.spread = entropy_of(values) if own.spread is None else own.spread
            if slot.place == 0:
                own.opinions += list(otsu_box(values, int(sizes[row, 0]), int(sizes[row, 1])))
    likeliest = material.likeliest
    if likeliest is not None:
        wanted, (view, name) = _of_view(likeliest[0], seen), likeliest
        for row, classes in zip(wanted.tolist(), view[name][wanted].reshape(len(wanted), -1)[:, 0], strict=True):
            seen[row].predicted = int(classes) if classes >= 0 else None


def entropy_of(values: Array) -> float:
    """How spread a map [h, w] is: its entropy as shares of its sum above its minimum, over the largest possible one."""
    shares = (values - values.min()).astype(np.float64).ravel()
    shares = shares[shares > 0] / max(float(shares.sum()), 1e-12)
    return float(-(shares * np.log(shares)).sum() / np.log(values.size)) if len(shares) else 0.0


def _read_overlays(material: Material, seen: Mapping[int, _Seen]) -> None:
    """Pictures of masks and segments."""
    for view in (*material.views, *material.others):
        name = next((each for each in OVERLAYS if each in view.manifest.arrays), None)
        if name is None or len(view.manifest.arrays[name].shape) != 2:
            continue
        wanted = _of_view(view, seen)
        for row, status, mask in zip(wanted.tolist(), view["status"][wanted], view[name][wanted], strict=True):
            if status == Status.OK:
                seen[row].overlays[layer_name(view)] = OVERLAYS[name](mask)


def _read_boxes(material: Material, view: StageView, seen: Mapping[int, _Seen]) -> None:
    """Boxes of a stage, best first, with their IoU with ground truth; for other stages the first box."""
    wanted, arrays = _of_view(view, seen), view.manifest.arrays
    boxes = view["boxes"][wanted].astype(np.float64).reshape(len(wanted), -1, 4)
    scores = view["scores"][wanted] if "scores" in arrays else np.full(boxes.shape[:2], np.nan)
    sources = view["source"][wanted] if "source" in arrays else np.full(boxes.shape[:2], -1)
    for place, row in enumerate(wanted.tolist()):
        present = np.flatnonzero(~np.isnan(boxes[place]).any(axis=1))
        if not len(present):
            continue
        truth, own = material.quality.truth_of(row), seen[row]
        ious = iou_per_box(boxes[place], truth) if len(truth) else np.full(boxes.shape[1], np.nan)
        found = [
            Box.of(
                boxes[place, slot], source=int(sources[place, slot]),
                source_name=material.map_name(int(sources[place, slot])),
                score=None if np.isnan(scores[place, slot]) else float(scores[place, slot]),
                iou=None if np.isnan(ious[slot]) else float(ious[slot]),
            )
            for slot in present.tolist()
        ]  # fmt: skip
        own.opinions.append(boxes[place, present[0]])
        if view == material.boxes:
            own.layers |= {"other": found[1:], "top": found[:1]} if len(found) > 1 else {"top": found}
        else:
            own.layers["beside" if view == material.rival else layer_name(view)] = found[:1]


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


def write_pages(material: Material, home: str) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(name of the file, text, `facts_of` its rows) of each page, one at a time, quarantined rows among them.

    `home` is the name of the report's file.
    """
    groups: dict[int, Group] = {item["row"]: "quarantined" for item in material.quarantined}
    groups |= {pick.row: pick.group for pick in material.sample}
    rows = sorted(groups)
    for number, start in enumerate(range(0, len(rows), ROWS)):
        picks = [Pick(row, groups[row]) for row in rows[start : start + ROWS]]
        gallery = make_gallery(material, picks, fineness=Fineness.of(ROWS))
        title = f"{material.dataset} {material.split}, rows {picks[0].row} to {picks[-1].row}"
        text = compose_page(
            title, [render_gallery(gallery)], home=(f"../{home}", "back to the report"), served=material.served
        )
        yield page_name(number), text, [facts_of(card, number) for card in gallery.cards]
