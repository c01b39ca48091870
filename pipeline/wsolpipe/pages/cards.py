"""Cards of rows: image, layers over it, maps, figures; sorted, filtered and cut by the page's script, shown without."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsolpipe.pages.cuts import decode_cut
from wsolpipe.pages.document import Part, open_environment
from wsolpipe.pages.pictures import heat_stops

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Box:
    """A rectangle to draw, in pixels of the image."""

    x: float
    y: float
    width: float
    height: float
    score: float | None = None
    source: int = -1
    source_name: str = ""
    iou: float | None = None


@dataclass(frozen=True)
class Layer:
    """What a switch shows and hides on every card.

    Attributes
    ----------
    name : str
        Word of a–z, part of CSS selectors.
    title : str
        Beside the switch.
    shown : bool
        Before anything is switched.
    line : (str, str)
        Colour and dashes (CSS) of its boxes; empty where the page's style knows the name.
    """

    name: str
    title: str
    shown: bool = True
    line: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Map:
    """A map of a card.

    Attributes
    ----------
    slot : int
        Number among all maps of the page; the same on every card.
    name : str
    picture : str
        Data URI, stretched over the image.
    cuts : str
        Of `wsolpipe.pages.cuts.encode_cuts`; empty where it cannot be cut on the page.
    """

    slot: int
    name: str
    picture: str
    cuts: str = ""


@dataclass(frozen=True)
class Card:
    """A row.

    Attributes
    ----------
    boxes : dict of str to list of Box
        By layer.
    overlays : dict of str to str
        Pictures by layer: masks, segments, sampled pixels; data URIs stretched over the image.
    status : str
        ``ok``, ``no object``, ``quarantined`` or ``not made``.
    stage, reason : str
        Where and why it was quarantined.
    iou, best5, centre, score, beside : float or None
        Fractions; `beside` is the IoU of the result that it is compared with.
    size : float or None
        Share of the image that its largest object takes.
    part : str
        Word of a–z before its address on the page, where rows of several splits have the same numbers.
    listing : sequence of str
        Layers whose boxes its table lists.
    """

    row: int
    group: str
    image_id: str
    width: int
    height: int
    image: str | None = None
    missing: str = ""
    classes: Sequence[tuple[int, str]] = ()
    truth: Sequence[Box] = ()
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    overlays: dict[str, str] = field(default_factory=dict)
    maps: Sequence[Map] = ()
    status: str = "ok"
    stage: str = ""
    reason: str = ""
    iou: float | None = None
    best5: float | None = None
    centre: float | None = None
    score: float | None = None
    beside: float | None = None
    size: float | None = None
    part: str = ""
    listing: Sequence[str] = ("top", "other")

    @property
    def difference(self) -> float | None:
        """IoU minus that of the result beside it."""
        return None if self.iou is None or self.beside is None else self.iou - self.beside

    @property
    def listed(self) -> list[Box]:
        """Boxes of its table."""
        return [box for layer in self.listing for box in self.boxes.get(layer, ())]

    @property
    def address(self) -> str:
        """Its anchor on the page."""
        return f"{self.part}r{self.row}"

    @property
    def words(self) -> str:
        """What a search for words looks through."""
        names = [f"{name} {label}" for label, name in self.classes]
        return " ".join([self.image_id, *names, self.status, self.stage, self.reason, f"row {self.row}"]).lower()

    def cut_box(self, slot: int, tau: float) -> Box | None:
        """Box of a map at a threshold."""
        cuts = next((each.cuts for each in self.maps if each.slot == slot and each.cuts), None)
        if cuts is None:
            return None
        x0, y0, x1, y1 = decode_cut(cuts, tau).tolist()
        return Box(x0 * self.width, y0 * self.height, (x1 - x0) * self.width, (y1 - y0) * self.height)


@dataclass(frozen=True)
class Gallery:
    """Cards and what they have in common.

    Attributes
    ----------
    cards : sequence of Card
    layers : sequence of Layer
    titles : dict of str to str
        Groups of cards (words of a–z) and their names.
    lead, beside : str
        Names of the result whose IoU is shown, and of the one that it is compared with (empty: none).
    map_names : dict of int to str
        Names of the maps by slot: any can be laid over every card, or cut.
    cut : (int, float) or None
        Map and threshold at which the page opens its cut box.
    """

    cards: Sequence[Card]
    layers: Sequence[Layer]
    titles: dict[str, str]
    lead: str = ""
    beside: str = ""
    map_names: dict[int, str] = field(default_factory=dict)
    cut: tuple[int, float] | None = None


LISTED_BOXES = 5


def render_gallery(gallery: Gallery) -> Part:
    """Cards with their switches.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    cards = gallery.cards
    template = open_environment().get_template("cards.html")
    cuts = {card.address: {each.slot: each.cuts for each in card.maps if each.cuts} for card in cards}
    from markupsafe import Markup

    html = template.render(
        gallery=gallery,
        cards=cards,
        groups=[name for name in gallery.titles if any(card.group == name for card in cards)],
        layers=gallery.layers,
        has_truth=any(card.truth for card in cards),
        has_scores=any(card.score is not None for card in cards),
        statuses=sorted({card.status for card in cards}),
        stages=sorted({card.stage for card in cards if card.stage}),
        classes=sorted({name or f"class {label}" for card in cards for label, name in card.classes}),
        listed=LISTED_BOXES,
        stops=heat_stops(),
        # Within a script element only "<" could end it.
        cuts=Markup(json.dumps(cuts, separators=(",", ":")).replace("<", "\\u003c")),
    )
    return Part("gallery", "Rows", html, _style(gallery))


def _style(gallery: Gallery) -> str:
    """Rules of this gallery's switches, which work without a script."""
    groups = [f".gallery:has(#group-{name}:checked) .card:not(.{name}){{display:none}}" for name in gallery.titles]
    everywhere = '.gallery:has(#heat option[value="{0}"]:checked) .card:has(.pick-none:checked) .heat-{0}'
    maps = [
        f".card:has(.pick-{slot}:checked) .heat-{slot},{everywhere.format(slot)}{{display:inline}}"
        for slot in gallery.map_names
    ]
    layers = [
        f".gallery:has(#layer-{layer.name}:not(:checked)) .scene .{layer.name}{{display:none}}"
        for layer in gallery.layers
    ]
    lines = [
        f".scene .{layer.name} .line{{stroke:{colour};stroke-dasharray:{dashes}}}"
        f".layers .key.{layer.name} span::before{{border-top-color:{colour}}}"
        for layer in gallery.layers
        for colour, dashes in [layer.line]
        if colour
    ]
    return "\n".join([*groups, *maps, *layers, *lines])
