"""The rows of a split as scoring sees them, from a store's index or, where there is none, from the data set's files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError, ConfigError
from wsolpipe.images.decode import probe
from wsolpipe.images.importers import list_split

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Index
    from wsolpipe.engine.session import Session
    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.listing import Listing

Array = np.ndarray[Any, Any]
LISTED_LAYOUTS = ("metadata", "openimages")


@dataclass(frozen=True)
class RowTable:
    """Names, labels and sizes of a split's rows; holds no ground truth.

    Attributes
    ----------
    split : str
    ids : list of str
        Image id by row.
    labels : list of list of int
        Labels by row, the first is *the* label.
    sizes : int array [N, 2]
        (width, height) of every image as boxes see it; zeros where the image cannot be read.
    orientations : int array [N]
        EXIF orientation that masks are turned by, 1 where nothing is turned.
    silent : frozenset of int
        Labels of classes without an object.
    index : Index or None
        Where these rows are from; None if they were listed from files.
    listing : Listing or None
        Where there is no index.
    """

    split: str
    ids: list[str]
    labels: list[list[int]]
    sizes: Array
    orientations: Array
    silent: frozenset[int]
    index: Index | None = None
    listing: Listing | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> dict[str, int]:
        """Row of each image id."""
        return {name: row for row, name in enumerate(self.ids)}

    def objectless(self, row: int) -> bool:
        """Whether the class of a row names no object."""
        labels = self.labels[row]
        return bool(labels) and labels[0] in self.silent


def rows_of_index(index: Index) -> RowTable:
    """Rows of a split's index; ``annotations.parquet`` is not opened."""
    table = index.table(["image_id", "labels", "width", "height", "orientation"])
    sizes = np.stack([table.column(name).to_numpy() for name in ("width", "height")], axis=1)
    return RowTable(
        index.split,
        table.column("image_id").to_pylist(),
        table.column("labels").to_pylist(),
        sizes,
        table.column("orientation").to_numpy(),
        frozenset(index.manifest.objectless),
        index=index,
    )


def rows_of_split(session: Session, split: str, *, without_truth: bool = False) -> RowTable:
    """Rows of a split: of the store's index if there is one, else of the data set's metadata files.

    Parameters
    ----------
    without_truth : bool
        Read no file of ground truth: rows that are listed from files hold no annotation then.

    Raises
    ------
    ConfigError
        If there is no index and the layout cannot be listed without its ground truth.
    """
    index = session.index_of(split)
    if index is not None:
        return rows_of_index(index)
    dataset = session.dataset
    if without_truth:
        if dataset.layout not in LISTED_LAYOUTS:
            msg = f"the rows of {split} cannot be listed without reading ground truth in the layout {dataset.layout}"
            command = f"wsolpipe run stage=index dataset={session.config.dataset} split={split}"
            raise ConfigError(msg, hint=f"make the index first: {command} store={session.config.store}")
        dataset = dataset.model_copy(update={"files": {**dataset.files, "localization": None}, "masks": None})
    listing = list_split(dataset, split)
    seen = [
        (row.width, row.height, 1) if row.width and row.height else _probed(dataset, row.path) for row in listing.rows
    ]
    shape = np.array(seen, np.int64).reshape(-1, 3)
    return RowTable(
        split,
        [row.image_id for row in listing.rows],
        [list(row.labels) for row in listing.rows],
        shape[:, :2],
        shape[:, 2],
        frozenset(listing.objectless),
        listing=listing,
    )


def _probed(dataset: DatasetConfig, path: str) -> tuple[int, int, int]:
    """Width, height and orientation of an image; zeros for one that cannot be read: its row is given up."""
    try:
        seen = probe((dataset.image_root() / path).read_bytes(), exif=dataset.exif)
    except (BadImageError, OSError):
        return 0, 0, 1
    return seen.width, seen.height, seen.orientation
