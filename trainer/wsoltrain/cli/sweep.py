"""``wsoltrain fit sweep.KEY=a,b,c``, and ``fit`` on a cluster: a training for each value, and one table at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.keys.console import print_json
from wsolpipe.keys.words import split_sweep
from wsoltrain.cli.sites import site_of
from wsoltrain.cli.tables import align

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wsoltrain.selection.trainings import Site
    from wsoltrain.training.settings import Settings


@dataclass(frozen=True)
class Variant:
    """One of several trainings: what tells it from the others, its folder, and words of ``fit`` without ``out=``."""

    point: Mapping[str, str]
    place: Path
    words: tuple[str, ...]


PLACES = ("cluster", "parallel", "out")


def run_sweep(
    words: Sequence[str],
    profile: tuple[str, ...],
    *,
    settle: Callable[[Sequence[str]], tuple[dict[str, Any], Settings]],
    train: Callable[[Sequence[str]], None],
    as_json: bool,
) -> None:
    """Train every variant, each in a folder named after its values, and show the best epoch of each.

    Parameters
    ----------
    words : sequence of str
        Of ``wsoltrain fit``, sweeps among them.
    profile : tuple of str
        Words of the site's profile.
    settle : callable
        Checks the words of one training; returns its keys' values and its settings.
    train : callable
        Carries it out in this process.

    Raises
    ------
    ConfigError
        If a variant's words do not fit; before the first one is trained.
    RunFailed
        If a training failed, after the others have ended.
    """
    sweep = split_sweep(words)
    swept = [name for name in sweep.axes if name in PLACES]
    if swept:
        msg = f"sweep.{swept[0]}= cannot be: it says where trainings go, not what they learn"
        raise ConfigError(msg)
    points = sweep.points()
    settled = [settle(sweep.words_of(point)) for point in points]
    values, out = settled[0][0], settled[0][1].out
    if sweep.axes:
        out = Path(values["out"] or f"sweeps/{out.name}")
    places = [out / _name(point) if point else out for point in points]
    variants = [
        Variant(point, place, tuple(_without(sweep.words_of(point))))
        for point, place in zip(points, places, strict=True)
    ]
    run_variants(variants, out, site_of(values, profile), train, as_json=as_json)


def run_variants(
    variants: Sequence[Variant], out: Path, site: Site, train: Callable[[Sequence[str]], None], *, as_json: bool
) -> None:
    """Train variants of a recipe and show the best epoch of each; raises as `run_sweep`."""
    from wsoltrain.selection.trainings import Training, run_trainings

    trainings = [Training(each.place.name, (*each.words, f"out={each.place}")) for each in variants]
    failed = run_trainings(trainings, site, out / "logs", lambda each: train(each.words))
    lines = [_line(each.point, each.place) for each in variants if each.place.name not in failed]
    if as_json:
        print_json({"out": str(out), "runs": lines, "failed": failed})
    elif lines:
        for text in align(_table(lines)):
            click.echo(text)
        click.echo(f"wsoltrain select runs={out} chooses among all epochs")
    if failed:
        msg = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise RunFailed(msg, hint="the same command resumes what was not finished")


def _name(point: dict[str, str]) -> str:
    """Name of a folder, such as ``lr=0.1,epochs=5``."""
    return ",".join(f"{key}={text}" for key, text in point.items()).replace("/", "_").replace(" ", "")


def _without(words: tuple[str, ...]) -> list[str]:
    """Words of one training: what says where trainings go is left out."""
    return [word for word in words if word.partition("=")[0] not in PLACES]


def _line(point: Mapping[str, str], place: Path) -> dict[str, Any]:
    """Figures of a run's best epoch by the annotator that chose while it was trained."""
    from wsolpipe.metrics.protocol import annotator_of, metric_of, read_runs, select
    from wsolpipe.metrics.protocol_tables import figures_at

    runs = read_runs(place / "runs")
    by = annotator_of(runs)
    metric = metric_of(runs, by)
    choice = select(runs, by, metric=metric)
    line = {**point, "out": str(place), "by": by, "metric": metric, "epoch": choice.run.epoch}
    line |= {"tau": choice.tau, "validation": choice.score, "test": None}
    if "gt" in choice.run.test and choice.tau is not None:
        line["test"] = figures_at(choice.run.test["gt"], choice.tau)[metric]
    return line


def _table(lines: list[dict[str, Any]]) -> list[list[str]]:
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
