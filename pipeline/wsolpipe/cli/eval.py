"""``wsolpipe eval``."""

from __future__ import annotations

from pathlib import Path

from wsolpipe.cli.command import configure, make_command
from wsolpipe.engine.evaluating import KEYS, SCORED_SPLIT, evaluate_splits, open_evaluation, read_options
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import read_keys
from wsolpipe.keys.words import split_words


@make_command("eval", keys=KEYS, listed=("stage", "dataset", "store", SCORED_SPLIT))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Score boxes, maps or masks against ground truth or pseudo-labels.

    Boxes are compared with ground truth or pseudo-labels. Maps need a threshold: without tau= or tau_from= each
    figure takes its own best, as the field does. stage=classifier shows the accuracy measured when it was made.
    """
    from wsolpipe.cli.figure_tables import print_alarms, show_artifact, show_evaluated, show_glossary, show_runs
    from wsolpipe.report.curves import write_csv, write_plots

    given = split_words(words)
    if given.get("glossary") == "true":
        return show_glossary(as_json=as_json)
    if "runs" in given:
        keys = tuple(key for key in KEYS if key.name in {"runs", "metric", "annotators", "rule"})
        named = [f"{name}={text}" for name, text in given.items()]
        own = read_keys(named, keys, hint="with runs= only metric=, annotators= and rule= make sense")
        return show_runs(own["runs"], own["metric"], own["annotators"], rule=own["rule"], as_json=as_json)
    config, own = configure(words, KEYS)
    options = read_options(own, given)
    session = open_evaluation(config, own)
    if config.stage and session.registry[config.stage[0]].kind == "artifact":
        return show_artifact(session, own["key"], as_json=as_json)
    found = evaluate_splits(session, options, own)
    if own["csv"]:
        write_csv(Path(own["csv"]), found)
    drawn = [str(path) for item in found for path in write_plots(Path(own["plots"]), item)] if own["plots"] else []
    if as_json:
        results = [{**item.figures, **({"plots": drawn} if drawn else {})} for item in found]
        print_json(results[0] if len(results) == 1 else results)
    else:
        plain = {"key", "map", "tau", "csv", "plots"}
        asked = bool(given.keys() & {key.name for key in KEYS} - plain)
        show_evaluated(found, details=own["details"] or asked)
        print(*drawn, sep="\n", end="\n" if drawn else "")
    print_alarms(found, session.registry, error=as_json)
    return 0
