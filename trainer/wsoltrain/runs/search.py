"""Search for the settings of a recipe that score best on validation: by Optuna, or drawn equally for all methods."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, show_value
from wsoltrain.runs.keys import TRAINING
from wsoltrain.runs.many import Training
from wsoltrain.runs.settle import settle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import optuna

    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.settings import Settings

_log = logging.getLogger(__name__)
SHARED = (
    "recipe", "dataset", "store", "root", "split", "val", "val_rows_per_class", "by", "metric", "gt", "test", "workers",
    "device", "save_every", "outcomes", "cluster",
)  # fmt: skip
KEYS = (
    *(key for key in TRAINING if key.name in SHARED),
    Key("out", kinds.file("folder"), "folder of study and trials", otherwise="searches/<recipe>-<dataset>"),
    Key(
        "trials", kinds.integer(1), "trials of the study in all; a larger number later continues it", 20, unit="trials"
    ),
    Key("parallel", kinds.integer(1), "processes that search", 1),
    Key("worker", kinds.integer(0), "number of this process, another in each shell that shares a folder", 0),
    Key("search_seed", kinds.integer(0), "seed of the draws", 0),
    Key(
        "configurations", kinds.or_null(kinds.integer(1)),
        "train this many drawn configurations instead, no two alike; keys that all recipes have get equal draws",
        None, unit="configurations",
    ),
    Key(
        "shared", kinds.or_null(kinds.integer(1)),
        "as configurations=, and each with each= draws of the method's own keys", None, unit="configurations",
    ),
    Key("each", kinds.integer(1), "draws of the method's own keys with each shared configuration", 1, unit="draws"),
    Key("prune", kinds.flag(), "stop trials that are worse than the median of the others at the same epoch", True),
)  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A search.

    Attributes
    ----------
    recipe : str
        Name or YAML file, with a section ``search``.
    dataset : str
        Name, for the recipe's section of it.
    changes : mapping
        Keys with a fixed value, which are not searched.
    settings : Settings
        As of ``fit``; the score of its first annotator on validation is maximised; `out` holds study and trials.
    trials : int
        Of the study in all, finished, cut short or failed.
    seed : int
        Of the draws.
    prune : bool
        Cut trials short that are worse than the median of the others at the same epoch.
    """

    recipe: str
    dataset: str
    changes: Mapping[str, Any]
    settings: Settings
    trials: int
    seed: int = 0
    prune: bool = True


class TrialTracker:
    """Tracker that reports each epoch to a trial, and ends its run where the study prunes it."""

    def __init__(self, trial: optuna.Trial, trainer: Trainer) -> None:
        self.trial, self.trainer = trial, trainer
        self.annotator = trainer.settings.first.name

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Take the best figure up to an epoch.

        Raises
        ------
        optuna.TrialPruned
            To end the run.
        """
        import optuna

        del step
        if kind == "val" and figures["annotator"] == self.annotator:
            self.trial.report(self.trainer.best[self.annotator], int(figures["epoch"]))
            if self.trial.should_prune():
                raise optuna.TrialPruned

    def close(self) -> None:
        """Nothing is kept open."""


def run(search: Search, *, worker: int = 0) -> optuna.Study:
    """Carry out trials until the study has as many as it wants; other processes may do so at the same time.

    Parameters
    ----------
    search : Search
        What.
    worker : int
        Number of this process among those that share the study; the one numbered 0 resumes what others left.

    Raises
    ------
    RunFailed
        If every trial failed.
    WsolError
        As the ranges, the recipe and the first trial's data raise it.
    """
    import optuna

    from wsoltrain.runs.draws import load_ranges
    from wsoltrain.runs.study import next_trial, open_study, suggest
    from wsoltrain.training.recipe_file import load_recipe

    states = optuna.trial.TrialState
    ranges = load_ranges(search.recipe, dataset=search.dataset, changes=search.changes)
    fixed = load_recipe(search.recipe, dataset=search.dataset, changes=search.changes)
    folder = search.settings.out
    asked = {
        "recipe": fixed.model_dump(mode="json"),
        "ranges": {name: each.model_dump(mode="json") for name, each in ranges.items()},
        "by": search.settings.first.name,
        **({"metric": search.settings.metric} if search.settings.metric != "auto" else {}),
    }
    study = open_study(folder, asked, prune=search.prune, take_up=worker == 0)
    while True:
        with next_trial(study, folder, trials=search.trials, seed=search.seed, worker=worker) as taken:
            if taken is None:
                break
            trial, own = taken
            chosen = {name: suggest(trial, name, each) for name, each in ranges.items()}
            try:
                study.tell(trial, _train(search, trial, chosen, own))
            except optuna.TrialPruned:
                study.tell(trial, state=states.PRUNED)
                _log.info("trial %s was cut short: %s", own.name, chosen)
            except RunFailed as error:
                study.tell(trial, state=states.FAIL)
                _log.warning("trial %s failed with %s: %s", own.name, chosen, error.message)
    if not any(each.state in (states.COMPLETE, states.RUNNING) for each in study.get_trials(deepcopy=False)):
        msg = f"none of the trials in {folder} finished"
        raise RunFailed(msg, hint="narrower ranges, or clip=1")
    return study


def _train(search: Search, trial: optuna.Trial, chosen: Mapping[str, Any], own: Path) -> float:
    from wsoltrain.runs.many import open_trainer
    from wsoltrain.training.recipe_file import load_recipe

    recipe = load_recipe(search.recipe, dataset=search.dataset, changes={**search.changes, **chosen})
    with open_trainer(recipe, replace(search.settings, out=own), ("jsonl",)) as trainer:
        trainer.trackers.append(TrialTracker(trial, trainer))
        trainer.fit()
    best = trainer.best[search.settings.first.name]
    _log.info("trial %s: %.2f with %s", own.name, best, dict(chosen))
    return best


def search_by_trials(
    values: Mapping[str, Any], changes: Mapping[str, Any], words: Sequence[str]
) -> tuple[optuna.Study, Settings]:
    """Search by trials, in as many processes as ``parallel=`` says; `words` are those of the command.

    Raises
    ------
    ConfigError
        If a cluster is named: it runs trainings that are drawn beforehand.
    RunFailed
        If every trial failed, or a process ended early.
    """
    if values["cluster"] != "local" or any(word.startswith("cluster.") for word in words):
        msg = f"cluster={values['cluster']} runs trainings that are drawn beforehand"
        raise ConfigError(msg, hint="configurations=20 draws them; parallel=2 searches by processes here")
    settings = _share(settle(values, changes, kind="searches").settings, values)
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
    return study, settings


def _share(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return this process's share of the machine: a GPU of its number where there are several, and loader processes."""
    import torch

    device = settings.device
    if device == "cuda" and values["parallel"] > 1:
        device = f"cuda:{values['worker'] % torch.cuda.device_count()}"
    workers = max(1, settings.workers // values["parallel"]) if values["workers"] is None else settings.workers
    return replace(settings, device=device, workers=workers)


def shared_trainings(
    values: Mapping[str, Any], changes: Mapping[str, Any], words: Sequence[str]
) -> tuple[list[Training], Path]:
    """Return the trainings of configurations that are drawn beforehand, and the folder of all; raises as `settle`."""
    from wsoltrain.runs.draws import load_ranges, shared_configurations

    settings = settle(values, changes, kind="searches").settings
    ranges = load_ranges(values["recipe"], dataset=settings.labelling.dataset, changes=changes)
    own = {key.name for key in KEYS if key.name not in SHARED}
    kept = [word for word in words if word.partition("=")[0] not in own]
    found = []
    number, each = (values["configurations"], 1) if values["configurations"] else (values["shared"], values["each"])
    for name, drawn in shared_configurations(ranges, number, each, seed=values["search_seed"]):
        given = [f"{key}={show_value(value)}" for key, value in drawn.items()]
        shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in drawn.items()}
        found.append(Training.at(settings.out / name, (*kept, *given), {"configuration": name, **shown}))
    return found, settings.out


def result_of(study: optuna.Study, out: Path) -> dict[str, Any]:
    """Return what a search found, as JSON."""
    from wsoltrain.runs.study import FOLDER, GOES_ON

    trials = study.get_trials(deepcopy=False)
    gone = {each.user_attrs[GOES_ON] for each in trials if GOES_ON in each.user_attrs}
    counts: dict[str, int] = {}
    for each in trials:
        if each.number not in gone:
            state = each.state.name.lower()
            counts[state] = counts.get(state, 0) + 1
    best = study.best_trial
    found = {"search": out.name, "best": best.value, "settings": best.params, "trial": best.user_attrs[FOLDER]}
    return {**found, "trials": counts, "out": str(out)}
