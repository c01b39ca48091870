"""Many trainings of one command: a sweep, a search's drawn configurations, the recipes of a comparison, a table's rows.

Each is the words of ``wsoltrain fit`` with a folder of its own, so that all resume alike: in this process one after the
other, or each a process or job of its own on any cluster.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ClusterError, ConfigError, RunFailed, WsolError
from wsolpipe.keys.words import split_sweep
from wsoltrain.runs.settle import Settled, settle_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings
    from wsoltrain.training.tracker import Tracker

#: Module that runs whole commands on a cluster; a process of its own, since the trainer knows no cluster.
LAUNCHER = "wsolpipe.launch.crew"
LOG_BYTES = 4096
#: Keys that say where trainings go, not what they learn.
PLACES = ("cluster", "parallel", "out")
PREFIX = "cluster."


@dataclass(frozen=True)
class Training:
    """One run of ``wsoltrain fit``.

    Attributes
    ----------
    name : str
        Unique among those that are started together.
    words : tuple of str
        Of ``wsoltrain fit``, ``out=`` among them; given again, they resume.
    out : Path
        Folder of the run.
    point : mapping of str to str
        What tells it from the others, for a table.
    """

    name: str
    words: tuple[str, ...]
    out: Path
    point: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, out: Path, words: Iterable[str], point: Mapping[str, str] | None = None, *, name: str = "") -> Training:
        """Return the training of some words in a folder, by default named after it."""
        kept = (word for word in words if word.partition("=")[0] not in PLACES)
        return cls(name or out.name, (*kept, f"out={out}"), out, point or {})


@dataclass(frozen=True)
class Site:
    """Where trainings run.

    Attributes
    ----------
    cluster : str
        As ``cluster=`` of ``wsolpipe run``.
    parallel : int or None
        Trainings at once; None: one here, one a GPU with ``dask-cuda``, all elsewhere.
    profile : tuple of str
        Words of the site's profile: ``profile=NAME``, ``profiles=FILE``, ``field=value``.
    """

    cluster: str = "local"
    parallel: int | None = None
    profile: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether trainings run in this process, one after another."""
        return self.cluster == "local" and self.parallel in (None, 1)


def split_site(words: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the words without those of a site's profile, and these, ``cluster.`` taken away."""
    words = list(words)
    rest = [word for word in words if not word.startswith(PREFIX)]
    return rest, tuple(word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX))


def run_trainings(trainings: Sequence[Training], site: Site, folder: Path) -> dict[str, str]:
    """Run trainings to their end, those that failed before once more.

    Parameters
    ----------
    trainings : sequence of Training
    site : Site
    folder : Path
        Folder for logs, which all machines of the site share.

    Returns
    -------
    dict of str to str
        Name of each that failed, and why.

    Raises
    ------
    ConfigError
        If the cluster or its profile is unknown.
    ClusterError
        If the cluster cannot be used or is lost.
    """
    if not trainings:
        return {}
    if not site.here:
        return _launch(trainings, site, folder)
    failed = {}
    for training in trainings:
        try:
            train_words(training.words)
        except WsolError as error:
            failed[training.name] = str(error)
    return failed


def refuse_failed(failed: Mapping[str, str], hint: str = "the same command resumes what was not finished") -> None:
    """Raise RunFailed where a training failed."""
    if failed:
        raise RunFailed("; ".join(f"{name}: {why}" for name, why in failed.items()), hint=hint)


def sweep_trainings(words: Sequence[str]) -> tuple[list[Training], Path]:
    """Return the trainings of words of ``wsoltrain fit`` with sweeps, all settled, and the folder of all.

    Raises
    ------
    ConfigError
        If the words of one do not fit.
    """
    sweep = split_sweep(words)
    swept = [name for name in sweep.axes if name in PLACES]
    if swept:
        msg = f"sweep.{swept[0]}= is not possible: it sets where trainings are written, not how they train"
        raise ConfigError(msg)
    points = sweep.points()
    first, *_ = [settle_words(sweep.words_of(point)) for point in points]
    out = first.settings.out
    if sweep.axes:
        out = Path(first.values["out"] or f"sweeps/{out.name}")
    return [Training.at(out / _name(point), sweep.words_of(point), point) for point in points], out


def _name(point: Mapping[str, str]) -> str:
    """Name of a folder, such as ``lr=0.1,epochs=5``."""
    return ",".join(f"{key}={text}" for key, text in point.items()).replace("/", "_").replace(" ", "")


def best_epochs(trainings: Iterable[Training]) -> list[dict[str, Any]]:
    """Return the figures of each run's best epoch by the annotator that chose while it was trained."""
    from wsolpipe.metrics.protocol_tables import figures_at
    from wsoltrain.runs.choice import choose_run

    lines = []
    for training in trainings:
        found = choose_run(training.out / "runs")
        choice, metric = found.choice, found.metric
        line: dict[str, Any] = {**training.point, "out": str(training.out), "by": found.by, "metric": metric}
        line |= {"epoch": choice.run.epoch, "tau": choice.tau, "validation": choice.score, "test": None}
        if "gt" in choice.run.test and choice.tau is not None:
            line["test"] = figures_at(choice.run.test["gt"], choice.tau)[metric]
        lines.append(line)
    return lines


def table_of(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the table of `best_epochs`: the swept keys, the score on validation, and on test where it was measured."""
    first = lines[0]
    swept = [name for name in first if name not in ("out", "by", "metric", "epoch", "tau", "validation", "test")]
    head = [*swept, f"{first['metric']} by {first['by']}", "epoch", "tau"]
    tested = any(line["test"] is not None for line in lines)
    best = max(line["validation"] for line in lines)
    table = [[*head, *(["test, ground truth"] if tested else []), ""]]
    for line in lines:
        cells = [*(str(line[name]) for name in swept), f"{line['validation']:.1f}", str(line["epoch"])]
        cells.append("none" if line["tau"] is None else f"{line['tau']:.3f}")
        if tested:
            cells.append("none" if line["test"] is None else f"{line['test']:.1f}")
        table.append([*cells, "best" if line["validation"] == best else ""])
    return table


def _launch(trainings: Sequence[Training], site: Site, folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    order, logs = folder / "commands.order", {each.name: folder / f"{each.name}.log" for each in trainings}
    commands = {each.name: ["-m", "wsoltrain", "fit", *each.words] for each in trainings}
    content = {"cluster": site.cluster, "parallel": site.parallel, "commands": commands, "profile": site.profile}
    order.write_text(json.dumps(content))
    for log in logs.values():
        log.unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, "-m", LAUNCHER, str(order)], stdout=subprocess.PIPE, text=True) as process:
        told, _ = process.communicate()
    result: dict[str, Any] = json.loads(told or "{}")
    if "codes" not in result:
        refused = ConfigError if process.returncode == ConfigError.exit_code else ClusterError
        why = result.get("error") or f"{LAUNCHER} ended with {process.returncode}"
        raise refused(why, hint=result.get("hint"))
    codes = result["codes"]
    if process.returncode:
        msg = f"interrupted; {sum(code == 0 for code in codes.values())} of {len(trainings)} trainings have ended"
        raise ClusterError(msg, hint="the same command resumes")
    return {name: _why(log, codes[name]) for name, log in logs.items() if codes[name]}


def _why(log: Path, code: int) -> str:
    """Return the error at the end of a training's log."""
    lines = log.read_text(errors="replace")[-LOG_BYTES:].splitlines() if log.exists() else []
    last = max((place for place, line in enumerate(lines) if line.startswith("error: ")), default=None)
    told = f"ended with {code}" if last is None else " ".join(lines[last:]).removeprefix("error: ")
    return f"{told} (log: {log})"


@contextmanager
def open_trainer(recipe: Recipe, settings: Settings, track: Iterable[str], **more: Any) -> Iterator[Trainer]:
    """Hold the folder of a run with its trackers and its record; `more` goes to `Trainer`.

    Raises
    ------
    WsolError
        If another process trains into the folder, or as `Trainer` raises it.
    """
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.run_folder import hold, record_run
    from wsoltrain.training.tracker import PictureTracker, open_trackers

    written = recipe.model_dump(mode="json")
    with hold(settings.out) as lock, open_trackers(",".join(track), settings.out, written) as trackers:
        trainer = Trainer(recipe, settings, [lock, *trackers], **more)
        trainer.trackers.append(record_run(trainer))
        if shown := [tracker for tracker in trackers if isinstance(tracker, PictureTracker)]:
            from wsoltrain.inference.drawing import Panels

            trainer.trackers.append(Panels(trainer, shown))
        yield trainer


def train(settled: Settled) -> Trainer:
    """Carry out a training, or the rest of it, silently; return it when it has ended.

    Raises
    ------
    WsolError
        As the training raises it.
    """
    with open_trainer(settled.recipe, settled.settings, settled.values["track"]) as trainer:
        trainer.fit()
    return trainer


def train_words(words: Iterable[str]) -> None:
    """Carry out a training by the words of ``wsoltrain fit``; raises as `settle_words` and `train`."""
    train(settle_words(words))


def train_as_one_of_many(
    settled: Settled, watch: Callable[[Trainer], Tracker]
) -> tuple[Trainer, dict[str, Any]] | None:
    """Carry out a training in each of the processes that torchrun started, or in this one alone.

    Parameters
    ----------
    settled : Settled
    watch : callable
        Makes a further tracker of the first process.

    Returns
    -------
    (Trainer, dict) or None
        The training and its result in the first process, None in the others.
    """
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.parallel import close_group, open_group

    recipe, settings = settled.recipe, settled.settings
    group = open_group(settings.device)
    if group.world > 1 and settings.device == "cuda":
        settings = replace(settings, device=f"cuda:{group.local}")
    if not group.first:
        logging.getLogger().setLevel(logging.WARNING)
        Trainer(recipe, settings, [], group=group).fit()
        close_group(group)
        return None
    with open_trainer(recipe, settings, settled.values["track"], group=group) as trainer:
        trainer.trackers.append(watch(trainer))
        result = {"out": str(settings.out), **trainer.fit()}
    close_group(group)
    return trainer, result
