"""Results of a store: those that each was made from, and those that newer ones have replaced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.canonical import digest, read_json
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.manifest import IndexManifest
from wsolpipe.metrics.protocol import RUN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.share.found import Found


@dataclass(frozen=True)
class References:
    """Results of a store and what their manifests name."""

    found: tuple[Found, ...]

    @cached_property
    def _by_fingerprint(self) -> dict[tuple[str, str], list[Found]]:
        known: dict[tuple[str, str], list[Found]] = {}
        for item in self.found:
            known.setdefault((item.dataset, item.manifest.fingerprint), []).append(item)
        return known

    @cached_property
    def _by_content(self) -> dict[tuple[str, str, str | None], Found]:
        return {(item.dataset, item.stage, item.content): item for item in self.found if item.content}

    @cached_property
    def _indexes(self) -> dict[tuple[str, str | None, str], Found]:
        return {(item.dataset, item.split, item.key): item for item in self.found if item.stage == "index"}

    def needs(self, item: Found) -> list[Found]:
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
    def users(self) -> dict[str, list[Found]]:
        """Results that were made of a result, by the folder of that one."""
        known: dict[str, list[Found]] = {}
        for item in self.found:
            for need in self.needs(item):
                known.setdefault(need.folder, []).append(item)
        return known

    def closure(self, roots: Iterable[Found]) -> dict[str, Found]:
        """`roots` and everything that they were made of, by folder."""
        todo, kept = list(roots), {}
        while todo:
            item = todo.pop()
            if item.folder not in kept:
                kept[item.folder] = item
                todo += self.needs(item)
        return kept

    def replaced(self) -> dict[str, Found]:
        """The newest finished result that replaces an older one, by the folder of the older one.

        It replaces those that the same words on the command line gave before: the same stage, parameters and selection
        of rows, also of everything upstream. They differ in versions, weights, labels or image files.
        """
        alike: dict[str, list[Found]] = {}
        for item in self.found:
            alike.setdefault(self.words(item), []).append(item)
        newer = {}
        for items in alike.values():
            items.sort(key=lambda item: (item.manifest.created, item.key))
            last = max((at for at, item in enumerate(items) if is_whole(item)), default=0)
            newer.update({item.folder: items[last] for item in items[:last]})
        return newer

    def words(self, item: Found) -> str:
        """Digest of what was asked for: the same for two results that the same words gave."""
        manifest = item.manifest
        place = [item.dataset, item.split, item.stage]
        if isinstance(manifest, IndexManifest):
            return digest([*place, manifest.selection, manifest.params])
        needs = sorted(self.words(need) for need in self.needs(item))
        here = {need.stage for need in self.needs(item)}
        named = {**manifest.upstream, **manifest.artifacts}
        return digest([*place, manifest.params, needs, {stage: named[stage] for stage in named if stage not in here}])


def is_whole(item: Found) -> bool:
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
