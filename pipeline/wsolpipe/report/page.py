"""One self-contained HTML page from sections; every module of `wsolpipe.report.sections` is one of them."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jinja2 import Environment

    from wsolpipe.report.material import Material

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A part of the page: facts taken from the material, and a template that shows them.

    Attributes
    ----------
    name : str
        Anchor on the page.
    title : str
        Heading and entry of the page's menu; empty for a part without one.
    order : int
        Place on the page, smallest first.
    facts : callable
        Material -> variables of the template; None leaves the section out.
    template : str
        Jinja source; empty: ``templates/<name>.html``. Everything that it prints is escaped.
    style : str
        CSS that only this section needs.
    """

    name: str
    title: str
    order: int
    facts: Callable[[Material], Mapping[str, Any] | None]
    template: str = ""
    style: str = ""


@dataclass(frozen=True)
class Page:
    """A finished page and what is on it."""

    html: str
    sections: tuple[str, ...]


def all_sections() -> list[Section]:
    """Every module of `wsolpipe.report.sections` that defines ``SECTION``, in page order."""
    package = importlib.import_module("wsolpipe.report.sections")
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found: list[Section] = [module.SECTION for module in modules if hasattr(module, "SECTION")]
    return sorted(found, key=lambda section: (section.order, section.name))


def compose(material: Material, sections: Sequence[Section] | None = None) -> Page:
    """Make the page.

    Parameters
    ----------
    sections : sequence of Section, optional
        Default: `all_sections`.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    environment = _environment()
    parts, styles = [], [(TEMPLATES / "style.css").read_text(encoding="utf-8")]
    for section in all_sections() if sections is None else sections:
        facts = section.facts(material)
        if facts is None:
            continue
        source = section.template
        template = environment.from_string(source) if source else environment.get_template(f"{section.name}.html")
        html = template.render(facts, material=material)
        parts.append({"name": section.name, "title": section.title, "html": html})
        styles.append(section.style)
    from markupsafe import Markup

    shell = environment.get_template("page.html")
    body = [{**part, "html": Markup(part["html"])} for part in parts]  # rendered above, escaped there
    html = shell.render(material=material, parts=body, style=Markup("\n".join(styles)))
    return Page(html, tuple(part["name"] for part in parts))


def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        msg = f"the report needs jinja2: {error}"
        raise ConfigError(msg, hint="pip install 'wsolpipe[report]'") from error
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = lambda value: "–" if value is None or value != value else f"{value:.3f}"
    environment.filters["percent"] = lambda value: "–" if value is None or value != value else f"{100 * value:.0f} %"
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    environment.filters["mib"] = lambda value: (
        f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.0f} KiB"
    )
    return environment
