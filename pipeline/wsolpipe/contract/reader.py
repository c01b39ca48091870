"""Reading a store: data set, split, stage, then named arrays by row. Lazy, and pickled as nothing but names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wsolpipe.contract.arrays import ArrayView, Named
from wsolpipe.contract.backends.opening import guess_store, holds_results, open_backend
from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import NotFoundError, TornShardError
from wsolpipe.contract.layout import Shards, shard_of, split_folder, stage_folder, subfolders
from wsolpipe.contract.making import missing_stage, run_command
from wsolpipe.contract.manifest import CommitRecord, IndexManifest, StageManifest
from wsolpipe.contract.nearest import guess, shorten
from wsolpipe.contract.notebook import Keyed, as_html, describe, picture, to_pandas, to_xarray
from wsolpipe.contract.parquet import ParquetRows, read_parquet
from wsolpipe.contract.records import read_manifest, read_record
from wsolpipe.contract.schema import RETIRED, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from PIL.Image import Image

    from wsolpipe.contract.backends.base import Backend


V = TypeVar("V", "Artifact", "Index", "StageView")


def open_store(url: str) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    url : str
        Folder or URL.

    Raises
    ------
    NotFoundError
        If there is no such folder, or it holds nothing of a store, as a folder of images.
    """
    store = Store(url)
    if store.holds_results():
        return store
    if store.backend.names(""):
        msg = f"{url} is not a store: the folder holds nothing that a stage made"
        raise NotFoundError(msg, hint="name another with store=")
    near = guess_store(url)
    msg = f"no store at {url}: the folder is missing or empty{near}"
    hint = f"name another with store=; {run_command('proposals', store=url)} makes one here"
    raise NotFoundError(msg, hint=None if near else hint)


@dataclass(frozen=True)
class Store(Named, Keyed):
    """A store by its URL; ``store[dataset][split][stage][array][rows]`` reads."""

    url: str

    @cached_property
    def backend(self) -> Backend:
        """Where the bytes are."""
        return open_backend(self.url)

    @cached_property
    def seen(self) -> set[str]:
        """Names of shard objects that were held against their commit records in this process."""
        return set()

    def holds_results(self) -> bool:
        """As `wsolpipe.contract.backends.opening.holds_results`."""
        return holds_results(self.backend)

    def datasets(self) -> list[str]:
        """Names of the data sets in this store."""
        return subfolders(self.backend.names(""))

    def names(self) -> list[str]:
        """As `datasets`."""
        return self.datasets()

    def __repr__(self) -> str:
        return f"Store({self.url!r}) with {', '.join(self.names()) or 'nothing'}"

    def __getitem__(self, dataset: str) -> Dataset:
        if dataset not in self.datasets():
            raise _unlisted(dataset, self.datasets(), "data set", f"in store {self.url}", self.url)
        return Dataset(self, dataset)


@dataclass(frozen=True)
class Dataset(Named, Keyed):
    """The splits and artifacts of one data set."""

    store: Store
    name: str

    def splits(self) -> list[str]:
        """Names of the splits that have an index."""
        backend = self.store.backend
        names = subfolders(backend.names(self.name))
        return [name for name in names if name != "artifacts" and backend.names(f"{self.name}/{name}/index")]

    def names(self) -> list[str]:
        """As `splits`."""
        return self.splits()

    def __repr__(self) -> str:
        return f"{self.name} in {self.store.url} with {', '.join(self.names()) or 'nothing'}"

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits():
            where = f"of {self.name} in store {self.store.url}"
            raise _unlisted(split, self.splits(), "split", where, self.store.url, split)
        return Split(self.store, self.name, split)

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """A finished artifact by stage name, the newest unless `key` says which."""
        folder = f"{self.name}/artifacts/{stage}"
        keys = subfolders(self.store.backend.names(folder))
        views = [Artifact(self.store, self.name, stage, name) for name in keys]
        return _choose([view for view in views if view.record is not None], stage, key, folder, self.store.url)


@dataclass(frozen=True)
class Artifact(Named):
    """Files that an artifact stage made."""

    store: Store
    dataset: str
    stage: str
    key: str

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return stage_folder(self.dataset, None, self.stage, self.key)

    @cached_property
    def manifest(self) -> StageManifest:
        """What was made, of what, with which parameters."""
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
        where, stored = f"{self.folder}/files/{name}", self.record.objects.get(name) if self.record else None
        try:
            data = self.store.backend.get(where)
        except FileNotFoundError:
            data = None
        if data is None or stored is None or sha256_bytes(data) != stored.sha256:
            msg = f"{self.store.url}/{where} is not the file that its record names"
            raise TornShardError(msg, hint=f"wsolpipe repair store={self.store.url}, then run it again")
        return data


@dataclass(frozen=True)
class Split(Named, Keyed):
    """One split: its index and its stages."""

    store: Store
    dataset: str
    name: str

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return split_folder(self.dataset, self.name)

    def stages(self) -> list[str]:
        """Names of the stages with at least one manifest."""
        names = subfolders(self.store.backend.names(self.folder))
        return [name for name in names if name != "index" and self.keys(name)]

    def names(self) -> list[str]:
        """As `stages`."""
        return self.stages()

    def __repr__(self) -> str:
        return f"{self.dataset}/{self.name} in {self.store.url} with {', '.join(self.names()) or 'nothing'}"

    def keys(self, stage: str) -> list[str]:
        """Keys of `stage` that have a manifest, oldest first."""
        backend = self.store.backend
        folder = f"{self.folder}/{stage}"
        keys = [
            name
            for name in subfolders(backend.names(folder))
            if backend.size(f"{folder}/{name}/manifest.json") is not None
        ]
        created = {key: StageView(self.store, self.dataset, self.name, stage, key).manifest.created for key in keys}
        return sorted(keys, key=lambda key: (created[key], key))

    def __getitem__(self, stage: str) -> StageView:
        if stage == "index":
            msg = f"the index of {self.name} is a table of rows, not a stage with arrays"
            raise NotFoundError(msg, hint=f"…[{self.name!r}].index().table() reads it")
        return self.stage(stage)

    def stage(self, stage: str, key: str | None = None) -> StageView:
        """One stage's arrays: of the newest key that has a finished shard, or of the key that starts with `key`."""
        views = [StageView(self.store, self.dataset, self.name, stage, name) for name in self.keys(stage)]
        if key is None:
            views = [view for view in views if self.store.backend.names(f"{view.folder}/commits")] or views
        return _choose(views, stage, key, self.folder, self.store.url, self.name)

    def index(self, key: str | None = None) -> Index:
        """The index: the newest, or the one that starts with `key`."""
        backend = self.store.backend
        keys = subfolders(backend.names(f"{self.folder}/index"))
        views = [Index(self.store, self.dataset, self.name, name) for name in keys]
        done = [view for view in views if backend.size(f"{view.folder}/manifest.json") is not None]
        done.sort(key=lambda view: view.manifest.created)
        return _choose(done, "index", key, self.folder, self.store.url, self.name)


@dataclass(frozen=True)
class Index(Named):
    """The table of a split's rows and the table of its ground truth."""

    store: Store
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
        return ParquetRows(self.store.backend, f"{self.folder}/index.parquet")

    def annotations(self) -> pa.Table:
        """``annotations.parquet``: row, kind (box, mask, ignore), x0, y0, x1, y1 in pixels of the image, path."""
        return read_parquet(self.store.backend, f"{self.folder}/annotations.parquet")


@dataclass(frozen=True)
class StageView(Named, Keyed):
    """One rows stage of one split under one key."""

    store: Store
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
        """What was made, of what, with which parameters."""
        return read_manifest(self.store.backend, StageManifest, f"{self.folder}/manifest.json")

    @property
    def backend(self) -> Backend:
        """Where the bytes are."""
        return self.store.backend

    @property
    def seen(self) -> set[str]:
        """Names of shard objects that were held against their commit records in this process."""
        return self.store.seen

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
        """Frame with a line a box, or a row; see `wsolpipe.contract.notebook.to_pandas`."""
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


def _unlisted(
    name: str, present: list[str], kind: str, where: str, store: str, split: str | None = None
) -> NotFoundError:
    """The error for a data set or split that a store does not hold: the nearest of those there, else what makes it."""
    nearest = guess(name, present)
    msg = f"no {kind} {shorten(name)!r} {where}; it holds: {', '.join(present) or 'nothing'}{nearest}"
    return NotFoundError(
        msg, hint=None if nearest else f"{run_command('proposals', store=store, split=split)} makes it"
    )


def _choose(views: list[V], stage: str, key: str | None, folder: str, store: str, split: str | None = None) -> V:
    matching = [view for view in views if key is None or view.key.startswith(key)]
    if not matching:
        command = f"{run_command(stage, store=store, split=split)} makes it"
        raise missing_stage(stage, f"{store}/{folder}", [view.key for view in views], key=key, command=command)
    return matching[-1]
