"""Did you mean …: one wording for every unknown name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 80
"""Characters of a user's word that an error message repeats."""

CUTOFF = 0.5
"""Likeness from which on a name may have been meant."""
_LONGER = {"train": ("training",), "val": ("valid", "validation", "dev"), "test": ("testing",)}
"""Name of a split -> how else it is called."""
MOST_LISTED = 60
"""Names that an error message lists; of more, only those that are near."""


def shorten(text: str) -> str:
    """`text` as an error message shows it: cut after `LONGEST` characters, with its length.

    Examples
    --------
    >>> shorten("proposals"), shorten("a" * 5000)[-23:]
    ('proposals', 'a… (5,000 characters)')
    """
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def nearest(given: str, valid: Iterable[str], *, cutoff: float = CUTOFF) -> str | None:
    """The nearest of `valid`: equal but for case, else begun by it, else as like it as `cutoff` (1: equal) or None.

    Examples
    --------
    >>> nearest("SAM", ["cams", "sam_boxes"]), nearest("validation", ["train", "val"]), nearest("x", ["train"])
    ('sam_boxes', 'val', None)
    """
    if len(given) > LONGEST:
        return None
    names, low = sorted(set(valid)), given.lower()
    same = [name for name in names if name.lower() == low]
    begun = [name for name in names if name.lower().startswith(f"{low}_") or low in _LONGER.get(name, ())]
    close = same or begun[:1] or difflib.get_close_matches(given, names, n=1, cutoff=cutoff)
    return close[0] if close else None


def guess(given: str, valid: Iterable[str], *, cutoff: float = CUTOFF) -> str:
    """``; did you mean 'NAME'?`` with the nearest of `valid`, empty where none is near.

    Examples
    --------
    >>> guess("lables", ["labels", "photos"]), guess("x", ["photos"])
    ("; did you mean 'labels'?", '')
    """
    close = nearest(given, valid, cutoff=cutoff)
    return f"; did you mean {close!r}?" if close else ""


def guess_path(given: str | Path, pattern: str = "*") -> str:
    """As `guess`, among what else lies in the same folder and matches `pattern`."""
    path = Path(given)
    try:
        names = {entry.stem: entry.name for entry in path.parent.glob(pattern) if entry.name != path.name}
    except OSError:
        return ""
    close = nearest(path.name, names.values(), cutoff=0.9) or names.get(nearest(path.stem, names) or "")
    return f"; did you mean {close!r}?" if close else ""


def unknown(kind: str, given: str, valid: Iterable[str]) -> str:
    """Say that `given` is not a known `kind`, name the nearest of `valid`, and list them all up to `MOST_LISTED`.

    Examples
    --------
    >>> unknown("stage", "proposal", ["cls_maps", "proposals"])
    "unknown stage 'proposal'; did you mean 'proposals'? Valid: cls_maps, proposals"
    """
    names = sorted(set(valid))
    listed = f"Valid: {', '.join(names) or 'none'}"
    if len(names) > MOST_LISTED:
        part = sorted((name for name in names if given and given.lower() in name.lower()), key=len)
        close = difflib.get_close_matches(given, names, n=6, cutoff=CUTOFF) if len(given) <= LONGEST else []
        close = part[:6] or close
        listed = f"Near: {', '.join(close)}" if close else f"There are {len(names):,}, none of a name like it"
    return f"unknown {kind} {shorten(given)!r}{guess(given, names) or '.'} {listed}"
