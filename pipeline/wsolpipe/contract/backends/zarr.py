"""Zarr stores over the arrays of a backend: read-only, and strict about shards.

Zarr takes a missing object for a shard of fill values. Every shard that has a commit record has an object, so here a
missing one is an error.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from typing import TYPE_CHECKING, Any, Protocol

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import LocalStore, ObjectStore, WrapperStore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import NoReturn

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

#: Seconds for which an object whose tag was read is taken to be unchanged: a batch reads it many times.
FRESH = 5.0


class Source(Protocol):
    """What a Zarr store behind a URL needs of its backend."""

    def get(self, name: str) -> bytes:
        """Bytes of an object; FileNotFoundError if it does not exist. Fills the cache."""

    def tag(self, name: str) -> str | None:
        """ETag of an object, None if it does not exist."""

    def cached_file(self, name: str, tag: str) -> Path | None:
        """File of the cache with these bytes, None if they are not kept."""

    def keeps(self, name: str) -> bool:
        """Whether the cache keeps this object."""

    def fail(self, verb: str, name: str, error: Exception) -> NoReturn:
        """Raise what a failed request means."""


class LocalShards(LocalStore):  # type: ignore[misc]
    """Arrays in a folder."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        try:
            if not stat.S_ISREG(os.stat(f"{self.root}/{key}").st_mode):
                msg = f"{self.root}/{key} is not a regular file"
                raise OSError(msg)
        except (FileNotFoundError, NotADirectoryError):
            if _is_shard(key):
                raise
            return None
        found: Buffer | None = await super().get(key, prototype, byte_range)
        return found


def remote_store(ranges: Any, source: Source, folder: str) -> Any:
    """A read-only Zarr store over `folder`: through the cache, or by byte ranges of obstore's store `ranges`."""
    return _Reader(ObjectStore(ranges, read_only=True), source, folder)


class _Reader(WrapperStore[Any]):  # type: ignore[misc]
    def __init__(self, store: Any, source: Source, folder: str) -> None:
        super().__init__(store)
        self._source, self._folder = source, folder
        self._tags: dict[str, tuple[str, float]] = {}

    def _with_store(self, store: Any) -> _Reader:
        return _Reader(store, self._source, self._folder)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        name = f"{self._folder}/{key}" if key else self._folder
        found = await self._get(name, prototype, byte_range)
        if found is None and _is_shard(key):
            raise FileNotFoundError(name)
        return found

    async def _get(self, name: str, prototype: BufferPrototype, part: ByteRequest | None) -> Buffer | None:
        if not self._source.keeps(name):
            try:
                found: Buffer | None = await self._store.get(name, prototype, part)
            except Exception as error:  # noqa: BLE001 - whatever obstore raises, the backend says what it means
                self._source.fail("read", name, error)
            return found
        data = await asyncio.to_thread(self._cached, name, part)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    def _cached(self, name: str, part: ByteRequest | None) -> bytes | None:
        tag, since = self._tags.get(name, ("", 0.0))
        if not tag or time.monotonic() - since > FRESH:
            tag = self._source.tag(name) or ""
            self._tags[name] = (tag, time.monotonic())
        if not tag:
            return None
        path = self._source.cached_file(name, tag)
        if path is not None:
            try:
                with path.open("rb") as file:
                    return _read_part(file, part)
            except FileNotFoundError:  # evicted between two lines
                pass
        try:
            return _cut(self._source.get(name), part)
        except FileNotFoundError:
            return None


def _is_shard(key: str) -> bool:
    """Whether a key below an array is that of a shard object."""
    return key.startswith("c/")


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
