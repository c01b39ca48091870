"""``wsolpipe plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import duration, print_json, print_table
from wsolpipe.keys.key import Key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.engine.cost import Cost
    from wsolpipe.engine.listed import NotLookedAt
    from wsolpipe.engine.plan import Line
    from wsolpipe.keys.run_keys import RunConfig


KEYS = (
    Key("check", kinds.flag(), "exit with 2 if work is pending", False),
    Key("cost", kinds.flag(), "hours, GPU-hours, files and bytes of whole stages, at the rates measured here", False),
    Key("images", kinds.integer(1), "with cost=true: for as many images", unit="rows", otherwise="those of the splits"),
)


@make_command(
    "plan", keys=KEYS, listed=("stage", "dataset", "store", "split", "limit", "rows", "root", "stages", "wide")
)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Say what `run` with the same words would make, and why; opens no image.

    The files are listed where a list or a folder changed since they were indexed.

    With sweep.KEY=a,b,c, what all values need together; what they share is listed once.

    Hours of one worker, files and bytes are estimated from the shards that were measured; – where none was.
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.keys.words import split_sweep
    from wsolpipe.stages.registry import load_registry

    sweep = split_sweep(words)
    settled = [configure(sweep.words_of(point), KEYS) for point in sweep.points()]
    config, own = settled[0]
    if not config.stage:
        msg = f"no stage named; valid: {', '.join(['index', *load_registry(config.stages).entries])}"
        raise ConfigError(msg, hint="add stage=…, as in wsolpipe plan stage=proposals dataset=demo")
    if own["cost"]:
        return _show_cost([found for found, _ in settled], own["images"], as_json)
    if own["images"]:
        msg = f"images={own['images']} says for how many images cost=true counts"
        raise ConfigError(msg, hint="add cost=true, or limit= for a part of the splits")
    lines, skipped = _lines(found for found, _ in settled)
    pending = any(line.reason != "done" for line in lines)
    if as_json:
        total = {
            "files": sum(line.files for line in lines), "bytes": sum(line.bytes for line in lines),
            "remaining_seconds": _seconds(lines),
        }  # fmt: skip
        stages, unseen = [line.to_json() for line in lines], [vars(item) for item in skipped]
        print_json({"stages": stages, "store": config.store, "pending": pending, **total, "not_looked_at": unseen})
    else:
        print_table(
            ["stage", "split", "key", "rows", "shards", "to make", "why", "left", "files", "MiB"],
            [
                [
                    line.stage, line.split or "–", line.key, line.rows or None, line.shards,
                    line.shards - line.shards_done, line.reason,
                    duration(line.remaining_seconds) if line.remaining_seconds else None,
                    line.files, line.bytes / 2**20,
                ]
                for line in lines
            ],
            wide=config.wide,
        )  # fmt: skip
        files, size, left = sum(line.files for line in lines), sum(line.bytes for line in lines), _seconds(lines)
        time = "unknown time (some stages have no shard yet)" if left is None else f"{duration(left)} of one worker"
        print(f"to make: {time}; in the end {files:,} files, {size / 2**20:,.1f} MiB")
        for item in skipped:
            since = f"since {item.since[:19]}" if item.since else "yet"
            print(f"files of {item.split} not looked at {since}: the folder of images is not here (root=FOLDER)")
    return 2 if pending and own["check"] else 0


def _show_cost(configs: list[RunConfig], images: int | None, as_json: bool) -> int:
    """Cost of whole stages, made already or not."""
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.cost import estimate
    from wsolpipe.engine.graph import resolve, stage_order, wanted_splits
    from wsolpipe.engine.listed import look
    from wsolpipe.engine.session import Session

    if len(configs) > 1:
        msg = "cost=true takes one value of each key"
        raise ConfigError(msg, hint="plan each value of the sweep by itself")
    session = Session.open(configs[0], need_root=False)
    session, listed, _ = look(session, [] if images else wanted_splits(session, stage_order(session)))
    found = estimate(session, resolve(session), images, {split: len(item.rows) for split, item in listed.items()})
    if as_json:
        print_json({"costs": [cost.to_json() for cost in found], "store": configs[0].store})
        return 0
    _print_costs(found)
    if any(cost.device and not cost.exact for cost in found):
        print("* measured with other parameters")
    if any(cost.rate is not None and cost.hours is None for cost in found):
        print("rows are not counted yet: add images=N, or list them first: wsolpipe run stage=index …")
    missing = [cost.stage for cost in found if cost.rate is None and cost.hours is None]
    if missing:
        print(f"no rate: {', '.join(missing)}; make some rows first: wsolpipe run stage={missing[0]} limit=500 …")
    return 0


def _print_costs(found: list[Cost]) -> None:
    """A line a stage and device; what is the same for all of them is said in the title, so that 80 columns hold it."""
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


def _lines(configs: Iterable[RunConfig]) -> tuple[list[Line], list[NotLookedAt]]:
    """Lines of every configuration, each stage, split and key once; and the splits whose files are not within reach."""
    from wsolpipe.engine.graph import resolve, stage_order, wanted_splits
    from wsolpipe.engine.listed import look
    from wsolpipe.engine.plan import make_plan
    from wsolpipe.engine.session import Session

    found: dict[tuple[str, str | None, str | None, int], Line] = {}
    skipped: dict[str, NotLookedAt] = {}
    for number, config in enumerate(configs):
        session = Session.open(config, need_root=False)
        session, listed, unseen = look(session, wanted_splits(session, stage_order(session)))
        skipped |= {item.split: item for item in unseen}
        for line in make_plan(session, resolve(session), listed):
            apart = 0 if line.key else number  # what has no key yet may be another thing with each value
            found.setdefault((line.stage, line.split, line.key, apart), line)
    return list(found.values()), list(skipped.values())


def _seconds(lines: list[Line]) -> float | None:
    """Seconds that are left of all lines, None where one that is pending was never measured."""
    pending = [line.remaining_seconds for line in lines if line.reason != "done"]
    known = [seconds for seconds in pending if seconds is not None]
    return round(sum(known), 1) if len(known) == len(pending) else None
