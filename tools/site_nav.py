"""Hook of mkdocs: the order of the pages, and files of the repository outside of ``docs/`` that belong to the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ORDER: dict[str, list[str]] = {
    "Start": ["index.md", "guide/first-hour.md", "guide/concepts.md", "guide/demo.md"],
    "Labels": [
        "guide/running.md", "guide/clip-maps.md", "guide/validation-boxes.md", "guide/scoring.md",
        "guide/selecting.md", "guide/report.md", "guide/sharing.md",
    ],
    "Training": ["guide/training.md", "guide/comparing.md", "guide/tables.md", "guide/tedloc.md"],
    "Scale": ["guide/clusters.md", "guide/costs.md"],
    "Help": [
        "guide/troubleshooting.md", "guide/alternatives.md", "guide/versions.md", "contributing.md", "security.md",
    ],
}  # fmt: skip
OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "tools/experiments/README.md": "experiments.md",
    "notebooks/first_hour.ipynb": "notebooks/first_hour.ipynb",
}
"""File of the repository -> its place in the site."""
INSIDE = {place: file for file, place in OUTSIDE.items()}
LINK = re.compile(r"\]\(([^):#]+)((?:#[^)]*)?)\)")


def navigation(docs: Path) -> list[dict[str, list[str]]]:
    """Sections of pages; every page of `docs`, and every one from outside, is in one of them; others follow."""
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    there |= {place for place in INSIDE if place.endswith(".md")}
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


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs when it has listed ``docs/``: adds the files from outside."""
    root = Path(config["docs_dir"]).parent
    for file, place in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(root / file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page: links that hold in the repository become those that hold in the site."""
    place = page.file.src_uri
    here = posixpath.dirname(INSIDE.get(place, f"docs/{place}"))

    def moved(link: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(here, link[1]))
        target = OUTSIDE.get(file, file.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(place))}{link[2]})"

    return LINK.sub(moved, markdown)
