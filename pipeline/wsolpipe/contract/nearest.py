"""Did you mean …: one wording for every unknown name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def unknown(kind: str, given: str, valid: Iterable[str]) -> str:
    """Say that `given` is no `kind`, name the nearest of `valid` and list them all.

    Examples
    --------
    >>> unknown("stage", "proposal", ["cls_maps", "proposals"])
    "unknown stage 'proposal'; did you mean 'proposals'? Valid: cls_maps, proposals"
    """
    names = sorted(set(valid))
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown {kind} {given!r}{guess} Valid: {', '.join(names) or 'none'}"
