"""From a data set's files to the listing of a split: one module a layout."""

from __future__ import annotations

from wsolpipe.images.importers.registry import list_split, source_stamp
from wsolpipe.images.listing import Annotation, ListedRow, Listing

__all__ = ["Annotation", "ListedRow", "Listing", "list_split", "source_stamp"]
