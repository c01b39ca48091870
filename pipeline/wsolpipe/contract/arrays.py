"""The arrays of a rows stage: read by row with numpy's indexing, every read checked, pickled as nothing but names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from wsolpipe.contract.budget import most_bytes
from wsolpipe.contract.errors import AccessError, NotFoundError, StoreError, TornShardError
from wsolpipe.contract.layout import Shards, shard_object
from wsolpipe.contract.making import run_command
from wsolpipe.contract.schema import STATUS_SPEC, ArraySpec, ShardDecoder
from wsolpipe.contract.subscript import Rows, split_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.manifest import CommitRecord, StageManifest, StoredObject
    from wsolpipe.contract.verified import Verified

#: Shards read at a time from a store behind a URL.
AT_ONCE = 8


class Named:
    """Pickled as its fields alone, never as what was read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, item.name) for item in fields(self))  # type: ignore[arg-type]


class RowsStage(Protocol):
    """Facts of a stage that reading one of its arrays needs."""

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
        """Return the manifest of the stage."""

    @property
    def shards(self) -> Shards:
        """How the rows are cut."""

    @property
    def verified(self) -> Verified:
        """Objects of the store that were held against their records."""

    def record(self, shard: int) -> CommitRecord | None:
        """Commit record of a shard, None if the shard does not exist."""

    def committed(self) -> dict[int, CommitRecord]:
        """Records of every shard that exists."""


class IndexedStage(RowsStage, Protocol):
    """Facts of a stage that its tables and pictures need too."""

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

    Rows are read only of shards that have a commit record. Each shard object is held against the size and digest of its
    record before its first use in a process (see `Verified`), and each chunk against its checksum at every read.
    """

    stage: RowsStage
    name: str

    @property
    def spec(self) -> ArraySpec:
        """Type and shape, as the manifest says."""
        return STATUS_SPEC if self.name == "status" else self.stage.manifest.arrays[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return (len(self), *self.spec.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy dtype."""
        return np.dtype(self.spec.dtype)

    def __len__(self) -> int:
        return self.stage.manifest.rows

    def __repr__(self) -> str:
        return f"{self.name} of {self.stage.folder}: {self.dtype} {self.shape} {self.spec.meaning}".rstrip()

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
        values = self.spec.empty(len(self))
        for record in self.stage.committed().values():
            values[record.start : record.stop] = self[record.start : record.stop]
        return values

    def _read(self, rows: Rows) -> np.ndarray[Any, Any]:
        size = self.stage.shards.shard_rows
        parts: list[tuple[int, Rows]]
        if isinstance(rows, slice) and rows.step == 1:
            numbers = range(rows.start // size, -(-rows.stop // size)) if rows.stop > rows.start else range(0)
            parts = [(n, slice(max(rows.start - n * size, 0), min(rows.stop - n * size, size))) for n in numbers]
        else:
            wanted = np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, slice) else rows
            cuts = np.flatnonzero(np.diff(wanted // size)) + 1
            parts = [(int(part[0]) // size, part % size) for part in np.split(wanted, cuts)] if len(wanted) else []
        if len(parts) > 1 and not self.stage.backend.is_local:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                found = list(pool.map(lambda part: self._of_shard(*part), parts))
        else:
            found = [self._of_shard(*part) for part in parts]
        if not found:
            return self.spec.empty(0)
        return found[0] if len(found) == 1 else np.concatenate(found)

    @cached_property
    def _decoder(self) -> ShardDecoder:
        return ShardDecoder.of(self.spec, self.stage.shards.shard_rows, self.stage.manifest.checksum)

    def _of_shard(self, shard: int, rows: Rows) -> np.ndarray[Any, Any]:
        """Rows of one shard, counted from its first one."""
        name = shard_object(self.stage.folder, self.name, shard, len(self.shape))
        verified, data = self.stage.verified, None
        size = verified.known_size(name)
        try:
            if size is None:
                stored = self._stored(shard)
                size, data = stored.bytes, verified.data(name, stored)
            whole, backend = data, self.stage.backend
            if whole is not None:
                return self._decoder.decode(lambda start, stop: whole[start:stop], size, rows)
            return self._decoder.decode(lambda start, stop: backend.get_range(name, start, stop), size, rows)
        except TornShardError as error:
            self._fail(shard, error.message, error)
        except (StoreError, MemoryError):
            raise
        except FileNotFoundError as error:
            self._fail(shard, f"{name} is missing", error)
        except OSError as error:
            msg = f"{self._place} cannot be read: {error}"
            raise AccessError(msg, hint="check the access to the store, then repeat the command") from error
        except Exception as error:  # whatever a codec raises about bytes that are not what was written
            self._fail(shard, f"{type(error).__name__}: {error}", error)

    def _stored(self, shard: int) -> StoredObject:
        """Size and digest of a shard's object, as its commit record says."""
        stage, span = self.stage, self.stage.shards.span(shard)
        record = stage.record(shard)
        if record is None:
            msg = f"rows {span[0]} … {span[1] - 1} of {self._place} are not made: shard {shard} has no commit record"
            raise NotFoundError(msg, hint=f"{run_command(stage.stage, store=stage.backend.url)} makes them")
        stored = record.objects.get(self.name)
        most = most_bytes(self.spec, stage.shards.shard_rows)
        if stored is None or (record.start, record.stop) != span or stored.bytes > most:
            self._fail(shard, f"the commit record of shard {shard} does not fit the manifest")
        return stored

    @property
    def _place(self) -> str:
        return f"{self.stage.folder}/data.zarr/{self.name} in store {self.stage.backend.url}"

    def _fail(self, shard: int, what: str, cause: Exception | None = None) -> NoReturn:
        start, stop = self.stage.shards.span(shard)
        hint = f"wsolpipe repair store={self.stage.backend.url} removes what is torn, run remakes it"
        msg = f"rows {start} … {stop - 1} of {self._place} are damaged: {what}"
        raise TornShardError(msg, hint=hint) from cause
