"""Decoding shard objects in one go, checksums included.

Zarr reads the same bytes through a pipeline of small tasks, which for chunks of some kilobytes costs more than decoding
them. Arrays of any other encoding than the one that stores are written with are left to zarr.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Bytes of a shard object from one place to another, as a slice takes them.
    Read = Callable[[int | None, int | None], bytes]

CHECKSUM_BYTES = 4
ENTRY_BYTES = 16
#: Offset and length, in the index of a shard, of a chunk that holds fill values alone.
EMPTY = 2**64 - 1


@dataclass(frozen=True)
class ShardDecoder:
    """Decodes shards of one array: zstd chunks of `rows` rows with or without crc32c, then their index with crc32c.

    Attributes
    ----------
    rows, chunks : int
        Rows of a chunk, and chunks of a shard.
    checksum : bool
        Whether each chunk ends in a crc32c.
    """

    rows: int
    chunks: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    checksum: bool

    @classmethod
    def of(cls, array: Any) -> ShardDecoder | None:
        """Decoder of a Zarr array, None if it is encoded in another way."""
        (sharding, *others) = [codec.to_dict() for codec in array.metadata.codecs]
        given = sharding.get("configuration", {})
        names = [codec["name"] for codec in given.get("codecs", ())]
        plain = {"name": "bytes", "configuration": {"endian": "little"}}
        known = (
            not others
            and names in (["bytes", "zstd"], ["bytes", "zstd", "crc32c"])
            and (given["codecs"][0] == plain or np.dtype(array.dtype).itemsize == 1)
            and given["index_codecs"] == (plain, {"name": "crc32c"})
            and str(getattr(given["index_location"], "value", given["index_location"])) == "end"
            and given["chunk_shape"][1:] == tuple(array.shape[1:]) == array.shards[1:]
        )
        if not known:
            return None
        rows, dtype = given["chunk_shape"][0], np.dtype(array.dtype).newbyteorder("<")
        chunks, row_shape = array.shards[0] // rows, tuple(array.shape[1:])
        return cls(rows, chunks, row_shape, dtype, array.fill_value, len(names) == 3)

    def decode(self, read: Read, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows `start` … `stop` − 1 of the shard whose bytes `read` gives.

        Raises
        ------
        ValueError, RuntimeError
            If a checksum is wrong or the bytes do not decode to what the array holds.
        """
        first, last = start // self.rows, -(-stop // self.rows)
        size = ENTRY_BYTES * self.chunks + CHECKSUM_BYTES
        whole = read(None, None) if last - first == self.chunks else None
        entries = self._entries(read(-size, None) if whole is None else whole[-size:])[first:last]
        present = entries[entries[:, 0] != EMPTY]
        if not len(present):
            return self._filled(stop - start)
        base = 0 if whole is not None else int(present[:, 0].min())
        body = read(base, int(present.sum(axis=1).max())) if whole is None else whole
        found = self._filled((last - first) * self.rows)
        for number, (offset, length) in enumerate(entries.tolist()):
            if offset != EMPTY:
                at = number * self.rows
                found[at : at + self.rows] = self._chunk(body, offset - base, offset - base + length)
        return found[start - first * self.rows : stop - first * self.rows]

    def _filled(self, rows: int) -> np.ndarray[Any, Any]:
        return np.full((rows, *self.row_shape), self.fill, self.dtype)

    def _entries(self, data: bytes) -> np.ndarray[Any, Any]:
        """Offset and length of each chunk, uint64 [chunks, 2]."""
        if len(data) != ENTRY_BYTES * self.chunks + CHECKSUM_BYTES:
            msg = f"the object is too short for {self.chunks} chunks"
            raise ValueError(msg)
        return np.frombuffer(_checked(data, 0, len(data)), "<u8").reshape(self.chunks, 2)

    def _chunk(self, body: bytes, start: int, stop: int) -> np.ndarray[Any, Any]:
        from numcodecs.zstd import decompress

        if stop > len(body):
            msg = "a chunk reaches over the end of the object"
            raise ValueError(msg)
        data = _checked(body, start, stop) if self.checksum else body[start:stop]
        return np.frombuffer(decompress(data), self.dtype).reshape(self.rows, *self.row_shape)


def _checked(data: bytes, start: int, stop: int) -> bytes:
    """What a crc32c at the end of a part of `data` is of.

    Raises
    ------
    ValueError
        If it is of other bytes.
    """
    from google_crc32c import value

    end = stop - CHECKSUM_BYTES
    content = data[start:end]
    if value(content) != int.from_bytes(data[end:stop], "little"):
        msg = "a checksum does not agree with its bytes"
        raise ValueError(msg)
    return content
