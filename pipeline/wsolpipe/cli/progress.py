"""How a run shows itself: bars on a terminal, a line a shard in a log. Everything goes to standard error."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wsolpipe.launch.events import describe

if TYPE_CHECKING:
    from types import TracebackType


class Display:
    """Receives the events of a run, from any thread."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal
        self.bars = Progress(
            TextColumn("{task.fields[name]:<18}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>12}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=False,
        )
        self.tasks: dict[tuple[str, str | None], TaskID] = {}
        self.totals: dict[str, int] = {}
        self.partial: dict[tuple[str, str | None], dict[Any, int]] = {}
        self.finished: dict[tuple[str, str | None], int] = {}
        self.began: dict[tuple[str, str | None], float] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> Display:
        if self.live:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bars.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        with self.lock:
            handler = getattr(self, f"_on_{event['event']}", None)
            if handler is not None:
                handler(event)

    def already_done(self, stage: str, split: str | None, rows: int) -> None:
        """Rows that were committed before this run began."""
        self.finished[stage, split] = rows

    def _on_index(self, event: dict[str, Any]) -> None:
        self.totals[event["split"]] = event["rows"]

    def _on_note(self, event: dict[str, Any]) -> None:
        self.console.print(describe(event), style="dim", markup=False)

    _on_late = _on_note

    def _on_warning(self, event: dict[str, Any]) -> None:
        self.console.print(describe(event), style="yellow", markup=False)

    def _on_failure(self, event: dict[str, Any]) -> None:
        self.console.print(describe(event), style="red", markup=False)
        if "--debug" in sys.argv:
            self.console.print(event["traceback"], markup=False)

    def _on_begin(self, event: dict[str, Any]) -> None:
        self.began.setdefault((event["stage"], event["split"]), time.monotonic())
        if self.live:
            self._task(event)

    def _on_rows(self, event: dict[str, Any]) -> None:
        key = (event["stage"], event["split"])
        self.partial.setdefault(key, {})[event["shard"]] = event["done"]
        self._show(event)

    def _on_progress(self, event: dict[str, Any]) -> None:
        if self.live and event["split"] is None:
            self.bars.update(self._task(event), completed=event["done"], total=event["total"])

    def _on_shard(self, event: dict[str, Any]) -> None:
        key = (event["stage"], event["split"])
        self.partial.setdefault(key, {}).pop(event["shard"], None)
        self.finished[key] = self.finished.get(key, 0) + event["rows"]
        if self.live:
            self._show(event)
            if event["split"] is None:
                task = self._task(event)
                self.bars.update(
                    task, completed=self.bars.tasks[task].total or 1, total=self.bars.tasks[task].total or 1
                )
            return
        print(describe(event), file=sys.stderr, flush=True)  # plain: a log of thousands of shards must cost nothing

    def _task(self, event: dict[str, Any]) -> TaskID:
        key = (event["stage"], event["split"])
        if key not in self.tasks:
            name = f"{event['stage']} {event['split'] or ''}"
            self.tasks[key] = self.bars.add_task(name, name=name, rate="", total=self.totals.get(event["split"] or ""))
        return self.tasks[key]

    def _show(self, event: dict[str, Any]) -> None:
        if not self.live or event["split"] is None:
            return
        key = (event["stage"], event["split"])
        under_way = sum(self.partial.get(key, {}).values())
        seconds = time.monotonic() - self.began.setdefault(key, time.monotonic())
        rate = f"{(self.finished.get(key, 0) + under_way) / seconds:.1f} img/s" if seconds > 1 else ""
        self.bars.update(self._task(event), completed=self.finished.get(key, 0) + under_way, rate=rate)
