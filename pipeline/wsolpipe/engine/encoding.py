"""Encoding arrays as one Zarr object a shard, in memory and read back before anything is put."""

from __future__ import annotations

import atexit
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.shards import inner_rows

if TYPE_CHECKING:
    from wsolpipe.contract.layout import Shards
    from wsolpipe.contract.schema import ArraySpec


#: Bytes of a shard that are read back at once; all of them beside what was written would take three times the memory.
READ_BACK = 1 << 24
#: Bytes of an array up to which its shards are remembered by their values.
SMALL = 4096
#: Seconds that the end of the process waits for zarr's thread.
PATIENCE = 30.0


@cache
def _sync() -> Any:
    """zarr's own `sync`, whose thread is waited for at exit.

    zarr itself waits a fifth of a second and then closes the loop of a thread that still runs, with a traceback.
    """
    from zarr.core import sync

    def end() -> None:
        if sync.loop[0] is not None and sync.iothread[0] is not None:
            sync.loop[0].call_soon_threadsafe(sync.loop[0].stop)
            sync.iothread[0].join(PATIENCE)

    atexit.register(end)
    return sync.sync


@lru_cache(maxsize=16)
def _create(spec: ArraySpec, shards: Shards, checksum: str, axes: tuple[str | None, ...] = ()) -> tuple[Any, Any]:
    """A Zarr array in memory and its store; kept, since making one costs as much as encoding a small shard."""
    import zarr.api.asynchronous
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import MemoryStore

    store = MemoryStore()
    making = zarr.api.asynchronous.create_array(
        store,
        shape=(shards.rows, *spec.shape),
        dtype=spec.dtype,
        chunks=(inner_rows(shards.shard_rows), *spec.shape),
        shards=(shards.shard_rows, *spec.shape),
        compressors=[ZstdCodec(level=spec.level), *([Crc32cCodec()] if checksum else [])],
        fill_value=spec.fill_value(),
        dimension_names=axes or None,
        attributes={"unit": spec.unit, "meaning": spec.meaning},
        zarr_format=3,
        config={"write_empty_chunks": True},  # an all-background shard must still exist as an object
    )
    return store, _sync()(making)


async def _bytes_of(store: Any, name: str) -> bytes:
    from zarr.core.buffer import default_buffer_prototype

    return bytes((await store.get(name, default_buffer_prototype())).to_bytes())


def metadata_bytes(spec: ArraySpec, shards: Shards, checksum: str, axes: tuple[str | None, ...]) -> bytes:
    """``zarr.json`` of an array whose chunks have this checksum, or none if it is empty, with names of axes."""
    store, _ = _create(spec, shards, checksum, axes)
    data: bytes = _sync()(_bytes_of(store, "zarr.json"))
    return data


def encode_shard(spec: ArraySpec, shards: Shards, shard: int, values: np.ndarray[Any, Any], checksum: str) -> bytes:
    """Bytes of the object that holds `shard`.

    Parameters
    ----------
    values : array [rows of the shard, *spec.shape]
    checksum : str
        As in the manifest of the stage; empty for none.

    Raises
    ------
    StoreError
        If shape or dtype differ from `spec`, or if reading the bytes back gives other values.
    """
    start, stop = shards.span(shard)
    if values.shape != (stop - start, *spec.shape) or values.dtype != np.dtype(spec.dtype):
        expected = (stop - start, *spec.shape)
        msg = f"array of shape {values.shape} {values.dtype} where {expected} {spec.dtype} was declared"
        raise StoreError(msg)
    if values.nbytes <= SMALL:
        return _encode_small(spec, shards, len(values), values.tobytes(), checksum)
    return _encode(spec, shards, shard, values, checksum)


@lru_cache(maxsize=64)
def _encode_small(spec: ArraySpec, shards: Shards, rows: int, raw: bytes, checksum: str) -> bytes:
    """As `encode_shard`; kept, since nearly every shard has the same ``status``. Only the last one may be shorter."""
    values = np.frombuffer(raw, spec.dtype).reshape(rows, *spec.shape)
    return _encode(spec, shards, 0 if rows == shards.shard_rows else len(shards) - 1, values, checksum)


def _encode(spec: ArraySpec, shards: Shards, shard: int, values: np.ndarray[Any, Any], checksum: str) -> bytes:
    store, array = _create(spec, shards, checksum)
    start, stop = shards.span(shard)
    name = "/".join(["c", str(shard), *("0" for _ in spec.shape)])

    inner, floats = inner_rows(shards.shard_rows), np.issubdtype(values.dtype, np.floating)
    step = inner * max(1, READ_BACK // (inner * max(1, values[0].nbytes)))

    async def write_and_read() -> tuple[bytes, bool]:
        await array.setitem(slice(start, stop), values)
        try:
            for first in range(0, stop - start, step):
                part = values[first : first + step]
                back = await array.getitem(slice(start + first, start + first + len(part)))
                if not np.array_equal(back, part, equal_nan=floats):
                    return b"", False
            return await _bytes_of(store, name), True
        finally:
            await store.delete(name)

    data: bytes
    data, same = _sync()(write_and_read())  # one visit to zarr's thread, not four
    if not same:
        msg = f"shard {shard} did not read back as it was written"
        raise StoreError(msg)
    return data
