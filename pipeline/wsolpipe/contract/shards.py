"""Decoding shard objects from what the manifest says of their array: type, shape, checksum.

A shard is a Zarr v3 shard object: chunks of some rows, each one zstd frame (and since schema 2 its crc32c), then a
table of their places, with a crc32c. ``zarr.json`` says the same to readers that know Zarr, and is not read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import INNER_CHUNK_ROWS, ArraySpec

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Bytes `start` … `stop` − 1 of a shard object.
    Read = Callable[[int, int], bytes]

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
