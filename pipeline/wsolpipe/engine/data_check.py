"""The check of a data set within a run: made once for a set of indexes, kept in the store, obeyed by every stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.layout import digest, read_json, short_key
from wsolpipe.images.check import Finding, find_faults, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.reader import Dataset, Index
    from wsolpipe.engine.session import Session

VERSION = 1
#: Sets of indexes among which a check is looked for.
MOST_SETS = 1000


def check_before_stages(session: Session, emit: Callable[[dict[str, Any]], None]) -> None:
    """Check the data set once all indexes of a run are made; findings are reported by whoever makes them first.

    Raises
    ------
    DataError
        If a finding would spoil training, ``accept=`` does not name it, and more than the index was asked for.
    """
    indexes = ready_indexes(session)
    if any(split not in indexes for split in session.config.index):
        return
    name = _name_of(session.dataset.name, indexes)
    findings, new = _kept(session.backend, name), False
    if findings is None:
        findings = find_faults(session.dataset, [read_facts(index) for index in indexes.values()])
        new = session.backend.create(name, json.dumps([asdict(item) for item in findings]).encode())
    refused = refused_findings(session, findings) if set(session.config.stage) != {"index"} else []
    for item in findings if new else ():
        if item not in refused:
            emit({"event": "warning", "text": item.line()})
    if refused:
        raise refusal(session, refused)


def ready_indexes(session: Session) -> dict[str, Index]:
    """Indexes of the data set's splits, those of this run and others that stand."""
    found = {split: session.index_of(split) for split in session.dataset.splits}
    return {split: index for split, index in found.items() if index is not None}


def refused_findings(session: Session, findings: Sequence[Finding]) -> list[Finding]:
    """Errors that neither ``accept=`` nor the data set's description accepts."""
    accepted = {*session.config.accept, *session.dataset.accept}
    return [item for item in findings if item.level == "error" and not accepted & {item.name, "all"}]


def refusal(session: Session, refused: Sequence[Finding]) -> DataError:
    """The error for findings that would spoil training."""
    noun = "a fault that would spoil" if len(refused) == 1 else f"{len(refused)} faults that would spoil"
    lines = "\n  ".join(item.line() for item in refused)
    names = ",".join(dict.fromkeys(item.name for item in refused))
    msg = f"data set {session.dataset.name} has {noun} training:\n  {lines}"
    hint = (
        f"correct the files and run again: unchanged rows are kept; where all is as it should be, accept={names}\n"
        f"  -> wsolpipe check dataset=… shows every finding"
    )
    return DataError(msg, hint=hint)


def kept_check(dataset: Dataset, index: Index) -> tuple[dict[str, Index], list[Finding]] | None:
    """The newest check of an index beside those of other splits, and its findings; None where the store holds none."""
    backend = dataset.store.backend
    names = set(backend.names(dataset.name))
    others = [split for split in dataset.splits() if split != index.split]
    newest: list[list[Index | None]] = [[*reversed(dataset[split].indexes()), None] for split in others]
    for chosen in islice(product(*newest), MOST_SETS):
        indexes = {item.split: item for item in (index, *chosen) if item is not None}
        name = _name_of(dataset.name, indexes)
        if name.partition("/")[2] in names and (findings := _kept(backend, name)) is not None:
            return indexes, findings
    return None


def _name_of(dataset: str, indexes: Mapping[str, Index]) -> str:
    made_of = digest([VERSION, {split: item.key for split, item in indexes.items()}])
    return f"{dataset}/check-{short_key(made_of)}.json"


def _kept(backend: Backend, name: str) -> list[Finding] | None:
    try:
        return [Finding(**item) for item in read_json(backend.get(name))]
    except (FileNotFoundError, ValueError, TypeError):
        return None
