"""Where results of a data set are looked up by name: the evaluator's only view of a store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from wsolpipe.contract.errors import NotFoundError
from wsolpipe.contract.making import known_stages, run_command
from wsolpipe.contract.nearest import guess, shorten
from wsolpipe.contract.reader import Artifact, Index, Split, StageView, open_store
from wsolpipe.evaluate.rows import RowTable, rows_of_index


class Results(Protocol):
    """Results of one data set by stage and split; decides which key a name means."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""

    def view(self, stage: str, split: str, key: str | None = None) -> StageView:
        """A finished stage of a split.

        Raises
        ------
        ConfigError, NotFoundError
            If there is no such stage, or it is unfinished; names the command that makes it.
        """

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """A finished artifact of the data set.

        Raises
        ------
        NotFoundError
            If there is none; names the command that makes it.
        """

    def index_of(self, view: StageView) -> Index:
        """Index of a stage's rows, with the newest ground truth."""

    def rows(self, split: str, *, without_truth: bool = False) -> RowTable:
        """Rows of a split; ``without_truth`` opens no file of ground truth."""

    def mask_root(self) -> Path | None:
        """Folder that mask paths of the ground truth are relative to; without it masks are left out."""

    def command(self, stage: str, split: str) -> str:
        """The command that makes a stage of a split."""


@dataclass(frozen=True)
class StoreResults:
    """Results as a store holds them: the newest key of a stage unless one is given.

    Attributes
    ----------
    store : str
        Folder or URL.
    dataset : str
        Name in that store.
    masks : Path or None
        Folder of the ground truth's mask files; None leaves masks out.
    """

    store: str
    dataset: str
    masks: Path | None = None

    def split(self, split: str) -> Split:
        """One split of the store."""
        return open_store(self.store)[self.dataset][split]

    def view(self, stage: str, split: str, key: str | None = None) -> StageView:
        """See `Results.view`."""
        view = self.split(split).stage(stage, key)
        view.require_complete()
        return view

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """See `Results.artifact`."""
        return open_store(self.store)[self.dataset].artifact(stage, key)

    @cached_property
    def _indexes(self) -> dict[str, Index]:
        return {}

    def index_of(self, view: StageView) -> Index:
        """See `Results.index_of`."""
        return newest_index(view, self._index(view.split))

    def _index(self, split: str) -> Index:
        if split not in self._indexes:
            self._indexes[split] = self.split(split).index()
        return self._indexes[split]

    def rows(self, split: str, *, without_truth: bool = False) -> RowTable:  # noqa: ARG002 - an index holds no truth
        """See `Results.rows`."""
        return rows_of_index(self._index(split))

    def mask_root(self) -> Path | None:
        """See `Results.mask_root`."""
        return self.masks

    def command(self, stage: str, split: str) -> str:
        """See `Results.command`."""
        return run_command(stage, store=self.store, split=split)


def newest_index(view: StageView, current: Index | None) -> Index:
    """Return `current` if it agrees with the columns that a stage read, else the index that the stage was made from."""
    columns = view.manifest.columns
    if current is not None and all(current.manifest.digests.get(name) == value for name, value in columns.items()):
        return current
    return view.index()


def read_beside(view: StageView, word: str) -> tuple[str, str | None]:
    """Stage and key that ``beside=`` names: the beginning of a key of `view`'s stage, or ``STAGE`` or ``STAGE:KEY``.

    Raises
    ------
    NotFoundError
        If it is neither; names the keys and the nearest stage.
    """
    here = view.store[view.dataset][view.split]
    stage, colon, key = word.partition(":")
    if not colon and re.fullmatch("[0-9a-f]+", word):
        return view.stage, word
    known = {*known_stages(), *here.stages()}
    if stage not in known:
        msg = f"beside={shorten(word)} is neither a stage nor how a key of {view.stage} begins{guess(stage, known)}"
        raise NotFoundError(msg, hint=f"keys of {view.stage} of {view.split}: {', '.join(here.keys(view.stage))}")
    return stage, key or None


def counterpart(results: Results, view: StageView, split: str) -> StageView:
    """The same stage of another split, made with the same parameters.

    Raises
    ------
    NotFoundError
        If there is none, or it is unfinished.
    """
    here = view.store[view.dataset][split]
    twins: list[StageView] = [here.stage(view.stage, key) for key in here.keys(view.stage)]
    same = [twin for twin in twins if _made_alike(twin, view)]
    if not same:
        msg = f"{view.stage} of {split} is not made with the parameters of {view.key} of {view.split}"
        raise NotFoundError(msg, hint=results.command(view.stage, split))
    same[-1].require_complete()
    return same[-1]


def _made_alike(one: StageView, other: StageView) -> bool:
    """Whether two results have the same parameters and weights."""
    mine, theirs = ({(item.name, item.sha256) for item in view.manifest.weights} for view in (one, other))
    return one.manifest.params == other.manifest.params and mine == theirs
