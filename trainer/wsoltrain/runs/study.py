"""An Optuna study in a folder: a journal that processes share, and trials that outlive the process they began in."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import optuna

    from wsoltrain.runs.draws import Range

_log = logging.getLogger(__name__)
STUDY, JOURNAL = "wsoltrain", "study.journal"
STARTUP = 8
"""Trials drawn at random before the sampler learns from them, and finished ones before any is cut short."""
FOLDER, GOES_ON = "folder", "goes_on"
"""Attributes of a trial: its folder's name, and the number of the ended trial that it resumes."""


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
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        msg = "wsoltrain search needs the package optuna"
        raise ConfigError(msg, hint="pip install optuna") from error
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
            raise ConfigError(msg, hint="out=FOLDER for a new search, or the words of the first one")
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

    with _locked(folder / "study.lock") as free:
        del free
        known = study.get_trials(deepcopy=False)
        begun = len(known) - sum(GOES_ON in each.user_attrs for each in known)
        waiting = any(each.state == optuna.trial.TrialState.WAITING for each in known)
        trial = None
        if begun < trials or waiting:
            drawn = int(np.random.SeedSequence([seed, begun, worker]).generate_state(1)[0])
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
