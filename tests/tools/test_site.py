"""The built documentation site: every link leads somewhere, tables keep their cells, and search works from a disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from chromium import PROGRAM, Browser

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.links |= {value for name, value in attrs if name in {"href", "src"} and value}
        self.anchors |= {value for name, value in attrs if name in {"id", "name"} and value}


@cache
def read(path: Path) -> Links:
    return Links(path.read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built as `make check` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, timeout=240)
    return folder


def dead(page: Path) -> list[str]:
    """Links of a page to files and anchors that are not there; addresses of other sites are not followed."""
    found = []
    for link in sorted(read(page).links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file() or (
            parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in read(target).anchors
        ):
            found.append(link)
    return found


def test_every_link_of_the_site_leads_somewhere(site):
    # A server shows 404.html at any address, so its links begin at the root of the site.
    pages = [path for path in site.rglob("*.html") if path.name != "404.html"]
    assert len(pages) > 30
    assert {str(page.relative_to(site)): links for page in pages if (links := dead(page))} == {}


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">b</a><a href="b.html#gone">b</a><img src="c.webp">')
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    assert dead(tmp_path / "a.html") == ["b.html#gone", "c.webp"]


def test_no_cell_of_a_table_is_split_or_shows_a_backslash():
    """A bare bar in code splits a row on GitHub, one with a backslash shows it in the site: tables have neither."""
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for line in path.read_text().splitlines():
            if line.startswith("|"):
                assert not any("|" in code for code in line.split("`")[1::2]), f"{path.name}: {line}"


@pytest.mark.browser
@pytest.mark.skipif(not PROGRAM, reason="needs Chromium")
def test_search_works_in_pages_opened_from_a_disk(site, tmp_path):
    browser = Browser(tmp_path)
    try:
        browser.open(site / "guide" / "video.html")
        assert browser.run("getComputedStyle(document.querySelector('.md-search')).display") != "none"
        browser.run(
            "(field => { field.focus(); field.value = 'propagate';"
            " field.dispatchEvent(new Event('keyup', {bubbles: true})); })(document.querySelector('.md-search__input'))"
        )
        end, found = time.monotonic() + 60, []
        while not found and time.monotonic() < end:
            found = browser.run("[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)")
        assert any("reference/stages.html" in link for link in found)
        assert all(link.startswith("file:") for link in [*browser.requests, *found])
        assert browser.errors == []
    finally:
        browser.close()
