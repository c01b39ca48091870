"""The rows of a split as the evaluator sees them, from a store's index or, without one, from the data set's files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError, ConfigError
from wsolpipe.contract.making import run_command
from wsolpipe.contract.schema import RETIRED
from wsolpipe.images.decode import probe
from wsolpipe.images.index import list_split

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Index, StageView
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
        (width, height) of every upright image; zeros where the image cannot be read.
    orientations : int array [N]
        EXIF orientation that masks are turned by, 1 where nothing is turned.
    silent : frozenset of int
        Labels of classes without an object.
    quarantined : bool array [N]
        Rows whose image cannot be read or is gone: counted beside the figures, never in them. Retired rows are too.
    index : Index or None
        Source of these rows; None if they were listed from files.
    listing : Listing or None
        Where there is no index.
    retired : bool array [N] or None
        Rows whose image left the split: counted nowhere; None for none.
    """

    split: str
    ids: list[str]
    labels: list[list[int]]
    sizes: Array
    orientations: Array
    silent: frozenset[int]
    quarantined: Array
    index: Index | None = None
    listing: Listing | None = None
    retired: Array | None = None

    @cached_property
    def left(self) -> Array:
        """Rows whose image left the split, bool [N]."""
        return np.zeros(len(self.ids), np.bool_) if self.retired is None else self.retired

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> dict[str, int]:
        """Row of each image id."""
        return {name: row for row, name in enumerate(self.ids)}

    def objectless(self, row: int) -> bool:
        """Whether the class of a row has no object."""
        return self.label(row) in self.silent

    def label(self, row: int) -> int:
        """First label of a row, −1 where it has none."""
        labels = self.labels[row]
        return labels[0] if labels else -1

    @property
    def classes(self) -> int | None:
        """Number of classes, where the data set gives it."""
        return self.index.manifest.classes if self.index is not None else None


def rows_of_index(index: Index) -> RowTable:
    """Rows of a split's index; ``annotations.parquet`` is not read."""
    table = index.table(["image_id", "labels", "width", "height", "orientation", "reason"])
    sizes = np.stack([table.column(name).fill_null(0).to_numpy() for name in ("width", "height")], axis=1)
    reasons = table.column("reason").fill_null("").to_numpy(zero_copy_only=False)
    return RowTable(
        index.split,
        table.column("image_id").to_pylist(),
        table.column("labels").to_pylist(),
        sizes,
        table.column("orientation").fill_null(1).to_numpy(),
        frozenset(index.manifest.objectless),
        (reasons != "") | (sizes <= 0).any(axis=1),
        index=index,
        retired=reasons == RETIRED,
    )


def list_rows(dataset: DatasetConfig, split: str, *, without_truth: bool = False) -> RowTable:
    """Rows of a split that has no index, as the data set's metadata files list them.

    Parameters
    ----------
    without_truth : bool
        Read no file of ground truth; the rows then hold no annotation.

    Raises
    ------
    ConfigError
        If the layout cannot be listed without its ground truth.
    """
    if without_truth:
        if dataset.layout not in LISTED_LAYOUTS:
            msg = f"the rows of {split} cannot be listed without reading ground truth in the layout {dataset.layout}"
            raise ConfigError(msg, hint=f"make the index first: {run_command('index', store=None, split=split)}")
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
        np.asarray((shape[:, :2] <= 0).any(axis=1)),
        listing=listing,
    )


def check_rows(view: StageView, rows: RowTable) -> None:
    """Refuse a stage that was made of other rows.

    Raises
    ------
    ConfigError
        If image ids differ.
    """
    if rows.index is not None and view.manifest.index_key == rows.index.key:
        return
    ids = view.index().table(["image_id"]).column("image_id").to_pylist()
    if ids != rows.ids[: len(ids)] or view.manifest.rows != len(rows):
        msg = f"{view.stage} {view.key} of {view.split} was made of {len(ids)} rows, which are not the rows to score"
        raise ConfigError(msg, hint="make both from the same data set, limit= and rows= included")


def _probed(dataset: DatasetConfig, path: str) -> tuple[int, int, int]:
    """Width, height and orientation of an image; zeros for one that cannot be read."""
    try:
        seen = probe((dataset.image_root() / path).read_bytes(), exif=dataset.exif)
    except (BadImageError, OSError):
        return 0, 0, 1
    return seen.width, seen.height, seen.orientation
