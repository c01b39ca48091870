"""Reading a store: data set, split, stage, then named arrays by row. Lazy, and pickled as nothing but names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wsolpipe.contract.backends.base import Backend, open_backend
from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import Shards, commit_name, shard_of, split_folder, stage_folder
from wsolpipe.contract.manifest import MAX_JSON_BYTES, CommitRecord, IndexManifest, StageManifest, parse
from wsolpipe.contract.parquet import ParquetRows, read_parquet
from wsolpipe.contract.schema import STATUS_SPEC, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa


M = TypeVar("M", IndexManifest, StageManifest)
R = TypeVar("R", IndexManifest, StageManifest, CommitRecord)
V = TypeVar("V", "Artifact", "Index", "StageView")


def open_store(url: str) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    url : str
        Folder or URL.

    Raises
    ------
    StoreError
        If there is no such folder.
    """
    store = Store(url)
    if not store.backend.names(""):
        msg = f"no store at {url}: the folder is missing or empty"
        raise StoreError(msg, hint=f"wsolpipe run stage=proposals dataset=… store={url}")
    return store


class _Named:
    """Pickled as its fields alone, never as what was read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, item.name) for item in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Store(_Named):
    """A store by its URL; ``store[dataset][split][stage][array][rows]`` reads."""

    url: str

    @cached_property
    def backend(self) -> Backend:
        """Where the bytes are."""
        return open_backend(self.url)

    def datasets(self) -> list[str]:
        """Names of the data sets in this store."""
        return [name[:-1] for name in self.backend.names("") if name.endswith("/")]

    def __getitem__(self, dataset: str) -> Dataset:
        if dataset not in self.datasets():
            msg = f"no data set {dataset!r} in store {self.url}; it holds: {', '.join(self.datasets()) or 'nothing'}"
            raise StoreError(msg)
        return Dataset(self, dataset)


@dataclass(frozen=True)
class Dataset(_Named):
    """The splits and artifacts of one data set."""

    store: Store
    name: str

    def splits(self) -> list[str]:
        """Names of the splits that have an index."""
        backend = self.store.backend
        names = [name[:-1] for name in backend.names(self.name) if name.endswith("/") and name != "artifacts/"]
        return [name for name in names if backend.names(f"{self.name}/{name}/index")]

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits():
            msg = f"no split {split!r} of {self.name} in store {self.store.url}; it holds: {', '.join(self.splits())}"
            raise StoreError(msg)
        return Split(self.store, self.name, split)

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """A finished artifact by stage name, the newest unless `key` says which."""
        folder = f"{self.name}/artifacts/{stage}"
        views = [Artifact(self.store, self.name, stage, name[:-1]) for name in self.store.backend.names(folder)]
        return _choose([view for view in views if view.record is not None], stage, key, f"{self.store.url}/{folder}")


@dataclass(frozen=True)
class Artifact(_Named):
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
        return _read(self.store.backend, StageManifest, f"{self.folder}/manifest.json")

    @cached_property
    def record(self) -> CommitRecord | None:
        """The commit record, None while unfinished."""
        return read_record(self.store.backend, self.folder, None)

    def read(self, name: str) -> bytes:
        """Bytes of one of its files."""
        return self.store.backend.get(f"{self.folder}/files/{name}")


@dataclass(frozen=True)
class Split(_Named):
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
        names = [name[:-1] for name in self.store.backend.names(self.folder) if name.endswith("/") and name != "index/"]
        return [name for name in names if self.keys(name)]

    def keys(self, stage: str) -> list[str]:
        """Keys of `stage` that have a manifest, oldest first."""
        backend = self.store.backend
        folder = f"{self.folder}/{stage}"
        keys = [
            name[:-1] for name in backend.names(folder) if backend.size(f"{folder}/{name}manifest.json") is not None
        ]
        created = {key: StageView(self.store, self.dataset, self.name, stage, key).manifest.created for key in keys}
        return sorted(keys, key=lambda key: (created[key], key))

    def __getitem__(self, stage: str) -> StageView:
        return self.stage(stage)

    def stage(self, stage: str, key: str | None = None) -> StageView:
        """One stage's arrays: of the newest key, or of the key that starts with `key`."""
        views = [StageView(self.store, self.dataset, self.name, stage, name) for name in self.keys(stage)]
        return _choose(views, stage, key, f"{self.store.url}/{self.folder}")

    def index(self, key: str | None = None) -> Index:
        """The index: the newest, or the one that starts with `key`."""
        backend = self.store.backend
        views = [
            Index(self.store, self.dataset, self.name, name[:-1]) for name in backend.names(f"{self.folder}/index")
        ]
        done = [view for view in views if backend.size(f"{view.folder}/manifest.json") is not None]
        return _choose(
            sorted(done, key=lambda view: view.manifest.created), "index", key, f"{self.store.url}/{self.folder}"
        )


@dataclass(frozen=True)
class Index(_Named):
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
        return _read(self.store.backend, IndexManifest, f"{self.folder}/manifest.json")

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.manifest.rows

    def table(self, columns: Sequence[str] | None = None, *, start: int = 0, stop: int | None = None) -> pa.Table:
        """Rows `start` … `stop` − 1 of ``index.parquet``, all columns or some, reading only the row groups needed."""
        return self.spans().table(columns, start=start, stop=stop)

    def spans(self) -> ParquetRows:
        """``index.parquet``, for whoever reads many spans one after the other."""
        return ParquetRows(self.store.backend, f"{self.folder}/index.parquet")

    def annotations(self) -> pa.Table:
        """``annotations.parquet``: row, kind (box, mask, ignore), x0, y0, x1, y1 in pixels of the image, path."""
        return read_parquet(self.store.backend, f"{self.folder}/annotations.parquet")


@dataclass(frozen=True)
class StageView(_Named):
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
        return _read(self.store.backend, StageManifest, f"{self.folder}/manifest.json")

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
        numbers = sorted(number for name in names if (number := shard_of(name)) is not None)
        records = {number: self.record(number) for number in numbers}
        return {number: record for number, record in records.items() if record is not None}

    def __getitem__(self, array: str) -> ArrayView:
        if array not in self.manifest.arrays and array != "status":
            msg = (
                f"stage {self.stage} has no array {array!r}; it has: {', '.join(sorted(self.manifest.arrays))}, status"
            )
            raise StoreError(msg)
        return ArrayView(self, array)

    def status(self) -> np.ndarray[Any, Any]:
        """Status of every row, uint8 [rows]; rows of shards that do not exist are 0."""
        status = np.zeros(self.manifest.rows, dtype=np.uint8)
        for record in self.committed().values():
            status[record.start : record.stop] = self["status"][record.start : record.stop]
        return status

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


@dataclass(frozen=True)
class ArrayView(_Named):
    """One array of a stage; ``view[rows]`` takes an int, a slice or an integer array and returns numpy."""

    stage: StageView
    name: str

    @cached_property
    def zarr(self) -> Any:
        """The underlying Zarr array, opened read-only on first use in this process."""
        import zarr

        store = self.stage.store.backend.zarr_store(f"{self.stage.folder}/data.zarr/{self.name}")
        hint = f"wsolpipe verify store={self.stage.store.url}"
        try:
            array = zarr.open_array(store=store, mode="r", zarr_format=3)
        except (FileNotFoundError, TypeError, ValueError, KeyError) as error:
            msg = f"array {self.name} of {self.stage.folder} cannot be opened: {error}"
            raise StoreError(msg, hint=hint) from error
        manifest = self.stage.manifest
        spec = STATUS_SPEC if self.name == "status" else manifest.arrays[self.name]
        wanted = ((manifest.rows, *spec.shape), (manifest.shard_rows, *spec.shape), spec.dtype)
        if (tuple(array.shape), array.shards, str(array.dtype)) != wanted:
            msg = f"array {self.name} of {self.stage.folder} is not of the shape and type that its manifest says"
            raise StoreError(msg, hint=hint)
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

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if isinstance(rows, (int, np.integer, slice)):
            return np.asarray(self.zarr[rows])
        return np.asarray(self.zarr.oindex[np.asarray(rows, dtype=np.int64)])


def read_record(backend: Backend, folder: str, shard: int | None) -> CommitRecord | None:
    """Commit record of a shard or artifact; None where there is none.

    Raises
    ------
    StoreError
        If the record is unreadable or of a newer schema.
    """
    name = commit_name(folder, shard)
    try:
        return _parse_object(backend, CommitRecord, name)
    except FileNotFoundError:
        return None


def _read(backend: Backend, kind: type[M], name: str) -> M:
    try:
        return _parse_object(backend, kind, name)
    except FileNotFoundError as error:
        msg = f"{backend.url}/{name} is missing"
        raise StoreError(msg, hint=f"wsolpipe status store={backend.url}") from error


def _parse_object(backend: Backend, kind: type[R], name: str) -> R:
    """Read and parse a manifest or record, unless its size alone says that it is none."""
    return parse(kind, backend.get(name, limit=MAX_JSON_BYTES), f"{backend.url}/{name}")


def _choose(views: list[V], stage: str, key: str | None, where: str) -> V:
    matching = [view for view in views if key is None or view.key.startswith(key)]
    if not matching:
        found = f"; keys: {', '.join(view.key for view in views)}" if key and views else ""
        msg = f"no {stage}{f' with key {key}' if key else ''} under {where}{found}"
        raise StoreError(msg, hint=f"wsolpipe run stage={stage} dataset=… makes it")
    return matching[-1]
