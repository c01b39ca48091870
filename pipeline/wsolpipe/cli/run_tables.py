"""Tables of the realistic protocol, ``wsolpipe eval runs=``: what annotators choose among the runs of each method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wsolpipe.evaluate.glossary import format_figure
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.metrics.protocol import metric_of, read_runs
from wsolpipe.metrics.protocol_tables import CELLS, annotators_of, full_table, lacking, protocol_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.metrics.protocol import Metric
    from wsolpipe.metrics.protocol_tables import Rule


def show_runs(
    folders: Sequence[str], metric: str | None, annotators: Sequence[str], *, rule: Rule, as_json: bool
) -> int:
    """Print the tables of one or several folders of runs, each a method that is named by its folder."""
    lines: list[dict[str, Any]] = []
    notes: list[str] = []
    counts = {"runs": 0, "files": 0}
    used = metric
    for folder in folders:
        runs = read_runs(folder)
        counts["runs"] += len({run.run for run in runs})
        counts["files"] += len(runs)
        names = list(annotators) or annotators_of(runs)
        if metric in (None, "all"):
            used = metric_of(runs, names[0])
        make = full_table if metric == "all" else protocol_table
        method = {"method": Path(folder).name} if len(folders) > 1 else {}
        lines += [{**method, **cell} for cell in make(runs, annotators=names, metric=cast("Metric", used), rule=rule)]
        if rule == "thesis" and (missing := lacking(runs)):
            notes.append(f"{folder}: {missing}")
    if as_json:
        print_json({**counts, "metric": used, "rule": rule, "table": lines, "notes": notes})
        return 0
    if metric != "all":
        _print_wide(lines, str(used))
    names = list(dict.fromkeys(name for cell in lines for name in cell if name not in ("oracle", "taus")))
    print_table(
        [*names, ""],
        [
            [*(format_figure(name, cell.get(name)) for name in names), "oracle" if cell["oracle"] else "realistic"]
            for cell in lines
        ],
        title=f"{counts['files']} files of runs, chosen by {used}",
    )
    for note in notes:
        print(f"note: {note}")
    return 0


def _print_wide(lines: list[dict[str, Any]], metric: str) -> None:
    """Methods and cells down, annotators across: thesis, tables 4.2 and 4.3."""
    annotators = list(dict.fromkeys(cell["annotator"] for cell in lines))
    methods = list(dict.fromkeys(cell.get("method", "") for cell in lines))
    found = {(cell.get("method", ""), cell["model"], cell["threshold"], cell["annotator"]): cell for cell in lines}
    rows = []
    for method in methods:
        for model, threshold in CELLS:
            cells = [found.get((method, model, threshold, name)) for name in annotators]
            rows.append([method, f"{model}-{threshold}", *(_cell(cell, metric) for cell in cells)])
    print_table(["method", "cell", *annotators], rows, title=f"{metric} on test, by who chose")


def _cell(cell: dict[str, Any] | None, metric: str) -> str:
    """A figure, and the interval of MaxBoxAcc."""
    value = None if cell is None else cell.get(metric)
    if cell is None or value is None:
        return ""
    interval = f" ({cell['low']:.0f}-{cell['high']:.0f})" if metric == "MaxBoxAcc" else ""
    return str(format_figure(metric, float(value))) + interval
