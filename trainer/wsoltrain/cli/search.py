"""``wsoltrain search``: settings of a recipe that validation pseudo-boxes like, found by several processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import RunFailed
from wsolpipe.keys.values import parse_value
from wsoltrain.cli import fit
from wsoltrain.cli.words import Key, completer, flag, read_words, table, text, whole

if TYPE_CHECKING:
    import optuna

    from wsoltrain.training.loop import Settings

SHARED = ("recipe", "dataset", "store", "root", "split", "val", "by", "workers", "device", "save_every")
KEYS = {
    **{name: fit.KEYS[name] for name in SHARED},
    "out": Key(text, None, "folder of study and trials; searches/<recipe>-<dataset> by default"),
    "trials": Key(whole(1), 20, "trials of the study in all; a larger number later goes on with it"),
    "parallel": Key(whole(1), 1, "processes that search"),
    "worker": Key(whole(0), 0, "number of this process; where several shells share a folder give each its own"),
    "search_seed": Key(whole(0), 0, "of the draws"),
    "prune": Key(flag, True, "cut trials short that are worse than the median of the others at the same epoch"),
}


@click.command(
    "search",
    cls=fit.WithRecipe,
    help="Search the ranges of a recipe's section search: for the best MaxBoxAcc against the boxes of by= on "
    "validation; ground truth is not read unless by=gt. Called again, go on where it stopped.\n\n\b\nKeys:\n"
    f"{table(KEYS)}\n\nAny other key is one of the recipe and is not searched: epochs=5 …",
    epilog="Example: wsoltrain search recipe=dips dataset=demo store=wsol-store trials=30 parallel=2",
)
@click.argument("words", nargs=-1, metavar="KEY=VALUE…", shell_complete=completer(KEYS))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(*, words: tuple[str, ...], as_json: bool) -> None:
    """Search and tell."""
    own = [word for word in words if word.partition("=")[0] in KEYS or "=" not in word]
    given = [word for word in words if word not in own]
    values = read_words(own, KEYS)
    changes = {name: parse_value(value) for name, _, value in (word.partition("=") for word in given)}
    rest = {name: key.default for name, key in fit.KEYS.items()}
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
        raise RunFailed(msg, hint="the same command goes on; what they said stands above")
    result = _result(study, settings.out.name) | {"out": str(settings.out)}
    if as_json:
        click.echo(json.dumps(result))
        return
    told = ", ".join(f"{number} {state}" for state, number in result["trials"].items())
    click.echo(f"{settings.out}: {told}; best {result['best']:.2f} by {values['by']}")
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
