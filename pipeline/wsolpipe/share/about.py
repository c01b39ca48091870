"""Description of a publication, as its card and its Croissant file give it."""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "1.0.0"


@dataclass(frozen=True)
class About:
    """Description of a publication; empty fields are filled from the manifests.

    Attributes
    ----------
    url : str
        Where others find it: the address of the store, or the web address that shows it. Empty for a store in a
        folder, whose path means nothing elsewhere.
    """

    dataset: str
    licence: str = ""
    title: str = ""
    description: str = ""
    citation: str = ""
    url: str = ""
    version: str = VERSION
    date: str = ""
