"""Where the figures of a run go: a JSON line each, and TensorBoard where it is wanted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Tracker(Protocol):
    """What the loop writes to."""

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Keep the figures of one step or epoch."""


class JsonLines:
    """A line each in one file, flushed at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Append a line."""
        self.file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        self.file.flush()


class TensorBoard:
    """Numbers as scalars of a TensorBoard folder."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            msg = "track=tensorboard needs the package tensorboard"
            raise ConfigError(msg, hint="pip install tensorboard, or track=jsonl") from error
        self.writer = SummaryWriter(str(folder))

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Add each number."""
        for name, value in figures.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"{kind}/{name}", value, step)


def open_trackers(names: str, folder: Path) -> list[Tracker]:
    """Open ``jsonl``, which is always there, and ``tensorboard`` where the comma-separated names hold it."""
    opened: list[Tracker] = [JsonLines(folder / "metrics.jsonl")]
    if "tensorboard" in names.split(","):
        opened.append(TensorBoard(folder / "tensorboard"))
    return opened
