"""``sweep.KEY=a,b,c`` of ``run`` and ``plan``: one run a combination of values, and one table of figures at the end."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import configure
from wsolpipe.keys.console import print_json, print_table

if TYPE_CHECKING:
    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.keys.words import Sweep
    from wsolpipe.launch.run import Ended

FIGURES = ("iou_top1", "recall50_top1", "box_maxboxacc_v2", "MaxBoxAcc", "MaxBoxAccV2", "PxAP", "mask_iou")
"""Figures of `wsolpipe.evaluate.evaluation` that the table shows, where a stage has them."""


@dataclass(frozen=True)
class Tried:
    """One combination of values: its configuration, and how its run ended."""

    values: dict[str, str]
    config: RunConfig
    outcome: Ended


def configurations(sweep: Sweep) -> list[tuple[dict[str, str], RunConfig]]:
    """The configuration of every combination, all checked before any is run.

    Raises
    ------
    ConfigError
        If a word of any of them is wrong.
    """
    from wsolpipe.engine.graph import stage_order
    from wsolpipe.engine.session import Session

    found = [(point, configure(sweep.words_of(point))[0]) for point in sweep.points()]
    for _, config in found:
        stage_order(Session.open(config))  # reads the parameters of every stage
    return found


def run_sweep(sweep: Sweep, *, as_json: bool) -> int:
    """Run every combination, one after the other, on the cluster that the words name; then score each asked stage.

    What several combinations have in common is made once, and what is finished is not made again, as in any run. A
    combination that ends with work left does not stop the others; the exit code is that of the worst.
    """
    from wsolpipe.cli.progress import Display
    from wsolpipe.launch.run import remember_command, resume_command, run

    resume, stop = resume_command(), threading.Event()
    tried: list[Tried] = []
    chosen = configurations(sweep)
    with Display(chosen[0][1].log) as display:
        for number, (values, config) in enumerate(chosen, 1):
            print(f"{number} of {len(chosen)}: {_shown(values)}", file=sys.stderr)
            tried.append(Tried(values, config, run(config, display, stop)))
            remember_command(tried[-1].outcome.session, resume)
            if stop.is_set():
                break
    lines = [line for item in tried for line in _lines(item)]
    if as_json:
        print_json({"sweep": {name: list(values) for name, values in sweep.axes.items()}, "lines": lines,
                    "store": chosen[0][1].store, "resume": resume})  # fmt: skip
    else:
        _print_lines(list(sweep.axes), lines, wide=chosen[0][1].wide)
    code = max((item.outcome.code for item in tried), default=0)
    if code:
        verdicts = dict.fromkeys(
            f"{_shown(item.values)}: {item.outcome.verdict}" for item in tried if item.outcome.code
        )
        print("\n".join([*verdicts, f"resume with: {resume}"]), file=sys.stderr)
    return code


def _shown(values: dict[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in values.items())


def _lines(item: Tried) -> list[dict[str, Any]]:
    """A line a stage that was asked for and split, with the figures that its ground truth gives."""
    asked = [line for line in item.outcome.lines if line.stage in item.config.stage and line.stage != "index"]
    fields = ("stage", "split", "key", "rows", "done", "quarantined")
    return [
        {**item.values, **{name: getattr(line, name) for name in fields}, "figures": _figures(item, line)}
        for line in asked
    ]


def _figures(item: Tried, line: Any) -> dict[str, Any]:
    """Figures against ground truth; none of a stage that is unfinished, or of an artifact, or without ground truth."""
    from wsolpipe.contract.errors import WsolError
    from wsolpipe.engine.lookup import SessionResults
    from wsolpipe.evaluate.evaluation import evaluate
    from wsolpipe.evaluate.options import Options

    if line.split is None or item.outcome.submitted or line.shards_done < line.shards or not line.shards:
        return {}
    results = SessionResults(item.outcome.session)
    try:
        found = evaluate(results, line.stage, line.split, Options(key=line.key)).figures
    except WsolError as error:
        print(f"{line.stage} of {line.split} is not scored: {error.message}", file=sys.stderr)
        return {}
    kept = {name: found[name] for name in FIGURES if found.get(name) is not None}
    return {name: value["mean"] if isinstance(value, dict) else value for name, value in kept.items()}


def _print_lines(axes: list[str], lines: list[dict[str, Any]], *, wide: bool) -> None:
    names = [name for name in FIGURES if any(name in line["figures"] for line in lines)]
    columns = [*axes, "stage", "split", "key", "rows", "done", *names]
    rows = [[*(line[name] for name in columns[: len(axes) + 5]), *map(line["figures"].get, names)] for line in lines]
    print_table(columns, rows, wide=wide)
