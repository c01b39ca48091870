"""``wsolpipe run``, ``plan`` and ``stages``."""

from __future__ import annotations

import sys
import threading

from wsolpipe.cli.command import configure, make_command
from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.keys.key import Key, keys_of_class, read_keys
from wsolpipe.keys.run_keys import RUN_KEYS
from wsolpipe.keys.words import Sweep, split_sweep


@make_command("run", listed=RUN_KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Run stages, and whatever they need that is missing; resume where the last run stopped.

    sweep.KEY=a,b,c runs once with each value, shares what they have in common, and ends with a table of figures.
    """
    from wsolpipe.launch.run import resume_command

    return run_words(words, as_json, resume=resume_command())


def run_words(words: tuple[str, ...], as_json: bool, *, resume: str) -> int:
    """Run stages, print the outcome and return the exit code; `resume` is the command line that resumes."""
    from wsolpipe.launch.display import Display
    from wsolpipe.launch.run import name_a_stage, remember_command, run, script
    from wsolpipe.launch.terminal import show_ended

    sweep = split_sweep(words)
    config, _ = configure(sweep.words_of(sweep.points()[0]))
    name_a_stage(config, "run")
    if config.print:
        text = script(config)
        print_json({"script": text}) if as_json else print(text, end="")
        return 0
    try:
        if sweep.axes:
            return _run_sweep(sweep, as_json, resume)
        with Display(config.log) as display:
            outcome = run(config, display, threading.Event())
    except WsolError as error:
        if error.exit_code == ConfigError.exit_code or "--debug" in sys.argv:
            raise  # nothing was begun that could be resumed, or the traceback is wanted
        error.hint = "\n  -> ".join(text for text in (error.hint, f"resume with: {resume}") if text)
        raise
    remember_command(outcome.session, resume)
    if as_json:
        print_json(outcome.to_json(resume))
    show_ended(outcome, resume, quiet=as_json)
    return outcome.code


def _run_sweep(sweep: Sweep, as_json: bool, resume: str) -> int:
    """Run and score each combination; the exit code is that of the worst."""
    from wsolpipe.launch.run import run_each
    from wsolpipe.launch.terminal import show_sweep

    points = [(point, configure(sweep.words_of(point))[0]) for point in sweep.points()]
    tried = run_each(points, resume)
    lines = [line for item in tried for line in item.lines()]
    if as_json:
        axes = {name: list(values) for name, values in sweep.axes.items()}
        print_json({"sweep": axes, "lines": lines, "store": points[0][1].store, "resume": resume})
    else:
        show_sweep(list(sweep.axes), lines, wide=points[0][1].wide)
    if failed := [item for item in tried if item.outcome.code]:
        verdicts = dict.fromkeys(f"{item.name}: {item.outcome.verdict}" for item in failed)
        print("\n".join([*verdicts, f"resume with: {resume}"]), file=sys.stderr)
    return max((item.outcome.code for item in tried), default=0)


class _PlanKeys:
    """Keys of ``wsolpipe plan``.

    Attributes
    ----------
    check
        exit with 2 if work is pending
    cost
        hours, GPU-hours, files and bytes of whole stages, at the rates measured here
    images
        with cost=true: for as many images
    """

    check = Key(kinds.flag(), False)
    cost = Key(kinds.flag(), False)
    images = Key(kinds.integer(1), unit="rows", otherwise="those of the splits")


PLAN_KEYS = keys_of_class(_PlanKeys)
PLAN_LISTED = ("stage", "dataset", "store", "split", "limit", "rows", "root", "stages", "wide")


@make_command("plan", keys=PLAN_KEYS, listed=PLAN_LISTED)
def plan_command(words: tuple[str, ...], as_json: bool) -> int:
    """Say what `run` with the same arguments would make, and why; opens no image.

    The files are listed where a list or a folder changed since they were indexed.

    With sweep.KEY=a,b,c, what all values need together; what they share is listed once.

    Hours of one worker, files and bytes are estimated from the shards that were measured; – where none was.
    """
    from wsolpipe.engine.cost import estimate
    from wsolpipe.engine.graph import resolve, stage_order, wanted_splits
    from wsolpipe.engine.listed import look
    from wsolpipe.engine.plan import plan_all, seconds_left
    from wsolpipe.engine.session import Session
    from wsolpipe.launch.run import name_a_stage
    from wsolpipe.launch.terminal import show_costs, show_plan

    sweep = split_sweep(words)
    settled = [configure(sweep.words_of(point), PLAN_KEYS) for point in sweep.points()]
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
            print_json({"costs": costs, "store": config.store})
        else:
            show_costs(costs)
        return 0
    lines, skipped = plan_all(sessions)
    pending, left = any(line.reason != "done" for line in lines), seconds_left(lines)
    if as_json:
        sums = {"files": sum(line.files for line in lines), "bytes": sum(line.bytes for line in lines)}
        planned = {"stages": lines, "store": config.store, "pending": pending}
        print_json({**planned, **sums, "remaining_seconds": left, "not_looked_at": skipped})
    else:
        show_plan(lines, skipped, left, wide=config.wide)
    return 2 if pending and own["check"] else 0


STAGES_KEYS = (Key(kinds.file("YAML file"), name="stages", meaning="file of your own stages"),)


@make_command("stages", keys=STAGES_KEYS, as_run=False, positional=kinds.name("name of a stage", source="stage"))
def stages_command(words: tuple[str, ...], as_json: bool) -> int:
    """List the stages; with names, their parameters: type, default, unit and meaning.

    \b
    wsolpipe stages
    wsolpipe stages cls_maps proposals
    """
    from wsolpipe.launch.terminal import describe_stage, show_stage
    from wsolpipe.stages.registry import load_registry

    names = [word for word in words if "=" not in word]
    own = read_keys([word for word in words if "=" in word], STAGES_KEYS)
    registry = load_registry(own["stages"])
    if not names and not as_json:
        rows = [[name, entry.kind, ", ".join(entry.needs), entry.about] for name, entry in registry.entries.items()]
        print_table(["stage", "kind", "needs", "makes"], rows)
        return 0
    described = [describe_stage(registry, name) for name in names or registry.entries]
    if as_json:
        print_json({"stages": described})
        return 0
    for stage in described:
        show_stage(stage)
    return 0
