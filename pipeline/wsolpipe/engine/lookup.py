"""Finding what is in the store for commands that only look: by the configuration's keys, or else the newest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.engine.graph import resolve

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Index, StageView
    from wsolpipe.engine.session import Session


def find_view(session: Session, stage: str, split: str, *, key: str | None = None) -> StageView:
    """A rows stage of a split as it stands in the store.

    Parameters
    ----------
    key : str, optional
        The key, or how it begins. Without it, and with ``stage.parameter=value`` words, the key that those make;
        without either, the key of the data set's own parameters if it is there, else the newest.

    Raises
    ------
    StoreError
        If there is none; names the keys that there are and the command that makes it.
    """
    command = f"wsolpipe run stage={stage} dataset={session.config.dataset} split={split} store={session.config.store}"
    name = session.dataset.name
    if name not in session.store.datasets() or split not in session.store[name].splits():
        msg = f"store {session.config.store} holds no {split} split of {name}"
        raise StoreError(msg, hint=command)
    present = session.store[name][split].keys(stage)
    if key is None:
        key = _resolved_key(session, stage, split, present)
    matching = [item for item in present if key is None or item.startswith(key)]
    if not matching:
        found = f"; there is: {', '.join(present)}" if present else ""
        asked = f" with key {key}" if key else ""
        msg = f"{stage} of {split} is not made{asked}{found}"
        raise StoreError(msg, hint=command)
    return session.store[name][split].stage(stage, matching[-1])


def _resolved_key(session: Session, stage: str, split: str, present: list[str]) -> str | None:
    """Key of the configuration; None where the newest will do."""
    # What is looked up need not be what was asked for: a judge or a chooser is another stage, or of another split.
    asked = replace(session, config=replace(session.config, stage=(stage,), split=(split,)))
    try:
        key = resolve(asked).find(stage, split).key
    except (ConfigError, StopIteration):
        if session.config.params:
            raise
        return None
    return key if session.config.params or key in present else None


def index_of(session: Session, view: StageView) -> Index:
    """Index whose rows a stage has: the current one if the stage's columns agree with it, else the stage's own."""
    current = session.index_of(view.split)
    columns = view.manifest.columns
    if current is not None and all(current.manifest.digests.get(name) == value for name, value in columns.items()):
        return current
    return view.index()


def require_complete(view: StageView) -> None:
    """Refuse a stage with missing shards.

    Raises
    ------
    StoreError
        With the number of shards that are missing.
    """
    missing = len(view.shards) - len(view.committed())
    if missing:
        msg = f"{missing} of {len(view.shards)} shards of {view.stage} of {view.split} are not made"
        raise StoreError(msg, hint=f"wsolpipe run stage={view.stage} dataset=… store={view.store.url} resumes it")
