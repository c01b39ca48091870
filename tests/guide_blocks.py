"""Code blocks of the guide, fenced and indented, and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "docs" / "reference"
FENCED = re.compile(r"(?ms)^```(\w*)\n(.*?)^```")
INDENTED = re.compile(r"(?:\A|(?<=\n\n))((?: {4}.*\n)+)")
SHELL = ("sh", "")
"""Labels of blocks that hold commands; an indented block has none."""


def pages() -> list[str]:
    """Pages that people wrote, README first, by their path in the repository."""
    guide = (path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md")) if GENERATED not in path.parents)
    return ["README.md", *(path.as_posix() for path in guide)]


def blocks(page: str) -> list[tuple[str, str]]:
    """(label, text) of every block of a page in its order."""
    text = (ROOT / page).read_text()
    found = [(match.start(), match[1], match[2]) for match in FENCED.finditer(text)]
    plain = FENCED.sub(lambda match: "\n" * len(match[0]), text)
    found += [(match.start(), "", re.sub(r"(?m)^ {4}", "", match[1])) for match in INDENTED.finditer(plain)]
    return [(label, block) for _, label, block in sorted(found)]


def commands(page: str) -> list[str]:
    """Lines of a page's shell blocks that begin a command, without comments, as a shell takes them apart."""
    text = "\n".join(block for label, block in blocks(page) if label in SHELL)
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [shlex.join(line) for line in lines if line]
