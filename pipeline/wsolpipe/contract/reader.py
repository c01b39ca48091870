"""Reading a store: data set, split, stage, then named arrays by row. Lazy, and pickled as nothing but names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from wsolpipe.contract.arrays import Named
from wsolpipe.contract.backends.opening import guess_store, holds_results, open_backend
from wsolpipe.contract.errors import NotFoundError, guess, shorten
from wsolpipe.contract.layout import split_folder, subfolders
from wsolpipe.contract.making import run_command
from wsolpipe.contract.notebook import Keyed
from wsolpipe.contract.verified import Verified
from wsolpipe.contract.views import Artifact, Index, StageView, choose, newest_complete

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend

__all__ = ["Artifact", "Dataset", "Index", "Split", "StageView", "Store", "open_store"]


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
    def verified(self) -> Verified:
        """Objects that were held against their records."""
        return Verified(self.backend)

    def holds_results(self) -> bool:
        """Whether the store holds results; see `wsolpipe.contract.backends.opening.holds_results`."""
        return holds_results(self.backend)

    def datasets(self) -> list[str]:
        """Names of the data sets in this store."""
        return subfolders(self.backend.names(""))

    def names(self) -> list[str]:
        """Names of the data sets; the same as `datasets`."""
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
        """Names of the splits; the same as `splits`."""
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
        done = sorted((view for view in views if view.record is not None), key=lambda view: view.manifest.created)
        return choose(done, stage, key, folder, self.store.url)[-1]


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
        """Names of the stages; the same as `stages`."""
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
        """One stage's arrays: of the newest complete key, or of the key that starts with `key`.

        A newer key that is unfinished is named in a warning. Where no key is complete, it is the newest that has a
        finished shard.
        """
        views = [StageView(self.store, self.dataset, self.name, stage, name) for name in self.keys(stage)]
        found = choose(views, stage, key, self.folder, self.store.url, self.name)
        return found[-1] if key else newest_complete(found)

    def index(self, key: str | None = None) -> Index:
        """The index: the newest, or the one that starts with `key`."""
        return choose(self.indexes(), "index", key, self.folder, self.store.url, self.name)[-1]

    def indexes(self) -> list[Index]:
        """Finished indexes of the split, oldest first."""
        backend = self.store.backend
        keys = subfolders(backend.names(f"{self.folder}/index"))
        views = [Index(self.store, self.dataset, self.name, name) for name in keys]
        done = [view for view in views if backend.size(f"{view.folder}/manifest.json") is not None]
        return sorted(done, key=lambda view: view.manifest.created)


def _unlisted(
    name: str, present: list[str], kind: str, where: str, store: str, split: str | None = None
) -> NotFoundError:
    """The error for a data set or split that a store does not hold: the nearest of those there, else what makes it."""
    nearest = guess(name, present)
    msg = f"no {kind} {shorten(name)!r} {where}; it holds: {', '.join(present) or 'nothing'}{nearest}"
    return NotFoundError(
        msg, hint=None if nearest else f"{run_command('proposals', store=store, split=split)} makes it"
    )
