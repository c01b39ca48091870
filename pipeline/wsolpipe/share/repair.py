"""Repair a store: remove or set aside what is damaged, so that a run makes it again, and change nothing else.

Every problem that `verify` finds is checked again before anything is removed: a shard under its lease, a folder under a
marker that transfers wait for. What cannot be read at all is left to the user.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from wsolpipe.contract.backends.base import ASIDE, Backend
from wsolpipe.contract.errors import AccessError, StoreError
from wsolpipe.contract.layout import Shards, commit_name, lease_name, read_json, shard_of
from wsolpipe.contract.manifest import StageManifest
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.engine.leases import REPAIR, TRANSFER, Folder, Leases, is_held, is_marked, list_folders, marked
from wsolpipe.share import inspection
from wsolpipe.share.inspection import LISTING
from wsolpipe.share.verify import Problem, Verifier, checked_manifest, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.reader import Store

LEFTOVER_AGE = 3600.0
#: Shards that are read to decide whether a manifest or the metadata of an array is damaged.
VOTERS = 8
#: Objects of a key that a run writes before its first shard.
BEGUN = ("/leases/", "/failures/", "/retries/", "/zarr.json", "/manifest.json")
LEFT_ALONE = {
    "schema": "left alone: upgrade wsolpipe to read it",
    "stale": "left alone: run makes it again",
    "suspect": "left alone: compare with wsolpipe run … force=true if the artifact was damaged when it was made",
}


def repair(store: Store, *, dataset: str | None = None, stages: tuple[str, ...] = ()) -> list[tuple[Problem, str]]:
    """Repair what is damaged; return each problem with the action taken.

    Raises
    ------
    AccessError
        If something may not be read; then nothing was changed.
    """
    mender = Mender(store)
    problems = [
        *verify(store, dataset=dataset, stages=stages),
        *empty_keys(store, dataset, stages, mender.leases),
        *outdated(store, dataset, stages),
    ]
    done: list[tuple[Problem, str]] = []
    for folder, items in groupby(problems, key=lambda problem: problem.folder):
        if folder.count("/") == 1:  # a note of a data set, which no key holds
            done += [(item, f"set aside as {store.backend.set_aside(item.where)}") for item in items]
        else:
            done += mender.mend_folder(folder, list(items))
    for problem in leftovers(store.backend):
        store.backend.delete(problem.where)
        done.append((problem, "removed"))
    return done


def leftovers(backend: Backend) -> Iterator[Problem]:
    """Temporary files that killed processes left more than an hour ago."""
    for name, age in backend.litter():
        if age > LEFTOVER_AGE:
            yield Problem("leftover", name, None, "temporary file of a killed process")


def empty_keys(store: Store, dataset: str | None, stages: tuple[str, ...], leases: Leases) -> Iterator[Problem]:
    """Keys without a finished shard, such as those of a failed first run, that no worker or transfer holds."""
    for folder in list_folders(store.backend, datasets=(dataset,) if dataset else (), stages=stages)[0]:
        if folder.stage != "index" and is_empty(leases, folder):
            yield Problem("empty", folder.path, None, "no finished shard: its first run failed or was stopped")


def outdated(store: Store, dataset: str | None, stages: tuple[str, ...]) -> Iterator[Problem]:
    """Whole stages whose arrays lie in no Zarr group or have axes without a name, as stores had before."""
    backend = store.backend
    for folder in list_folders(backend, datasets=(dataset,) if dataset else (), stages=stages)[0]:
        try:
            manifest = checked_manifest(backend, folder)
        except AccessError:
            raise
        except StoreError:
            continue  # found by verify
        if isinstance(manifest, StageManifest) and folder.split is not None:
            shards = Shards(manifest.rows, manifest.shard_rows)
            if zarr_metadata.is_outdated(backend, folder.path, manifest, shards):
                yield Problem("outdated", folder.path, None, "metadata of an earlier wsolpipe: no Zarr group over them")


def is_empty(leases: Leases, folder: Folder) -> bool:
    """Whether a key holds a manifest but no result, and no live lease except this process's."""
    backend = leases.backend
    if backend.names(f"{folder.path}/commits") or backend.size(f"{folder.path}/manifest.json") is None:
        return False
    for name, _ in backend.walk(folder.path):
        if not any(part in name for part in BEGUN):
            return False
        if "/leases/" in name and leases.owner.token not in name:
            try:
                if not leases.is_stale(name, backend.get(name)):
                    return False
            except FileNotFoundError:
                return False  # released just now: a worker is active
    return True


class Mender:
    """Repairs the folders of one store."""

    def __init__(self, store: Store) -> None:
        self.store, self.backend = store, store.backend
        self.leases = Leases(store.backend)
        self.verifier = Verifier(store)

    def mend_folder(self, path: str, problems: list[Problem]) -> list[tuple[Problem, str]]:
        """Repair the problems of one folder, unless a transfer is running in it."""
        done = []
        with marked(self.leases, path, REPAIR):
            busy = is_marked(self.leases, path, TRANSFER)
            for problem in problems:
                if problem.kind in LEFT_ALONE:
                    done.append((problem, LEFT_ALONE[problem.kind]))
                elif busy:
                    done.append((problem, "left alone: a transfer is running here"))
                else:
                    done.append((problem, self._mend(problem)))
        self.leases.sweep(path)
        return done

    def _mend(self, problem: Problem) -> str:
        dataset, second, stage, key = problem.folder.split("/")
        folder = Folder(dataset, None if second == "artifacts" else second, stage, key)
        mend_kind = {
            "manifest": self._set_manifest_aside,
            "index": self._mend_index,
            "metadata": self._write_metadata,
            "empty": self._remove_empty,
        }.get(problem.kind)
        if mend_kind is not None:
            return mend_kind(folder)
        if problem.kind == "outdated":
            return self._write_metadata(folder, outdated=True)
        if problem.kind == "misplaced":
            done = f"set aside as {self.backend.set_aside(problem.where)}"
            if problem.where.endswith("/data.zarr/zarr.json"):  # nothing else misses the group's
                self._write_metadata(folder, outdated=True)
            return done
        if problem.where != problem.folder:
            return self._set_aside(problem.where)
        manifest = checked_manifest(self.backend, folder)
        if not isinstance(manifest, StageManifest):
            return self._remove_unrecorded(folder)
        return self._mend_unit(folder, manifest, problem.shard)

    def _mend_unit(self, folder: Folder, manifest: StageManifest, unit: int | None) -> str:
        lease = self.leases.acquire(lease_name(folder.path, unit))
        if lease is None:
            return "left alone: a worker holds it"
        with lease.beating():
            if not any(item.kind not in LEFT_ALONE for item in self.verifier.unit(folder, manifest, unit)):
                return "left alone: it is intact by now"
            self.backend.delete(commit_name(folder.path, unit))
            if unit is None:
                there = self.backend.names(f"{folder.path}/files")
                names = [f"{folder.path}/files/{name}" for name in there if ASIDE not in name]
            else:
                arrays = zarr_metadata.all_arrays(manifest.arrays)
                names = [commit.object_name(folder.path, manifest.arrays, name, unit) for name in arrays]
            for name in names:
                self.backend.delete(name)
        return "removed; run makes it again"

    def _mend_index(self, folder: Folder) -> str:
        again = [item for item in self.verifier.folder(folder) if item.kind in {"index", "manifest"}]
        if not again:
            return "left alone: it is intact by now"
        if any(LISTING in item.text for item in again):
            for name in (LISTING, "listing.parquet", "listing_annotations.parquet"):
                self.backend.delete(f"{folder.path}/{name}")
        done = self._set_aside(f"{folder.path}/manifest.json")
        return f"manifest {done}; run or pull makes the tables again"

    def _write_metadata(self, folder: Folder, *, outdated: bool = False) -> str:
        """Write the Zarr metadata again where they are wrong, or else of an earlier version."""
        manifest = checked_manifest(self.backend, folder)
        examine = zarr_metadata.is_outdated if outdated else zarr_metadata.wrong_metadata
        if isinstance(manifest, StageManifest):
            shards = Shards(manifest.rows, manifest.shard_rows)
            if examine(self.backend, folder.path, manifest, shards):
                if not outdated and is_outvoted(self.backend, folder, manifest):
                    return self._set_manifest_aside(folder, sure=True)
                zarr_metadata.restore_metadata(self.backend, folder.path, manifest, shards)
                return "written again; no shard was touched" if outdated else "written again from the manifest"
        return "done with the other problems of this folder"

    def _set_manifest_aside(self, folder: Folder, *, sure: bool = False) -> str:
        try:
            whole = checked_manifest(self.backend, folder) is not None
        except AccessError:
            raise
        except StoreError:
            whole = False
        if whole and not sure:
            return "left alone: it is intact by now"
        if "manifest.json" in self.backend.names(folder.path):
            done = self._set_aside(f"{folder.path}/manifest.json")
            return f"{done}; run or pull writes it again and keeps the shards"
        return "left alone: run or pull writes it again and keeps the shards"

    def _remove_unrecorded(self, folder: Folder) -> str:
        """Objects of a folder that has neither manifest nor records, unless a lease is held."""
        if checked_manifest(self.backend, folder) is not None or is_held(self.leases, folder.path):
            return "left alone: a worker holds it"
        for name, _ in list(self.backend.walk(f"{folder.path}/data.zarr")):
            self.backend.delete(name)
        return "removed"

    def _remove_empty(self, folder: Folder) -> str:
        if not is_empty(self.leases, folder):
            return "left alone: a worker holds it"
        self.backend.delete(f"{folder.path}/manifest.json")
        for name, _ in list(self.backend.walk(folder.path)):
            if "/leases/" not in name:
                self.backend.delete(name)
        return "removed"

    def _set_aside(self, name: str) -> str:
        """Rename a damaged file to a name that nothing reads, if it is still there."""
        try:
            return f"set aside as {self.backend.set_aside(name)}"
        except FileNotFoundError:
            return "removed by another process"


def is_outvoted(backend: Backend, folder: Folder, manifest: StageManifest) -> bool:
    """Whether it is the manifest that is damaged, and not the metadata of its arrays that differ from it.

    All arrays agree on another cut of the rows, or no shard has the declared shape and type.
    """
    arrays, shards = zarr_metadata.all_arrays(manifest.arrays), Shards(manifest.rows, manifest.shard_rows)
    cuts = {_cut(backend, f"{folder.path}/data.zarr/{name}/zarr.json") for name in arrays}
    if len(cuts) == 1 and cuts.isdisjoint({None, (manifest.rows, manifest.shard_rows)}):
        return True
    numbers = (shard_of(file) for file in backend.names(f"{folder.path}/commits"))
    units = sorted(unit for unit in numbers if unit is not None and unit < len(shards))[:VOTERS]
    return any(units and not any(_fits(backend, folder, manifest, name, unit) for unit in units) for name in arrays)


def _fits(backend: Backend, folder: Folder, manifest: StageManifest, name: str, unit: int) -> bool:
    """Whether a shard object is one of the shape and type that the manifest says."""
    target = commit.object_name(folder.path, manifest.arrays, name, unit)
    try:
        inspection.check_shard_bytes(backend.get(target), manifest, name, unit, target)
    except AccessError:
        raise
    except (StoreError, FileNotFoundError):
        return False
    return True


def _cut(backend: Backend, name: str) -> tuple[int, int] | None:
    """Rows, and rows of a shard, by the metadata of an array; None if it cannot be parsed."""
    try:
        metadata = read_json(backend.get(name))
        return int(metadata["shape"][0]), int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
        return None
