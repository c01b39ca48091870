"""Where a training run reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from wsoltrain.data.config import Labelling


@dataclass(frozen=True)
class Settings:
    """Where a run reads and writes; nothing here changes what is learned.

    Attributes
    ----------
    labelling : Labelling
        Training split and stages.
    root : str
        Folder of the image files.
    out : Path
        Folder of checkpoints and figures.
    val : str
        Split that is evaluated after each epoch.
    annotators : list of str
        Stages whose boxes choose the model, or ``gt``; the first one decides.
    test : str or None
        Split scored against its ground truth after each epoch, for the table that compares both ways of choosing.
    workers : int
        Loader processes of each training process.
    save_every : int
        Steps between checkpoints; one more is written after each epoch.
    device : str
        torch device.
    thresholds : int
        Of the evaluations.
    """

    labelling: Labelling
    root: str
    out: Path
    val: str = "val"
    annotators: list[str] = field(default_factory=lambda: ["proposals"])
    test: str | None = None
    workers: int = 2
    save_every: int = 200
    device: str = "cpu"
    thresholds: int = 200
