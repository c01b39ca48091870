"""The rows of an index: listed by the importer of a layout, put in order, and held against the scan of their files.

Indexing has two steps: the listing (paths, labels, ground truth) is cheap and made whole; the scan (`scan`) opens every
file and is cut into shards by the engine. `index_tables` turns the rows into tables.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError, unknown
from wsolpipe.contract.layout import digest
from wsolpipe.contract.schema import RETIRED
from wsolpipe.images.importers.lines import common_sources
from wsolpipe.images.listing import LAYOUTS, Annotation, ListedRow, Listing, Problems, describe_ignored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from wsolpipe.images.dataset import DatasetConfig
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


def list_split(config: DatasetConfig, split: str) -> Listing:
    """List the images of a split with labels and annotations, without opening an image file.

    Raises
    ------
    ConfigError
        If the split is unknown, or the root or a named file is not there.
    DataError
        For up to twenty bad lines at once, each with file and line.
    """
    config.split_folder(split)
    problems = Problems(f"data set {config.name}, split {split}")
    with _no_collector():
        listing = LAYOUTS.find(config.layout).list_rows(config, split, problems)
        problems.settle()
        rows = sorted(listing.rows, key=itemgetter(0))
        _check_text(rows, problems)
    if not rows:
        others = f", only {describe_ignored(listing.ignored)}" if listing.ignored else ""
        msg = f"data set {config.name}, split {split}: no image in {config.image_root()}{others}"
        raise DataError(msg, hint="look at root, split and files in the YAML")
    return replace(listing, rows=rows, objectless=objectless_labels(config, listing))


def source_stamp(config: DatasetConfig, split: str) -> str:
    """Digest that changes when the listing of `split` may have: names, sizes and times of what it is made from.

    Reads no file and, for image folders, looks at folders only: an image that is added, removed or renamed changes its
    folder's time; one that is overwritten does not change the listing.

    Raises
    ------
    ConfigError
        If the root or a named file is not there.
    """
    described = config.model_dump(mode="json", exclude={"stages", "licence", "title", "citation", "root", "accept"})
    return digest(
        [described, split, sorted({*LAYOUTS.find(config.layout).sources(config, split), *common_sources(config)})]
    )


def objectless_labels(config: DatasetConfig, listing: Listing) -> tuple[int, ...]:
    """Labels that the YAML's `objectless` names.

    Raises
    ------
    ConfigError
        If a name is not a class or a label is outside the classes.
    """
    by_name = {name: label for label, name in listing.class_names.items()}
    labels = set()
    for item in config.objectless:
        if isinstance(item, str) and item not in by_name:
            msg = f"{config.source}: objectless: {unknown('class', item, by_name)}"
            raise ConfigError(msg)
        label = by_name[item] if isinstance(item, str) else item
        if label < 0 or (listing.classes is not None and label >= listing.classes):
            msg = f"{config.source}: objectless: label {label} is outside the {listing.classes} classes"
            raise ConfigError(msg)
        labels.add(label)
    return tuple(sorted(labels))


def _check_text(rows: list[ListedRow], problems: Problems) -> None:
    """Add a problem for names that are not UTF-8, which cannot be stored in the index."""
    try:
        "".join([row[0] for row in rows]).encode()
    except UnicodeEncodeError:
        for row in rows:
            if row.image_id.encode(errors="replace").decode() != row.image_id:
                problems.add(ascii(row.image_id), "the file name is not UTF-8: rename the file")
        problems.settle()


@contextmanager
def _no_collector() -> Iterator[None]:
    """Disable the cyclic garbage collector, which millions of small tuples without cycles would start repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def beside(groups: NDArray[np.int64], frames: NDArray[np.int64], before: int, after: int) -> NDArray[np.int64]:
    """Rows of the frames beside each row, wherever in the index they are.

    Parameters
    ----------
    groups, frames : int64 [N]
        Group of each row, −1 for plain images, and position in it.
    before, after : int
        Frames on either side, of the same group: the next that are listed, whatever their numbers.

    Returns
    -------
    int64 [N, before + after]
        Row numbers, earliest first; −1 past the ends of a group.
    """
    order = np.lexsort((frames, groups))
    steps = [*range(-before, 0), *range(1, after + 1)]
    found = np.full((len(groups), len(steps)), -1, np.int64)
    for column, step in enumerate(steps):
        near = np.arange(len(order)) + step
        there = (near >= 0) & (near < len(order))
        other = order[np.where(there, near, 0)]
        same = there & (groups[order] == groups[other]) & (groups[order] >= 0)
        found[order, column] = np.where(same, other, -1)
    return found
