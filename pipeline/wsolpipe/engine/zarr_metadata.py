"""The Zarr arrays of a stage: shards as objects, read back before they are put; metadata, with the manifest in front.

All metadata is computed from the manifest, so it can be written again at any time. Names of axes describe and change no
byte of a shard: metadata that differs in them alone, or that has no group yet, is outdated and not damaged.
"""

from __future__ import annotations

import atexit
import json
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import AccessError, StoreError
from wsolpipe.contract.layout import Shards, read_json
from wsolpipe.contract.manifest import MAX_JSON_BYTES, StageManifest
from wsolpipe.contract.schema import CHECKSUM, ROW, STATUS_SPEC, ArraySpec, axis_names, inner_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.contract.backends.base import Backend


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


#: Name by which the group goes among the arrays.
GROUP = ""


def all_arrays(arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """`arrays` and the ``status`` array that every rows stage has, in the order of their names."""
    return dict(sorted({**arrays, "status": STATUS_SPEC}.items()))


def metadata_name(folder: str, array: str) -> str:
    """Name in the store of the metadata of an array, or of the group."""
    return f"{folder}/data.zarr/{array}/zarr.json" if array else f"{folder}/data.zarr/zarr.json"


def folder_metadata(manifest: StageManifest, shards: Shards, checksum: str | None = None) -> dict[str, bytes]:
    """``zarr.json`` of every array by name and, last, of the group; `checksum` stands in for that of the manifest."""
    specs = all_arrays(manifest.arrays)
    axes = axis_names(specs)
    used = manifest.checksum if checksum is None else checksum
    made = {name: metadata_bytes(spec, shards, used, axes[name]) for name, spec in specs.items()}
    group = {
        "attributes": {
            "dataset": manifest.dataset, "split": manifest.split, "stage": manifest.stage, "key": manifest.key,
        },
        "zarr_format": 3,
        "consolidated_metadata": {
            "kind": "inline", "must_understand": False,
            "metadata": {name: json.loads(data) for name, data in made.items()},
        },
        "node_type": "group",
    }  # fmt: skip
    return {**made, GROUP: json.dumps(group, indent=2).encode()}


def prepare_folder(backend: Backend, folder: str, manifest: StageManifest, shards: Shards | None) -> None:
    """Write the manifest and the metadata of arrays and group, unless they exist."""
    if shards is not None:
        for name, data in folder_metadata(manifest, shards).items():
            backend.create(metadata_name(folder, name), data)
    backend.create(f"{folder}/manifest.json", manifest.to_bytes())


def restore_metadata(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> None:
    """Write the metadata again where it is missing or differs in any byte from what the manifest says."""
    for name, wanted in folder_metadata(manifest, shards).items():
        if _read(backend, metadata_name(folder, name)) != wanted:
            backend.replace(metadata_name(folder, name), wanted)


def wrong_metadata(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> list[str]:
    """Arrays whose metadata is missing or does not agree with the manifest, and `GROUP` if the group's does not."""
    wrong = []
    for name, wanted in folder_metadata(manifest, shards).items():
        found = _read(backend, metadata_name(folder, name))
        if not (name == GROUP if found is None else _agrees(found, wanted)):
            wrong.append(name)
    return wrong


def is_outdated(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> bool:
    """Whether all metadata agrees with the manifest but some is of an earlier form: axes without names, no group."""
    if wrong_metadata(backend, folder, manifest, shards):
        return False
    wanted = folder_metadata(manifest, shards)
    return any(_read(backend, metadata_name(folder, name)) != data for name, data in wanted.items())


def metadata_agrees(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> bool:
    """Whether all existing metadata agrees with the manifest."""
    for name, wanted in folder_metadata(manifest, shards).items():
        found = _read(backend, metadata_name(folder, name))
        if found is not None and not _agrees(found, wanted):
            return False
    return True


def checksum_of_folder(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> str | None:
    """Checksum of chunks by the arrays' metadata in a folder; None if no array has metadata.

    A manifest that is written again over existing shards keeps their checksum.
    """
    for name in all_arrays(manifest.arrays):
        found = _read(backend, metadata_name(folder, name))
        for checksum in ("", CHECKSUM) if found is not None else ():
            if _agrees(found or b"", folder_metadata(manifest, shards, checksum)[name]):
                return checksum
    return None


def _read(backend: Backend, name: str) -> bytes | None:
    """Bytes of metadata, None if it is missing; none where there is something else that cannot be metadata."""
    try:
        return backend.get(name, limit=MAX_JSON_BYTES)
    except FileNotFoundError:
        return None
    except AccessError:
        raise
    except StoreError:
        return b""


def _agrees(found: bytes, wanted: bytes) -> bool:
    """Whether two pieces of metadata differ in the names of axes at most."""
    if found == wanted:
        return True
    try:
        return bool(_without_axes(read_json(found)) == _without_axes(read_json(wanted)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _without_axes(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without the names of axes.

    Raises
    ------
    ValueError
        If these are not what names of axes can be.
    """
    if metadata["node_type"] == "group":
        inner = metadata["consolidated_metadata"]
        arrays = {name: _without_axes(item) for name, item in inner["metadata"].items()}
        return {**metadata, "consolidated_metadata": {**inner, "metadata": arrays}}
    rest = dict(metadata)
    names = rest.pop("dimension_names")
    fits = len(names) == len(rest["shape"]) and names[0] == ROW
    if not fits or not all(name is None or isinstance(name, str) for name in names):
        msg = f"no names of axes: {names}"
        raise ValueError(msg)
    return rest
