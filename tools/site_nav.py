"""Order of the documentation's pages, a hook of mkdocs; pages that the order does not name follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ORDER: dict[str, list[str]] = {
    "Start": ["index.md", "guide/first-hour.md", "guide/concepts.md", "guide/demo.md"],
    "Labels": [
        "guide/running.md", "guide/clip-maps.md", "guide/validation-boxes.md", "guide/scoring.md",
        "guide/selecting.md", "guide/report.md", "guide/sharing.md",
    ],
    "Training": ["guide/training.md", "guide/comparing.md", "guide/tables.md", "guide/tedloc.md"],
    "Scale": ["guide/clusters.md", "guide/costs.md"],
    "Help": ["guide/troubleshooting.md", "guide/alternatives.md", "contributing.md"],
}  # fmt: skip


def navigation(docs: Path) -> list[dict[str, list[str]]]:
    """Sections of pages; every page of `docs` is in one of them."""
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    named = {page for pages in ORDER.values() for page in pages}
    found = [{title: [page for page in pages if page in there]} for title, pages in ORDER.items()]
    rest = sorted(there - named)
    guides = [page for page in rest if not page.startswith("reference/")]
    if guides:
        found.append({"More": guides})
    found.append({"Reference": [page for page in rest if page.startswith("reference/")]})
    return [section for section in found if next(iter(section.values()))]


def on_config(config: Any) -> Any:
    """Called by mkdocs before it reads pages."""
    config["nav"] = navigation(Path(config["docs_dir"]))
    return config
