"""A whole split at once through what the engine does to a split part by part."""

from __future__ import annotations

from wsolpipe.images import scan
from wsolpipe.images.index import ListingCheck
from wsolpipe.images.index_tables import index_part, truth_table


def scan_rows(root, rows, **words):
    """Scans of all rows."""
    return list(scan.scan_rows(root, rows, **words))


def check_listing(rows, scans, annotations):
    """Annotations held against their files."""
    check = ListingCheck(annotations)
    check.add(rows, scans)
    return check.finish()


def build_tables(rows, scans, annotations):
    """Index and annotations of a split, unchecked."""
    return index_part(0, rows, scans), truth_table(annotations, {row.image_id: at for at, row in enumerate(rows)})
