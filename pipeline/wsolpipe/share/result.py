"""What became of every folder and shard of a transfer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Line:
    """What became of one folder.

    Attributes
    ----------
    shards, moved, same : int
        Shards that the source has, that were moved, and that were there already with the same bytes.
    kept : list of int or None
        Shards that the target holds with other bytes, which were left as they are.
    refused : list of str
        What was wrong with those that were not taken.
    """

    stage: str
    split: str | None
    key: str
    dataset: str
    shards: int = 0
    moved: int = 0
    same: int = 0
    kept: list[int | None] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Moved:
    """What a transfer did."""

    lines: list[Line]
    retried: dict[str, int]
    seconds: float
    stopped: bool

    @property
    def refused(self) -> list[str]:
        """Everything that was not taken, and why."""
        return [text for line in self.lines for text in line.refused]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"stages": [line.to_json() for line in self.lines], "retried": self.retried, "seconds": self.seconds}


def count(line: Line, outcome: str, unit: int | None, size: int, reason: str) -> None:
    """Note what became of one shard: moved, same, kept, busy, refused, or gone before it was read."""
    if outcome == "moved":
        line.moved += 1
        line.bytes += size
    elif outcome == "same":
        line.same += 1
    elif outcome == "kept":
        line.kept.append(unit)
    elif outcome == "refused":
        line.refused.append(reason)
    elif outcome == "busy":
        line.refused.append(f"shard {unit} is in the hands of a worker: run again when it is done")


def line_of(folder: str, refused: list[str]) -> Line:
    """Line of a folder that may be at any depth."""
    dataset, second, stage, key = (*folder.split("/", 3), "", "", "")[:4]
    return Line(stage, None if second == "artifacts" else second, key, dataset, refused=refused)
