"""``wsolpipe run``."""

from __future__ import annotations

import sys
import threading

from wsolpipe.cli.command import configure, make_command
from wsolpipe.cli.sweeping import run_sweep
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.keys.run_keys import RUN_KEYS


@make_command("run", listed=RUN_KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Run stages, and whatever they need that is missing; resume where the last run stopped.

    sweep.KEY=a,b,c runs once with each value, shares what they have in common, and ends with a table of figures.
    """
    from wsolpipe.launch.run import resume_command

    return run_words(words, as_json, resume=resume_command())


def run_words(words: tuple[str, ...], as_json: bool, *, resume: str) -> int:
    """Run stages and print what came of it.

    Parameters
    ----------
    words : tuple of str
        Of ``wsolpipe run``.
    as_json : bool
        Whether the result is printed as JSON.
    resume : str
        The command line that resumes.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    ConfigError
        For a mistake in the words or the data set.
    """
    from wsolpipe.cli.progress import Display
    from wsolpipe.contract.errors import ConfigError, WsolError
    from wsolpipe.keys.words import split_sweep
    from wsolpipe.launch.run import remember_command, run, script
    from wsolpipe.stages.registry import load_registry

    sweep = split_sweep(words)
    config, _ = configure(sweep.words_of(sweep.points()[0]))
    if not config.stage:
        msg = f"no stage named; valid: {', '.join(['index', *load_registry(config.stages).entries])}"
        raise ConfigError(msg, hint="add stage=…, as in wsolpipe run stage=proposals dataset=demo")
    if config.print:
        text = script(config)
        print_json({"script": text}) if as_json else print(text, end="")
        return 0
    try:
        if sweep.axes:
            return run_sweep(sweep, as_json=as_json)
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
    elif not outcome.submitted:
        rows = [
            [line.stage, line.split or "–", line.key, line.rows or None, line.done, line.quarantined, line.seconds]
            for line in outcome.lines
        ]
        print_table(["stage", "split", "key", "rows", "done", "quarantined", "seconds"], rows, wide=config.wide)
    if outcome.code:
        if any(line.quarantined for line in outcome.lines):
            print(f"see why: wsolpipe quarantine list dataset={config.dataset} store={config.store}", file=sys.stderr)
        print(f"{outcome.verdict}\nresume with: {resume}", file=sys.stderr)
    elif not as_json:
        print(outcome.verdict if outcome.submitted else f"done: {config.store}")
    return outcome.code
