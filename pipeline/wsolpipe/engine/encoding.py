"""Arrays to the bytes of their one Zarr object a shard, made in memory and read back before anything is put."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.schema import INNER_CHUNK_ROWS, ArraySpec

if TYPE_CHECKING:
    from wsolpipe.contract.layout import Shards


def inner_rows(shard_rows: int) -> int:
    """Rows of an inner chunk: the largest divisor of `shard_rows` up to `INNER_CHUNK_ROWS`."""
    return next(size for size in range(min(INNER_CHUNK_ROWS, shard_rows), 0, -1) if shard_rows % size == 0)


@lru_cache(maxsize=16)
def _create(spec: ArraySpec, shards: Shards) -> tuple[Any, Any]:
    """A Zarr array in memory and its store; kept, since making one costs as much as encoding a small shard."""
    import zarr
    from zarr.storage import MemoryStore

    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=(shards.rows, *spec.shape),
        dtype=spec.dtype,
        chunks=(inner_rows(shards.shard_rows), *spec.shape),
        shards=(shards.shard_rows, *spec.shape),
        fill_value=spec.fill_value(),
        dimension_names=("row", *(None for _ in spec.shape)),
        attributes={"unit": spec.unit, "meaning": spec.meaning},
        zarr_format=3,
        config={"write_empty_chunks": True},  # an all-background shard must still exist as an object
    )
    return store, array


def _bytes_of(store: Any, name: str) -> bytes:
    return bytes(store._store_dict[name].to_bytes())  # noqa: SLF001 - MemoryStore's only synchronous door


def _forget(store: Any, name: str) -> None:
    store._store_dict.pop(name, None)  # noqa: SLF001 - as above


def metadata_bytes(spec: ArraySpec, shards: Shards) -> bytes:
    """``zarr.json`` of an array."""
    store, _ = _create(spec, shards)
    return _bytes_of(store, "zarr.json")


def encode_shard(spec: ArraySpec, shards: Shards, shard: int, values: np.ndarray[Any, Any]) -> bytes:
    """Bytes of the object that holds `shard`.

    Parameters
    ----------
    values : array [rows of the shard, *spec.shape]

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
    store, array = _create(spec, shards)
    name = "/".join(["c", str(shard), *("0" for _ in spec.shape)])
    try:
        array[start:stop] = values
        data = _bytes_of(store, name)
        equal_nan = np.issubdtype(values.dtype, np.floating)
        if not np.array_equal(array[start:stop], values, equal_nan=equal_nan):
            msg = f"shard {shard} did not read back as it was written"
            raise StoreError(msg)
    finally:
        _forget(store, name)
    return data
