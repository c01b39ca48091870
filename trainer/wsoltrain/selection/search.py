"""Search of a recipe's ranges by Optuna: several processes on one study, each trial a run that resumes after a kill."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import RunFailed
from wsoltrain.selection.optuna_study import next_trial, open_study, suggest
from wsoltrain.training.ranges import load_ranges
from wsoltrain.training.recipe_file import load_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import optuna

    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.settings import Settings

_log = logging.getLogger(__name__)


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
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.run_record import record_run
    from wsoltrain.training.tracker import open_trackers

    recipe = load_recipe(search.recipe, dataset=search.dataset, changes={**search.changes, **chosen})
    with open_trackers("jsonl", own, recipe.model_dump(mode="json")) as trackers:
        trainer = Trainer(recipe, replace(search.settings, out=own), trackers)
        trainer.trackers += [record_run(trainer), TrialTracker(trial, trainer)]
        trainer.fit()
    best = trainer.best[search.settings.first.name]
    _log.info("trial %s: %.2f with %s", own.name, best, dict(chosen))
    return best
