"""A run, an epoch and a threshold chosen by one annotator's validation figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.evaluate.glossary import format_figure, shown_name
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key
from wsoltrain.runs.keys import METRIC, STAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsolpipe.metrics.protocol import Choice, Metric, Run

KEYS = (
    Key("runs", kinds.file("folder"), "folder of runs, searched with its sub-folders"),
    Key("by", STAGE, "annotator that chooses: stage of pseudo-boxes, cls or gt; by default the one of the training"),
    Key("metric", METRIC, "figure that chooses; auto: PxAP where the truth was masks, else MaxBoxAcc", "auto"),
)
SHOWN = ("MaxBoxAcc", "MaxBoxAccV2", "PxAP", "iou")


@dataclass(frozen=True)
class Chosen:
    """Choice of an annotator among runs."""

    runs: Sequence[Run]
    by: str
    metric: Metric
    choice: Choice

    def doubts(self) -> list[str]:
        """Return what makes the choice less certain than it looks."""
        from wsolpipe.metrics.protocol import doubts

        return doubts(self.runs, self.by, self.choice, metric=self.metric)

    def table(self) -> list[dict[str, Any]]:
        """Return the protocol's cells of the annotator and of ground truth; empty where a run was not tested."""
        from wsolpipe.metrics.protocol_tables import protocol_table

        if not all("gt" in run.test for run in self.runs):
            return []
        known = self.by != "gt" and all("gt" in run.validation for run in self.runs)
        return protocol_table(self.runs, annotators=[self.by, *(["gt"] if known else [])], metric=self.metric)

    def to_json(self) -> dict[str, Any]:
        """Return the choice as fields."""
        choice = self.choice
        fields = {"run": choice.run.run, "epoch": choice.run.epoch, "tau": choice.tau, "score": choice.score}
        return {"by": self.by, "metric": self.metric, **fields}

    def text(self) -> str:
        """Return the choice in a sentence."""
        choice, count = self.choice, len(self.runs)
        tau = "" if choice.tau is None else f", tau {choice.tau:.3f}"
        score = f"validation {self.metric} {choice.score:.1f}"
        return f"{choice.run.name}{tau}: {score} by {self.by}, of {count} epochs"


def choose_run(folder: str | Path, by: str | None = None, metric: str = "auto") -> Chosen:
    """Choose among the runs of a folder.

    Parameters
    ----------
    by : str, optional
        Annotator; by default the one that chose while they were trained.
    metric : str
        ``auto``: PxAP where the truth was masks, else MaxBoxAcc.

    Raises
    ------
    DataError, ConfigError
        As `read_runs`, `annotator_of` and `select`.
    """
    from wsolpipe.metrics.protocol import annotator_of, metric_of, read_runs, select

    runs = read_runs(folder)
    by = by or annotator_of(runs)
    used = metric_of(runs, by) if metric == "auto" else metric
    return Chosen(runs, by, used, select(runs, by, metric=used))  # type: ignore[arg-type]


def describe_cell(cell: dict[str, Any]) -> str:
    """Return a cell of the protocol's table as a line of text."""
    tau = cell["tau"] if isinstance(cell["tau"], str) else "none" if cell["tau"] is None else f"{cell['tau']:.3f}"
    named = ((name, cell[name]) for name in SHOWN if name in cell)
    scores = "  ".join(f"{shown_name(name)} {_number(name, value)}" for name, value in named)
    oracle = "  (oracle)" if cell["oracle"] else ""
    where = f"{cell['annotator']:<12}{cell['model']}-{cell['threshold']}"
    return f"  {where}  epoch {cell['epoch']:>3}  tau {tau}  {scores}{oracle}"


def _number(name: str, value: float | None) -> str:
    return "none" if value is None else str(format_figure(name, float(value)))
