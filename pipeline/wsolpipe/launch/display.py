"""How a run shows itself: bars on a terminal, lines in a log. Everything goes to standard error."""

from __future__ import annotations

import sys
import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

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

from wsolpipe.contract.errors import ConfigError
from wsolpipe.launch.progress import LogLines, RunProgress, StageProgress, describe_event

STYLES = {"note": "dim", "late": "dim", "warning": "yellow", "failure": "red"}


class Display:
    """Receives the events of a run, from any thread.

    Parameters
    ----------
    log : str, optional
        File to which every line of a log is appended, with its time, whatever is on the terminal.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """

    def __init__(self, log: str | None = None) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal
        self.bars = Progress(
            TextColumn("{task.fields[name]:<18}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>11}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=False,
        )
        self.tasks: dict[str, TaskID] = {}
        self.progress = RunProgress()
        self.file = _open_log(log)
        self.lines = LogLines(self._print)
        self.file_lines = LogLines(self._append)
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
        if self.file is not None:
            self.file.close()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        with self.lock:
            if self.file is not None:
                self.file_lines(event)
            if event["event"] in STYLES:
                self.console.print(describe_event(event), style=STYLES[event["event"]], markup=False)
                if event["event"] == "failure" and "--debug" in sys.argv:
                    self.console.print(event["traceback"], markup=False)
            elif not self.live:
                self.lines(event)
            elif stage := self.progress.note(event):
                self._update(stage)

    def _update(self, stage: StageProgress) -> None:
        if stage.name not in self.tasks:
            self.tasks[stage.name] = self.bars.add_task(stage.name, name=stage.name, rate="", total=stage.total)
        rate = stage.rate(self.progress.clock())
        shown = f"{rate:.1f} img/s" if rate and stage.steps is None else ""
        self.bars.update(self.tasks[stage.name], completed=stage.done, total=stage.total, rate=shown)

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # plain: a log of thousands of shards must cost nothing

    def _append(self, line: str) -> None:
        assert self.file is not None
        self.file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}\n")


def _open_log(log: str | None) -> TextIO | None:
    if log is None:
        return None
    try:
        return Path(log).open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        msg = f"log={log}: {(error.strerror or str(error)).lower()}"
        raise ConfigError(msg, hint="name a file in a folder that exists and may be written") from error
