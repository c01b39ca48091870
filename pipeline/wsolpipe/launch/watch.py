"""Progress of workers elsewhere, seen from the records and failures that appear in the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsolpipe.contract.canonical import read_json
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.plan import State, Units, examine

if TYPE_CHECKING:
    from wsolpipe.engine.graph import Node
    from wsolpipe.engine.session import Session
    from wsolpipe.launch.events import Emit


@dataclass
class StoreWatch:
    """Polls a store, and emits an event for every shard made since the last look.

    Attributes
    ----------
    made : int
        Shards and artifacts that appeared since the first look.
    """

    session: Session
    emit: Emit
    made: int = 0
    _seen: dict[str, Units] = field(default_factory=dict)
    _failures: dict[str, bytes] = field(default_factory=dict)

    def look(self) -> bool:
        """Report what is new; return whether everything asked for is made.

        The first look reports nothing of what was there before.
        """
        first = not self._seen
        graph = resolve(self.session)
        known: dict[tuple[str, str | None], Units] = {}
        whole = all(index is not None for index in graph.indexes.values())
        for node in graph.nodes:
            if node.blocked:
                whole = False
                continue
            before = self._seen.get(node.folder, Units())
            units = known[node.stage, node.split] = examine(self.session, node, known, before)
            if node.folder not in self._seen and units.pending():
                self.emit({"event": "begin", "stage": node.stage, "split": node.split, "shard": None})
            if not first:
                self._report_records(node, before, units)
            self._report_failures(node, silent=first)
            self._seen[node.folder] = units
            whole = whole and not units.pending()
        return whole

    def _report_records(self, node: Node, before: Units, units: Units) -> None:
        for unit, record in units.records.items():
            if units.states[unit] is State.DONE and record != before.records.get(unit):
                self.made += 1
                self.emit({
                    "event": "shard", "stage": node.stage, "split": node.split, "shard": unit,
                    "rows": record.stop - record.start, "quarantined": len(record.quarantined),
                    "seconds": record.seconds, "taken_over": record.taken_over_from is not None,
                })  # fmt: skip

    def _report_failures(self, node: Node, *, silent: bool) -> None:
        backend = self.session.backend
        for name in backend.names(f"{node.folder}/failures"):
            path = f"{node.folder}/failures/{name}"
            try:
                content = backend.get(path)
                note = read_json(content)
                reported = {name: note[name] for name in ("error", "tries", "traceback")}
            except (FileNotFoundError, ValueError, KeyError, TypeError):  # being written, or damaged
                continue
            if self._failures.get(path) != content and not silent:
                unit = name.removesuffix(".json")
                self.emit({"event": "failure", "stage": node.stage, "split": node.split, "shard": unit, **reported})
            self._failures[path] = content
