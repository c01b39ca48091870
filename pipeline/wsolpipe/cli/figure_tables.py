"""Tables that ``wsolpipe eval`` prints: figures in the unit and under the name of the glossary, and of the protocol."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wsolpipe.contract.errors import ConfigError
from wsolpipe.engine.chosen_maps import find_artifact
from wsolpipe.evaluate.glossary import UNITS, format_figure, print_scale, read_glossary, shown_name
from wsolpipe.evaluate.map_sources import map_names
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.metrics.localization import NAMED
from wsolpipe.metrics.protocol import Metric, metric_of, read_runs
from wsolpipe.metrics.protocol_tables import CELLS, Rule, annotators_of, full_table, lacking, protocol_table
from wsolpipe.stages.alarm import alarm_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.engine.session import Session
    from wsolpipe.evaluate.evaluation import Evaluated
    from wsolpipe.stages.registry import StageRegistry


#: Figures of the first screen, and that of a centred box beside each.
FIRST = {
    "MaxBoxAcc": "MaxBoxAcc_centre", "MaxBoxAccV2 mean": "MaxBoxAccV2_centre", "iou_at_tau": "iou_centre", "tau": "",
    "PxAP": "", "recall50_top1": "recall50_centre", "box_maxboxacc_v2": "box_maxboxacc_v2_centre",
    "iou_top1": "iou_centre", "iou_best5": "", "recall50_candidates": "", "mask_iou": "mask_iou_centre",
    "mask_iou_50": "",
}  # fmt: skip
COUNTS = {"rows_scored": "rows scored", "rows_quarantined": "quarantined", "rows_without_box": "without a true box"}
#: Said in the head of a table, or in one of their own.
HIDDEN = ("stage", "maps", "dataset", "split", "key", "noise")


def show_evaluated(found: Sequence[Evaluated], *, details: bool = True) -> None:
    """Print figures, a column a split, then noise studies; without `details` those of `FIRST` beside a centred box."""
    first = found[0].figures
    subject = f"{first['stage']} {first['key']}" if "stage" in first else f"maps {first['maps']}"
    flat = [_shown_figures(item) for item in found]
    if not details and any(flat[0].get(name) is not None for name in FIRST):
        _show_first(subject, [str(item.figures["split"]) for item in found], flat)
        return
    if not details and all(figures.get("rows_scored") == 0 for figures in flat):
        for item in found:
            rows, against = item.figures.get("rows", 0), item.figures.get("against", "ground truth")
            print(f"{subject}, {item.figures['split']}: none of {rows:,} rows can be scored against {against}")
        print("against=STAGE scores against pseudo-boxes, such as against=val_boxes; details=true counts rows")
        return
    names = list(dict.fromkeys(name for figures in flat for name, value in figures.items() if value is not None))
    print_table(
        [subject, *(item.figures["split"] for item in found)],
        [[shown_name(name), *(format_figure(name, figures.get(name)) for figures in flat)] for name in names],
    )
    print(UNITS)
    for item in found:
        lines = item.figures.get("noise")
        if lines:
            cells = [[format_figure(name, value) for name, value in line.items()] for line in lines]
            print_table([shown_name(name) for name in lines[0]], cells, title=f"noise, {item.figures['split']}")


def _show_first(subject: str, splits: list[str], flat: list[dict[str, Any]]) -> None:
    """Print the figures of `FIRST`, each with that of a centred box beside it, and how many rows they are of."""
    names = [name for name in FIRST if any(figures.get(name) is not None for figures in flat)]
    columns = [text for split in splits for text in (split, "centred box")]
    cells = [[shown_name(name)] for name in names]
    for line, name in zip(cells, names, strict=True):
        for figures in flat:
            centre = figures.get(FIRST[name]) if FIRST[name] else None
            line += [format_figure(name, figures.get(name)), "" if centre is None else format_figure(name, centre)]
    print_table([subject, *columns], cells)
    for split, figures in zip(splits, flat, strict=True):
        counts = [f"{figures[name]:,} {word}" for name, word in COUNTS.items() if figures.get(name)]
        chosen = "; the threshold is the best on these images (oracle)" if figures.get("oracle") else ""
        print(f"{split}: {', '.join(counts)}, against {figures.get('against', 'ground truth')}{chosen}")
    hidden = len({name for figures in flat for name, value in figures.items() if value is not None} - {*names, *COUNTS})
    print(f"details=true shows {hidden} more figures; {UNITS}")


def print_alarms(found: Sequence[Evaluated], registry: StageRegistry, *, error: bool) -> None:
    """Say loudly what is below a centred box, on standard output or, beside JSON, on standard error."""
    for item in found:
        alarm = alarm_of(item.figures, item.view, registry)
        if alarm is not None:
            figures = item.figures
            at = f" at threshold {format_figure('tau', figures['tau'])}" if figures.get("tau") is not None else ""
            what = f"{figures['stage'] if 'stage' in figures else figures['maps']} of {figures['split']}{at}"
            print("", *alarm.lines(what), sep="\n", file=sys.stderr if error else sys.stdout)


def _shown_figures(item: Evaluated) -> dict[str, Any]:
    """Figures in one level, the map by its name."""
    figures = {name: value for name, value in item.figures.items() if name not in HIDDEN}
    if "map" in figures and item.view is not None:
        name = map_names(item.view)[figures["map"]]
        figures["map"] = None if name == item.view.stage else name
    return _flat(figures)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested figures under joined names; an interval or test in one cell; errors of localization by one name each."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            flat[name] = value
        elif {"difference", "low"} & set(value):
            flat[name] = _span(name, value)
        else:
            twice = NAMED.values() if name == "errors" else ()
            inner = {key: each for key, each in _flat(value).items() if key not in twice}
            flat |= {f"{name} {key}": each for key, each in inner.items()}
    return flat


def _span(name: str, value: dict[str, Any]) -> str:
    """An interval, or the difference of a paired test with its interval, in the unit in which the figure is printed."""
    scale, digits = print_scale(name)
    low, high = scale * value["low"], scale * value["high"]
    if "difference" not in value:
        return f"{low:.{digits}f} … {high:.{digits}f}"
    return f"{scale * value['difference']:+.{digits}f} ({low:+.{digits}f} … {high:+.{digits}f}), p {value['p']:.4f}"


def show_artifact(session: Session, key: str | None, *, as_json: bool) -> int:
    """Print the accuracy or the curve that an artifact recorded.

    Raises
    ------
    ConfigError
        If it has neither.
    """
    stage, asked = session.config.stage[0], session.config.split
    artifact = find_artifact(session, stage, key=key)
    summary = dict(artifact.record.summary) if artifact.record else {}
    if isinstance(summary.get("curve"), list):
        return _show_curve({"stage": stage, "dataset": artifact.dataset, "key": artifact.key, **summary}, as_json)
    accuracy = summary.get("accuracy")
    if not isinstance(accuracy, dict):
        msg = f"stage {stage} is an artifact of the whole data set: it has neither boxes, maps nor masks to score"
        raise ConfigError(msg, hint=f"wsolpipe report dataset={session.config.dataset} shows what was recorded of it")
    accuracy = {split: figures for split, figures in accuracy.items() if not asked or split in asked}
    if as_json:
        print_json({"stage": stage, "dataset": artifact.dataset, "key": artifact.key, **summary, "accuracy": accuracy})
        return 0
    names = list(dict.fromkeys(name for figures in accuracy.values() for name in figures))
    rows = [[split, *(format_figure(name, figures.get(name)) for name in names)] for split, figures in accuracy.items()]
    print_table([f"{stage} {artifact.key}", *(shown_name(name) for name in names)], rows)
    print(UNITS)
    return 0


def _show_curve(found: dict[str, Any], as_json: bool) -> int:
    """Show what a weight was chosen by."""
    if as_json:
        print_json(found)
        return 0
    points = found["curve"]
    title = (
        f"{found['stage']} {found['key']}: w {format_figure('w', found['w'])} by {shown_name(found['metric'])} on "
        f"{found['rows']} rows, {found['against']}"
    )
    names = sorted(points[0], key=lambda name: name != "w")
    cells = [[format_figure(name, point[name]) for name in names] for point in points]
    print_table([shown_name(name) for name in names], cells, title=title)
    print(UNITS)
    return 0


def show_glossary(*, as_json: bool) -> int:
    """Print every figure: its name in tables and in JSON, its JSON form, and its meaning."""
    entries = read_glossary().values()
    if as_json:
        print_json([asdict(entry) for entry in entries])
    else:
        lines = [[entry.shown, entry.name, entry.kind, entry.meaning] for entry in entries]
        print_table(["in tables", "JSON", "held as", "meaning"], lines)
    return 0


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
