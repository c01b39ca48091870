"""Which folders of a store are to be moved, as words of the command line say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import ConfigError, SchemaMismatch, StoreError
from wsolpipe.contract.layout import check_name, stage_folder
from wsolpipe.contract.manifest import MAX_JSON_BYTES, IndexManifest, StageManifest, parse
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.backends.base import Backend

#: Moved only when named: copies of the images themselves.
ONLY_WHEN_NAMED = frozenset({"pixels"})
ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class Selection:
    """What to move.

    Attributes
    ----------
    dataset : str
        Name of a data set in the store; empty means all.
    stages, splits : tuple of str
        Empty means all; the index of a split always goes with its stages.
    rows : tuple of (int, int or None)
        Shards that hold any of these rows.
    keys : str
        ``newest`` (and every key that the newest were made of), ``all``, or the first digits of keys.
    """

    dataset: str = ""
    stages: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    rows: tuple[int, int | None] = (0, None)
    keys: str = "newest"


@dataclass(frozen=True)
class Found:
    """One folder of a stage, an artifact (``split`` None) or an index: its manifest and the digest of its bytes."""

    dataset: str
    split: str | None
    stage: str
    key: str
    manifest: StageManifest | IndexManifest
    sha256: str

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return stage_folder(self.dataset, self.split, self.stage, self.key)


def select(backend: Backend, wanted: Selection) -> tuple[list[Found], list[tuple[str, str]]]:
    """Folders to move, indexes first, then artifacts, then stages; and (folder, reason) of those refused.

    Raises
    ------
    ConfigError
        If a data set, split or stage that was named is not there.
    """
    found: list[Found] = []
    refused: list[tuple[str, str]] = []

    def folders(folder: str) -> list[str]:
        """Names of folders directly below, without what could not be one of ours."""
        names = [name[:-1] for name in backend.names(folder) if name.endswith("/") and not name.startswith("index-")]
        return [name for name in names if _is_ours(name, folder, refused)]

    datasets = folders("")
    if wanted.dataset and wanted.dataset not in datasets:
        raise ConfigError(unknown(f"data set of {backend.url}", wanted.dataset, datasets))
    splits: set[str] = set()
    for dataset in [wanted.dataset] if wanted.dataset else datasets:
        for second in folders(dataset):
            splits.add(second)
            if second != ARTIFACTS and wanted.splits and second not in wanted.splits:
                continue
            for stage in folders(f"{dataset}/{second}"):
                for key in folders(f"{dataset}/{second}/{stage}"):
                    try:
                        item = _read(backend, dataset, None if second == ARTIFACTS else second, stage, key)
                    except SchemaMismatch:
                        raise
                    except StoreError as error:
                        if isinstance(error.__cause__, OSError):
                            raise  # the store is out of reach: the next folder is too
                        refused.append((f"{dataset}/{second}/{stage}/{key}", error.message))
                    else:
                        found += [item] if item else []
    _check_named(backend, splits - {ARTIFACTS}, {item.stage for item in found}, wanted)
    chosen = _choose(found, wanted)
    order = {"index": 0, "artifact": 1, "rows": 2}
    chosen.sort(key=lambda item: (order[item.manifest.kind], item.folder))
    return chosen, refused


def _is_ours(name: str, folder: str, refused: list[tuple[str, str]]) -> bool:
    try:
        check_name("folder", name)
    except ConfigError as error:
        refused.append((f"{folder}/{name}".strip("/"), error.message))
        return False
    return True


def _read(backend: Backend, dataset: str, split: str | None, stage: str, key: str) -> Found | None:
    name = f"{stage_folder(dataset, split, stage, key)}/manifest.json"
    try:
        data = backend.get(name, limit=MAX_JSON_BYTES)
    except FileNotFoundError:
        return None  # not begun, or an index that is still being made
    said, sha256 = f"{backend.url}/{name}", sha256_bytes(data)
    if stage == "index" and split:
        return Found(dataset, split, stage, key, parse(IndexManifest, data, said), sha256)
    return Found(dataset, split, stage, key, parse(StageManifest, data, said), sha256)


def _check_named(backend: Backend, splits: set[str], stages: set[str], wanted: Selection) -> None:
    for kind, named, there in (("split", wanted.splits, splits), ("stage", wanted.stages, stages)):
        for name in named:
            if name not in there:
                raise ConfigError(unknown(f"{kind} of {backend.url}", name, there))


def _choose(found: list[Found], wanted: Selection) -> list[Found]:
    named = [
        item
        for item in found
        if (item.stage in wanted.stages if wanted.stages else item.stage not in ONLY_WHEN_NAMED | {"index"})
    ]
    if wanted.keys == "newest":
        chosen = _newest(named)
        if not wanted.stages:
            chosen = _with_needs(chosen, named)
    elif wanted.keys == "all":
        chosen = named
    else:
        if not re.fullmatch(r"[0-9a-f,]+", wanted.keys):
            msg = f"keys={wanted.keys}: write newest, all, or first digits of keys, separated by commas"
            raise ConfigError(msg)
        chosen = [item for item in named if item.key.startswith(tuple(wanted.keys.split(",")))]
        if not chosen:
            raise ConfigError(unknown("key", wanted.keys, [f"{item.stage} {item.key}" for item in named]))
    return [*_indexes(chosen, found, wanted), *(item for item in chosen if item.stage != "index")]


def _newest(found: Iterable[Found]) -> list[Found]:
    latest: dict[tuple[str, str | None, str], Found] = {}
    for item in found:
        place = (item.dataset, item.split, item.stage)
        if place not in latest or (item.manifest.created, item.key) > (
            latest[place].manifest.created,
            latest[place].key,
        ):
            latest[place] = item
    return list(latest.values())


def _with_needs(chosen: list[Found], found: list[Found]) -> list[Found]:
    """`chosen` and every key of `found` that they were made of."""
    by_fingerprint = {(item.dataset, item.split, item.manifest.fingerprint): item for item in found}
    todo, kept = list(chosen), {item.folder: item for item in chosen}
    while todo:
        manifest = todo.pop().manifest
        for fingerprint in getattr(manifest, "upstream", {}).values():
            need = by_fingerprint.get((manifest.dataset, manifest.split, fingerprint))
            if need is not None and need.folder not in kept:
                kept[need.folder] = need
                todo.append(need)
    return list(kept.values())


def _indexes(chosen: list[Found], found: list[Found], wanted: Selection) -> list[Found]:
    """Indexes that the chosen stages are rows of; where no stage was named, the newest of every split too."""
    indexes = [item for item in found if item.manifest.kind == "index"]
    keys = {(item.dataset, item.split, getattr(item.manifest, "index_key", None)) for item in chosen}
    kept = {item.folder: item for item in indexes if (item.dataset, item.split, item.key) in keys}
    if not wanted.stages or "index" in wanted.stages:
        kept.update({item.folder: item for item in _newest(indexes)})
    return list(kept.values())
