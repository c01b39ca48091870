"""The check of a data set within a run: made once for a set of indexes, kept in the store, obeyed by every stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.canonical import digest, read_json, short_key
from wsolpipe.contract.errors import DataError
from wsolpipe.images.check import Finding, find_faults, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsolpipe.contract.reader import Index
    from wsolpipe.engine.session import Session

VERSION = 1


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
    made_of = digest([VERSION, {split: item.key for split, item in indexes.items()}])
    name = f"{session.dataset.name}/check-{short_key(made_of)}.json"
    findings, new = _kept(session, name), False
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


def _kept(session: Session, name: str) -> list[Finding] | None:
    try:
        return [Finding(**item) for item in read_json(session.backend.get(name))]
    except (FileNotFoundError, ValueError, TypeError):
        return None
