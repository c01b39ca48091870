"""Which shards are done, which are to be made, and why. Reads manifests, records and object sizes only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.layout import Shards, file_of, read_json
from wsolpipe.contract.manifest import CommitRecord, StageManifest, read_record, total_seconds
from wsolpipe.contract.reader import StageView
from wsolpipe.engine.commit import judge
from wsolpipe.engine.cost import price
from wsolpipe.engine.fingerprint import differences
from wsolpipe.engine.graph import Graph, Node, existing_manifest, resolve, stage_order, wanted_splits
from wsolpipe.engine.listed import Listed, NotLookedAt, look
from wsolpipe.engine.zarr_metadata import all_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wsolpipe.engine.session import Session


class State(StrEnum):
    """State of one shard."""

    DONE = "done"
    MISSING = "missing"
    TORN = "torn"
    RETRY = "retry asked"
    STALE = "upstream shard changed"


@dataclass
class Units:
    """States of all shards of one node, with their records and the stamps under which these were read."""

    states: dict[int | None, State] = field(default_factory=dict)
    records: dict[int | None, CommitRecord] = field(default_factory=dict)
    stamps: dict[int | None, str] = field(default_factory=dict)

    def pending(self) -> list[int | None]:
        """Shards to be made, in order."""
        return [unit for unit, state in self.states.items() if state is not State.DONE]

    def count(self) -> Counter[State]:
        """Shards by state."""
        return Counter(self.states.values())


def examine(
    session: Session, node: Node, upstream: dict[tuple[str, str | None], Units], before: Units | None = None
) -> Units:
    """State of every shard of a node.

    Parameters
    ----------
    upstream : dict
        What this returned for the nodes that it reads.
    before : Units, optional
        What this returned for the node earlier: records whose stamp has not changed, and whose shard was
        complete then, are not read again.
    """
    manifest = existing_manifest(session, node)
    units = Units({unit: State.MISSING for unit in node.units})
    if manifest is None or node.key is None:
        return units
    stamps = session.backend.stamps(f"{node.folder}/commits")
    retries = set(session.backend.names(f"{node.folder}/retries"))
    for unit in node.units:
        name = file_of(unit)
        if name not in stamps:
            continue
        state, record = State.DONE, None
        if before is not None and before.stamps.get(unit) == stamps[name] and name not in retries:
            record = before.records[unit]
        else:
            state, record = unit_state(session, node, manifest, unit, retry=name in retries)
        if record is not None:
            units.records[unit] = record
            if state is State.DONE:
                units.stamps[unit] = stamps[name]
                state = State.STALE if _is_stale(node, record, upstream) else state
        units.states[unit] = state
    return units


def unit_state(
    session: Session, node: Node, manifest: StageManifest, unit: int | None, *, retry: bool
) -> tuple[State, CommitRecord | None]:
    """State of one shard by its own record and objects."""
    record, wrong = judge(session.backend, node.folder, manifest, unit)
    if wrong:
        return State.TORN, record
    if record is None:
        return State.MISSING, None
    if retry and record.generation < retry_generation(session, node, unit):
        return State.RETRY, record
    return State.DONE, record


def retry_name(node_folder: str, unit: int | None) -> str:
    """Name of the object that requests a new generation of a shard."""
    return f"{node_folder}/retries/{file_of(unit)}"


def retry_generation(session: Session, node: Node, unit: int | None) -> int:
    """Requested generation, 1 if there is no request."""
    try:
        return int(read_json(session.backend.get(retry_name(node.folder, unit)))["generation"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 1


def upstream_contents(session: Session, node: Node, unit: int | None) -> dict[str, dict[str, str]]:
    """Content digests of the shards and artifacts that a unit reads, by stage and shard, as its record keeps them."""
    contents: dict[str, dict[str, str]] = {}
    for need in node.upstream:
        for shard in node.reads(need, unit):
            record = read_record(session.backend, need.folder, shard)
            if record is not None:
                contents.setdefault(need.stage, {})["artifact" if shard is None else str(shard)] = record.content
    return contents


def _is_stale(node: Node, record: CommitRecord, upstream: dict[tuple[str, str | None], Units]) -> bool:
    for need in node.upstream:
        known = upstream.get((need.stage, need.split))
        for name, content in record.upstream.get(need.stage, {}).items():
            unit = None if name == "artifact" else int(name)
            present = known.records.get(unit) if known else None
            if present is not None and present.content != content:
                return True
    return False


@dataclass(frozen=True)
class Line:
    """One line of `plan`: a stage of a split."""

    stage: str
    split: str | None
    key: str | None
    reason: str
    rows: int
    shards: int
    shards_done: int
    done: int
    quarantined: int
    seconds: float
    remaining_seconds: float | None
    files: int
    bytes: int


def make_plan(session: Session, graph: Graph, listed: Mapping[str, Listed] | None = None) -> list[Line]:
    """A line for every stage and split, upstream stages first.

    Parameters
    ----------
    listed : mapping of str to Listed, optional
        Splits whose index is to be made, as `wsolpipe.engine.listed.look` finds them: they are priced by their rows.
    """
    known: dict[tuple[str, str | None], Units] = {}
    lines, listed = [], listed or {}
    for split, index in graph.indexes.items():
        lines.append(_index_line(session, split, index, listed.get(split)))
    for node in graph.nodes:
        units = examine(session, node, known)
        known[node.stage, node.split] = units
        line, rows = _line(session, node, units), listed.get(node.split or "")
        lines.append(_price(session, node, line, rows) if node.blocked and rows else line)
    return lines


def _price(session: Session, node: Node, line: Line, listed: Listed) -> Line:
    """The line of a stage on a split that is listed and not indexed, at the rate measured in this store."""
    shards = Shards(len(listed.rows), session.config.shard_rows or node.entry.shard_rows)
    cost = price(session, node, shards.rows)
    left = None if cost.rate is None else round(listed.rows_to_make(shards.shard_rows) / cost.rate, 1)
    return replace(
        line, rows=shards.rows, shards=len(shards), remaining_seconds=left, files=cost.files or 0, bytes=cost.bytes or 0
    )


def _index_line(session: Session, split: str, index: Any, listed: Listed | None) -> Line:
    if listed is not None:
        before, left = listed.before, None
        if before is not None:
            left = round(total_seconds(session.backend, before.folder) / before.manifest.rows * listed.new, 1)
        return Line("index", split, None, listed.change(), len(listed.rows), 1, 0, 0, 0, 0.0, left, 3, 0)
    if index is None:
        return Line("index", split, None, "missing", 0, 0, 0, 0, 0, 0.0, None, 0, 0)
    made = index.manifest
    return Line(
        "index",
        split,
        made.key,
        "done",
        made.rows,
        1,
        1,
        made.rows - made.quarantined - made.retired,
        made.quarantined,
        total_seconds(index.store.backend, index.folder),
        0.0,
        3,
        0,
    )


def _line(session: Session, node: Node, units: Units) -> Line:
    records = list(units.records.values())
    done_rows = sum(record.stop - record.start for record in records)
    seconds = sum(record.seconds for record in records)
    rows = node.shards.rows
    done = [record for unit, record in units.records.items() if units.states[unit] is State.DONE]
    pending_rows = rows - sum(record.stop - record.start for record in done)
    arrays = existing_manifest(session, node)
    objects = len(all_arrays(arrays.arrays)) if arrays is not None and node.split is not None else 1
    size = sum(item.bytes for record in records for item in record.objects.values())
    return Line(
        stage=node.stage,
        split=node.split,
        key=node.key,
        reason=_reason(session, node, units),
        rows=rows,
        shards=len(units.states),
        shards_done=len(done),
        done=sum(record.ok + record.no_object for record in done),
        quarantined=sum(len(record.quarantined) for record in done),
        seconds=round(seconds, 3),
        remaining_seconds=round(seconds / done_rows * pending_rows, 1) if done_rows else None,
        files=len(units.states) * (objects + 1) + objects + (1 if node.split is None else 2),  # manifest, group
        bytes=round(size / done_rows * rows) if done_rows else size,
    )


def _reason(session: Session, node: Node, units: Units) -> str:
    if node.blocked:
        return node.blocked
    counts = units.count()
    if not units.states or counts[State.DONE] == len(units.states):
        return "done"
    parts = [f"{counts[state]} {state}" for state in State if counts[state] and state is not State.DONE]
    if counts[State.DONE] == 0 and counts[State.MISSING] == len(units.states):
        changed = _changed_fields(session, node)
        return f"changed: {', '.join(changed[:3])}" if changed else "missing"
    failed = len(session.backend.names(f"{node.folder}/failures"))
    return ", ".join([*parts, *([f"{failed} failed"] if failed else [])])


def _changed_fields(session: Session, node: Node) -> list[str]:
    """Fields in which the newest other key of this stage differs; empty if there is none."""
    if node.split is None or node.made_of is None:
        return []
    split = session.store[node.dataset][node.split]
    older = [key for key in split.keys(node.stage) if key != node.key]
    if not older:
        return []
    old = StageView(session.store, node.dataset, node.split, node.stage, older[-1]).manifest
    made = node.made_of
    before = {
        "version": old.version, "params": old.params, "upstream": old.upstream, "artifacts": old.artifacts,
        "weights": {item.name: item.sha256 for item in old.weights}, "index": old.columns,
    }  # fmt: skip
    after = {
        "version": made.version, "params": dict(made.params), "upstream": dict(made.upstream),
        "artifacts": dict(made.artifacts), "weights": dict(made.weights), "index": dict(made.columns),
    }  # fmt: skip
    return differences(before, after)


def plan_all(sessions: Iterable[Session]) -> tuple[list[Line], list[NotLookedAt]]:
    """Return the lines of several configurations, each stage, split and key once, and the splits out of reach."""
    found: dict[tuple[str, str | None, str | None, int], Line] = {}
    skipped: dict[str, NotLookedAt] = {}
    for number, opened in enumerate(sessions):
        session, listed, unseen = look(opened, wanted_splits(opened, stage_order(opened)))
        skipped |= {item.split: item for item in unseen}
        for line in make_plan(session, resolve(session), listed):
            apart = 0 if line.key else number  # a stage without a key yet may be another one with each value
            found.setdefault((line.stage, line.split, line.key, apart), line)
    return list(found.values()), list(skipped.values())


def seconds_left(lines: Iterable[Line]) -> float | None:
    """Seconds that one worker needs for all lines, None where one that is pending was never measured."""
    pending = [line.remaining_seconds for line in lines if line.reason != "done"]
    known = [seconds for seconds in pending if seconds is not None]
    return round(sum(known), 1) if len(known) == len(pending) else None
