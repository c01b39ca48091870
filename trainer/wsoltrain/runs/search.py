"""Search for the settings of a recipe that score best on validation: by Optuna, or drawn equally for all methods."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from wsolpipe.contract.errors import ConfigError, RunFailed, raise_as
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.words import as_words
from wsoltrain.runs.many import Training, open_trainer
from wsoltrain.runs.settle import TRAINING, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import optuna

    from wsoltrain.runs.draws import Range
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings

_log = logging.getLogger(__name__)
SHARED = (
    "recipe", "dataset", "store", "root", "split", "val", "val_rows_per_class", "by", "metric", "gt", "test", "workers",
    "device", "save_every", "outcomes", "cluster",
)  # fmt: skip


class _Keys:
    """Keys that only ``wsoltrain search`` has.

    Attributes
    ----------
    out
        folder of study and trials
    trials
        trials of the study in all; a larger number later continues it
    parallel
        processes that search
    worker
        number of this process, another in each shell that shares a folder
    search_seed
        seed of the draws
    configurations
        train this many drawn configurations instead, no two alike; keys that all recipes have get equal draws
    shared
        as configurations=, and each with each= draws of the method's own keys
    each
        draws of the method's own keys with each shared configuration
    prune
        stop trials that are worse than the median of the others at the same epoch
    """

    out = Key(kinds.file("folder"), otherwise="searches/<recipe>-<dataset>")
    trials = Key(kinds.integer(1), 20, unit="trials")
    parallel = Key(kinds.integer(1), 1)
    worker = Key(kinds.integer(0), 0)
    search_seed = Key(kinds.integer(0), 0)
    configurations = Key(kinds.or_null(kinds.integer(1)), unit="configurations")
    shared = Key(kinds.or_null(kinds.integer(1)), unit="configurations")
    each = Key(kinds.integer(1), 1, unit="draws")
    prune = Key(kinds.flag(), True)


KEYS = (*(key for key in TRAINING if key.name in SHARED), *keys_of_class(_Keys))


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


def run(
    recipe: str,
    changes: Mapping[str, Any],
    settings: Settings,
    *,
    trials: int,
    seed: int = 0,
    prune: bool = True,
    worker: int = 0,
) -> optuna.Study:
    """Carry out trials until the study has as many as it wants; other processes may do so at the same time.

    Parameters
    ----------
    recipe : str
        Name or YAML file, with a section ``search``.
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
    from wsoltrain.training.recipe_file import load_recipe

    states = optuna.trial.TrialState
    folder, dataset = settings.out, settings.labelling.dataset
    ranges = load_ranges(recipe, dataset=dataset, changes=changes)
    fixed = load_recipe(recipe, dataset=dataset, changes=changes)
    asked = {
        "recipe": fixed.model_dump(mode="json"),
        "ranges": {name: each.model_dump(mode="json") for name, each in ranges.items()},
        "by": settings.first.name,
        **({"metric": settings.metric} if settings.metric != "auto" else {}),
    }
    study = open_study(folder, asked, prune=prune, take_up=worker == 0)
    while True:
        with next_trial(study, folder, trials=trials, seed=seed, worker=worker) as taken:
            if taken is None:
                break
            trial, own = taken
            chosen = {name: suggest(trial, name, each) for name, each in ranges.items()}
            try:
                own_recipe = load_recipe(recipe, dataset=dataset, changes={**changes, **chosen})
                best = _train(own_recipe, replace(settings, out=own), trial)
                study.tell(trial, best)
                _log.info("trial %s: %.2f with %s", own.name, best, chosen)
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


def _train(recipe: Recipe, settings: Settings, trial: optuna.Trial) -> float:
    """Train a trial's recipe in its folder; the best score on validation."""
    with open_trainer(recipe, settings, ("jsonl",)) as trainer:
        trainer.trackers.append(TrialTracker(trial, trainer))
        trainer.fit()
    return trainer.best[settings.first.name]


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
    same = [sys.executable, "-m", "wsoltrain", "search", *(word for word in words if not word.startswith("worker="))]
    numbers = range(1, values["parallel"]) if not values["worker"] else ()
    started = [subprocess.Popen([*same, f"worker={number}"], stdout=subprocess.DEVNULL) for number in numbers]
    try:
        study = run(
            values["recipe"], changes, settings, trials=values["trials"], seed=values["search_seed"],
            prune=values["prune"], worker=values["worker"],
        )  # fmt: skip
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
        given = as_words(drawn)
        shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in drawn.items()}
        found.append(Training.at(settings.out / name, (*kept, *given), {"configuration": name, **shown}))
    return found, settings.out


def result_of(study: optuna.Study, out: Path) -> dict[str, Any]:
    """Return what a search found, as JSON."""
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


_log = logging.getLogger(__name__)
STUDY, JOURNAL = "wsoltrain", "study.journal"
#: Trials drawn at random before the sampler learns from them, and finished ones before any is cut short.
STARTUP = 8
#: Attributes of a trial: its folder's name, and the number of the ended trial that it resumes.
FOLDER, GOES_ON = "folder", "goes_on"


def open_study(folder: Path, asked: Mapping[str, Any], *, prune: bool, take_up: bool) -> optuna.Study:
    """Open the study of a folder, or make it.

    Parameters
    ----------
    folder : Path
        Of the search.
    asked : mapping
        What is searched, as JSON; kept, and compared when the study is opened again.
    prune : bool
        Whether trials may be cut short.
    take_up : bool
        Queue trials again whose processes have ended.

    Raises
    ------
    ConfigError
        If Optuna is missing, or the folder holds another study.
    """
    with raise_as(
        ConfigError, "wsoltrain search needs the package optuna", ImportError, hint="pip install optuna", say=None
    ):
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "study.lock"):
        study = optuna.create_study(
            study_name=STUDY,
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP) if prune else optuna.pruners.NopPruner(),
        )
        known = study.user_attrs.get("asked")
        if known is None:
            study.set_user_attr("asked", dict(asked))
        elif known != asked:
            changed = " and ".join(name for name in asked if known.get(name) != asked[name])
            msg = f"{folder} holds a search of another {changed}"
            raise ConfigError(msg, hint="out=FOLDER for a new search, or the arguments of the first one")
        if take_up:
            _take_up(study, folder)
    return study


@contextmanager
def next_trial(
    study: optuna.Study, folder: Path, *, trials: int, seed: int, worker: int
) -> Iterator[tuple[optuna.Trial, Path] | None]:
    """A trial that was abandoned, or a new one, and its folder; None where the study has `trials` of them.

    The trial is this process's until the block ends or the process does. Its draws depend on the seed, on how many
    trials came before, on `worker` and on what had finished.
    """
    import optuna
    from numpy.random import SeedSequence

    with _locked(folder / "study.lock") as free:
        del free
        known = study.get_trials(deepcopy=False)
        begun = len(known) - sum(GOES_ON in each.user_attrs for each in known)
        waiting = any(each.state == optuna.trial.TrialState.WAITING for each in known)
        trial = None
        if begun < trials or waiting:
            drawn = int(SeedSequence([seed, begun, worker]).generate_state(1)[0])
            study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=drawn, constant_liar=True)
            trial = study.ask()
            own = folder / "trials" / str(trial.user_attrs.get(FOLDER, f"{begun:04d}"))
            trial.set_user_attr(FOLDER, own.name)
            own.mkdir(parents=True, exist_ok=True)
            lock = _locked(own / "trial.lock")
            lock.__enter__()
    if trial is None:
        yield None
        return
    try:
        yield trial, own
    finally:
        lock.__exit__(None, None, None)


def _take_up(study: optuna.Study, folder: Path) -> None:
    """Mark trials whose process has ended as failed, and queue their settings with their folders."""
    import optuna

    for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        name = left.user_attrs.get(FOLDER)
        own = folder / "trials" / str(name)
        if name is not None and own.is_dir():
            with _locked(own / "trial.lock", wait=False) as free:
                if not free:
                    continue
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        more = {GOES_ON: left.number} | ({FOLDER: name} if name is not None else {})
        study.enqueue_trial(left.params, user_attrs=more)
        _log.info("trial %s resumes where its process ended", name or left.number)


def suggest(trial: optuna.Trial, name: str, given: Range) -> Any:
    """Draw a value of a range; whole numbers where its bounds are."""
    if given.choices is not None:
        return trial.suggest_categorical(name, given.choices)
    low, high, step = given.low or 0, given.high or 0, given.step
    if isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
        return trial.suggest_int(name, low, high, step=step or 1, log=given.log)
    return trial.suggest_float(name, float(low), float(high), step=step, log=given.log)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that ends with the process; False where another holds it and waiting is not wanted."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
