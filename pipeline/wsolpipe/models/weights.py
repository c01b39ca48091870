"""Weights by what they hold: every file that goes into a result is known by its sha256."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """One resolved weights file.

    Attributes
    ----------
    sha256 : str
        Of the file's bytes (for random weights: of the words that make them).
    source : str
        File name, ``timm:NAME`` or ``random:SEED``; never a path of this machine.
    path : Path or None
        Where the file is here; None for random weights.
    """

    sha256: str
    source: str
    path: Path | None
