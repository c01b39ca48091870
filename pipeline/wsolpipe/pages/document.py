"""The shell of a page: head, style, script, and a policy under which nothing is loaded and only that script runs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, raise_as
from wsolpipe.pages.pictures import heat_stops

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Environment

    from wsolpipe.contract.reader import Index
    from wsolpipe.pages.cards import Card, Layer


LISTED_BOXES = 5
#: Figures of a row by the field of `Card`: title, and what 1 is shown as.
FIGURES = {
    "iou": ("IoU", 100), "score": ("score", 1), "size": ("size of the object", 100),
    "centre": ("IoU of a centred box", 100), "difference": ("difference", 100),
    "agreement": ("agreement of boxes", 100), "spread": ("spread of the map", 100),
}  # fmt: skip
#: Facts that are stored as numbers of their values.
CODED = ("part", "group", "status", "stage", "reason")


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
    indexes : mapping of str to Index
        By the cards' `part`: of which split they are.
    over : str
        Stage that corrections are laid over.
    listed : sequence of dict
        `facts_of` all rows, where some lie on other pages; by default those of the cards.
    folder : str
        Where those pages are, beside this one.
    predicted_by : str
        Result whose likeliest class the rows' facts name.
    """

    cards: Sequence[Card]
    layers: Sequence[Layer]
    titles: dict[str, str]
    lead: str = ""
    beside: str = ""
    map_names: dict[int, str] = field(default_factory=dict)
    cut: tuple[int, float] | None = None
    indexes: Mapping[str, Index] = field(default_factory=dict)
    over: str = ""
    listed: Sequence[Mapping[str, Any]] = ()
    folder: str = ""
    predicted_by: str = ""

    def figures(self) -> dict[str, tuple[str, int]]:
        """Title and scale of every figure that some row has."""
        named = {**FIGURES, "difference": (f"difference to {self.beside}", 100)}
        return {name: shown for name, shown in named.items() if any(each[name] is not None for each in self.facts())}

    @property
    def names(self) -> dict[int, str]:
        """Names of the classes that a box may have."""
        named = next(iter(self.indexes.values())).manifest.class_names if self.indexes else {}
        return {int(label): name for label, name in named.items()}

    def facts(self) -> Sequence[Mapping[str, Any]]:
        """`facts_of` every row."""
        return self.listed or [facts_of(card) for card in self.cards]


def facts_of(card: Card, page: int = -1) -> dict[str, Any]:
    """Everything of a row that it can be found, sorted and drawn by; `page` is the number of its page in the folder."""
    figures = {name: getattr(card, name) for name in FIGURES}
    return {
        "row": card.row, "part": card.part, "id": card.image_id, "group": card.group, "status": card.status,
        "stage": card.stage, "reason": card.reason, "classes": [label for label, _ in card.classes],
        "pixels": (card.width, card.height), "page": page, "predicted": card.predicted,
        **{name: None if value is None else round(value, 4) for name, value in figures.items()},
    }  # fmt: skip


def _table(gallery: Gallery) -> dict[str, Any]:
    """A column for each fact of the rows, for the page's script."""
    facts, figures = gallery.facts(), gallery.figures()
    truth = {card.address: [box.edges for box in card.truth] for card in gallery.cards}
    unknown = {name for name in FIGURES if name not in figures}
    columns: dict[str, Any] = (
        {name: [each[name] for each in facts] for name in facts[0] if name not in unknown} if facts else {}
    )
    for name in CODED if facts else ():  # few values, many rows
        values = sorted(set(columns[name]))
        place = {value: number for number, value in enumerate(values)}
        columns[name] = {"of": values, "at": [place[value] for value in columns[name]]}
    about = {
        part: {
            "dataset": each.dataset,
            "split": each.split,
            "index": each.key,
            "store": each.store.url,
            "over": gallery.over,
        }
        for part, each in gallery.indexes.items()
    }
    return {
        **columns, "truth": [truth.get(f"{each['part']}r{each['row']}", []) for each in facts],
        "figures": [(name, *shown) for name, shown in figures.items()], "about": about,
        "names": gallery.names, "folder": gallery.folder, "predicted_by": gallery.predicted_by,
    }  # fmt: skip


def render_gallery(gallery: Gallery) -> Part:
    """Cards with their switches.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    cards = gallery.cards
    cuts = {card.address: {each.slot: each.cuts for each in card.maps if each.cuts} for card in cards}
    facts = gallery.facts()
    pages = {page: [each["row"] for each in facts if each["page"] == page] for page in {each["page"] for each in facts}}
    html = (
        open_environment()
        .get_template("cards.html")
        .render(
            gallery=gallery,
            cards=cards,
            total=len(facts),
            figures={name: title for name, (title, _) in gallery.figures().items()},
            groups=[name for name in gallery.titles if any(each["group"] == name for each in facts)],
            statuses=sorted({each["status"] for each in facts}),
            stages=sorted({each["stage"] for each in facts if each["stage"]}),
            classes=sorted(
                {gallery.names.get(label) or f"class {label}" for each in facts for label in each["classes"]}
            ),
            confused=any(each["predicted"] is not None for each in facts),
            links=[(f"{gallery.folder}/{page_name(n)}", rows[0], rows[-1]) for n, rows in sorted(pages.items())],
            listed=LISTED_BOXES,
            stops=heat_stops(),
            cuts=embed_json(cuts),
            table=embed_json(_table(gallery)),
        )
    )
    return Part("gallery", "Rows", html, _style(gallery))


def page_name(number: int) -> str:
    """File of a page of rows."""
    return f"{number:04d}.html"


def embed_json(values: Any) -> Any:
    """Values as JSON for a script element, which only "<" could end."""
    from markupsafe import Markup

    return Markup(json.dumps(values, separators=(",", ":")).replace("<", "\\u003c"))


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


FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Part:
    """A rendered part of a page.

    Attributes
    ----------
    name : str
        Anchor on the page.
    title : str
        Heading and entry of the menu; empty for a part without one.
    html : str
        Escaped already.
    style : str
        CSS that only this part needs.
    """

    name: str
    title: str
    html: str
    style: str = ""


def render(name: str, heading: str, folder: Path, /, *, template: str = "", **facts: Any) -> Part:
    """A part from ``<template or name>.html`` of a folder of templates.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    return Part(name, heading, open_environment(folder).get_template(f"{template or name}.html").render(**facts))


def compose_page(
    title: str, parts: Sequence[Part], *, home: tuple[str, str] | None = None, about: str = "", served: str = ""
) -> str:
    """One HTML file of rendered parts.

    Parameters
    ----------
    title : str
        Of the window.
    home : (str, str), optional
        Address and name of the page that this one lies beside.
    about : str
        What it shows, which `page_about` reads.
    served : str
        Token of the `wsolpipe.pages.server.PageServer` that the page may ask; empty for a page that asks for nothing.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    environment = open_environment()
    from markupsafe import Markup

    style = "\n".join([_file("style.css"), *(part.style for part in parts if part.style)])
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    body = [{"name": part.name, "title": part.title, "html": Markup(part.html)} for part in parts]  # escaped before
    shell = environment.get_template("page.html")
    return shell.render(
        title=title,
        parts=body,
        style=Markup(style),
        script=Markup(script),
        digest=digest,
        home=home,
        about=about,
        served=served,
    )


def write_page(path: Path, html: str) -> None:
    """Write a page whole or not at all.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(html, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        msg = f"cannot write {path}: {error.strerror}"
        raise ConfigError(msg, hint="choose another place with out=FILE.html") from error


def page_about(html: str) -> str:
    """Return the subject of a page of `compose_page`; empty for another file."""
    found = re.search(r'<meta name="description" content="([^"]*)">', html)
    return unescape(found[1]) if found else ""


@cache  # templates are compiled once a process
def open_environment(*folders: Path) -> Environment:
    """Jinja environment that escapes all it prints, with the filters of our figures; templates of `folders` first.

    Shares and IoU are fractions there and printed in per cent with one decimal: ``share`` writes 78.7 for 0.787.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    with raise_as(ConfigError, "pages need jinja2", ImportError, hint="pip install 'wsolpipe[report]'", say=str):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader([*folders, FILES]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = share
    environment.filters["signed"] = lambda value: f"{100 * value:+.1f}".replace("-", "−")
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    environment.filters["mib"] = lambda value: (
        f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.0f} KiB"
    )
    return environment


def share(value: Any) -> str:
    """A fraction in per cent with one decimal; – where there is none."""
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def _file(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def _script() -> str:
    """The parts of the page's script, put together in the order of their names."""
    parts = "\n".join(path.read_text(encoding="utf-8") for path in sorted((FILES / "script").glob("*.js")))
    return f'\n"use strict";\n(() => {{\n{parts}}})();\n'
