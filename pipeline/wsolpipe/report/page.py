"""The report of a split: a page of sections, written whole or not at all; every module of `sections` is one of them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import tempfile
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.label_lines import label_line, read_label_lines, read_line
from wsolpipe.pages.document import Part, compose_page, open_environment, page_about, write_page
from wsolpipe.report import row_cards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jinja2 import Environment

    from wsolpipe.pages.charts import Plot
    from wsolpipe.report.material import Material


ROW_PAGE = re.compile(r"/report-rows/\d{4}\.html")


@dataclass
class Corrections:
    """Lines of corrected rows, by image id, in a file that is always whole.

    Attributes
    ----------
    path : Path
        The file, as ``wsolpipe import format=jsonl`` reads it. What it holds already is kept.
    ids : frozenset of str
        Images of the split.
    """

    path: Path
    ids: frozenset[str]
    lines: dict[str, str] = field(default_factory=dict)
    changed: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path.exists():
            for _ in read_label_lines(self.path):  # refuses what it cannot read
                pass
            for line in self.path.read_text(encoding="utf-8").splitlines():
                if line.strip():
                    self.lines[json.loads(line)["image_id"]] = line
        if stray := sorted(set(self.lines) - self.ids):
            msg = f"{self.path} holds corrections of {stray[0]!r}, which is not an image of this split"
            raise ConfigError(msg, hint="out=FILE names another file for the corrections")

    def take(self, sent: Any) -> dict[str, Any]:
        """Keep what a page sent: a list of ``{"image_id": …, "line": line or null}``; null takes a correction back.

        Raises
        ------
        DataError
            If a line is not one of an image of this split.
        """
        made: dict[str, str | None] = {}
        for item in sent:
            name, line = item["image_id"], item["line"]
            if name not in self.ids or (line is not None and line["image_id"] != name):
                msg = f"{name!r} is not an image of this split"
                raise DataError(msg)
            made[name] = None if line is None else self._checked(line)
        with self.lock:
            kept = {**self.lines, **{name: line for name, line in made.items() if line is not None}}
            for name in (name for name, line in made.items() if line is None):
                kept.pop(name, None)
            write_page(self.path, "".join(f"{kept[name]}\n" for name in sorted(kept)))
            self.lines = kept
        self.changed.set()
        return self.state()

    def _checked(self, line: dict[str, Any]) -> str:
        image = read_line(line)
        return label_line(image).strip() if line.get("unclear") is not True else json.dumps(line)

    def state(self) -> dict[str, Any]:
        """Return the answer to a page that sent something."""
        return {"corrected": len(self.lines)}


@dataclass
class ServedReport:
    """Pages of a report, written anew whenever its first page is opened, so that they show what has grown.

    Attributes
    ----------
    gather : callable
        Gives the material of the report.
    """

    gather: Callable[[], Material]
    token: str = ""
    note: str = ""
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="wsolpipe-")
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, path: str) -> str | None:
        """Text of a page of the report."""
        folder = Path(self._folder.name)
        if path == "/":
            with self._lock:
                write_report(replace(self.gather(), served=self.token), folder / "report.html")
            return (folder / "report.html").read_text(encoding="utf-8")
        if not ROW_PAGE.fullmatch(path) or not (folder / path[1:]).is_file():
            return None
        return (folder / path[1:]).read_text(encoding="utf-8")

    def progress(self, corrections: Corrections) -> dict[str, Any]:
        """Progress of each stage of the split, and the corrected rows."""
        material = self.gather()
        views = {view.stage: view for view in (*material.others, *material.views)}
        stages = {
            name: [sum(record.stop - record.start for record in view.committed().values()), view.manifest.rows]
            for name, view in sorted(views.items())
        }
        return {**corrections.state(), "stages": stages, "note": self.note}

    def close(self) -> None:
        """Remove the pages."""
        self._folder.cleanup()


TEMPLATES = Path(__file__).parent / "templates"
#: Characters of a page that hold what it is about.
HEAD = 4096


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
    draw : callable, optional
        Material -> rendered parts; instead of facts and template.
    plots : callable, optional
        Material -> the charts that it shows, by the stems of their files.
    """

    name: str
    title: str
    order: int
    facts: Callable[[Material], Mapping[str, Any] | None] | None = None
    template: str = ""
    draw: Callable[[Material], list[Part]] | None = None
    plots: Callable[[Material], Mapping[str, Plot]] | None = None

    def render(self, material: Material, environment: Environment) -> list[Part]:
        """Its parts of the page; empty where there is nothing to show."""
        if self.draw is not None:
            return self.draw(material)
        facts = self.facts(material) if self.facts else {}
        if facts is None:
            return []
        template = (
            environment.from_string(self.template) if self.template else environment.get_template(f"{self.name}.html")
        )
        return [Part(self.name, self.title, template.render(facts, material=material))]


@dataclass(frozen=True)
class Page:
    """A finished page and the names of its parts."""

    html: str
    sections: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """A report on disk and its main figures; shares are fractions, None without ground truth.

    `replaced` says what an earlier report in the same file showed, where that was something else.
    """

    path: str
    bytes: int
    dataset: str
    split: str
    stage: str | None
    key: str | None
    rows: int
    shown: int
    quarantined: int
    rows_scored: int
    iou_top1: float | None
    iou_centre: float | None
    sections: tuple[str, ...]
    pages: int = 0
    notes: tuple[str, ...] = ()
    replaced: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "sections": list(self.sections), "notes": list(self.notes)}


def all_sections() -> list[Section]:
    """Every `Section` that a module of `wsolpipe.report.sections` defines, in page order."""
    package = importlib.import_module("wsolpipe.report.sections")
    modules = [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]
    found = [item for module in modules for item in vars(module).values() if isinstance(item, Section)]
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
        If jinja2 or matplotlib is not installed.
    """
    environment = open_environment(TEMPLATES)
    shown = all_sections() if sections is None else sections
    parts = [part for section in shown for part in section.render(material, environment)]
    title = f"{material.dataset} {material.split} – wsolpipe report"
    return Page(
        compose_page(title, parts, about=material.subject, served=material.served), tuple(part.name for part in parts)
    )


def write_report(material: Material, out: Path | None = None) -> Written:
    """Make the page and write it whole or not at all; over 500 rows also the pages of rows beside it.

    Parameters
    ----------
    out : Path, optional
        Default: ``<store>/<dataset>/report.html``.

    Raises
    ------
    ConfigError
        If `out` cannot be written, or is not given and the store is not a local folder or the rows need pages; if the
        folder of images holds none of the rows.
    """
    material.require_images()
    backend, name, pages = material.store.backend, f"{material.dataset}/report.html", 0
    if out is None and len(material.sample) > row_cards.ONE_PAGE:
        msg = f"n={material.n}: over {row_cards.ONE_PAGE} rows lie on pages beside the report, which need a folder"
        raise ConfigError(msg, hint="name the file with out=FOLDER/report.html")
    if out is None and getattr(backend, "local_path", None) is None:
        msg = f"store {material.store.url} is not a local folder"
        raise ConfigError(msg, hint="name the file with out=FILE.html")
    if out is not None and len(material.sample) > row_cards.ONE_PAGE:
        material = replace(material, pages=f"{out.stem}-rows")
        listed, pages = _write_pages(material, out.absolute())
        material = replace(material, listed=tuple(listed))
    page = compose(material)
    data = page.html.encode()
    path = Path(backend.local_path(name)) if out is None else out.absolute()  # type: ignore[attr-defined]
    before = _subject(path)
    if out is None:
        backend.replace(name, data)
    else:
        write_page(path, page.html)
    view, means = material.boxes or material.maps, material.quality.means()
    return Written(
        str(path), len(data), material.dataset, material.split,
        stage=view.stage if view else None, key=view.key if view else None,
        rows=len(material.quality.status), shown=len(material.sample), quarantined=len(material.quarantined),
        rows_scored=int(material.quality.scored.sum()), iou_top1=means.get("top1"), iou_centre=means.get("centre"),
        sections=page.sections, pages=pages, notes=material.notes,
        replaced=before if before != material.subject else "",
    )  # fmt: skip


def _subject(path: Path) -> str:
    """The subject of the report in a file; empty where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return page_about(file.read(HEAD))
    except (OSError, UnicodeDecodeError):
        return ""


def _write_pages(material: Material, out: Path) -> tuple[list[dict[str, Any]], int]:
    """Write the pages of rows: facts of their rows, and how many. Pages of an earlier, longer report are removed."""
    folder, written, listed = out.parent / material.pages, set(), []
    for name, text, facts in row_cards.write_pages(material, out.name):
        write_page(folder / name, text)
        written.add(name)
        listed += facts
    for stale in folder.glob("[0-9][0-9][0-9][0-9].html"):
        if stale.name not in written:
            stale.unlink(missing_ok=True)
    return listed, len(written)
