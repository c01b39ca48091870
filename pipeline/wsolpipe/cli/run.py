"""``wsolpipe run``."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys.console import print_json
from wsolpipe.keys.run_keys import RUN_KEYS

if TYPE_CHECKING:
    from wsolpipe.keys.words import Sweep


@make_command("run", listed=RUN_KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Run stages, and whatever they need that is missing; resume where the last run stopped.

    sweep.KEY=a,b,c runs once with each value, shares what they have in common, and ends with a table of figures.
    """
    from wsolpipe.launch.run import resume_command

    return run_words(words, as_json, resume=resume_command())


def run_words(words: tuple[str, ...], as_json: bool, *, resume: str) -> int:
    """Run stages, print the outcome and return the exit code; `resume` is the command line that resumes."""
    from wsolpipe.contract.errors import ConfigError, WsolError
    from wsolpipe.keys.words import split_sweep
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
    from wsolpipe.launch.combinations import run_each
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
