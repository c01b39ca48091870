"""Results in a store: the index of a split, a rows stage under a key, an artifact; and which key is read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from wsolpipe.contract.arrays import ArrayView, Named
from wsolpipe.contract.budget import check_arrays, check_parquet
from wsolpipe.contract.errors import NotFoundError, TornShardError, shorten
from wsolpipe.contract.layout import Shards, shard_of, stage_folder
from wsolpipe.contract.making import NAME_A_KEY, missing_stage, run_command
from wsolpipe.contract.manifest import (
    CommitRecord,
    IndexManifest,
    StageManifest,
    StoredObject,
    read_manifest,
    read_record,
)
from wsolpipe.contract.notebook import Keyed, as_html, describe, picture, to_pandas, to_xarray
from wsolpipe.contract.parquet import ParquetRows
from wsolpipe.contract.schema import RETIRED, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL.Image import Image

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.verified import Verified

V = TypeVar("V", "Artifact", "Index", "StageView")


class OpenStore(Protocol):
    """The store that a result lies in, a `wsolpipe.contract.reader.Store`."""

    @property
    def url(self) -> str:
        """Folder or URL."""

    @property
    def backend(self) -> Backend:
        """Where the bytes are."""

    @property
    def verified(self) -> Verified:
        """Objects that were held against their records."""

    def __getitem__(self, dataset: str) -> Any:
        """A data set by name."""


@dataclass(frozen=True)
class Artifact(Named):
    """Files that an artifact stage made."""

    store: OpenStore
    dataset: str
    stage: str
    key: str

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return stage_folder(self.dataset, None, self.stage, self.key)

    @cached_property
    def manifest(self) -> StageManifest:
        """Return the manifest: what was made, of what, with which parameters."""
        return read_manifest(self.store.backend, StageManifest, f"{self.folder}/manifest.json")

    @cached_property
    def record(self) -> CommitRecord | None:
        """The commit record, None while unfinished."""
        return read_record(self.store.backend, self.folder, None)

    def read(self, name: str) -> bytes:
        """Bytes of one of its files.

        Raises
        ------
        TornShardError
            If the record does not name it, or it is missing or has other bytes than recorded.
        """
        return self.store.verified.bytes(*self._file(name))

    def fetch(self) -> Path:
        """Folder of this machine with its files, each held against the record; to be read only.

        Raises
        ------
        TornShardError
            As `read`.
        """
        names = self.record.objects if self.record else ()
        paths = [self.store.verified.file(*self._file(name)) for name in names]
        if self.store.backend.is_local and paths:
            return paths[0].parent
        return self.store.backend.fetch_folder(f"{self.folder}/files")

    def _file(self, name: str) -> tuple[str, StoredObject]:
        where, stored = f"{self.folder}/files/{name}", self.record.objects.get(name) if self.record else None
        if stored is None:
            msg = f"the record of {self.store.url}/{self.folder} names no file {name}"
            raise TornShardError(msg, hint=f"wsolpipe repair store={self.store.url}, then run it again")
        return where, stored


@dataclass(frozen=True)
class Index(Named):
    """The table of a split's rows and the table of its ground truth."""

    store: OpenStore
    dataset: str
    split: str
    key: str

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return stage_folder(self.dataset, self.split, "index", self.key)

    @cached_property
    def manifest(self) -> IndexManifest:
        """Row count, label counts, digests."""
        return read_manifest(self.store.backend, IndexManifest, f"{self.folder}/manifest.json")

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.manifest.rows

    def table(self, columns: Sequence[str] | None = None, *, start: int = 0, stop: int | None = None) -> pa.Table:
        """Rows `start` … `stop` − 1 of ``index.parquet``, all columns or some, reading only the row groups needed."""
        return self.spans().table(columns, start=start, stop=stop)

    def spans(self) -> ParquetRows:
        """``index.parquet``, to read many spans one after the other."""
        return self._open("index.parquet")

    def annotations(self, columns: Sequence[str] | None = None) -> pa.Table:
        """``annotations.parquet``: row, kind (box, mask, ignore), x0, y0, x1, y1 in pixels of the image, path."""
        return self.annotation_spans().table(columns)

    def annotation_spans(self) -> ParquetRows:
        """``annotations.parquet``, to read many spans one after the other."""
        return self._open("annotations.parquet")

    def _open(self, table: str) -> ParquetRows:
        """One of the two tables, held against the manifest and within the bounds of what is read."""
        name, stored = f"{self.folder}/{table}", self.manifest.objects.get(table)
        where, backend = f"{self.store.url}/{self.folder}/{table}", self.store.backend
        if stored is None:  # a store made before manifests named their tables
            return ParquetRows(backend, name)
        verified = self.store.verified

        def judge(path: Path, opened: pq.ParquetFile, columns: list[str] | None) -> None:
            check = partial(check_parquet, path, stored.bytes, where, columns, opened=opened)
            verified.judge(name, stored, "*" if columns is None else ",".join(columns), check)

        return ParquetRows(backend, name, lambda: verified.file(name, stored), judge)


@dataclass(frozen=True)
class StageView(Named, Keyed):
    """One rows stage of one split under one key."""

    store: OpenStore
    dataset: str
    split: str
    stage: str
    key: str

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return stage_folder(self.dataset, self.split, self.stage, self.key)

    @cached_property
    def manifest(self) -> StageManifest:
        """Return the manifest, which says what was made; refused where it claims more than is read."""
        name = f"{self.folder}/manifest.json"
        manifest = read_manifest(self.store.backend, StageManifest, name)
        check_arrays(manifest, f"{self.store.url}/{name}")
        return manifest

    @property
    def backend(self) -> Backend:
        """Where the bytes are."""
        return self.store.backend

    @property
    def verified(self) -> Verified:
        """Objects of the store that were held against their records."""
        return self.store.verified

    @property
    def shards(self) -> Shards:
        """How the rows are cut."""
        return Shards(self.manifest.rows, self.manifest.shard_rows)

    def index(self) -> Index:
        """The index whose rows these are."""
        return Index(self.store, self.dataset, self.split, str(self.manifest.index_key))

    def record(self, shard: int) -> CommitRecord | None:
        """Commit record of a shard; None where the shard does not exist."""
        return read_record(self.store.backend, self.folder, shard)

    def missing(self) -> list[int]:
        """Numbers of the shards that do not exist."""
        present = set(map(shard_of, self.backend.names(f"{self.folder}/commits")))
        return [shard for shard in range(len(self.shards)) if shard not in present]

    def require_complete(self) -> None:
        """Refuse a stage with missing shards.

        Raises
        ------
        NotFoundError
            With the number of missing shards and the command that makes them.
        """
        missing = self.missing()
        if missing:
            msg = f"{len(missing)} of {len(self.shards)} shards of {self.stage} of {self.split} are not made"
            hint = f"{run_command(self.stage, store=self.store.url, split=self.split)} resumes it"
            raise NotFoundError(msg, hint=hint)

    def committed(self) -> dict[int, CommitRecord]:
        """Records of every shard that exists."""
        names = self.store.backend.names(f"{self.folder}/commits")
        numbers = sorted(number for number in map(shard_of, names) if number is not None and number < len(self.shards))
        records = {number: self.record(number) for number in numbers}
        return {number: record for number, record in records.items() if record is not None}

    def __getitem__(self, array: str) -> ArrayView:
        if array not in self.manifest.arrays and array != "status":
            msg = (
                f"stage {self.stage} has no array {array!r}; it has: {', '.join(sorted(self.manifest.arrays))}, status"
            )
            raise NotFoundError(msg)
        return ArrayView(self, array)

    def names(self) -> list[str]:
        """Names of the arrays."""
        return [*sorted(self.manifest.arrays), "status"]

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def show(self, row: int, root: str | Path | None = None) -> Image:
        """Picture of a row; see `wsolpipe.contract.notebook.picture`."""
        return picture(self, row, root)

    def to_pandas(self) -> Any:
        """Frame with one line for each box or row; see `wsolpipe.contract.notebook.to_pandas`."""
        return to_pandas(self)

    def to_xarray(self, start: int = 0, stop: int | None = None) -> Any:
        """Data set of the arrays; see `wsolpipe.contract.notebook.to_xarray`."""
        return to_xarray(self, start, stop)

    def status(self) -> np.ndarray[Any, Any]:
        """Status of every row, uint8 [rows]; retired rows and those of shards that do not exist are 0."""
        status = np.zeros(self.manifest.rows, dtype=np.uint8)
        for record in self.committed().values():
            status[record.start : record.stop] = self["status"][record.start : record.stop]
        status[self.retired()] = Status.ABSENT
        return status

    def retired(self) -> np.ndarray[Any, Any]:
        """Numbers of the rows whose image left the split since they were made, int64."""
        index = self.index()
        if self.backend.size(f"{index.folder}/manifest.json") is None or not index.manifest.retired:
            return np.empty(0, np.int64)
        return np.flatnonzero(index.table(["reason"]).column(0).to_numpy(zero_copy_only=False) == RETIRED)

    def rows(self) -> np.ndarray[Any, Any]:
        """Numbers of the rows that hold a result, int64."""
        return np.flatnonzero(self.status() == Status.OK)

    def quarantined(self) -> list[dict[str, Any]]:
        """The rows without a result: row, image_id, path, stage, reason."""
        return [
            {**item.model_dump(), "stage": self.stage}
            for record in self.committed().values()
            for item in record.quarantined
        ]


def choose(views: list[V], stage: str, key: str | None, folder: str, store: str, split: str | None = None) -> list[V]:
    """All of `views`, or the one whose key starts with `key`.

    Raises
    ------
    NotFoundError
        If there is none, or several keys start so.
    """
    matching = [view for view in views if key is None or view.key.startswith(key)]
    if not matching:
        command = f"{run_command(stage, store=store, split=split)} makes it"
        raise missing_stage(stage, f"{store}/{folder}", [view.key for view in views], key=key, command=command)
    if key and len(matching) > 1:
        msg = f"several keys of {stage} under {store}/{folder} start with {shorten(key)}: "
        raise NotFoundError(msg + ", ".join(view.key for view in matching), hint=NAME_A_KEY)
    return matching


def newest_complete(views: Sequence[StageView]) -> StageView:
    """The newest key of which every shard is finished; a newer one that is not is named in a warning.

    Parameters
    ----------
    views : sequence of StageView
        Keys of one stage, oldest first. Where none is complete, the newest with a finished shard is taken.
    """
    begun: list[StageView] = []
    for view in reversed(views):
        missing = len(view.missing())
        if not missing:
            if begun:
                _warn_of(begun[0], view.key)
            return view
        if missing < len(view.shards):
            begun.append(view)
    return begun[0] if begun else views[-1]


def _warn_of(view: StageView, taken: str) -> None:
    made = f"{len(view.shards) - len(view.missing())} of {len(view.shards)} shards"
    warn_of_unfinished(f"{view.stage} of {view.split}", view.key, made, taken)


@cache
def warn_of_unfinished(what: str, newer: str, made: str, taken: str) -> None:
    """Warn once in each process of a newer key that is unfinished, so that an older one is read."""
    logging.getLogger("wsolpipe").warning(
        "%s has a newer key, %s, that is unfinished (%s): the newest complete one, %s, is used; key= names another",
        what, newer, made, taken,
    )  # fmt: skip
