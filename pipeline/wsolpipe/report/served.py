"""The report as a page that keeps what is corrected in it: in a file at once, and soon after in the store."""

from __future__ import annotations

import json
import re
import tempfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.label_lines import label_line, read_label_lines, read_line
from wsolpipe.pages.document import write_page
from wsolpipe.report.page import write_report

if TYPE_CHECKING:
    from collections.abc import Callable

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
