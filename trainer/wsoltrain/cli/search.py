"""``wsoltrain search``: settings of a recipe that validation pseudo-boxes like, found by several processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key
from wsoltrain.cli import fit
from wsoltrain.cli.command import make_command, read_recipe_words
from wsoltrain.cli.sites import site_of, split_site
from wsoltrain.cli.sweep import Variant, run_variants

if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna

    from wsoltrain.training.settings import Settings

SHARED = (
    "recipe", "dataset", "store", "root", "split", "val", "val_rows_per_class", "by", "metric", "gt", "test", "workers",
    "device", "save_every", "outcomes", "cluster",
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
    Key(
        "shared", kinds.or_null(kinds.integer(1)),
        "train so many drawn configurations instead, the same for all recipes, as one search of several methods needs",
        None, unit="configurations",
    ),
    Key("each", kinds.integer(1), "draws of the method's own keys with each shared configuration", 1, unit="draws"),
    Key("prune", kinds.flag(), "stop trials that are worse than the median of the others at the same epoch", True),
)  # fmt: skip


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
    shared=N trains N drawn configurations instead, whose learning rates and other keys that all recipes have are the
    same for every recipe: the runs of one table of several methods. Called again, resume where it stopped.
    """
    plain, profile = split_site(words)
    values, changes = read_recipe_words(plain, KEYS)
    if values["shared"]:
        _train_shared(plain, values, changes, profile, as_json=as_json)
        return
    if profile or values["cluster"] != "local":
        msg = f"cluster={values['cluster']} runs trainings that are drawn beforehand"
        raise ConfigError(msg, hint="shared=20 draws configurations; parallel=2 searches by processes here")
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
    click.echo(f"{settings.out}: {counts}; best {result['best']:.1f} by {settings.first.name}")
    keys = " ".join(f"{name}={json.dumps(value)}" for name, value in result["settings"].items())
    click.echo(f"wsoltrain fit recipe={values['recipe']} dataset={values['dataset']} {' '.join([*given, keys])}")


def _train_shared(
    words: Sequence[str], values: dict[str, Any], changes: dict[str, Any], profile: tuple[str, ...], *, as_json: bool
) -> None:
    """Train configurations that are drawn beforehand, each in a folder of its own."""
    from wsoltrain.selection.drawn import shared_configurations
    from wsoltrain.training.ranges import load_ranges

    rest = {key.name: key.default for key in fit.KEYS}
    _, settings = fit.prepare({**rest, **values}, changes, kind="searches")
    ranges = load_ranges(values["recipe"], dataset=settings.labelling.dataset, changes=changes)
    own = {key.name for key in KEYS if key.name not in SHARED} | {"cluster"}
    kept = [word for word in words if word.partition("=")[0] not in own]
    variants = []
    for name, drawn in shared_configurations(ranges, values["shared"], values["each"], seed=values["search_seed"]):
        given = [f"{key}={json.dumps(value)}" for key, value in drawn.items()]
        shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in drawn.items()}
        point = {"configuration": name, **shown}
        variants.append(Variant(point, settings.out / name, (*kept, *given)))
    run_variants(variants, settings.out, site_of(values, profile), fit.train, as_json=as_json)


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
