"""``wsolpipe plan``."""

from __future__ import annotations

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key

KEYS = (
    Key("check", kinds.flag(), "exit with 2 if work is pending", False),
    Key("cost", kinds.flag(), "hours, GPU-hours, files and bytes of whole stages, at the rates measured here", False),
    Key("images", kinds.integer(1), "with cost=true: for as many images", unit="rows", otherwise="those of the splits"),
)
LISTED = ("stage", "dataset", "store", "split", "limit", "rows", "root", "stages", "wide")


@make_command("plan", keys=KEYS, listed=LISTED)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Say what `run` with the same words would make, and why; opens no image.

    The files are listed where a list or a folder changed since they were indexed.

    With sweep.KEY=a,b,c, what all values need together; what they share is listed once.

    Hours of one worker, files and bytes are estimated from the shards that were measured; – where none was.
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.cost import estimate
    from wsolpipe.engine.graph import resolve, stage_order, wanted_splits
    from wsolpipe.engine.listed import look
    from wsolpipe.engine.plan import plan_all, seconds_left
    from wsolpipe.engine.session import Session
    from wsolpipe.keys.words import split_sweep
    from wsolpipe.launch.run import name_a_stage
    from wsolpipe.launch.terminal import show_costs, show_plan

    sweep = split_sweep(words)
    settled = [configure(sweep.words_of(point), KEYS) for point in sweep.points()]
    config, own = settled[0]
    name_a_stage(config, "plan")
    if own["cost"] and len(settled) > 1:
        msg = "cost=true takes one value of each key"
        raise ConfigError(msg, hint="plan each value of the sweep by itself")
    if own["images"] and not own["cost"]:
        msg = f"images={own['images']} says for how many images cost=true counts"
        raise ConfigError(msg, hint="add cost=true, or limit= for a part of the splits")
    sessions = (Session.open(found, need_root=False) for found, _ in settled)
    if own["cost"]:
        session = next(sessions)
        splits = [] if own["images"] else wanted_splits(session, stage_order(session))
        session, listed, _ = look(session, splits)
        rows = {split: len(item.rows) for split, item in listed.items()}
        costs = estimate(session, resolve(session), own["images"], rows)
        if as_json:
            print_json({"costs": [cost.to_json() for cost in costs], "store": config.store})
        else:
            show_costs(costs)
        return 0
    lines, skipped = plan_all(sessions)
    pending, left = any(line.reason != "done" for line in lines), seconds_left(lines)
    if as_json:
        sums = {"files": sum(line.files for line in lines), "bytes": sum(line.bytes for line in lines)}
        told = {"stages": [line.to_json() for line in lines], "store": config.store, "pending": pending}
        unseen = [vars(item) for item in skipped]
        print_json({**told, **sums, "remaining_seconds": left, "not_looked_at": unseen})
    else:
        show_plan(lines, skipped, left, wide=config.wide)
    return 2 if pending and own["check"] else 0
