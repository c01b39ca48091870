"""The rows of an index from a listing and the scan of its files: their order, and whether both agree.

Indexing has two steps: the listing (paths, labels, ground truth) is cheap and made whole; the scan (`scan`) opens every
file and is cut into shards by the engine. `tables` turns the rows into tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.schema import RETIRED
from wsolpipe.images.listing import Annotation, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.images.scan import Scan


@dataclass(frozen=True)
class Checked:
    """Annotations that agree with their files.

    Attributes
    ----------
    annotations : list of Annotation
        Boxes clipped to their images; those of quarantined rows as they were.
    numbers : dict of str to int
        Row of each image that has annotations.
    clipped : int
        Boxes that reached over an edge.
    """

    annotations: list[Annotation]
    numbers: dict[str, int]
    clipped: int


def order_rows(listing: Listing, previous: Sequence[ListedRow]) -> list[ListedRow]:
    """Rows in index order: known ones where they were, new ones after them, sorted by image_id.

    Parameters
    ----------
    listing : Listing
        What the split holds now.
    previous : sequence of ListedRow
        Every row of the index before, in order, with labels as they are numbered now; empty for a first index.

    Returns
    -------
    list of ListedRow
        A row that the listing no longer has keeps its place, path and labels with the reason `RETIRED`.
    """
    current = {row.image_id: row for row in listing.rows}
    known = [current.pop(row.image_id, row._replace(reason=RETIRED)) for row in previous]
    return known + list(current.values())


class ListingCheck:
    """Metadata held against the files, some rows at a time; keeps sizes only of images with annotations.

    Parameters
    ----------
    annotations : sequence of Annotation
        Of the rows that will be added; any other is an error.
    subject : str
        Name of the data set in messages.
    """

    def __init__(self, annotations: Sequence[Annotation], *, subject: str = "data set") -> None:
        self._annotations, self._problems = annotations, Problems(subject)
        self._wanted = {item.image_id for item in annotations}
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._numbers: dict[str, int] = {}
        self._count = 0

    def add(self, rows: Sequence[ListedRow], scans: Sequence[Scan]) -> None:
        """Hold the next rows, in index order, against the scans of their files.

        Raises
        ------
        DataError
            At the twentieth declared size that is not the file's; with file and line.
        """
        for row, scan in zip(rows, scans, strict=True):
            if row.image_id in self._wanted:
                self._sizes[row.image_id] = None if scan.reason else (scan.width, scan.height)
                self._numbers[row.image_id] = self._count
            self._count += 1
            if row.width is not None and not scan.reason and (row.width, row.height) != (scan.width, scan.height):
                turned = (row.height, row.width) == (scan.width, scan.height) and scan.orientation >= 5
                note = " (it is stored sideways: exif: ignore keeps stored pixels)" if turned else ""
                self._problems.add(
                    row.size_where,
                    f"{row.path} is {scan.width}x{scan.height} pixels, not {row.width}x{row.height}{note}",
                )

    def finish(self) -> Checked:
        """Check the annotations, once every row was added.

        Raises
        ------
        DataError
            For up to twenty of: a declared size that is not the file's, a box wholly outside its image, an annotation
            of an unknown image; each with file and line.
        """
        self._problems.settle(
            hint="correct the sizes, or set files: {image_sizes: null} if boxes fit the files as they are"
        )
        checked: list[Annotation] = []
        clipped = 0
        for item in self._annotations:
            if item.image_id not in self._sizes:
                self._problems.add(item.where, f"{item.image_id!r} is not an image of this split")
                continue
            size = self._sizes[item.image_id]
            if item.kind != "box" or size is None:
                checked.append(item)
                continue
            inside = _clip(item, size)
            if inside is None:
                box = f"({item.x0:g}, {item.y0:g}, {item.x1:g}, {item.y1:g})"
                text = f"box {box} lies wholly outside {item.image_id}, {size[0]}x{size[1]} pixels"
                self._problems.add(item.where, text)
                continue
            clipped += inside is not item
            checked.append(inside)
        self._problems.settle()
        return Checked(checked, self._numbers, clipped)


def _clip(item: Annotation, size: tuple[int, int]) -> Annotation | None:
    """The same item where its box lies inside (width, height), one with the part inside, or None without any."""
    width, height = size
    if item.x0 >= 0 and item.y0 >= 0 and item.x1 <= width and item.y1 <= height:
        return item
    if item.x0 >= width or item.y0 >= height or item.x1 <= 0 or item.y1 <= 0:
        return None
    return item._replace(x0=max(item.x0, 0.0), y0=max(item.y0, 0.0), x1=min(item.x1, width), y1=min(item.y1, height))
