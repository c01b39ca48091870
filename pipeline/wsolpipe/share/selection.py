"""Selection of the folders of a store that a transfer moves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.making import run_command
from wsolpipe.contract.nearest import unknown
from wsolpipe.contract.views import warn_of_unfinished
from wsolpipe.engine.folders import Folder, list_folders
from wsolpipe.share.found import Found, Selected, read_folders
from wsolpipe.share.references import References, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.backends.base import Backend

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


def _choose(backend: Backend, found: list[Found], wanted: Selection, *, unfinished: bool) -> list[Found]:
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


def _check_finished(backend: Backend, chosen: list[Found], wanted: Selection) -> None:
    """Refuse a selection that names something and selects nothing."""
    finished = {item.stage for item in chosen}
    empty = [stage for stage in wanted.stages if stage not in finished]
    if empty or (not chosen and wanted.keys not in {"newest", "all"}):
        what = f"stage {', '.join(empty)}" if empty else f"key {wanted.keys}"
        msg = f"{what} has no finished shard in {backend.url}"
        command = f"{run_command(empty[0], store=backend.url)} makes it; " if empty else ""
        raise ConfigError(msg, hint=f"{command}wsolpipe status store={backend.url} lists keys")


def _newest(found: Iterable[Found]) -> list[Found]:
    """The newest complete result of each place, else the newest; one that is newer and unfinished is named."""
    places: dict[tuple[str, str | None, str], list[Found]] = {}
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


def _with_needs(chosen: list[Found], found: list[Found]) -> list[Found]:
    """`chosen` and every key of `found` that they were made of."""
    references = References(tuple(found))
    return list(references.closure(chosen).values())


def _indexes(chosen: list[Found], found: list[Found], wanted: Selection) -> list[Found]:
    """Indexes that the chosen stages are rows of; where no stage was named, the newest of every split too."""
    indexes = [item for item in found if item.manifest.kind == "index"]
    keys = {(item.dataset, item.split, getattr(item.manifest, "index_key", None)) for item in chosen}
    kept = {item.folder: item for item in indexes if (item.dataset, item.split, item.key) in keys}
    if not wanted.stages or "index" in wanted.stages:
        kept.update({item.folder: item for item in _newest(indexes)})
    return list(kept.values())
