"""Trackers of a run's figures: JSON lines, and TensorBoard or Weights & Biases if chosen."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.contract.writing import writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TRACKERS = ("jsonl", "tensorboard", "wandb")


class Tracker(Protocol):
    """What the loop writes to."""

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Keep the figures of one step or epoch."""

    def close(self) -> None:
        """Finish what is still being written."""


class JsonLines:
    """A line each in one file, flushed at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Append a line."""
        with writing(self.path):
            self.file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
            self.file.flush()

    def close(self) -> None:
        """Close the file; what a full disk did not take was reported by `write`."""
        with suppress(OSError):
            self.file.close()


class TensorBoard:
    """Numbers as scalars of a TensorBoard folder."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            msg = "tensorboard"
            raise _missing(msg) from error
        self.writer = SummaryWriter(str(folder))

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Add each number."""
        for name, value in _numbers(kind, figures).items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        self.writer.close()


class WeightsAndBiases:
    """Numbers of a run of Weights & Biases, on disk only unless the environment sets otherwise.

    ``WANDB_MODE`` and ``WANDB_API_KEY`` mean what they mean to wandb; where neither is set the run is an offline one,
    for ``wandb sync`` later, since a prompt for a key would block an unattended job. A run that is resumed in the
    same folder keeps its id.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            msg = "wandb"
            raise _missing(msg) from error
        folder.mkdir(parents=True, exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if "WANDB_API_KEY" in os.environ else "offline")
        self.run = wandb.init(
            dir=str(folder),
            project=os.environ.get("WANDB_PROJECT", "wsoltrain"),
            name=folder.name,
            id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12],
            resume="allow",
            mode=mode,
            config=dict(recipe),
        )

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Log each number; the step is a figure of its own, since wandb refuses one below its last."""
        self.run.log({**_numbers(kind, figures), "step": step})

    def close(self) -> None:
        """Let wandb finish."""
        self.run.finish()


def _numbers(kind: str, figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures that are numbers, named by their kind and, if there is one, the annotator."""
    place = "/".join(str(part) for part in (kind, figures.get("annotator")) if part)
    return {f"{place}/{name}": value for name, value in figures.items() if isinstance(value, int | float)}


def _missing(name: str) -> ConfigError:
    return ConfigError(f"track={name} needs the package {name}", hint=f"pip install {name}, or track=jsonl")


@contextmanager
def open_trackers(names: str, folder: Path, recipe: Mapping[str, Any]) -> Iterator[list[Tracker]]:
    """Open what comma-separated names of `TRACKERS` say, and close it in the end; ``jsonl`` is always there.

    Parameters
    ----------
    folder : Path
        Of the run; ``metrics.jsonl``, ``tensorboard/`` and ``wandb/`` lie in it.
    recipe : mapping
        Shown beside the figures by W&B.

    Raises
    ------
    ConfigError
        If a name is unknown or its package is missing.
    """
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in TRACKERS:
            raise ConfigError(unknown("tracker", name, TRACKERS))
    opened: list[Tracker] = [JsonLines(folder / "metrics.jsonl")]
    try:
        if "tensorboard" in wanted:
            opened.append(TensorBoard(folder / "tensorboard"))
        if "wandb" in wanted:
            opened.append(WeightsAndBiases(folder, recipe))
        yield opened
    finally:
        for tracker in opened:
            tracker.close()
