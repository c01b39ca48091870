"""The report of a split: a page of sections; every module of `wsolpipe.report.sections` is one of them."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.pages.document import Part, compose_page, open_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jinja2 import Environment

    from wsolpipe.pages.charts import Plot
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
    facts : callable, optional
        Material -> variables of the template; None leaves the section out.
    template : str
        Jinja source; empty: ``templates/<name>.html``. Everything that it prints is escaped.
    style : str
        CSS that only this section needs.
    draw : callable, optional
        Material -> the rendered part, or None; instead of facts and template.
    plots : callable, optional
        Material -> the charts that it shows, by the stems of their files.
    """

    name: str
    title: str
    order: int
    facts: Callable[[Material], Mapping[str, Any] | None] | None = None
    template: str = ""
    style: str = ""
    draw: Callable[[Material], Part | None] | None = None
    plots: Callable[[Material], Mapping[str, Plot]] | None = None

    def render(self, material: Material, environment: Environment) -> Part | None:
        """This part of the page, None where there is nothing to show."""
        if self.draw is not None:
            return self.draw(material)
        facts = self.facts(material) if self.facts else {}
        if facts is None:
            return None
        template = (
            environment.from_string(self.template) if self.template else environment.get_template(f"{self.name}.html")
        )
        return Part(self.name, self.title, template.render(facts, material=material), self.style)


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


def page_plots(material: Material) -> dict[str, Plot]:
    """Every chart of the page by the stem of its file."""
    view = material.boxes or material.maps
    stem = f"{view.stage}-{view.key}-{material.split}" if view else material.split
    drawn = [(section.name, section.plots(material)) for section in all_sections() if section.plots]
    return {f"{stem}-{name}-{part}": plot for name, plots in drawn for part, plot in plots.items()}


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
    environment = open_environment(TEMPLATES)
    drawn = [section.render(material, environment) for section in (all_sections() if sections is None else sections)]
    parts = [part for part in drawn if part is not None]
    title = f"{material.dataset} {material.split} – wsolpipe report"
    html = compose_page(title, parts, about=material.subject)
    return Page(html, tuple(part.name for part in parts))
