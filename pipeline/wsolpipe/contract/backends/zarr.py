"""Zarr arrays of a store behind a URL: obstore reads, and whole shard objects are kept in the read-through cache."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import ObjectStore, WrapperStore

from wsolpipe.contract.backends.cache import cacheable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from wsolpipe.contract.backends.objects import ObjectBackend

#: Seconds for which an object that was looked at is taken to be unchanged: a batch reads it many times.
FRESH = 5.0


def remote_store(backend: ObjectBackend, folder: str) -> Any:
    """A read-only Zarr store over `folder`: through the cache, or by ranges where there is none."""
    return _Reader(ObjectStore(backend._open(max_retries=10), read_only=True), backend, folder)  # noqa: SLF001 - one idea


class _Reader(WrapperStore[Any]):  # type: ignore[misc]
    def __init__(self, store: Any, backend: ObjectBackend, folder: str) -> None:
        super().__init__(store)
        self._backend, self._folder = backend, folder
        self._tags: dict[str, tuple[str, float]] = {}

    def _with_store(self, store: Any) -> _Reader:
        return _Reader(store, self._backend, self._folder)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        name = f"{self._folder}/{key}" if key else self._folder
        if not self._backend.cache.bound or not cacheable(name):
            found: Buffer | None = await self._store.get(name, prototype, byte_range)
            return found
        data = await asyncio.to_thread(self._cached, name, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    def _cached(self, name: str, part: ByteRequest | None) -> bytes | None:
        tag, since = self._tags.get(name, ("", 0.0))
        if not tag or time.monotonic() - since > FRESH:
            tag = self._backend.tag(name) or ""
            self._tags[name] = (tag, time.monotonic())
        if not tag:
            return None
        path = self._backend.cache.path(self._backend.url, name, tag)
        if path is None:
            try:
                return _cut(self._backend.get(name), part)
            except FileNotFoundError:
                return None
        try:
            with path.open("rb") as file:
                return _read_part(file, part)
        except FileNotFoundError:  # evicted between two lines
            return _cut(self._backend.get(name), part)


def _read_part(file: Any, part: ByteRequest | None) -> bytes:
    if isinstance(part, RangeByteRequest):
        file.seek(part.start)
        return bytes(file.read(part.end - part.start))
    if isinstance(part, OffsetByteRequest):
        file.seek(part.offset)
    elif isinstance(part, SuffixByteRequest):
        file.seek(max(0, file.seek(0, 2) - part.suffix))
    return bytes(file.read())


def _cut(data: bytes, part: ByteRequest | None) -> bytes:
    if isinstance(part, RangeByteRequest):
        return data[part.start : part.end]
    if isinstance(part, OffsetByteRequest):
        return data[part.offset :]
    if isinstance(part, SuffixByteRequest):
        return data[max(0, len(data) - part.suffix) :]
    return data
