"""Verifying a store against its records, and removing what is torn so that a run remakes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import commit_name, lease_name, stage_folder
from wsolpipe.contract.reader import Artifact, Index, StageView, Store, read_record
from wsolpipe.contract.schema import Status
from wsolpipe.engine import commit
from wsolpipe.engine.encoding import metadata_bytes
from wsolpipe.engine.leases import Leases
from wsolpipe.images.tables import column_digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.manifest import CommitRecord

LEFTOVER_AGE = 3600.0
BOX_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Problem:
    """Something in a store that does not agree with its records.

    Attributes
    ----------
    kind : str
        ``torn`` (a shard whose bytes are not those recorded), ``values`` (readable, but NaN, out of bounds …),
        ``record`` (a record that cannot be read), ``index``, ``orphan`` (an object without a record) or ``leftover``
        (a temporary file of a killed process).
    where : str
        Folder of the stage, or name of the object.
    """

    kind: str
    where: str
    shard: int | None
    text: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def verify(
    store: Store, *, dataset: str | None = None, stages: tuple[str, ...] = (), deep: bool = True
) -> Iterator[Problem]:
    """Read every object again: digest, shape, NaN, box bounds; yield whatever is wrong.

    Parameters
    ----------
    dataset : str, optional
        Only this one.
    stages : tuple of str
        Only these; empty means all.
    deep : bool
        Whether to read what lies there; if not, records are held against the sizes of their objects only.
    """
    for name in [dataset] if dataset else store.datasets():
        yield from _verify_artifacts(store, name, stages, deep=deep)
        for split in store[name].splits():
            view = store[name][split]
            if not stages or "index" in stages:
                for key in store.backend.names(f"{view.folder}/index"):
                    yield from _verify_index(Index(store, name, split, key[:-1]), deep=deep)
            for stage in view.stages():
                if not stages or stage in stages:
                    for key in view.keys(stage):
                        yield from _verify_stage(view.stage(stage, key), deep=deep)


def _verify_index(index: Index, *, deep: bool) -> Iterator[Problem]:
    backend = index.store.backend
    if backend.size(f"{index.folder}/manifest.json") is None:
        return  # being made
    for name, stored in index.manifest.objects.items():
        if backend.size(f"{index.folder}/{name}") != stored.bytes:
            yield Problem(
                "index", index.folder, None, f"{name} is missing or has not the {stored.bytes} bytes recorded"
            )
            return
    if not deep:
        return
    try:
        table = index.table()
        index.annotations()
    except (StoreError, OSError, ValueError) as error:
        yield Problem("index", index.folder, None, str(error))
        return
    wrong = [name for name, value in column_digests(table).items() if index.manifest.digests.get(name) != value]
    if wrong or table.num_rows != index.manifest.rows:
        yield Problem("index", index.folder, None, f"columns {', '.join(wrong)} do not agree with the manifest")


def _verify_artifacts(store: Store, dataset: str, stages: tuple[str, ...], *, deep: bool) -> Iterator[Problem]:
    look = commit.damaged_objects if deep else commit.missing_objects
    for stage in store.backend.names(f"{dataset}/artifacts"):
        if stages and stage[:-1] not in stages:
            continue
        for key in store.backend.names(f"{dataset}/artifacts/{stage[:-1]}"):
            view = Artifact(store, dataset, stage[:-1], key[:-1])
            try:
                record = view.record
            except StoreError as error:
                yield Problem("record", view.folder, None, error.message)
                continue
            if record is not None:
                damaged = look(store.backend, view.folder, view.manifest, record)
                if damaged:
                    yield Problem("torn", view.folder, None, f"not the bytes recorded: {', '.join(damaged)}")


def _verify_stage(view: StageView, *, deep: bool) -> Iterator[Problem]:
    backend, manifest = view.store.backend, view.manifest
    for name, spec in commit.all_arrays(manifest.arrays).items():
        path = f"{view.folder}/data.zarr/{name}/zarr.json"
        if backend.size(path) is None or backend.get(path) != metadata_bytes(spec, view.shards):
            yield Problem("torn", view.folder, None, f"{name}/zarr.json is not what the manifest says")
            return
    sizes = _image_sizes(view) if deep else None
    for file in backend.names(f"{view.folder}/commits"):
        number = file.removesuffix(".json")
        if not number.isdigit() or int(number) >= len(view.shards):
            yield Problem("orphan", f"{view.folder}/commits/{file}", None, "record of no shard")
            continue
        try:
            record = read_record(backend, view.folder, int(number))
        except StoreError as error:
            yield Problem("record", view.folder, int(number), error.message)
            continue
        if record is not None:
            yield from _verify_shard(view, record, sizes, deep=deep)
    yield from _orphans(view)


def _verify_shard(
    view: StageView, record: CommitRecord, sizes: np.ndarray[Any, Any] | None, *, deep: bool
) -> Iterator[Problem]:
    backend = view.store.backend
    shard = record.shard
    names = commit.object_names(view.folder, view.manifest, record)
    expected = set(commit.all_arrays(view.manifest.arrays))
    if set(names) != expected or (record.start, record.stop) != view.shards.span(int(shard or 0)):
        yield Problem("record", view.folder, shard, "record does not fit the manifest's arrays and shards")
        return
    for key, name in names.items():
        size = backend.size(name)
        if size != record.objects[key].bytes:
            yield Problem("torn", view.folder, shard, f"{name} has {size} bytes, recorded {record.objects[key].bytes}")
            return
        if deep and sha256_bytes(backend.get(name)) != record.objects[key].sha256:
            yield Problem("torn", view.folder, shard, f"{name} has other bytes than recorded")
            return
    if not deep:
        return
    try:
        arrays = {name: view[name][record.start : record.stop] for name in names}
    except (OSError, ValueError, RuntimeError) as error:
        yield Problem("torn", view.folder, shard, f"cannot be decoded: {error}")
        return
    for text in _wrong_values(view, record, arrays, sizes):
        yield Problem("values", view.folder, shard, text)


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
        for text, wrong in (("outside their image", outside.any(axis=-1)), ("turned inside out", turned)):
            rows = np.flatnonzero(wrong.any(axis=-1)) + record.start
            if len(rows):
                yield f"boxes of rows {', '.join(map(str, rows[:5]))} are {text}"


def _image_sizes(view: StageView) -> np.ndarray[Any, Any] | None:
    """(width, height) of every row, where the stage has boxes and its index is at hand."""
    if "boxes" not in view.manifest.arrays:
        return None
    try:
        table = view.index().table(["width", "height"])
    except (StoreError, OSError):
        return None
    return np.stack([table.column(name).to_numpy() for name in ("width", "height")], axis=1).astype(np.float64)


def _orphans(view: StageView) -> Iterator[Problem]:
    """Shard objects without a record."""
    backend = view.store.backend
    known = {name.removesuffix(".json") for name in backend.names(f"{view.folder}/commits")}
    for name in commit.all_arrays(view.manifest.arrays):
        for shard in backend.names(f"{view.folder}/data.zarr/{name}/c"):
            number = shard.rstrip("/")
            if number not in known and number.isdigit():
                yield Problem("orphan", view.folder, int(number), f"{name} of shard {number} has no record")


def leftovers(backend: Backend) -> Iterator[Problem]:
    """Temporary files that killed processes left more than an hour ago."""
    for name, age in backend.litter():
        if age > LEFTOVER_AGE:
            yield Problem("leftover", name, None, "temporary file of a killed process")


def repair(store: Store, *, dataset: str | None = None, stages: tuple[str, ...] = ()) -> list[tuple[Problem, str]]:
    """Remove what is torn; return each problem with what was done about it.

    Shards are removed under their lease, so a run at work is not disturbed; the next run makes them again.
    """
    backend, done = store.backend, []
    leases = Leases(backend)
    problems = [*verify(store, dataset=dataset, stages=stages), *leftovers(backend)]
    for problem in problems:
        done.append((problem, _mend(store, problem, leases)))
    return done


def _mend(store: Store, problem: Problem, leases: Leases) -> str:
    backend = store.backend
    if problem.kind == "leftover":
        backend.delete(problem.where)
        return "removed"
    if problem.kind == "index":
        for name in ("manifest.json", "index.parquet", "annotations.parquet"):
            backend.delete(f"{problem.where}/{name}")
        return "tables removed; run assembles them again from its scans"
    parts = problem.where.split("/")
    if problem.shard is None and parts[1] != "artifacts":
        return "left alone: move this folder away and run again"
    lease = leases.acquire(lease_name(problem.where, problem.shard))
    if lease is None:
        return "left alone: a worker is at it"
    try:
        _remove_shard(store, problem)
    finally:
        lease.release()
    return "removed; run makes it again"


def _remove_shard(store: Store, problem: Problem) -> None:
    backend, shard = store.backend, problem.shard
    backend.delete(commit_name(problem.where, shard))
    dataset, second, stage, key = problem.where.split("/")
    if shard is None:
        assert problem.where == stage_folder(dataset, None, stage, key)
        for name in backend.names(f"{problem.where}/files"):
            backend.delete(f"{problem.where}/files/{name}")
        return
    view = StageView(store, dataset, second, stage, key)
    for name in commit.all_arrays(view.manifest.arrays):
        backend.delete(commit.object_name(view.folder, view.manifest.arrays, name, shard))
