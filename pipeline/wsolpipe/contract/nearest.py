"""Did you mean …: one wording for every unknown name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 80
"""Characters of a user's word that an error message repeats."""


def shorten(text: str) -> str:
    """`text` as an error message shows it: cut after `LONGEST` characters, with its length.

    Examples
    --------
    >>> shorten("proposals"), shorten("a" * 5000)[-23:]
    ('proposals', 'a… (5,000 characters)')
    """
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def unknown(kind: str, given: str, valid: Iterable[str]) -> str:
    """Say that `given` is not a known `kind`, name the nearest of `valid` and list them all.

    Examples
    --------
    >>> unknown("stage", "proposal", ["cls_maps", "proposals"])
    "unknown stage 'proposal'; did you mean 'proposals'? Valid: cls_maps, proposals"
    """
    names = sorted(set(valid))
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5) if len(given) <= LONGEST else []
    guess = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown {kind} {shorten(given)!r}{guess} Valid: {', '.join(names) or 'none'}"
