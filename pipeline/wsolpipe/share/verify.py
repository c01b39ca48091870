"""Verify a store: read every manifest, record and object and compare it with what was recorded."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.backends.base import ASIDE
from wsolpipe.contract.errors import AccessError, SchemaMismatch, StoreError
from wsolpipe.contract.layout import Shards, shard_of, short_key, stage_folder
from wsolpipe.contract.manifest import MAX_JSON_BYTES, IndexManifest, StageManifest, parse, standing_record
from wsolpipe.contract.reader import StageView
from wsolpipe.contract.schema import Status
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.engine.leases import Folder, list_folders
from wsolpipe.share import inspection
from wsolpipe.share.inspection import index_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.contract.reader import Store

BOX_TOLERANCE = 1e-3
#: Folders of a key in which no name of an object may be a folder.
HOLDERS = ("commits/", "data.zarr/", "failures/", "files/", "leases/", "retries/", "scan/")


@dataclass(frozen=True)
class Problem:
    """A disagreement between a store and its records.

    Attributes
    ----------
    kind : str
        ``manifest`` (cannot be parsed, is missing, or does not give its key), ``schema`` (of a newer wsolpipe),
        ``metadata`` (a ``zarr.json`` that does not agree with the manifest), ``index``, ``record`` (cannot be parsed or
        does not fit), ``torn`` (a shard whose bytes are not those recorded), ``values`` (readable, but NaN, out of
        bounds …), ``orphan`` (objects without a record), ``misplaced`` (a folder, broken link or pipe where an object
        belongs), ``stale`` (made from a shard that was made again since),
        ``suspect`` (made from an artifact whose bytes are damaged now), ``leftover`` (a temporary file of a killed
        process), ``empty`` (a key without a finished shard) or ``outdated`` (metadata of an earlier form, not wrong);
        the last three are found by `repair` alone.
    where : str
        Folder of the key, or name of the object.
    """

    kind: str
    where: str
    shard: int | None
    text: str

    @property
    def folder(self) -> str:
        """Folder of the key concerned."""
        return "/".join(self.where.split("/")[:4])


def verify(
    store: Store, *, dataset: str | None = None, stages: tuple[str, ...] = (), deep: bool = True
) -> Iterator[Problem]:
    """Read every object: digest, shape, NaN, box bounds; yield each problem.

    Parameters
    ----------
    dataset : str, optional
        Only this one.
    stages : tuple of str
        Only these; empty means all.
    deep : bool
        Whether to read all bytes; if not, records are compared with the sizes of their objects only.

    Raises
    ------
    AccessError
        If something cannot be read; nothing is known of its bytes then.
    StoreError
        If there is no such data set.
    """
    if dataset:
        store[dataset]
    folders, _ = list_folders(store.backend, datasets=(dataset,) if dataset else ())
    verifier = Verifier(store, deep=deep)
    for name in (dataset,) if dataset else sorted({folder.dataset for folder in folders}):
        if store.backend.is_local:  # a service has neither links nor folders in the place of objects
            yield from _misplaced_notes(store.backend, name)
    for folder in sorted(folders, key=lambda item: item.split is not None):  # artifacts first: others read them
        if not stages or folder.stage in stages:
            yield from verifier.folder(folder)


def _misplaced_notes(backend: Backend, name: str) -> Iterator[Problem]:
    for note in backend.strays(name):
        if note.count("/") == 1 and note.endswith(".json"):
            yield Problem("misplaced", note, None, "not a file, where a note belongs")
    for item in backend.names(name):
        if item.endswith(".json/"):
            yield Problem("misplaced", f"{name}/{item[:-1]}", None, "a folder, where a note belongs")


@dataclass
class Verifier:
    """Checks folders and shards of a store against their records, one at a time."""

    store: Store
    deep: bool = True
    _damaged: dict[str, str] = field(default_factory=dict)
    _contents: dict[tuple[str, int], str | None] = field(default_factory=dict)
    _sizes: dict[str, np.ndarray[Any, Any] | None] = field(default_factory=dict)

    @property
    def backend(self) -> Backend:
        """Where the bytes are."""
        return self.store.backend

    def folder(self, folder: Folder) -> Iterator[Problem]:
        """Problems of one folder."""
        for name in _misplaced(self.backend, folder.path):
            yield Problem("misplaced", name, None, "not a file, where an object belongs")
        try:
            manifest = checked_manifest(self.backend, folder)
        except SchemaMismatch as error:
            yield Problem("schema", folder.path, None, error.message)
            return
        except AccessError:
            raise
        except StoreError as error:
            yield Problem("manifest", folder.path, None, error.message)
            return
        if manifest is None:
            yield from self._without_manifest(folder)
        elif isinstance(manifest, IndexManifest):
            for text in index_problems(self.store, folder, manifest, deep=self.deep):
                yield Problem("index", folder.path, None, text)
        elif folder.split is None:
            yield from self.unit(folder, manifest, None)
        else:
            yield from self._rows_stage(folder, manifest)

    def _without_manifest(self, folder: Folder) -> Iterator[Problem]:
        """A folder whose first worker was killed at once, or that lost its manifest. An index is being made."""
        if folder.stage != "index":
            if self.backend.names(f"{folder.path}/commits"):
                yield Problem("manifest", folder.path, None, "manifest.json is missing")
            elif any("/c/" in name for name, _ in self.backend.walk(f"{folder.path}/data.zarr")):
                yield Problem("orphan", folder.path, None, "objects without manifest and records")

    def _rows_stage(self, folder: Folder, manifest: StageManifest) -> Iterator[Problem]:
        shards = Shards(manifest.rows, manifest.shard_rows)
        inspection.check_stage(manifest, folder.path, self.backend.url)
        wrong = zarr_metadata.wrong_metadata(self.backend, folder.path, manifest, shards)
        for name in wrong:
            file = zarr_metadata.metadata_name(folder.path, name).removeprefix(f"{folder.path}/")
            text = f"{file} does not agree with the manifest"
            yield Problem("metadata", folder.path, None, text)
        if wrong:
            return
        for stage, content in manifest.artifacts.items():
            if content in self._damaged:
                text = f"made from {stage} {self._damaged[content]}, which is damaged: shards made since are wrong"
                yield Problem("suspect", folder.path, None, text)
        units: set[int] = set()
        for file in self.backend.names(f"{folder.path}/commits"):
            unit = shard_of(file)
            if unit is not None and unit < len(shards):
                units.add(unit)
            elif file.endswith(".json"):
                yield Problem("orphan", f"{folder.path}/commits/{file}", None, "record of no shard")
        for name in zarr_metadata.all_arrays(manifest.arrays):
            for item in self.backend.names(f"{folder.path}/data.zarr/{name}/c"):
                unit = shard_of(f"{item.rstrip('/')}.json")
                if unit is not None and unit < len(shards):
                    units.add(unit)
        for number in sorted(units):
            yield from self.unit(folder, manifest, number)

    # -- one shard or artifact -------------------------------------------------------------------------------------

    def unit(self, folder: Folder, manifest: StageManifest, unit: int | None) -> Iterator[Problem]:
        """Problems of one shard, or of an artifact (``unit`` None)."""
        try:
            record, wrong = standing_record(self.backend, folder.path, unit)
        except SchemaMismatch as error:
            yield Problem("schema", folder.path, unit, error.message)
            return
        if wrong:
            yield Problem("record", folder.path, unit, wrong)
            return
        if record is None:
            names = [] if unit is None else list(zarr_metadata.all_arrays(manifest.arrays))
            objects = [commit.object_name(folder.path, manifest.arrays, name, unit) for name in names]
            yield from self._folders_for(objects, unit)
            present = [name for name in objects if self.backend.size(name) is not None]
            if present:
                yield Problem("orphan", folder.path, unit, f"{len(present)} objects of shard {unit} have no record")
            return
        try:
            shards = Shards(manifest.rows, manifest.shard_rows)
            inspection.check_record(record, unit, manifest, shards, f"{folder.path}/commits")
        except StoreError as error:
            yield Problem("record", folder.path, unit, error.message)
            return
        damaged = commit.damage(self.backend, folder.path, manifest, record, deep=self.deep)
        if damaged:
            if unit is not None and damaged.endswith("is missing"):
                yield from self._folders_for(commit.object_names(folder.path, manifest, record).values(), unit)
            if unit is None:
                self._damaged[record.content] = folder.key
            yield Problem("torn", folder.path, unit, damaged)
        elif unit is not None:
            yield from self._made_from(folder, manifest, record)
            if self.deep:
                view = StageView(self.store, folder.dataset, str(folder.split), folder.stage, folder.key)
                yield from self._values(view, record)

    def _folders_for(self, objects: Iterable[str], unit: int | None) -> Iterator[Problem]:
        """Folders in the places of objects of a shard or artifact."""
        for name in objects:
            place, _, last = name.rpartition("/")
            if self.backend.size(name) is None and f"{last}/" in self.backend.names(place):
                yield Problem("misplaced", name, unit, "a folder, where an object belongs")

    def _made_from(self, folder: Folder, manifest: StageManifest, record: CommitRecord) -> Iterator[Problem]:
        """Shards that this one was made from and that have other contents now."""
        for stage, contents in record.upstream.items():
            if stage not in manifest.upstream:
                continue  # an artifact: its content is in the key
            source = stage_folder(folder.dataset, folder.split, stage, short_key(manifest.upstream[stage]))
            for name, content in contents.items():
                unit = shard_of(f"{name}.json")
                standing = None if unit is None else self._content(source, unit)
                if standing is not None and standing != content:
                    text = f"made from shard {unit} of {stage} as it was before: run makes it again"
                    yield Problem("stale", folder.path, record.shard, text)

    def _content(self, folder: str, unit: int) -> str | None:
        """Content digest of a shard; None if it is missing or its record is damaged."""
        if (folder, unit) not in self._contents:
            record = None
            with contextlib.suppress(SchemaMismatch):  # reported with its own stage, as is what is damaged
                record, _ = standing_record(self.backend, folder, unit)
            self._contents[folder, unit] = record.content if record else None
        return self._contents[folder, unit]

    def _values(self, view: StageView, record: CommitRecord) -> Iterator[Problem]:
        names = zarr_metadata.all_arrays(view.manifest.arrays)
        try:
            arrays = {name: view[name][record.start : record.stop] for name in names}
        except AccessError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            yield Problem("torn", view.folder, record.shard, f"cannot be decoded: {error}")
            return
        if view.folder not in self._sizes:
            self._sizes[view.folder] = _image_sizes(view)
        for text in _wrong_values(view, record, arrays, self._sizes[view.folder]):
            yield Problem("values", view.folder, record.shard, text)


def _misplaced(backend: Backend, folder: str) -> Iterator[str]:
    """Names of objects of a key in whose place is something else; folders of shards are looked at with the shards.

    A link in place of a folder may lead to a disk that is not mounted: it is left to whoever lists the folder.
    """
    for name in backend.strays(folder):
        parts = name.removeprefix(f"{folder}/").split("/")
        may_be_folder = len(parts) == 1 or (parts[0] == "data.zarr" and len(parts) <= 3)
        if ASIDE not in parts[-1] and (not may_be_folder or parts[-1].endswith((".json", ".parquet"))):
            yield name
    places = [folder, *(f"{folder}/{item[:-1]}" for item in backend.names(folder) if item in HOLDERS)]
    places += [f"{folder}/data.zarr/{item[:-1]}" for item in backend.names(f"{folder}/data.zarr") if item[-1] == "/"]
    for place in places:
        for item in (each for each in backend.names(place) if ASIDE not in each):
            if item.endswith((".json/", ".parquet/")) or (place == f"{folder}/files" and item[-1] == "/"):
                yield f"{place}/{item[:-1]}"


def checked_manifest(backend: Backend, folder: Folder) -> StageManifest | IndexManifest | None:
    """Manifest of a folder, checked against its place and its key; None if there is none.

    Raises
    ------
    AccessError, SchemaMismatch, StoreError
        If it cannot be read, was written by a newer schema, or is damaged.
    """
    name = f"{folder.path}/manifest.json"
    try:
        data = backend.get(name, limit=MAX_JSON_BYTES)
    except FileNotFoundError:
        return None
    where = f"{backend.url}/{name}"
    if folder.stage == "index":
        index = parse(IndexManifest, data, where)
        inspection.check_own_place(index, folder.path, backend.url)
        return index
    manifest = parse(StageManifest, data, where)
    inspection.check_stage(manifest, folder.path, backend.url)
    inspection.check_key(manifest, where)
    return manifest


def _wrong_values(
    view: StageView, record: CommitRecord, arrays: dict[str, np.ndarray[Any, Any]], sizes: np.ndarray[Any, Any] | None
) -> Iterator[str]:
    status = arrays["status"]
    counted = (record.ok, record.no_object, len(record.quarantined))
    found = tuple(int((status == value).sum()) for value in (Status.OK, Status.NO_OBJECT, Status.QUARANTINED))
    if counted != found:
        yield f"status counts {found} where the record says {counted} (ok, no object, quarantined)"
    ok = status == Status.OK
    for name, spec in view.manifest.arrays.items():
        values = arrays[name][ok]
        if np.issubdtype(values.dtype, np.floating) and spec.fill != "nan" and not np.isfinite(values).all():
            yield f"{name} holds NaN or infinite values"
    boxes = arrays.get("boxes")
    if boxes is not None and sizes is not None and boxes.shape[-1] == 4:
        limits = sizes[record.start : record.stop]
        flat = boxes.reshape(len(boxes), -1, 4)
        outside = (flat < -BOX_TOLERANCE) | (flat > np.tile(limits, 2)[:, None, :] + BOX_TOLERANCE)
        turned = (flat[..., 2] < flat[..., 0]) | (flat[..., 3] < flat[..., 1])
        for text, wrong in (("outside their image", outside.any(axis=-1)), ("of negative width or height", turned)):
            rows = np.flatnonzero(wrong.any(axis=-1)) + record.start
            if len(rows):
                yield f"boxes of rows {', '.join(map(str, rows[:5]))} are {text}"


def _image_sizes(view: StageView) -> np.ndarray[Any, Any] | None:
    """(width, height) of every row, float64 [rows, 2], if the stage has boxes and its index is there."""
    if "boxes" not in view.manifest.arrays:
        return None
    try:
        table = view.index().table(["width", "height"])
    except AccessError:
        raise
    except (StoreError, OSError):
        return None
    if table.num_rows != view.manifest.rows:
        return None
    return np.stack([table.column(name).to_numpy() for name in ("width", "height")], axis=1).astype(np.float64)
