"""``wsoltrain search``: settings of a recipe that validation pseudo-boxes like, found by several processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import RunFailed
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key
from wsoltrain.cli import fit
from wsoltrain.cli.command import make_command, read_recipe_words

if TYPE_CHECKING:
    import optuna

    from wsoltrain.training.settings import Settings

SHARED = (
    "recipe", "dataset", "store", "root", "split", "val", "by", "metric", "gt", "test", "workers", "device",
    "save_every",
)  # fmt: skip
KEYS = (
    *(key for key in fit.KEYS if key.name in SHARED),
    Key("out", kinds.file("folder"), "folder of study and trials", otherwise="searches/<recipe>-<dataset>"),
    Key(
        "trials", kinds.integer(1), "trials of the study in all; a larger number later continues it", 20, unit="trials"
    ),
    Key("parallel", kinds.integer(1), "processes that search", 1),
    Key("worker", kinds.integer(0), "number of this process, another in each shell that shares a folder", 0),
    Key("search_seed", kinds.integer(0), "seed of the draws", 0),
    Key("prune", kinds.flag(), "stop trials that are worse than the median of the others at the same epoch", True),
)


@make_command(
    "search",
    KEYS,
    recipe=True,
    example="wsoltrain search recipe=dips dataset=demo store=wsol-store trials=30 parallel=2",
    json_help="Print the result as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Search the ranges of a recipe's section search for the best score on validation, against the first of by=.

    Ground truth is not read unless by=, gt= or test= ask for it. Keys of the recipe that are given are not searched.
    Called again, resume where it stopped.
    """
    values, changes = read_recipe_words(words, KEYS)
    given = [word for word in words if word.partition("=")[0] in changes]
    rest = {key.name: key.default for key in fit.KEYS}
    _, settings = fit.prepare({**rest, **values}, changes, kind="searches")
    settings = _shared(settings, values)
    from wsoltrain.selection.search import Search, run

    search = Search(
        values["recipe"], settings.labelling.dataset, changes, settings, values["trials"], values["search_seed"],
        values["prune"],
    )  # fmt: skip
    same = [sys.executable, "-m", "wsoltrain", "search", *(word for word in words if not word.startswith("worker="))]
    numbers = range(1, values["parallel"]) if not values["worker"] else ()
    started = [subprocess.Popen([*same, f"worker={number}"], stdout=subprocess.DEVNULL) for number in numbers]
    try:
        study = run(search, worker=values["worker"])
        failed = [process.pid for process in started if process.wait()]
    finally:
        for process in started:
            process.terminate()
    if failed:
        msg = f"{len(failed)} of {values['parallel']} processes ended early"
        raise RunFailed(msg, hint="the same command continues the search; their messages are above")
    result = _result(study, settings.out.name) | {"out": str(settings.out)}
    if as_json:
        print_json(result)
        return
    counts = ", ".join(f"{number} {state}" for state, number in result["trials"].items())
    click.echo(f"{settings.out}: {counts}; best {result['best']:.2f} by {settings.first.name}")
    keys = " ".join(f"{name}={json.dumps(value)}" for name, value in result["settings"].items())
    click.echo(f"wsoltrain fit recipe={values['recipe']} dataset={values['dataset']} {' '.join([*given, keys])}")


def _shared(settings: Settings, values: dict[str, Any]) -> Settings:
    """This process's share of the machine: a GPU of its number where there are several, and loader processes."""
    import torch

    device = settings.device
    if device == "cuda" and values["parallel"] > 1:
        device = f"cuda:{values['worker'] % torch.cuda.device_count()}"
    workers = max(1, settings.workers // values["parallel"]) if values["workers"] is None else settings.workers
    return replace(settings, device=device, workers=workers)


def _result(study: optuna.Study, name: str) -> dict[str, Any]:
    from wsoltrain.selection.optuna_study import FOLDER, GOES_ON

    trials = study.get_trials(deepcopy=False)
    gone = {each.user_attrs[GOES_ON] for each in trials if GOES_ON in each.user_attrs}
    counts: dict[str, int] = {}
    for each in trials:
        if each.number not in gone:
            state = each.state.name.lower()
            counts[state] = counts.get(state, 0) + 1
    best = study.best_trial
    return {
        "search": name,
        "best": best.value,
        "settings": best.params,
        "trial": best.user_attrs[FOLDER],
        "trials": counts,
    }
