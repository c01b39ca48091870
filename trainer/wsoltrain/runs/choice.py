"""A run, an epoch and a threshold chosen by one annotator's validation figures, and the page of the chosen run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, WsolError, raise_as
from wsolpipe.evaluate.glossary import format_figure, shown_name
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsoltrain.runs.settle import DEVICE, METRIC, PLOTS, STAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.metrics.protocol import Choice, Metric, Run
    from wsolpipe.pages.document import Gallery


class _ChoiceKeys:
    """Keys that ``wsoltrain select`` and ``report`` share.

    Attributes
    ----------
    runs
        folder of runs, searched with its sub-folders
    by
        annotator that chooses: stage of pseudo-boxes, cls or gt; by default the one of the training
    metric
        figure that chooses; auto: PxAP where the truth was masks, else MaxBoxAcc
    """

    runs = Key(kinds.file("folder"))
    by = Key(STAGE)
    metric = Key(METRIC, "auto")


CHOICE = keys_of_class(_ChoiceKeys)
SHOWN = ("MaxBoxAcc", "MaxBoxAccV2", "PxAP", "iou")


@dataclass(frozen=True)
class ChosenRun:
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


def choose_run(folder: str | Path, by: str | None = None, metric: str = "auto") -> ChosenRun:
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
    return ChosenRun(runs, by, used, select(runs, by, metric=used))  # type: ignore[arg-type]


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


class _ReportKeys:
    """Keys that only ``wsoltrain report`` has.

    Attributes
    ----------
    shown
        rows of validation, and as many of training, on the page; 0 for none
    root
        folder of the image files, if they are no longer where they were
    out
        file to write
    """

    shown = Key(kinds.integer(0), 24)
    root = Key(kinds.file("folder"), otherwise="that of the training")
    device = DEVICE
    out = Key(kinds.file("file that ends in .html", ending=".html"), otherwise="<runs>/report.html")
    plots = PLOTS


REPORT = (*CHOICE, *keys_of_class(_ReportKeys))


def report(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Write the page as `REPORT` say; the choice and the files, and lines of text.

    Raises
    ------
    ConfigError
        If the page cannot be written.
    """
    from wsolpipe.pages.charts import save_plots
    from wsoltrain.pages.run_page import page_plots, write_run_page

    folder = Path(values["runs"])
    found = choose_run(folder, values["by"], values["metric"])
    chosen = found.choice
    out = Path(values["out"] or folder / "report.html")
    rows = _rows(folder, chosen.run.run, found.by, values) if values["shown"] else ""
    plots = page_plots(folder, found.runs, chosen, by=found.by, metric=found.metric)
    with raise_as(ConfigError, f"cannot write {out}", OSError, hint="choose another place with out=FILE.html"):
        write_run_page(out, plots, found.runs, chosen, by=found.by, metric=found.metric, rows=rows)
    files = [str(path) for path in save_plots(Path(values["plots"]), plots)] if values["plots"] else []
    told = {"page": str(out), "by": found.by, "run": chosen.run.run, "epoch": chosen.run.epoch, "tau": chosen.tau}
    notes = [f"  note: rows are not shown: {rows}"] if isinstance(rows, str) and rows else []
    lines = [f"{out}: {chosen.run.name}, chosen by {found.by} of {len(found.runs)} epochs", *notes, *files]
    return {**told, **({"plots": files} if files else {})}, lines


def _rows(folder: Path, name: str, by: str, values: Mapping[str, Any]) -> Gallery | str:
    """Return rows of the chosen run, or why they cannot be shown."""
    import torch

    from wsolpipe.networks.devices import choose_device
    from wsoltrain.inference.model import load_trained
    from wsoltrain.pages.run_page import find_run
    from wsoltrain.pages.run_rows import find_place, run_gallery
    from wsoltrain.training.annotators import read_annotators

    device = torch.device(choose_device(values["device"]))
    run = find_run(folder, name)
    if run is None:
        return f"no folder {name} with its weights lies under {folder}"
    try:
        trained = load_trained(str(run / read_annotators([by])[0].file_name), device=device)
        place = find_place(run, trained.recipe, values["root"])
        return run_gallery(
            trained.model, trained.recipe, trained.tau, place, by=by, count=values["shown"], device=device
        )
    except WsolError as error:
        return f"{error.message}{f' ({error.hint})' if error.hint else ''}"
