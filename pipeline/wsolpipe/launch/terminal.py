"""Tables of stages, plans, runs and their progress, as commands print them on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from wsolpipe.keys.console import duration, print_table, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.engine.cost import Cost
    from wsolpipe.engine.listed import NotLookedAt
    from wsolpipe.engine.plan import Line
    from wsolpipe.launch.run import Ended
    from wsolpipe.stages.registry import StageRegistry

_Lines = list[dict[str, Any]]


def describe_stage(registry: StageRegistry, name: str) -> dict[str, Any]:
    """Return as plain values what a stage makes and needs, its parameters and outputs.

    Raises
    ------
    ConfigError
        If there is no such stage, or its class cannot be imported.
    """
    entry = registry[name]
    return {
        "name": name,
        "about": entry.about,
        "kind": entry.kind,
        "needs": list(entry.needs),
        "columns": list(entry.columns),
        "parameters": [
            {
                "name": key.name.removeprefix(f"{name}."), "type": key.kind.name, "default": key.default,
                "unit": key.unit, "meaning": key.meaning,
            }
            for key in registry.keys(name)
        ],
        "outputs": dict(entry.outputs),
    }  # fmt: skip


def show_stage(stage: dict[str, Any]) -> None:
    """Print a stage as `describe_stage` describes it."""
    needs = ", ".join(stage["needs"]) or "the index alone"
    print(f"{stage['name']} ({stage['kind']}, reads {needs}): {stage['about']}")
    columns = ["name", "type", "default", "unit", "meaning"]
    rows = [["null" if item[name] is None else str(item[name]) for name in columns] for item in stage["parameters"]]
    print_table(["parameter", *columns[1:]], rows)
    print_table(["output", "meaning"], [[name, meaning] for name, meaning in stage["outputs"].items()])


def show_ended(outcome: Ended, resume: str, *, quiet: bool) -> None:
    """Print one line for each stage and split of a run, unless `quiet`, and how it ended."""
    config = outcome.session.config
    if not quiet and not outcome.submitted:
        columns = ["stage", "split", "key", "rows", "done", "quarantined", "seconds"]
        rows = [
            [line.stage, line.split or "–", line.key, line.rows or None, line.done, line.quarantined, line.seconds]
            for line in outcome.lines
        ]
        print_table(columns, rows, wide=config.wide)
    if outcome.code:
        if any(line.quarantined for line in outcome.lines):
            print(f"see why: wsolpipe quarantine list dataset={config.dataset} store={config.store}", file=sys.stderr)
        print(f"{outcome.verdict}\nresume with: {resume}", file=sys.stderr)
    elif not quiet:
        print(outcome.verdict if outcome.submitted else f"done: {config.store}")


def show_sweep(axes: list[str], lines: _Lines, *, wide: bool) -> None:
    """Print one line for each combination of values, stage and split, with the figures that any of them has."""
    names = list(dict.fromkeys(name for line in lines for name in line["figures"]))
    columns = [*axes, "stage", "split", "key", "rows", "done"]
    rows = [[*(line[name] for name in columns), *map(line["figures"].get, names)] for line in lines]
    print_table([*columns, *names], rows, wide=wide)


def show_plan(lines: Sequence[Line], skipped: Sequence[NotLookedAt], left: float | None, *, wide: bool) -> None:
    """Print one line for each stage and split that a run would make; `left` is the time of all of them, in seconds."""
    columns = ["stage", "split", "key", "rows", "shards", "to make", "why", "left", "files", "MiB"]
    rows = [
        [
            line.stage, line.split or "–", line.key, line.rows or None, line.shards, line.shards - line.shards_done,
            line.reason, duration(line.remaining_seconds) if line.remaining_seconds else None, line.files,
            line.bytes / 2**20,
        ]
        for line in lines
    ]  # fmt: skip
    print_table(columns, rows, wide=wide)
    files, size = sum(line.files for line in lines), sum(line.bytes for line in lines)
    time = "unknown time (some stages have no shard yet)" if left is None else f"{duration(left)} of one worker"
    print(f"to make: {time}; in the end {files:,} files, {size / 2**20:,.1f} MiB")
    for item in skipped:
        since = f"since {item.since[:19]}" if item.since else "yet"
        print(f"files of {item.split} not looked at {since}: the folder of images is not here (root=FOLDER)")


def show_costs(found: Sequence[Cost]) -> None:
    """Print one line for each stage and device; the title holds what all share, so that 80 columns are enough."""
    images = {cost.images for cost in found if cost.images is not None}
    devices = {cost.device for cost in found if cost.device}
    columns: dict[str, list[Any]] = {
        "stage": [f"{cost.stage}{'' if cost.exact or not cost.device else '*'}" for cost in found]
    }
    if len(devices) > 1:
        columns["on"] = [cost.device or None for cost in found]
    if len(images) > 1:  # with both, lines would be too long
        columns["images"] = [cost.images for cost in found]
    else:
        columns["measured"] = [cost.measured_rows or None for cost in found]
    columns["images/s"] = [cost.rate for cost in found]
    columns["hours"] = [cost.hours for cost in found]
    columns["files"] = [cost.files for cost in found]
    columns["MiB"] = [None if cost.bytes is None else cost.bytes / 2**20 for cost in found]
    title = [f"for {images.pop():,} images"] if len(images) == 1 else []
    title += [f"measured on {devices.pop()}"] if len(devices) == 1 else []
    print_table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)], title=", ".join(title))
    behind = "; measured: rows behind the rate" if "measured" in columns else ""
    print(f"hours of one worker, on a GPU GPU-hours{behind}")
    if any(cost.device and not cost.exact for cost in found):
        print("* measured with other parameters")
    if any(cost.rate is not None and cost.hours is None for cost in found):
        print("rows are not counted yet: add images=N, or list them first: wsolpipe run stage=index …")
    missing = [cost.stage for cost in found if cost.rate is None and cost.hours is None]
    if missing:
        print(f"no rate: {', '.join(missing)}; make some rows first: wsolpipe run stage={missing[0]} limit=500 …")


def show_status(lines: _Lines, failed: _Lines, *, wide: bool) -> None:
    """Print the progress of every stage, then failures and damage, as `wsolpipe.engine.status.survey` returns them."""
    columns = ["stage", "split", "key", "rows", "done", "quarantined", "shards", "img/s", "left", "running"]
    for name in dict.fromkeys(line["dataset"] for line in lines):
        rows = [
            [
                line["stage"], line["split"] or "–", line["key"], line["rows"] or None,
                f"{line['done']:,}" + (f" (+{line['under_way']:,})" if line["under_way"] else ""),
                line["quarantined"], f"{line['shards_done']}/{line['shards']}", line["rows_per_second"],
                duration(line["eta_seconds"]) if line["eta_seconds"] else None,
                f"{line['running']}" + (f" ({line['stale_leases']} stale)" if line["stale_leases"] else ""),
            ]
            for line in lines if line["dataset"] == name
        ]  # fmt: skip
        print_table(columns, rows, title=shown(name), wide=wide)
    for line in [*lines, *failed]:
        for shard, reason in line["failures"].items():
            unit = f" of {line['split']} shard {shard}" if line["split"] else ""
            print(shown(f"failed: {line['stage']}{unit}: {reason}"))
        for text in line["damaged"]:
            print(shown(f"damaged: {text}"))
    if any(line["damaged"] for line in lines):
        print("wsolpipe repair sets aside or removes what is damaged, run makes it again")
    if failed:
        print(f"{len(failed)} keys without a finished shard are not listed; wsolpipe repair removes them")
