"""The shell of a page: head, style, script, and a policy under which nothing is loaded and only that script runs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, raise_as

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment

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
