"""Find who refers to each result of a store, and remove those to which nothing refers.

A result is kept if no newer one replaces it, if it is young, held by a worker or a transfer, or named by a training run
or by the user; and so is everything that a kept result was made of. Removal may be killed at any time and repeated:
results are removed before what they were made of, the record of each shard before its bytes, and the manifest last.
"""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, StoreError, unknown
from wsolpipe.contract.layout import shard_of
from wsolpipe.contract.manifest import read_record
from wsolpipe.engine.leases import GC, Lease, Leases, is_held, list_folders, marked
from wsolpipe.share.selection import References, Selected, StoredResult, is_whole, keys_of_runs, read_folders

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.backends.base import Backend

#: Days within which nothing is removed.
DAYS = 7.0


@dataclass(frozen=True)
class Rule:
    """Which results are kept in addition to the newest.

    Attributes
    ----------
    days : float
        Results with a manifest or a record of the last so many days.
    keep, drop : tuple of str
        Beginnings of keys that are kept, and that may go though nothing replaces them.
    runs : tuple of str
        Folders of training runs; what they read is kept.
    """

    days: float = DAYS
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holding:
    """A result of a store.

    Attributes
    ----------
    bytes, files : int
        Of all its objects.
    days : float
        Since its manifest or its newest record was written.
    users : tuple of str
        Stages and keys that were made of it, and training runs that name it.
    replaced_by : str
        Key of the newer result that the same words give now; empty where there is none.
    kept : str
        Why it is kept; empty if nothing refers to it.
    """

    item: StoredResult
    bytes: int
    files: int
    days: float
    users: tuple[str, ...]
    replaced_by: str
    kept: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        item, rows = self.item, getattr(self.item.manifest, "rows", 0)
        return {
            "dataset": item.dataset, "split": item.split, "stage": item.stage, "key": item.key, "rows": rows,
            "whole": is_whole(item), "bytes": self.bytes, "files": self.files, "created": item.manifest.created,
            "days": round(self.days, 3), "users": list(self.users), "replaced_by": self.replaced_by, "kept": self.kept,
        }  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """Outcome of a removal: removed results, and unreferenced ones that were kept, with the reason."""

    removed: list[StoredResult] = field(default_factory=list)
    left: list[tuple[StoredResult, str]] = field(default_factory=list)


def survey(backend: Backend, rule: Rule = Rule(), *, dataset: str = "") -> list[Holding]:  # noqa: B008 - frozen
    """Everything that a store holds, with its size and what refers to it.

    Raises
    ------
    ConfigError
        If there is no such data set, a key of `rule` is not there, or a run's file cannot be read.
    """
    read = _read_all(backend, dataset)
    _check_keys(read.found, rule)
    references = References(tuple(read.found))
    runs, replaced = keys_of_runs(rule.runs), references.replaced()
    kept = _kept(read, references, rule, Leases(backend), runs)
    holdings = []
    for item in read.found:
        sizes = [size for name, size in backend.walk(item.folder) if "/leases/" not in name]
        users = [f"{user.stage} {user.key[:8]}" for user in references.users.get(item.folder, ())]
        newer = replaced[item.folder].key if item.folder in replaced else ""
        holdings.append(
            Holding(
                item, sum(sizes), len(sizes), _days(backend, item), (*users, *runs.get(item.key, ())), newer,
                kept.get(item.folder, ""),
            )
        )  # fmt: skip
    return holdings


def collect(backend: Backend, rule: Rule = Rule(), *, dataset: str = "") -> Collected:  # noqa: B008 - frozen
    """Remove what nothing refers to.

    Everything that is to go is marked first; then the store is read again. A worker writes its manifest or takes its
    lease first and then looks for marks, so that either it is seen here or it waits and finds out what is gone.

    Raises
    ------
    ConfigError
        As `survey`.
    """
    leases, done = Leases(backend), Collected()
    _check_keys(_read_all(backend, dataset).found, rule)
    runs = keys_of_runs(rule.runs)
    with contextlib.ExitStack() as stack:
        marks = {
            item.folder: stack.enter_context(marked(leases, item.folder, GC))
            for item in _garbage(backend, dataset, rule, leases, runs)[0]
        }
        again, references = _garbage(backend, dataset, rule, leases, runs)
        standing = {item.folder for item in references.found}
        for item in _users_first([item for item in again if item.folder in marks], references):
            users = [user for user in references.users.get(item.folder, ()) if user.folder in standing]
            if users:
                done.left.append((item, f"{users[0].stage} {users[0].key} still refers to it"))
            elif not _remove(backend, item, marks[item.folder]):
                done.left.append((item, "another process took over its mark: run gc again"))
            else:
                standing.discard(item.folder)
                done.removed.append(item)
    for item in done.removed:
        leases.sweep(item.folder)
    return done


def _read_all(backend: Backend, dataset: str) -> Selected:
    folders, skipped = list_folders(backend)
    there = {folder.dataset for folder in folders}
    if dataset and dataset not in there:
        raise ConfigError(unknown(f"data set of {backend.url}", dataset, there))
    read = read_folders(backend, [folder for folder in folders if dataset in {"", folder.dataset}])
    read.skipped = skipped
    return read


def _check_keys(found: list[StoredResult], rule: Rule) -> None:
    for start in (*rule.keep, *rule.drop):
        if not any(item.key.startswith(start) for item in found):
            raise ConfigError(unknown("key", start, [f"{item.stage} {item.key}" for item in found]))


def _garbage(
    backend: Backend, dataset: str, rule: Rule, leases: Leases, runs: dict[str, list[str]]
) -> tuple[list[StoredResult], References]:
    read = _read_all(backend, dataset)
    references = References(tuple(read.found))
    kept = _kept(read, references, rule, leases, runs)
    return [item for item in read.found if item.folder not in kept], references


def _kept(
    read: Selected, references: References, rule: Rule, leases: Leases, runs: dict[str, list[str]]
) -> dict[str, str]:
    """Why each result is kept, by folder; those that nothing refers to are left out."""
    replaced, reasons = references.replaced(), {}
    damaged = {path.split("/")[0] for path, _ in read.refused}
    for item in read.found:
        if why := _root(item, item.folder in replaced, rule, leases, runs):
            reasons[item.folder] = why
        elif item.dataset in damaged:
            reasons[item.folder] = "a manifest of its data set cannot be read: repair first"
    roots = [item for item in read.found if item.folder in reasons]
    for folder in references.closure(roots):
        if folder not in reasons:
            users = [user for user in references.users[folder] if user.folder in references.closure(roots)]
            reasons[folder] = f"read by {users[0].stage} {users[0].key[:8]}"
    return reasons


def _root(item: StoredResult, is_replaced: bool, rule: Rule, leases: Leases, runs: dict[str, list[str]]) -> str:  # noqa: FBT001
    """The reason why a result is kept even if nothing refers to it; empty without one."""
    if item.key.startswith(rule.keep or ("-",)):
        return "named by keep="
    if item.key in runs:
        return f"read by {runs[item.key][0]}"
    if not is_replaced and not item.key.startswith(rule.drop or ("-",)):
        return "nothing newer replaces it"
    if is_held(leases, item.folder):
        return "in use"
    return f"younger than {rule.days:g} days" if _days(leases.backend, item) < rule.days else ""


def _days(backend: Backend, item: StoredResult) -> float:
    """Days since the manifest or the newest record was written; 0 where that is not known."""
    times = [item.manifest.created]
    for file in backend.names(f"{item.folder}/commits"):
        unit = shard_of(file)
        if unit is not None or file == "artifact.json":
            with contextlib.suppress(StoreError):
                record = read_record(backend, item.folder, unit)
                times += [record.time] if record else []
    known = []
    for text in times:
        with contextlib.suppress(ValueError):
            moment = datetime.datetime.fromisoformat(text)
            known.append(moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC))
    if not known:
        return 0.0
    return max(0.0, (datetime.datetime.now(datetime.UTC) - max(known)).total_seconds() / 86400)


def _users_first(items: list[StoredResult], references: References) -> list[StoredResult]:
    """`items` in an order in which each comes after everything that was made of it."""
    ordered: dict[str, StoredResult] = {}

    def visit(item: StoredResult) -> None:
        for user in references.users.get(item.folder, ()):
            if user.folder in left:
                visit(left.pop(user.folder))
        ordered[item.folder] = item

    left = {item.folder: item for item in items}
    while left:
        visit(left.pop(next(iter(left))))
    return list(ordered.values())


def _remove(backend: Backend, item: StoredResult, mark: Lease) -> bool:
    """Remove every object of a result; False if the mark was lost before the end."""
    names = sorted(name for name, _ in backend.walk(item.folder) if "/leases/" not in name)
    manifest = f"{item.folder}/manifest.json"
    records = [name for name in names if "/commits/" in name]
    # A reader of an index takes its tables to be there if it has a manifest; one of a stage asks for records.
    first, last = ([manifest], []) if item.stage == "index" else (records, [manifest])
    rest = [name for name in names if name not in {*first, manifest}]
    for name in (*first, *rest, *last):
        if not mark.still_mine():
            return False
        backend.delete(name)
    return True


def total(holdings: Iterable[Holding]) -> int:
    """Bytes of several results."""
    return sum(holding.bytes for holding in holdings)
