"""Results of a store with what their manifests say: what each was made from, what replaced it, which are selected."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import AccessError, ConfigError, SchemaMismatch, StoreError, unknown
from wsolpipe.contract.layout import digest, read_json, sha256_bytes, shard_of
from wsolpipe.contract.making import run_command
from wsolpipe.contract.manifest import MAX_JSON_BYTES, IndexManifest, StageManifest, parse, read_record
from wsolpipe.contract.views import warn_of_unfinished
from wsolpipe.engine.leases import Folder, list_folders
from wsolpipe.metrics.protocol import RUN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.backends.base import Backend


@dataclass(frozen=True)
class StoredResult(Folder):
    """One folder of a stage, an artifact (``split`` None) or an index.

    Attributes
    ----------
    sha256 : str
        Of the bytes of its manifest.
    finished : int
        Commit records that it holds; 1 for an index.
    content : str or None
        Digest of the files of a finished artifact; manifests of the stages that read it name it by this.
    """

    manifest: StageManifest | IndexManifest
    sha256: str
    finished: int = 1
    content: str | None = None

    @property
    def shards(self) -> int:
        """Shards that it has when it is complete; 1 for an index or artifact."""
        if isinstance(self.manifest, IndexManifest) or self.split is None:
            return 1
        return -(-self.manifest.rows // max(1, self.manifest.shard_rows))  # as a giver says: checked when it is moved

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return self.path


@dataclass
class Selected:
    """Selected folders: indexes first, then artifacts, then stages.

    Attributes
    ----------
    refused : list of (str, str)
        Folders that cannot be moved, and why.
    skipped : list of str
        Folders whose names cannot belong to a store.
    """

    found: list[StoredResult]
    refused: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read_folders(backend: Backend, folders: Iterable[Folder]) -> Selected:
    """Everything in these folders that has a manifest."""
    read = Selected([])
    for folder in folders:
        try:
            item = _read(backend, folder)
        except (AccessError, SchemaMismatch):
            raise  # the next folder would fail too
        except StoreError as error:
            read.refused.append((folder.path, error.message))
        else:
            read.found += [item] if item else []
    return read


def _read(backend: Backend, folder: Folder) -> StoredResult | None:
    name = f"{folder.path}/manifest.json"
    try:
        data = backend.get(name, limit=MAX_JSON_BYTES)
    except FileNotFoundError:
        return None  # not begun, or an index that is still being made
    said, place = f"{backend.url}/{name}", (folder.dataset, folder.split, folder.stage, folder.key)
    if folder.stage == "index" and folder.split:
        return StoredResult(*place, parse(IndexManifest, data, said), sha256_bytes(data))
    manifest = parse(StageManifest, data, said)
    if folder.split is None:
        record = read_record(backend, folder.path, None)
        content = record.content if record else None
        return StoredResult(*place, manifest, sha256_bytes(data), int(record is not None), content)
    finished = sum(shard_of(file) is not None for file in backend.names(f"{folder.path}/commits"))
    return StoredResult(*place, manifest, sha256_bytes(data), finished)


@dataclass(frozen=True)
class References:
    """Results of a store and what their manifests name."""

    found: tuple[StoredResult, ...]

    @cached_property
    def _by_fingerprint(self) -> dict[tuple[str, str], list[StoredResult]]:
        known: dict[tuple[str, str], list[StoredResult]] = {}
        for item in self.found:
            known.setdefault((item.dataset, item.manifest.fingerprint), []).append(item)
        return known

    @cached_property
    def _by_content(self) -> dict[tuple[str, str, str | None], StoredResult]:
        return {(item.dataset, item.stage, item.content): item for item in self.found if item.content}

    @cached_property
    def _indexes(self) -> dict[tuple[str, str | None, str], StoredResult]:
        return {(item.dataset, item.split, item.key): item for item in self.found if item.stage == "index"}

    def needs(self, item: StoredResult) -> list[StoredResult]:
        """Results that `item` was made of, as far as the store holds them; artifacts by what they hold."""
        manifest = item.manifest
        if isinstance(manifest, IndexManifest):
            return []
        needs = [
            need
            for fingerprint in manifest.upstream.values()
            for need in self._by_fingerprint.get((item.dataset, fingerprint), ())
            if item.split is None or need.split == item.split
        ]
        needs += [
            self._by_content[item.dataset, stage, content]
            for stage, content in manifest.artifacts.items()
            if (item.dataset, stage, content) in self._by_content
        ]
        place = (item.dataset, item.split, str(manifest.index_key))
        return [*needs, *([self._indexes[place]] if place in self._indexes else [])]

    @cached_property
    def users(self) -> dict[str, list[StoredResult]]:
        """Results that were made of a result, by the folder of that one."""
        known: dict[str, list[StoredResult]] = {}
        for item in self.found:
            for need in self.needs(item):
                known.setdefault(need.folder, []).append(item)
        return known

    def closure(self, roots: Iterable[StoredResult]) -> dict[str, StoredResult]:
        """`roots` and everything that they were made of, by folder."""
        todo, kept = list(roots), {}
        while todo:
            item = todo.pop()
            if item.folder not in kept:
                kept[item.folder] = item
                todo += self.needs(item)
        return kept

    def replaced(self) -> dict[str, StoredResult]:
        """The newest finished result that replaces an older one, by the folder of the older one.

        It replaces those that the same words on the command line gave before: the same stage, parameters and selection
        of rows, also of everything upstream. They differ in versions, weights, labels or image files.
        """
        alike: dict[str, list[StoredResult]] = {}
        for item in self.found:
            alike.setdefault(self.words(item), []).append(item)
        newer = {}
        for items in alike.values():
            items.sort(key=lambda item: (item.manifest.created, item.key))
            last = max((at for at, item in enumerate(items) if is_whole(item)), default=0)
            newer.update({item.folder: items[last] for item in items[:last]})
        return newer

    def words(self, item: StoredResult) -> str:
        """Digest of what was asked for: the same for two results of the same request."""
        manifest = item.manifest
        place = [item.dataset, item.split, item.stage]
        if isinstance(manifest, IndexManifest):
            return digest([*place, manifest.selection, manifest.params])
        needs = sorted(self.words(need) for need in self.needs(item))
        here = {need.stage for need in self.needs(item)}
        named = {**manifest.upstream, **manifest.artifacts}
        return digest([*place, manifest.params, needs, {stage: named[stage] for stage in named if stage not in here}])


def is_whole(item: StoredResult) -> bool:
    """Whether every shard of a result is finished."""
    return item.finished >= item.shards


def keys_of_runs(folders: Iterable[str]) -> dict[str, list[str]]:
    """Folders of training runs by the keys of a store that they name.

    Raises
    ------
    ConfigError
        If a folder does not exist or a run's file cannot be read.
    """
    used: dict[str, list[str]] = {}
    for folder in folders:
        place = Path(folder)
        if not place.is_dir():
            msg = f"runs={folder}: no such folder"
            raise ConfigError(msg, hint="runs=FOLDER is a folder of wsoltrain fit, or one above several")
        for path in sorted(place.rglob(RUN_FILE)):
            try:
                keys: dict[str, Any] = read_json(path.read_bytes())["keys"]
                named = {str(key) for key in keys.values()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                msg = f"{path} does not say which results its run reads: {type(error).__name__}"
                raise ConfigError(msg, hint="name folders of wsoltrain fit with runs=") from error
            for key in named:
                used.setdefault(key, []).append(str(path.parent))
    return used


#: Moved only when named: copies of the images themselves.
ONLY_WHEN_NAMED = frozenset({"pixels"})


@dataclass(frozen=True)
class Selection:
    """Choice of the shards that a transfer moves.

    Attributes
    ----------
    dataset : str
        Name of a data set in the store; empty means all.
    stages, splits : tuple of str
        Empty means all; the index of a split always goes with its stages.
    rows : tuple of (int, int or None)
        Shards that hold any of these rows.
    keys : str
        ``newest`` (of those that are complete, else of those with a finished shard, and every key that these were made
        of), ``all``, or the first digits of keys.
    """

    dataset: str = ""
    stages: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    rows: tuple[int, int | None] = (0, None)
    keys: str = "newest"


def select(backend: Backend, wanted: Selection, *, unfinished: bool = False) -> Selected:
    """Select folders of a store.

    Parameters
    ----------
    unfinished : bool
        Whether keys without a finished shard count too.

    Raises
    ------
    ConfigError
        If a data set, split, stage or key that was named is not there, or a stage that was named has no finished shard.
    """
    datasets = (wanted.dataset,) if wanted.dataset else ()
    folders, skipped = list_folders(backend, datasets=datasets)
    if wanted.dataset and not folders:
        there = {item.dataset for item in list_folders(backend)[0]}
        raise ConfigError(unknown(f"data set of {backend.url}", wanted.dataset, there))
    _check_named(backend, folders, wanted)
    asked = [item for item in folders if item.split is None or not wanted.splits or item.split in wanted.splits]
    selected = read_folders(backend, asked)
    selected.skipped = skipped
    if wanted.stages:
        named = {*wanted.stages, "index"}
        selected.refused = [(path, why) for path, why in selected.refused if path.split("/")[2] in named]
    selected.found = _choose(backend, selected.found, wanted, unfinished=unfinished)
    order = {"index": 0, "artifact": 1, "rows": 2}
    selected.found.sort(key=lambda item: (order[item.manifest.kind], item.folder))
    return selected


def _check_named(backend: Backend, folders: list[Folder], wanted: Selection) -> None:
    splits = {item.split for item in folders if item.split is not None}
    stages = {item.stage for item in folders}
    for kind, named, there in (("split", wanted.splits, splits), ("stage", wanted.stages, stages)):
        for name in named:
            if name not in there:
                raise ConfigError(unknown(f"{kind} of {backend.url}", name, there))


def _choose(backend: Backend, found: list[StoredResult], wanted: Selection, *, unfinished: bool) -> list[StoredResult]:
    named = [
        item
        for item in found
        if (item.stage in wanted.stages if wanted.stages else item.stage not in ONLY_WHEN_NAMED | {"index"})
    ]
    finished = [item for item in named if item.finished or unfinished]
    if wanted.keys == "newest":
        chosen = _newest(finished)
        if not wanted.stages:
            chosen = _with_needs(chosen, finished)
    elif wanted.keys == "all":
        chosen = finished
    else:
        if not re.fullmatch(r"[0-9a-f,]+", wanted.keys):
            msg = f"keys={wanted.keys}: write newest, all, or first digits of keys, separated by commas"
            raise ConfigError(msg)
        starts = tuple(wanted.keys.split(","))
        chosen = [item for item in finished if item.key.startswith(starts)]
        if not any(item.key.startswith(starts) for item in named):
            raise ConfigError(unknown("key", wanted.keys, [f"{item.stage} {item.key}" for item in named]))
    _check_finished(backend, chosen, wanted)
    return [*_indexes(chosen, found, wanted), *(item for item in chosen if item.stage != "index")]


def _check_finished(backend: Backend, chosen: list[StoredResult], wanted: Selection) -> None:
    """Refuse a selection that names something and selects nothing."""
    finished = {item.stage for item in chosen}
    empty = [stage for stage in wanted.stages if stage not in finished]
    if empty or (not chosen and wanted.keys not in {"newest", "all"}):
        what = f"stage {', '.join(empty)}" if empty else f"key {wanted.keys}"
        msg = f"{what} has no finished shard in {backend.url}"
        command = f"{run_command(empty[0], store=backend.url)} makes it; " if empty else ""
        raise ConfigError(msg, hint=f"{command}wsolpipe status store={backend.url} lists keys")


def _newest(found: Iterable[StoredResult]) -> list[StoredResult]:
    """The newest complete result of each place, else the newest; one that is newer and unfinished is named."""
    places: dict[tuple[str, str | None, str], list[StoredResult]] = {}
    for item in sorted(found, key=lambda item: (item.manifest.created, item.key)):
        places.setdefault((item.dataset, item.split, item.stage), []).append(item)
    latest = []
    for items in places.values():
        chosen = next((item for item in reversed(items) if is_whole(item)), items[-1])
        if items[-1] is not chosen:
            newer = items[-1]
            made = f"{newer.finished} of {newer.shards} shards"
            warn_of_unfinished(f"{newer.stage} of {newer.split}", newer.key, made, chosen.key)
        latest.append(chosen)
    return latest


def _with_needs(chosen: list[StoredResult], found: list[StoredResult]) -> list[StoredResult]:
    """`chosen` and every key of `found` that they were made of."""
    references = References(tuple(found))
    return list(references.closure(chosen).values())


def _indexes(chosen: list[StoredResult], found: list[StoredResult], wanted: Selection) -> list[StoredResult]:
    """Indexes that the chosen stages are rows of; where no stage was named, the newest of every split too."""
    indexes = [item for item in found if item.manifest.kind == "index"]
    keys = {(item.dataset, item.split, getattr(item.manifest, "index_key", None)) for item in chosen}
    kept = {item.folder: item for item in indexes if (item.dataset, item.split, item.key) in keys}
    if not wanted.stages or "index" in wanted.stages:
        kept.update({item.folder: item for item in _newest(indexes)})
    return list(kept.values())
