"""How a training shows itself: a bar on a terminal, a line a minute in a log. Everything goes to standard error."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from wsolpipe.keys.console import LINE_SECONDS, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.progress import Progress, TaskID

_log = logging.getLogger(__name__)


class FitProgress:
    """A tracker that shows step, epoch, rate, time left and the loss.

    Parameters
    ----------
    steps : int
        Steps of the whole run.
    epochs : int
        Epochs of the whole run.
    live : bool, optional
        Whether there is a terminal for a bar.
    clock : callable
        Seconds; monotonic.
    """

    def __init__(
        self, steps: int, epochs: int, *, live: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.steps, self.epochs, self.clock = steps, epochs, clock
        self.live = sys.stderr.isatty() if live is None else live
        self.first: tuple[int, float] | None = None
        self.shown = clock()
        self._bar: tuple[Progress, TaskID] | None = None

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Count a step; show it if it is time."""
        if kind != "step":
            return
        now = self.clock()
        if self.first is None:
            self.first = (step - 1, now)
        if self.live:
            progress, task = self._bar or self._open()
            progress.update(task, completed=step, text=self.describe(step, figures, now))
        elif now - self.shown >= LINE_SECONDS:
            self.shown = now
            _log.info("step %d of %d, %s", step, self.steps, self.describe(step, figures, now))

    def describe(self, step: int, figures: Mapping[str, Any], now: float) -> str:
        """Like ``epoch 2 of 6, 3.4 steps/s, 1 min 20 s left, loss 0.413``."""
        assert self.first is not None
        began, since = self.first
        parts = [f"epoch {figures['epoch'] + 1} of {self.epochs}"]
        if now > since and step > began:
            rate = (step - began) / (now - since)
            parts += [f"{rate:.1f} steps/s", f"{duration((self.steps - step) / rate)} left"]
        loss = sum(value for name, value in figures.items() if isinstance(value, float) and " " not in name)
        return ", ".join([*parts, f"loss {loss:.3f}"])

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar[0].stop()

    def _open(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        progress = Progress(
            BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
            console=Console(stderr=True, highlight=False),
        )  # fmt: skip
        progress.start()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)  # lines go above the bar
        self._bar = (progress, progress.add_task("", total=self.steps, text=""))
        return self._bar
