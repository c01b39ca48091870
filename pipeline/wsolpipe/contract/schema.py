"""The published schema: what arrays hold, which values mean what, and the version that a reader checks first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]


SCHEMA_VERSION = 2  # 2: manifests name the checksum of chunks; what was written before has none and stays readable
INNER_CHUNK_ROWS = 32
CHECKSUM: Literal["crc32c"] = "crc32c"  # of every chunk of arrays that are made now

#: Columns of ``index.parquet``. ``image`` in a stage's list of columns stands for `IMAGE_COLUMNS`.
INDEX_COLUMNS = (
    "row",
    "image_id",
    "path",
    "labels",
    "width",
    "height",
    "orientation",
    "bytes",
    "sha256",
    "group",
    "frame",
    "reason",
)
#: ``reason`` of a row whose image left the split: it keeps its place and its other columns, and is not counted.
RETIRED = "no longer listed"
#: Columns of a box in ``annotations.parquet``, pixels.
EDGES = ("x0", "y0", "x1", "y1")
IMAGE_COLUMNS = ("sha256", "width", "height", "orientation")


class Status(IntEnum):
    """Values of the ``status`` array, uint8, one a row."""

    ABSENT = 0
    OK = 1
    QUARANTINED = 2
    NO_OBJECT = 3


class Step(IntFlag):
    """Steps of the choice that a candidate of ``val_boxes`` passed; bits of the array ``steps``."""

    TOP = 1
    POINTED = 2
    FINALIST = 4


class Fallback(IntFlag):
    """Replacement of a step of ``val_boxes`` that left no candidate; bits of the array ``fallback``."""

    NO_REGION = 1
    PEAK_OUTSIDE = 2
    NO_SCORE = 4
    NO_PEAK = 8
    BELOW_FLOOR = 16


class ArraySpec(BaseModel, extra="forbid", frozen=True):
    """One named array of a rows stage; axis 0 is the row.

    Attributes
    ----------
    dtype : str
        Numpy name.
    shape : tuple of int
        Extent of the axes after the row axis.
    fill : float, int or "nan"
        What a row without a result holds.
    level : int
        Of zstd; 0 is its default. Negative levels are read faster and take more room.
    unit, meaning : str
        For people and dataset cards.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    fill: float | int | str = 0
    level: int = Field(default=0, ge=-22, le=22)
    unit: str = ""
    meaning: str = ""

    def fill_value(self) -> Any:
        """`fill` as a numpy scalar of `dtype`."""
        return np.dtype(self.dtype).type(self.fill)

    def empty(self, rows: int) -> np.ndarray[Any, Any]:
        """Array of `rows` rows that holds only `fill`."""
        return np.full((rows, *self.shape), self.fill_value(), dtype=self.dtype)


STATUS_SPEC = ArraySpec(
    dtype="uint8", meaning="0 absent, 1 ok, 2 quarantined, 3 no object: the class of this row names no object"
)


def boxes_spec(slots: int, meaning: str) -> ArraySpec:
    """Array of `slots` boxes a row: xyxy, half-open, pixels of the original image, NaN where there is none."""
    return ArraySpec(dtype="float32", shape=(slots, 4), fill="nan", unit="pixel of the original image", meaning=meaning)


class Weights(BaseModel, extra="forbid", frozen=True):
    """A weights file that went into a result: named by content, with where it came from.

    Attributes
    ----------
    source
        file name, or loader:name; never a path of a machine
    """

    name: str
    sha256: str
    source: str


ROW = "row"
#: Axes after the row axis, by the name of the array. ``edge`` is x0, y0, x1, y1; ``bound`` low, high; ``point`` x, y;
#: ``side`` rows, columns.
AXES: dict[str, tuple[str, ...]] = {
    "maps": ("map", "y", "x"),
    "range": ("map", "bound"),
    "class_ids": ("map",),
    "grid_hw": ("side",),
    "boxes": ("box", "edge"),
    "scores": ("box",),
    "source": ("box",),
    "labels": ("box",),
    "top_box": ("box", "edge"),
    "candidates": ("candidate", "edge"),
    "objectness": ("candidate",),
    "posterior": ("candidate",),
    "agreement": ("candidate",),
    "steps": ("candidate",),
    "peak": ("point",),
    "masks": ("y", "x"),
    "rgb": ("channel", "y", "x"),
}


def axis_names(arrays: Mapping[str, ArraySpec]) -> dict[str, tuple[str, ...]]:
    """Names of all axes of the arrays of one stage, the row axis first.

    In one stage an axis name has one extent. An array whose axes have no name here, or whose extent differs from that
    of an earlier array, gets names of its own: ``ARRAY_1``, ``ARRAY_2`` ….

    Examples
    --------
    >>> from wsolpipe.contract.schema import ArraySpec
    >>> specs = {"boxes": (10, 4), "scores": (10,), "mean": (), "tokens": (5, 8)}
    >>> axis_names({name: ArraySpec(dtype="uint8", shape=shape) for name, shape in specs.items()})["boxes"]
    ('row', 'box', 'edge')
    """
    extents: dict[str, int] = {}
    named = {}
    for array, spec in sorted(arrays.items()):
        own = tuple(f"{array}_{axis}" for axis in range(1, 1 + len(spec.shape)))
        known = AXES.get(array, own)
        if len(known) != len(own):
            known = own
        names = []
        for name, unique, extent in zip(known, own, spec.shape, strict=True):
            names.append(name if extents.setdefault(name, extent) == extent else unique)
        named[array] = (ROW, *names)
    return named


CHECKSUM_BYTES = 4
ENTRY_BYTES = 16
HEADER_BYTES = 18
#: Offset and length, in the table of a shard, of a chunk that holds fill values alone.
EMPTY = 2**64 - 1
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def inner_rows(shard_rows: int) -> int:
    """Rows of a chunk: the largest divisor of `shard_rows` up to `INNER_CHUNK_ROWS`."""
    return next(size for size in range(min(INNER_CHUNK_ROWS, shard_rows), 0, -1) if shard_rows % size == 0)


@dataclass(frozen=True)
class ShardDecoder:
    """Decodes shards of one array.

    Attributes
    ----------
    rows, chunks : int
        Rows of a chunk, and chunks of a shard.
    checksum : bool
        Whether each chunk ends in a crc32c.
    """

    spec: ArraySpec
    rows: int
    chunks: int
    checksum: bool

    @classmethod
    def of(cls, spec: ArraySpec, shard_rows: int, checksum: str) -> ShardDecoder:
        """Decoder of an array as its manifest describes it."""
        rows = inner_rows(shard_rows)
        return cls(spec, rows, shard_rows // rows, bool(checksum))

    def decode(self, read: Read, size: int, rows: slice | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows of the shard object of `size` bytes that `read` gives.

        Parameters
        ----------
        rows : slice of step 1, or int64 [n], ascending
            Counted from the first row of the shard.

        Raises
        ------
        ValueError, RuntimeError
            If a checksum is wrong or the bytes do not decode to what the array holds.
        """
        wanted = self._chunks(rows)
        found = self.spec.empty(len(wanted) * self.rows)
        entries = self._entries(read, size)
        places = {number: entries[chunk].tolist() for number, chunk in enumerate(wanted) if entries[chunk, 0] != EMPTY}
        if any(offset + length > size for offset, length in places.values()):
            msg = "a chunk reaches over the end of the object"
            raise ValueError(msg)
        if isinstance(rows, slice) and places:  # neighbours: one read for all of them
            base = min(offset for offset, _ in places.values())
            body = read(base, max(offset + length for offset, length in places.values()))
            read = lambda start, stop: body[start - base : stop - base]  # noqa: E731
        for number, (offset, length) in places.items():
            self._fill(found[number * self.rows : (number + 1) * self.rows], read(offset, offset + length))
        if isinstance(rows, slice):
            skipped = rows.start - int(wanted[0]) * self.rows
            return np.asarray(found[skipped : skipped + rows.stop - rows.start])
        return np.asarray(found[np.searchsorted(wanted, rows // self.rows) * self.rows + rows % self.rows])

    def _chunks(self, rows: slice | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Numbers of the chunks that hold these rows, ascending."""
        if isinstance(rows, slice):
            return np.arange(rows.start // self.rows, -(-rows.stop // self.rows))
        return np.unique(rows // self.rows)

    def check_frames(self, data: bytes, present: int) -> None:
        """Make sure that each of the first `present` chunks is one frame of a chunk's size, without decompressing.

        Raises
        ------
        ValueError
            If one is missing, or declares another size: a wrong type, or a decompression bomb.
        """
        entries = self._entries(lambda start, stop: data[start:stop], len(data))
        for chunk, (offset, length) in enumerate(entries.tolist()):
            if offset == EMPTY and chunk < present:
                msg = f"chunk {chunk} is missing"
                raise ValueError(msg)
            if offset != EMPTY:
                self._check_frame(data[offset : min(offset + HEADER_BYTES, offset + length)])

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk before compression."""
        return self.rows * row_bytes(self.spec)

    def _entries(self, read: Read, size: int) -> np.ndarray[Any, Any]:
        """Offset and length of each chunk, uint64 [chunks, 2]."""
        length = ENTRY_BYTES * self.chunks + CHECKSUM_BYTES
        if size < length:
            msg = f"the object is too short for {self.chunks} chunks"
            raise ValueError(msg)
        return np.frombuffer(_checked(read(size - length, size)), "<u8").reshape(self.chunks, 2)

    def _fill(self, target: np.ndarray[Any, Any], data: bytes) -> None:
        """Decompress a chunk into the rows that it holds."""
        from numcodecs.zstd import decompress

        content = _checked(data) if self.checksum else data
        self._check_frame(content[:HEADER_BYTES])
        decompress(content, target)

    def _check_frame(self, head: bytes) -> None:
        if frame_size(head) != self.chunk_bytes:
            msg = f"a chunk does not hold {self.chunk_bytes} bytes as its type and shape require"
            raise ValueError(msg)


def row_bytes(spec: ArraySpec) -> int:
    """Bytes of one row of an array before compression."""
    size = np.dtype(spec.dtype).itemsize
    for extent in spec.shape:
        size *= extent
    return size


def frame_size(head: bytes) -> int | None:
    """Decompressed size that a zstd frame declares (RFC 8878, section 3.1.1.1); None if it declares none."""
    if len(head) < 6 or head[:4] != _ZSTD_MAGIC:
        return None
    flags = head[4]
    single, dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    first = 5 + (1 - single) + dictionary
    if not width or len(head) < first + width:
        return None
    size = int.from_bytes(head[first : first + width], "little")
    return size + 256 if width == 2 else size


def _checked(data: bytes) -> bytes:
    """The bytes before the crc32c at the end of `data`.

    Raises
    ------
    ValueError
        If it is of other bytes.
    """
    from google_crc32c import value

    content = data[:-CHECKSUM_BYTES]
    if value(content) != int.from_bytes(data[-CHECKSUM_BYTES:], "little"):
        msg = "a checksum does not agree with its bytes"
        raise ValueError(msg)
    return content
