"""Writing a report to its file."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.report.page import compose

if TYPE_CHECKING:
    from wsolpipe.report.material import Material


@dataclass(frozen=True)
class Written:
    """A report on disk and its main figures; shares are fractions, None without ground truth."""

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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "sections": list(self.sections)}


def write_report(material: Material, out: Path | None = None) -> Written:
    """Make the page and write it whole or not at all.

    Parameters
    ----------
    out : Path, optional
        Default: ``<store>/<dataset>/report.html``.

    Raises
    ------
    ConfigError
        If `out` cannot be written, or is not given and the store is not a local folder.
    """
    page = compose(material)
    data = page.html.encode()
    if out is None:
        local = getattr(material.store.backend, "local_path", None)
        if local is None:
            msg = f"store {material.store.url} is not a local folder"
            raise ConfigError(msg, hint="name the file with out=FILE.html")
        name = f"{material.dataset}/report.html"
        material.store.backend.replace(name, data)
        path = Path(local(name))
    else:
        path = out.absolute()
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
    )


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
