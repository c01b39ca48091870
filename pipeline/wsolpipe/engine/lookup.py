"""Finding results in the store for commands that only read: by the configuration's keys, or else the newest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wsolpipe.contract.backends.opening import guess_store
from wsolpipe.contract.errors import ConfigError, NotFoundError
from wsolpipe.contract.making import NAME_A_KEY, run_command
from wsolpipe.contract.nearest import shorten
from wsolpipe.contract.reader import Artifact, Index, StageView, open_store
from wsolpipe.engine.graph import resolve
from wsolpipe.evaluate.results import newest_index
from wsolpipe.evaluate.rows import RowTable, list_rows, rows_of_index
from wsolpipe.keys.key import show_value

if TYPE_CHECKING:
    from pathlib import Path

    from wsolpipe.engine.session import Session


def find_view(session: Session, stage: str, split: str, *, key: str | None = None) -> StageView:
    """A rows stage of a split in the store.

    Parameters
    ----------
    key : str, optional
        The key, or how it begins. Without it, and with ``stage.parameter=value`` words, the key that those make;
        without either, the key of the data set's own parameters if it is complete, else the newest that is.

    Raises
    ------
    NotFoundError
        If there is none; names the keys that there are and the command that makes it.
    """
    command = SessionResults(session).command(stage, split)
    name = session.dataset.name
    if guess_store(session.config.store) and not session.store.holds_results():
        open_store(session.config.store)  # raises: the store beside it was meant
    if name not in session.store.datasets() or split not in session.store[name].splits():
        msg = f"store {session.config.store} holds no {split} split of {name}"
        if not session.store.holds_results():
            msg, command = f"no store at {session.config.store}: the folder is missing or empty", f"{command} makes one"
        raise NotFoundError(msg, hint=command)
    here = session.store[name][split]
    present = here.keys(stage)
    wanted = key or _resolved_key(session, stage, split, present)
    if not any(wanted is None or item.startswith(wanted) for item in present):
        found = f"; there is: {', '.join(present)}" if present else ""
        asked = f" with key {shorten(wanted)}" if wanted else ""
        msg = f"{stage} of {split} is not made{asked}{found}"
        raise NotFoundError(msg, hint=NAME_A_KEY if key and present else command)
    if not key and not session.config.params and wanted and here.stage(stage, wanted).missing():
        wanted = None  # the newest complete one goes before the data set's own that is under way
    return here.stage(stage, wanted)


def find_artifact(session: Session, stage: str, *, key: str | None = None) -> Artifact:
    """A finished artifact in the store, chosen as `find_view` chooses.

    Raises
    ------
    NotFoundError
        If it is not finished; names the command that makes it.
    """
    name = session.dataset.name
    folder = f"{name}/artifacts/{stage}"
    present = [found.removesuffix("/") for found in session.backend.names(folder)]
    try:
        return session.store[name].artifact(stage, key or _resolved_key(session, stage, None, present))
    except NotFoundError as error:
        command = SessionResults(session).command(stage)
        raise NotFoundError(error.message, hint=NAME_A_KEY if key and present else command) from error


def _resolved_key(session: Session, stage: str, split: str | None, present: list[str]) -> str | None:
    """Key of the configuration; None where the newest will do."""
    # What is looked up need not be what was asked for: truth and a threshold come from other stages and splits.
    splits = session.config.split if split is None else (split,)
    asked = replace(session, config=replace(session.config, stage=(stage,), split=splits))
    try:
        key = resolve(asked).find(stage, split).key
    except (ConfigError, StopIteration):
        if session.config.params:
            raise
        return None
    return key if session.config.params or key in present else None


def index_of(session: Session, view: StageView) -> Index:
    """Index whose rows a stage has: the current one if the stage's columns agree with it, else the stage's own."""
    return newest_index(view, session.index_of(view.split))


@dataclass(frozen=True)
class SessionResults:
    """Results of a session's data set, as `wsolpipe.evaluate.results.Results` describes them."""

    session: Session

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.session.dataset.name

    def view(self, stage: str, split: str, key: str | None = None) -> StageView:
        """A finished stage: of the key given, else as `find_view` chooses."""
        self.session.registry[stage]  # refuses an unknown name
        view = find_view(self.session, stage, split, key=key)
        view.require_complete()
        return view

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """A finished artifact: of the key given, else as `find_artifact` chooses."""
        return find_artifact(self.session, stage, key=key)

    def index_of(self, view: StageView) -> Index:
        """Index of a stage's rows, with the newest ground truth."""
        return index_of(self.session, view)

    def rows(self, split: str, *, without_truth: bool = False) -> RowTable:
        """Rows of the current index, or without one as the metadata files list them."""
        index = self.session.index_of(split)
        if index is not None:
            return rows_of_index(index)
        return list_rows(self.session.dataset, split, without_truth=without_truth)

    def mask_root(self) -> Path:
        """Folder that mask paths of the ground truth are relative to."""
        return self.session.dataset.mask_root()

    def command(self, stage: str, split: str | None = None) -> str:
        """The command that makes a stage of a split, with the arguments that chose it."""
        config = self.session.config
        words = [f"stages={config.stages}"] if config.stages else []
        for name, params in config.params.items():
            words += [f"{name}.{key}={show_value(value)}" for key, value in params.items()]
        return run_command(stage, store=config.store, split=split, words=words)
