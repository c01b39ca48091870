"""The truth that maps, boxes and masks are scored against: ground truth or pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError, raise_as, reason
from wsolpipe.contract.schema import EDGES, Status
from wsolpipe.evaluate.map_sources import RowTable, check_rows, rows_of_index
from wsolpipe.images.decode import decode_mask
from wsolpipe.images.label_lines import read_boxes
from wsolpipe.metrics.noise import eroded_mask, noisy_boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from wsolpipe.contract.arrays import ArrayView
    from wsolpipe.contract.reader import Index, StageView
    from wsolpipe.evaluate.results import Results

Array = np.ndarray[Any, Any]
NO_BOX = np.zeros((0, 4))
#: Masks kept in memory, a bit a pixel (6 kB of 224 x 224), so that each epoch need not decode them again.
KEPT = 20_000
#: Words that mean ground truth.
TRUTH = ("truth", "gt")
#: Columns of the annotations that hold boxes.
BOXES = ("row", "kind", *EDGES)
MASK_SUFFIXES = (".png", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class MaskFiles:
    """Mask files of one image: their union is foreground; ``ignore`` counts neither way."""

    masks: tuple[Path, ...]
    ignore: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StoredMask:
    """Mask of one row of a stage of masks, the whole image squashed."""

    masks: ArrayView
    row: int


@dataclass(frozen=True)
class Truth:
    """Boxes and masks by row, and the rows themselves.

    Attributes
    ----------
    name : str
        For people: ``ground truth``, ``pseudo-boxes of val_boxes 1f2e3d4c`` …
    rows : RowTable
    found : dict of int to float64 array [M, 4]
        Half-open boxes by row, pixels of the image.
    masks : dict of int to MaskFiles or StoredMask
    noise : float
        Level of disturbance of boxes, or loss of area of masks (`wsolpipe.metrics.noise`).
    seed : int
        Of the noise.
    """

    name: str
    rows: RowTable
    found: dict[int, Array] = field(default_factory=dict)
    masks: dict[int, MaskFiles | StoredMask] = field(default_factory=dict)
    noise: float = 0.0
    seed: int = 0
    _decoded: dict[tuple[int, int], tuple[Array, Array | None]] = field(default_factory=dict, repr=False)
    _noisy: dict[int, Array] = field(default_factory=dict, repr=False)

    def disturbed(self, level: float, seed: int) -> Truth:
        """Return this truth with noise."""
        return replace(self, name=f"{self.name}, noise {level:g}", noise=level, seed=seed, _decoded={}, _noisy={})

    def of_rows(self, chosen: Collection[int]) -> Truth:
        """Return the truth of some rows alone, so that no other row is scored."""
        kept = frozenset(chosen)
        labels = [
            own if row in kept else [] for row, own in enumerate(self.rows.labels)
        ]  # of no class without an object
        rows = replace(self.rows, labels=labels)
        return replace(
            self, name=f"{self.name}, {len(kept)} chosen rows", rows=rows,
            found={row: boxes for row, boxes in self.found.items() if row in kept},
            masks={row: mask for row, mask in self.masks.items() if row in kept}, _decoded={}, _noisy={},
        )  # fmt: skip

    def boxes(self, row: int) -> Array:
        """Boxes [M, 4] of a row; M = 0 where it has none."""
        boxes = self.found.get(row, NO_BOX)
        if not self.noise or not len(boxes):
            return boxes
        if row not in self._noisy:  # each epoch asks for them several times
            width, height = (int(side) for side in self.rows.sizes[row])
            self._noisy[row] = noisy_boxes(boxes, (width, height), self.noise, seed=self.seed, row=row)
        return self._noisy[row]

    def stacked(self, rows: Iterable[int]) -> tuple[Array, Array]:
        """Boxes of many rows: positions int64 [A] in `rows` of the row that each belongs to, and boxes [A, 4]."""
        own = [self.boxes(int(row)) for row in rows]
        counts = np.array([len(boxes) for boxes in own], np.int64)
        return np.repeat(np.arange(len(own)), counts), np.concatenate([NO_BOX, *own])

    def mask(self, row: int, side: int) -> tuple[Array, Array | None] | None:
        """Foreground and pixels to ignore, bool [side, side] each; None where the row has no mask.

        Each mask file is stretched to the frame as the standard evaluator does it, by the nearest pixel whose index is
        rounded down, since files may have other sizes than their image. A row of a class without an object is
        background everywhere.

        Raises
        ------
        BadImageError
            If a mask file cannot be decoded.
        DataError
            If it cannot be read.
        """
        files = self.masks.get(row)
        if files is None:
            return (np.zeros((side, side), np.bool_), None) if self.masks and self.rows.objectless(row) else None
        if (row, side) not in self._decoded:
            made = self._make_mask(files, row, side)
            if len(self._decoded) >= KEPT:
                return made
            self._decoded[row, side] = cast("Any", tuple(None if each is None else np.packbits(each) for each in made))
        packed = self._decoded[row, side]
        foreground, skipped = (
            None if each is None else np.unpackbits(each, count=side * side).view(np.bool_).reshape(side, side)
            for each in packed
        )
        return cast("Array", foreground), skipped

    def _make_mask(self, files: MaskFiles | StoredMask, row: int, side: int) -> tuple[Array, Array | None]:
        if isinstance(files, StoredMask):
            foreground, skipped = _stretched(files.masks[files.row] != 0, side), None
        else:
            foreground = self._union(files.masks, row, side)
            skipped = self._union(files.ignore, row, side) if files.ignore else None
        if self.noise:
            foreground = eroded_mask(foreground, self.noise, seed=self.seed, row=row)
        return foreground, skipped

    def _union(self, paths: tuple[Path, ...], row: int, side: int) -> Array:
        union = np.zeros((side, side), np.bool_)
        for path in paths:
            with raise_as(DataError, f"mask {path} of {self.rows.ids[row]} cannot be read", OSError, say=reason):
                data = path.read_bytes()
            union |= _stretched(decode_mask(data, orientation=int(self.rows.orientations[row])), side)
        return union


def _stretched(mask: Array, side: int) -> Array:
    down, across = (
        np.minimum(np.floor(np.arange(side) * (1.0 / (side / length))).astype(np.int64), length - 1)
        for length in mask.shape
    )
    return np.ascontiguousarray(mask[down[:, None], across[None]])


def find_truth(results: Results, rows: RowTable, word: str) -> Truth:
    """Find what a word of the command line names.

    Parameters
    ----------
    results : Results
        Where stages are looked up.
    rows : RowTable
        Rows that are to be scored.
    word : str
        ``truth`` or ``gt``; a file in the ``localization.txt`` layout; a folder of mask images that mirrors the image
        ids; or a stage, ``STAGE`` or ``STAGE:KEY``, of boxes, whose first box of each row counts (of boxes that
        people drew, all), or of masks. Only the words of `TRUTH` read ground truth.

    Raises
    ------
    ConfigError
        If the stage holds neither boxes nor masks, or a file or folder nothing of any row.
    StoreError
        If the stage is not there or not finished.
    """
    if word in TRUTH:
        return _listed_truth(results, rows) if rows.index is None else truth_of_index(rows, results.mask_root)
    path = Path(word).expanduser()
    if path.is_dir():
        return truth_of_folder(path, rows)
    if path.is_file() or path.suffix in (".txt", ".csv"):
        return truth_of_file(path, rows)
    stage, _, key = word.partition(":")
    return truth_of_stage(results.view(stage, rows.split, key or None), rows)


def truth_of_file(path: Path, rows: RowTable) -> Truth:
    """Boxes of a file in the ``localization.txt`` layout.

    Raises
    ------
    ConfigError
        If it names no image of these rows, as the file of another data set.
    DataError
        If it cannot be read.
    """
    boxes = {rows.places[name]: own for name, own in read_boxes(path).items() if name in rows.places}
    if not boxes:
        msg = f"{path} holds no box of an image of {rows.split}"
        raise ConfigError(msg, hint=f"image ids there look like {rows.ids[0]}" if rows.ids else None)
    return Truth(f"boxes of {path.name}", rows, boxes)


def truth_of_stage(view: StageView, rows: RowTable) -> Truth:
    """First box of each row of a stage of boxes, all boxes of a hand-drawn row, or the masks of a stage of masks.

    Raises
    ------
    ConfigError
        If the stage holds neither, or was made of other rows.
    """
    arrays = view.manifest.arrays
    if "boxes" not in arrays and "masks" not in arrays:
        msg = f"stage {view.stage} holds neither boxes nor masks, but {', '.join(sorted(arrays))}"
        raise ConfigError(msg)
    check_rows(view, rows)
    if "boxes" not in arrays:
        stored = {int(row): StoredMask(view["masks"], int(row)) for row in view.rows()}
        return Truth(f"pseudo-masks of {view.stage} {view.key}", rows, masks=dict(stored))
    found: dict[int, Array] = {}
    for record in view.committed().values():
        span = slice(record.start, record.stop)
        boxes = np.asarray(view["boxes"][span], np.float64).reshape(record.stop - record.start, -1, 4)
        drawn = view["drawn"][span] == 1 if "drawn" in arrays else np.zeros(len(boxes), np.bool_)
        there = np.asarray(~np.isnan(boxes).any(axis=2))
        usable = (view["status"][span] == Status.OK) & np.where(drawn, there.any(axis=1), there[:, 0])
        for at in np.flatnonzero(usable).tolist():
            found[record.start + at] = boxes[at][there[at]] if drawn[at] else boxes[at, :1]
    return Truth(f"pseudo-boxes of {view.stage} {view.key}", rows, found)


def truth_of_index(rows: RowTable | Index, mask_root: Callable[[], Path | None] | None = None) -> Truth:
    """Ground truth of an index.

    Parameters
    ----------
    rows : RowTable or Index
        Rows of an index, or the index.
    mask_root : callable, optional
        Gives the folder that mask paths are relative to; called only where there are masks. Masks are left out
        without it.
    """
    if not isinstance(rows, RowTable):
        rows = rows_of_index(rows)
    assert rows.index is not None
    masks = {} if mask_root is None else _truth_masks(rows.index, mask_root)
    return Truth("ground truth", rows, boxes_by_row(*truth_boxes(rows.index)), masks)


def _listed_truth(results: Results, rows: RowTable) -> Truth:
    assert rows.listing is not None
    found: dict[int, list[tuple[float, ...]]] = {}
    files: list[tuple[int, str, str]] = []
    for item in rows.listing.annotations:
        if item.kind == "box":
            found.setdefault(rows.places[item.image_id], []).append((item.x0, item.y0, item.x1, item.y1))
        else:
            files.append((rows.places[item.image_id], item.kind, item.path))
    own = {row: np.array(boxes, np.float64) for row, boxes in found.items()}
    return Truth("ground truth", rows, own, _mask_files(files, results.mask_root))


def _truth_masks(index: Index, mask_root: Callable[[], Path | None]) -> dict[int, MaskFiles | StoredMask]:
    import pyarrow as pa
    import pyarrow.compute as pc

    drawn = pa.array(["mask", "ignore"])
    if not pc.any(pc.is_in(index.annotations(BOXES).column("kind"), drawn)).as_py():
        return {}
    table = index.annotations(["row", "kind", "path"])
    table = table.filter(pc.is_in(table.column("kind"), drawn))
    columns = [table.column(name).to_pylist() for name in ("row", "kind", "path")]
    return _mask_files(list(zip(*columns, strict=True)), mask_root)


def _mask_files(
    files: list[tuple[int, str, str]], mask_root: Callable[[], Path | None]
) -> dict[int, MaskFiles | StoredMask]:
    if not files:
        return {}
    root = mask_root()
    if root is None:
        return {}
    paths: dict[int, dict[str, list[Path]]] = {}
    for row, kind, name in files:
        paths.setdefault(row, {"mask": [], "ignore": []})[kind].append(root / name)
    return {row: MaskFiles(tuple(own["mask"]), tuple(own["ignore"])) for row, own in paths.items() if own["mask"]}


def truth_of_folder(folder: Path, rows: RowTable) -> Truth:
    """Pseudo-masks of a folder of images that mirrors the image ids.

    Raises
    ------
    ConfigError
        If it holds no mask of these rows.
    """
    masks: dict[int, MaskFiles | StoredMask] = {}
    for row, name in enumerate(rows.ids):
        stems = (name, name.rpartition(".")[0] or name)
        files = (folder / f"{stem}{suffix}" for stem in stems for suffix in MASK_SUFFIXES)
        path = next((path for path in files if path.is_file()), None)
        if path is not None:
            masks[row] = MaskFiles((path,))
    if not masks:
        first = rows.ids[0]
        msg = f"{folder} holds no mask of an image of {rows.split}"
        raise ConfigError(msg, hint=f"for {first} one would be {folder / (first.rpartition('.')[0] or first)}.png")
    return Truth(f"pseudo-masks of {folder.name}", rows, masks=masks)


def truth_boxes(index: Index) -> tuple[Array, Array]:
    """Ground-truth boxes of a split in the order of their rows: rows int64 [A] and boxes float64 [A, 4]."""
    import pyarrow.compute as pc

    table = index.annotations(BOXES)
    table = table.filter(pc.equal(table.column("kind"), "box"))
    rows = table.column("row").to_numpy().astype(np.int64)
    boxes = np.stack([table.column(name).to_numpy().astype(np.float64) for name in EDGES], axis=1)
    order = np.argsort(rows, kind="stable")
    return rows[order], boxes[order]


def boxes_by_row(rows: Array, boxes: Array) -> dict[int, Array]:
    """Boxes [A, 4] in the order of their rows [A], as a mapping of row to its boxes [M, 4]."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return {int(rows[start]): part for start, part in zip(starts, np.split(boxes, starts[1:]), strict=False)}
