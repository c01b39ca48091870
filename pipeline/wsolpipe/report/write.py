"""Writing a report to its file."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.pages.document import page_about
from wsolpipe.report import row_pages
from wsolpipe.report.page import compose

if TYPE_CHECKING:
    from wsolpipe.report.material import Material

HEAD = 4096
"""Characters of a page that hold what it is about."""


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
    pages = 0
    if len(material.sample) > row_pages.ONE_PAGE:
        if out is None:
            msg = f"n={material.n}: over {row_pages.ONE_PAGE} rows lie on pages beside the report, which need a folder"
            raise ConfigError(msg, hint="name the file with out=FOLDER/report.html")
        material = replace(material, pages=f"{out.stem}-rows")
        pages = _write_pages(material, out.absolute())
    page = compose(material)
    data = page.html.encode()
    if out is None:
        local = getattr(material.store.backend, "local_path", None)
        if local is None:
            msg = f"store {material.store.url} is not a local folder"
            raise ConfigError(msg, hint="name the file with out=FILE.html")
        name = f"{material.dataset}/report.html"
        path = Path(local(name))
        before = _subject(path)
        material.store.backend.replace(name, data)
    else:
        path = out.absolute()
        before = _subject(path)
        _replace(path, data)
    view = material.boxes or material.maps
    means = material.quality.means()
    return Written(
        path=str(path),
        bytes=len(data),
        dataset=material.dataset,
        split=material.split,
        stage=view.stage if view else None,
        key=view.key if view else None,
        rows=len(material.quality.status),
        shown=len(material.sample),
        quarantined=len(material.quarantined),
        rows_scored=int(material.quality.scored.sum()),
        iou_top1=means.get("top1"),
        iou_centre=means.get("centre"),
        sections=page.sections,
        pages=pages,
        notes=material.notes,
        replaced=before if before != material.subject else "",
    )


def _subject(path: Path) -> str:
    """What the report in a file shows; empty where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return page_about(file.read(HEAD))
    except (OSError, UnicodeDecodeError):
        return ""


def _write_pages(material: Material, out: Path) -> int:
    """Write the pages of rows; how many. Pages of an earlier, longer report are removed."""
    folder, written = out.parent / material.pages, set()
    for name, text in row_pages.write_pages(material, out.name):
        _replace(folder / name, text.encode())
        written.add(name)
    for stale in folder.glob("[0-9][0-9][0-9][0-9].html"):
        if stale.name not in written:
            stale.unlink(missing_ok=True)
    return len(written)


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        msg = f"cannot write {path}: {error.strerror}"
        raise ConfigError(msg, hint="choose another place with out=FILE.html") from error
