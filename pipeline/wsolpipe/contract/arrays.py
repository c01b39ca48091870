"""The arrays of a rows stage: read by row with numpy's indexing, every read checked, pickled as nothing but names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import AccessError, NotFoundError, StoreError, TornShardError
from wsolpipe.contract.layout import Shards, shard_object
from wsolpipe.contract.making import run_command
from wsolpipe.contract.schema import STATUS_SPEC
from wsolpipe.contract.shards import ShardDecoder
from wsolpipe.contract.subscript import Rows, split_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.manifest import CommitRecord, StageManifest


class Named:
    """Pickled as its fields alone, never as what was read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, item.name) for item in fields(self))  # type: ignore[arg-type]


class RowsStage(Protocol):
    """What reading an array needs to know of its stage."""

    @property
    def backend(self) -> Backend:
        """Where the bytes are."""

    @property
    def folder(self) -> str:
        """Folder relative to the store."""

    @property
    def stage(self) -> str:
        """Name of the stage."""

    @property
    def manifest(self) -> StageManifest:
        """What was made."""

    @property
    def shards(self) -> Shards:
        """How the rows are cut."""

    @property
    def seen(self) -> set[str]:
        """Names of shard objects that were held against their commit records in this process; added to."""

    def record(self, shard: int) -> CommitRecord | None:
        """Commit record of a shard, None if the shard does not exist."""

    def committed(self) -> dict[int, CommitRecord]:
        """Records of every shard that exists."""


class IndexedStage(RowsStage, Protocol):
    """What tables and pictures of a stage need to know of it besides."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""

    @property
    def split(self) -> str:
        """Name of the split."""

    @property
    def key(self) -> str:
        """Key of the result."""

    def index(self) -> Any:
        """The `Index` whose rows these are."""

    def status(self) -> np.ndarray[Any, Any]:
        """Status of every row."""

    def rows(self) -> np.ndarray[Any, Any]:
        """Numbers of the rows that hold a result."""

    def quarantined(self) -> list[dict[str, Any]]:
        """The rows without a result."""

    def __getitem__(self, array: str) -> ArrayView:
        """An array by name."""


@dataclass(frozen=True)
class ArrayView(Named):
    """One array of a stage. ``view[index]`` reads what numpy would return for this index.

    Rows are read only of shards that have a commit record, and every read is checked: by the checksum of each chunk,
    or, in a store made before chunks had one, by the digest of the whole shard at its first use in a process.
    """

    stage: RowsStage
    name: str

    @cached_property
    def zarr(self) -> Any:
        """The underlying Zarr array, opened read-only on first use in this process."""
        import zarr

        store = self.stage.backend.zarr_store(f"{self.stage.folder}/data.zarr/{self.name}")
        hint = f"wsolpipe verify store={self.stage.backend.url}"
        try:  # zarr checks little of what it reads
            array = zarr.open_array(store=store, mode="r", zarr_format=3)
        except (FileNotFoundError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            msg = f"array {self.name} of {self.stage.folder} cannot be opened: {error}"
            raise TornShardError(msg, hint=hint) from error
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            self._refuse_access(error)
        manifest = self.stage.manifest
        spec = STATUS_SPEC if self.name == "status" else manifest.arrays[self.name]
        wanted = ((manifest.rows, *spec.shape), (manifest.shard_rows, *spec.shape), spec.dtype)
        if (tuple(array.shape), array.shards, str(array.dtype)) != wanted:
            msg = f"array {self.name} of {self.stage.folder} is not of the shape and type that its manifest says"
            raise TornShardError(msg, hint=hint)
        return array

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return tuple(self.zarr.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy dtype."""
        dtype: np.dtype[Any] = np.dtype(self.zarr.dtype)
        return dtype

    def __len__(self) -> int:
        return self.stage.manifest.rows

    def __repr__(self) -> str:
        spec = STATUS_SPEC if self.name == "status" else self.stage.manifest.arrays[self.name]
        return f"{self.name} of {self.stage.folder}: {spec.dtype} {(len(self), *spec.shape)} {spec.meaning}".rstrip()

    def __getitem__(self, index: Any) -> Any:
        """Rows, or parts of rows, by numpy's rules.

        Raises
        ------
        StoreError
            If a shard that holds one of the rows does not exist; TornShardError if it is damaged, AccessError if it
            cannot be read.
        IndexError
            If a row does not exist.
        """
        rows, rest = split_index(index, self.shape)
        return self._read(rows)[rest]

    def __iter__(self) -> Iterator[Any]:
        for shard in range(len(self.stage.shards)):
            yield from self._read(slice(*self.stage.shards.span(shard), 1))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            msg = f"array {self.name} lies in a store: it cannot be taken without a copy"
            raise ValueError(msg)
        return np.asarray(self[:], dtype=dtype)

    def filled(self) -> np.ndarray[Any, Any]:
        """All rows; those of shards that do not exist hold what the schema fills this array with."""
        spec = STATUS_SPEC if self.name == "status" else self.stage.manifest.arrays[self.name]
        values = spec.empty(len(self))
        for record in self.stage.committed().values():
            values[record.start : record.stop] = self[record.start : record.stop]
        return values

    def _read(self, rows: Rows) -> np.ndarray[Any, Any]:
        wanted = np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, slice) else rows
        shards = np.unique(wanted // self.stage.shards.shard_rows).tolist()
        for shard in shards:
            if self._object(shard) not in self.stage.seen:
                self._check(shard)
        try:
            if isinstance(rows, slice) and rows.step == 1 and self._decoder is not None:
                return self._decode(shards, rows.start, rows.stop)
            return np.asarray(self.zarr[rows] if isinstance(rows, slice) else self.zarr.oindex[rows])
        except (StoreError, MemoryError):
            raise
        except FileNotFoundError as error:
            for shard in shards:  # removed since it was checked?
                self._check(shard)
            self._fail(wanted[0], wanted[-1], "an object is missing", error)
        except OSError as error:
            self._refuse_access(error)
        except Exception as error:  # whatever a codec raises about bytes that are not what was written
            self._fail(wanted[0], wanted[-1], f"{type(error).__name__}: {error}", error)

    @cached_property
    def _decoder(self) -> ShardDecoder | None:
        return ShardDecoder.of(self.zarr)

    def _decode(self, shards: list[int], start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows `start` … `stop` − 1, which lie in these shards."""
        assert self._decoder is not None
        if not shards:
            return np.asarray(self.zarr[start:stop])
        parts = []
        for shard in shards:
            first, last = self.stage.shards.span(shard)
            read = self._bytes_of(self._object(shard).removeprefix(f"{self.stage.folder}/data.zarr/{self.name}/"))
            parts.append(self._decoder.decode(read, max(start, first) - first, min(stop, last) - first))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _bytes_of(self, key: str) -> Callable[[int | None, int | None], bytes]:
        """Reads parts of an object of this array, through whatever its store keeps."""
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        def read(start: int | None, stop: int | None) -> bytes:
            part = None
            if start is not None:
                part = SuffixByteRequest(-start) if stop is None else RangeByteRequest(start, stop)
            data: bytes = sync(self.zarr.store.get(key, default_buffer_prototype(), part)).to_bytes()
            return data

        return read

    @property
    def _place(self) -> str:
        return f"{self.stage.folder}/data.zarr/{self.name} in store {self.stage.backend.url}"

    def _object(self, shard: int) -> str:
        return shard_object(self.stage.folder, self.name, shard, len(self.shape))

    def _check(self, shard: int) -> None:
        """Hold a shard against its commit record before its first use in this process."""
        stage, name = self.stage, self._object(shard)
        stage.seen.discard(name)
        record = stage.record(shard)
        start, stop = stage.shards.span(shard)
        if record is None:
            msg = f"rows {start} … {stop - 1} of {self._place} are not made: shard {shard} has no commit record"
            command = run_command(stage.stage, store=stage.backend.url)
            raise NotFoundError(msg, hint=f"{command} makes them")
        stored = record.objects.get(self.name)
        if stored is None or (record.start, record.stop) != (start, stop):
            self._fail(start, stop - 1, f"the commit record of shard {shard} does not fit the manifest")
        if not stage.manifest.checksum:
            try:
                data = stage.backend.get(name)
            except FileNotFoundError as error:
                self._fail(start, stop - 1, f"the object of shard {shard} is missing", error)
            if sha256_bytes(data) != stored.sha256:
                self._fail(start, stop - 1, f"shard {shard} has other bytes than its commit record says")
        stage.seen.add(name)

    def _refuse_access(self, error: OSError) -> NoReturn:
        msg = f"{self._place} cannot be read: {error}"
        raise AccessError(msg, hint="check the access to the store, then repeat the command") from error

    def _fail(self, first: int, last: int, what: str, cause: Exception | None = None) -> NoReturn:
        hint = f"wsolpipe repair store={self.stage.backend.url} removes what is torn, run remakes it"
        msg = f"rows {first} … {last} of {self._place} are damaged: {what}"
        raise TornShardError(msg, hint=hint) from cause
