"""The rows that are scored and where their maps come from: a slot of a stage, or a folder; every row counted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsolpipe.contract.errors import BadImageError, ConfigError
from wsolpipe.contract.layout import short_key, stage_folder
from wsolpipe.contract.making import run_command
from wsolpipe.contract.schema import RETIRED, Status
from wsolpipe.images.decode import probe
from wsolpipe.images.index import list_split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.contract.reader import Index, StageView
    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.listing import Listing
    from wsolpipe.metrics.scoremaps import ScoreMaps


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
        If the split has no index.
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


Array = np.ndarray[Any, Any]
BATCH = 128
TOP = 5


@dataclass(frozen=True)
class MapBatch:
    """Maps of some rows.

    Attributes
    ----------
    rows : int64 array [B]
    maps : list of float array [h, w] or None
        None where a map is missing.
    predicted : int array [B, K] or None
        Predicted classes, best first, where they are known; one, or at least as many as Top-5 figures need.
    of_label : dict of int to float array [h, w] or None
        By position in the batch, the map of the row's own label where `maps` holds that of another class.
    """

    rows: Array
    maps: list[Array | None]
    predicted: Array | None = None
    of_label: dict[int, Array | None] = field(default_factory=dict)


class MapSource(Protocol):
    """Where maps come from.

    Attributes
    ----------
    labels : str
        ``"true"`` if maps are of their row's own label or of no class, else ``"predicted"``.
    quarantined : int
        Rows that the last pass left out because their image cannot be read.
    """

    labels: str
    quarantined: int

    def batches(self) -> Iterator[MapBatch]:
        """Every row that is not quarantined."""


class StoredSource(MapSource, Protocol):
    """Maps that are kept somewhere.

    Attributes
    ----------
    origin : dict
        Which of a stage's maps these are, as results state it.
    """

    origin: dict[str, Any]


class StageMaps:
    """One slot of a stage of maps.

    Parameters
    ----------
    view : StageView
    slot : int
    rows : RowTable

    Attributes
    ----------
    labels : str
        ``"true"`` if the slot's maps are of their image's own class or of no class, else ``"predicted"``.
    """

    def __init__(self, view: StageView, slot: int, rows: RowTable) -> None:
        slots = view.manifest.arrays["maps"].shape[0]
        if not 0 <= slot < slots:
            msg = f"map={slot}: stage {view.stage} holds {slots} maps, numbered from 0"
            raise ConfigError(msg)
        self.view, self.slot, self.rows, self.quarantined = view, slot, rows, 0
        self.params = made_with(view)
        self.origin: dict[str, Any] = {"map": slot}
        named = "class_ids" in view.manifest.arrays or "classes" in view.manifest.arrays
        self.labels = self._labels() if named else "true"
        # Slots of one method are its likeliest classes, best first.
        methods = self.params.get("methods")
        count = slots // len(methods) if methods else slots
        self.first = slot // count * count
        self.ranked = slice(self.first, self.first + count)

    def _labels(self) -> str:
        """By the parameter that says so, else by the classes themselves."""
        if "target" in self.params:
            return "true" if self.params["target"] == "true" else "predicted"
        for record in self.view.committed().values():
            classes = self.view["class_ids"][record.start : record.stop].reshape(record.stop - record.start, -1)
            for row, label in enumerate(classes[:, self.slot], start=record.start):
                if label >= 0 and label not in self.rows.labels[row]:
                    return "predicted"
        return "true"

    def batches(self) -> Iterator[MapBatch]:
        """Dequantised maps (float32, cropped where they are padded), at most `BATCH` rows at once."""
        self.quarantined = 0
        for record in self.view.committed().values():
            for start in range(record.start, record.stop, BATCH):
                yield self._batch(start, min(start + BATCH, record.stop))

    def _batch(self, start: int, stop: int) -> MapBatch:
        block = MapBlock(self.view, slice(start, stop))
        bad, left = block.status == Status.QUARANTINED, self.rows.left[start:stop]
        kept = np.flatnonzero(~bad & ~left)
        self.quarantined += int((bad & ~left).sum())
        maps = [block.map(int(at), self.slot) for at in kept]
        if "classes" in self.view.manifest.arrays:  # those of the image, whichever class the map is of
            return MapBatch(start + kept, maps, self.view["classes"][start:stop][kept])
        if self.labels != "predicted":
            return MapBatch(start + kept, maps)
        classes = self.view["class_ids"][start:stop].reshape(stop - start, -1)[kept, self.ranked]
        of_label = {}
        for place, at in enumerate(kept):
            ranks = np.flatnonzero(classes[place] == self.rows.label(start + int(at)))
            if len(ranks) and self.first + ranks[0] != self.slot:
                of_label[place] = block.map(int(at), self.first + int(ranks[0]))
        enough = classes.shape[1] >= min(TOP, self.rows.classes or TOP)
        return MapBatch(start + kept, maps, classes if enough else classes[:, :1], of_label)


def made_with(view: StageView) -> Mapping[str, Any]:
    """Parameters of the network's stage, see `source_of`."""
    return source_of(view).manifest.params


def source_of(view: StageView) -> StageView:
    """The stage whose maps this one refined or smoothed, where the store holds it; else the stage itself."""
    read, upstream = str(view.manifest.params.get("maps")), view.manifest.upstream
    source = upstream.get(read)
    if source is None or not view.backend.names(stage_folder(view.dataset, view.split, read, short_key(source))):
        return view
    return source_of(replace(view, stage=read, key=short_key(source)))


def map_names(view: StageView) -> list[str]:
    """Names of a stage's maps by slot: heads of class-token maps, methods of activation maps, else the stage itself."""
    source, arrays = source_of(view), view.manifest.arrays
    count, params = arrays["maps"].shape[0], source.manifest.params
    if source.stage == "cls_maps":
        heads = params.get("heads")
        listed = heads if isinstance(heads, list) and len(heads) >= count - 1 else range(count - 1)
        return ["mean", *(f"head {head}" for head in list(listed)[: count - 1])]
    methods = params.get("methods")
    named = methods.split(",") if isinstance(methods, str) else methods if isinstance(methods, list) else [view.stage]
    each = max(count // max(len(named), 1), 1)
    word = ", class" if "class_ids" in arrays else ""
    return [
        f"{str(named[min(slot // each, len(named) - 1)]).strip()}{f'{word} {slot % each + 1}' if each > 1 else ''}"
        for slot in range(count)
    ]


class MapBlock:
    """Arrays of some rows of a stage of maps.

    Parameters
    ----------
    view : StageView
    rows : slice or int64 array [B]
    """

    def __init__(self, view: StageView, rows: slice | Array) -> None:
        arrays = view.manifest.arrays
        self.status, self.levels = view["status"][rows], view["maps"][rows]
        self.ranges = view["range"][rows] if "range" in arrays else None
        self.grids = view["grid_hw"][rows] if "grid_hw" in arrays else None
        self.unit = bool(view.manifest.params.get("unit"))
        self.values = view["values"][rows] if "values" in arrays else None

    def map(self, at: int, slot: int) -> Array | None:
        """Map [h, w] of a row as it was made where that was kept, else dequantised and cropped where it is padded.

        None where there is none.
        """
        ranges = None if self.ranges is None else self.ranges[at, slot]
        if self.status[at] != Status.OK or not (ranges is None or np.isfinite(ranges).all()):
            return None
        if self.values is not None:
            return np.asarray(self.values[at, slot], np.float32)
        levels = self.levels[at, slot]
        if self.grids is not None:
            height, width = self.grids[at]
            levels = levels[:height, :width]
        low, high = (0.0, 255.0) if ranges is None else (float(edge) for edge in ranges)
        values = np.asarray(low + levels.astype(np.float32) * np.float32((high - low) / 255), np.float32)
        return values.clip(0, 1) if self.unit else values  # rounding may overshoot level 255


class FolderMaps:
    """A folder of ``<image_id>.npy`` or ``.npz``; an image without a file is a missing map.

    Raises
    ------
    ConfigError
        If the folder holds no map of any of the rows, as that of another data set.
    """

    def __init__(self, maps: ScoreMaps, rows: RowTable, labels: str) -> None:
        self.maps, self.rows, self.labels, self.quarantined = maps, rows, labels, 0
        self.origin: dict[str, Any] = {}
        if len(rows) and all(maps.path(name) is None for name in rows.ids):
            msg = f"{maps.root} holds no map of any of the {len(rows)} images of {rows.split}"
            raise ConfigError(msg, hint=f"for {rows.ids[0]} it would be {maps.root / rows.ids[0]}.npy or .npz")

    def batches(self) -> Iterator[MapBatch]:
        """Maps as the files have them, at most `BATCH` at once."""
        usable = np.flatnonzero(~self.rows.quarantined)
        self.quarantined = int((self.rows.quarantined & ~self.rows.left).sum())
        for start in range(0, len(usable), BATCH):
            rows = usable[start : start + BATCH]
            yield MapBatch(rows, [self.maps.read(self.rows.ids[row]) for row in rows])
