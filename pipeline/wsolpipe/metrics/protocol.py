"""The realistic protocol (thesis, chapter 4): epoch, hyper-parameters and threshold chosen without test annotation.

A folder holds one small JSON file a run and epoch::

    {"format": "wsolpipe-run/1",
     "run": "cam-0042", "epoch": 7, "parameters": {"lr": 0.01},
     "validation": {"accuracy": 71.3,
                    "gt":   {"rows": 1000, "largest": {"30": [...], "50": [...], "70": [...]},
                             "all": {"30": [...], "50": [...], "70": [...]}, "iou": [...]},
                    "rpn": {...}, "clip": {...}, "ss": {...}},
     "test": {"gt": {...}, "otsu": {...}}}

- ``accuracy``: classification accuracy in per cent, the annotator ``cls``. Every other name under ``validation`` is an
  annotator: boxes of that kind were the ground truth of these figures (``gt`` the true ones, the rest pseudo-boxes).
- ``largest``, ``all``: images correct at each threshold 0, 1/T, 2/T … by IoU level (largest contour; all contours);
  ``iou``: mean IoU (fraction) of the largest contour at each threshold; ``rows``: the denominator. T may differ between
  validation and test. Files of earlier versions have ``largest`` at level 50 alone; see `lacking`.
- Mask data hold ``{"rows", "PxAP": per cent, "iou": pooled pixel IoU at each threshold}`` instead.
- ``otsu`` (optional): the same with one threshold only, Otsu's of each map.
- ``dataset`` (optional): its name; runs of several data sets are not chosen among.

``figures`` makes such an entry from an evaluation, ``write_run`` the file; `wsolpipe.metrics.protocol_tables` compares
what annotators choose. Selecting reads ``validation`` entries of the one annotator asked for and nothing else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError, shorten, unknown
from wsolpipe.metrics.confidence import FULL, describe_plateau, middle
from wsolpipe.metrics.pixels import PixelEvaluation, pxap_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from wsolpipe.metrics.accumulate import MaxBoxEvaluation

Metric = Literal["MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP"]

#: Name of what a training says about itself: where it ran, what of the store it read, its hours.
RUN_FILE = "run.json"
#: How the file of an epoch is named.
_EPOCH = re.compile(r"-\d{4,}\.json$")
FORMAT = "wsolpipe-run/1"
ANNOTATORS = ("cls", "gt", "rpn", "clip", "ss")
#: Format of figures of a network that was trained on ground truth: shown beside others, never selected from.
CEILING = "wsolpipe-ceiling/1"
METRICS = ("MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP")
#: Names of the levels of IoU, and the levels.
IOU_LEVELS = {"30": 0.3, "50": 0.5, "70": 0.7}


@dataclass(frozen=True)
class Run:
    """One run at one epoch; ``validation``, ``test`` and ``dataset`` as in the module's description."""

    run: str
    epoch: int
    validation: Mapping[str, Any]
    test: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""

    @property
    def name(self) -> str:
        """Run and epoch as text, for messages."""
        return f"run {self.run}, epoch {self.epoch}"


#: A threshold this near to 0 or 1 is doubted.
EDGE = 0.02


@dataclass(frozen=True)
class Choice:
    """A chosen model, its threshold where the annotator gives one, and the ``score`` that chose it."""

    run: Run
    tau: float | None
    score: float


def figures(evaluation: MaxBoxEvaluation | PixelEvaluation) -> dict[str, Any]:
    """Return the JSON entry of one evaluation."""
    if isinstance(evaluation, PixelEvaluation):
        iou = evaluation.curves()["iou"]
        ap = float(pxap_of(evaluation.histograms))
        rows = evaluation.rows - evaluation.rows_without_mask
        return {"rows": rows, "PxAP": ap, "iou": [round(float(share), 6) for share in iou]}

    def counts(name: str) -> list[int]:
        return [round(share * evaluation.rows_scored) for share in evaluation.curve(name)]

    return {
        "rows": evaluation.rows_scored,
        **{
            mode: {name: counts(f"{mode} {level}") for name, level in IOU_LEVELS.items()} for mode in ("largest", "all")
        },
        "iou": [round(float(share), 6) for share in evaluation.curve("largest iou")],
    }


def figures_of_curves(curves: ArrayLike) -> dict[str, Any]:
    """Return the JSON entry of curves [N, T] of the largest contour's IoU, without the counts of all contours."""
    values = np.asarray(curves, dtype=np.float64)
    largest = {name: (values >= level).sum(axis=0).tolist() for name, level in IOU_LEVELS.items()}
    return {"rows": len(values), "largest": largest, "iou": values.mean(axis=0).round(6).tolist()}


def figures_of_ious(ious: ArrayLike) -> dict[str, Any]:
    """Return the JSON entry of boxes that have no threshold, such as Otsu's: one IoU a scored row."""
    values = np.asarray(ious, dtype=np.float64).ravel()
    counts = {name: [int((values >= level).sum())] for name, level in IOU_LEVELS.items()}
    mean = round(float(values.mean()), 6) if values.size else 0.0
    return {"rows": values.size, "largest": counts, "all": counts, "iou": [mean]}


def write_run(folder: str | Path, run: Run) -> Path:
    """Write one file ``<run>-<epoch>.json`` and return its path."""
    named = {"dataset": run.dataset} if run.dataset else {}
    figures = {"parameters": run.parameters, "validation": run.validation, "test": run.test}
    content = {"format": FORMAT, "run": run.run, "epoch": run.epoch, **named, **figures}
    return _write(Path(folder) / f"{run.run}-{run.epoch:04d}.json", content)


def write_ceiling(folder: str | Path, figures: Mapping[str, Any]) -> Path:
    """Write ``ceiling.json``, which `read_runs` refuses, and return its path."""
    return _write(Path(folder) / "ceiling.json", {"format": CEILING, **figures})


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return path


def read_runs(folder: str | Path) -> list[Run]:
    """Return all runs and epochs of a folder and its sub-folders, by run and epoch.

    JSON files of other programs, and what trainings say about themselves, are passed over.

    Raises
    ------
    DataError
        If there is none, or one is truncated, incomplete or a ceiling, or two files are of one run and epoch, or runs
        are of several data sets.
    """
    runs: dict[tuple[str, int], Run] = {}
    for path in sorted(Path(folder).rglob("*.json")):
        run = _read_run(path)
        if run is None:
            continue
        if runs.setdefault((run.run, run.epoch), run) is not run:
            msg = f"{path} is a second file of {run.name}"
            raise DataError(msg)
    if not runs:
        index = next(Path(folder).rglob("index/*/manifest.json"), None)
        where = f"no training run found in {folder}: it holds no JSON file of an epoch"
        if index is not None:
            where = f"{index.parents[4]} is a store of labels, not a folder of training runs"
        raise DataError(
            where, hint="name the folder of a training: the out= of wsoltrain fit, as in runs=runs/dips-birds"
        )
    found = [runs[key] for key in sorted(runs)]
    named = {run.dataset: run.name for run in found if run.dataset}
    if len(named) > 1:
        msg = f"the runs are of several data sets: {', '.join(f'{run} of {name}' for name, run in named.items())}"
        raise DataError(msg, hint="runs= the folder of one data set's runs")
    return found


def _read_run(path: Path) -> Run | None:
    """Read the file of an epoch; None for a JSON file of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        if not _EPOCH.search(path.name):
            return None
        msg = f"{path} is not JSON: {error}"
        raise DataError(msg, hint="it was cut off or damaged: remove it to leave its epoch out") from error
    form = content.get("format") if isinstance(content, dict) else None
    if form == CEILING:
        msg = f"{path} is a ceiling: its network was trained on ground truth, so nothing may be selected by it"
        raise DataError(msg, hint="runs= a folder that wsoltrain fit wrote")
    if not str(form).startswith(FORMAT.partition("/")[0] + "/"):
        return None
    if form != FORMAT:
        msg = f"{path} is of the format {form}; this version reads {FORMAT}"
        raise DataError(msg, hint="read it with the version that wrote it, or a newer one")
    missing = [key for key in ("run", "epoch", "validation") if key not in content]
    if missing:
        msg = f"{path} lacks {', '.join(missing)}"
        raise DataError(msg)
    optional = {name: content[name] for name in ("test", "parameters", "dataset") if name in content}
    run = Run(str(content["run"]), int(content["epoch"]), content["validation"], **optional)
    for split in ("validation", "test"):
        for name, entry in getattr(run, split).items():
            if name != "accuracy" and not _is_entry(entry):
                msg = f"{path}: the {split} figures of {shorten(str(name))} are not whole"
                raise DataError(msg, hint="remove the file to leave its epoch out, or train again")
    return run


def _is_entry(entry: Any) -> bool:
    """Whether figures have a number of rows, and numbers at equally many thresholds in every curve."""
    if not isinstance(entry, dict) or not isinstance(entry.get("rows"), int):
        return False
    levels = [entry.get(mode, {}) for mode in ("largest", "all")]
    if not all(isinstance(each, dict) for each in levels):
        return False
    curves = [entry.get("iou"), *(curve for each in levels for curve in each.values())]
    numbers = all(isinstance(curve, list) and all(isinstance(each, int | float) for each in curve) for curve in curves)
    return numbers and len({len(curve) for curve in curves}) == 1 and len(curves[0]) > 0


def curve_of(entry: Mapping[str, Any], metric: Metric) -> NDArray[np.float64]:
    """Return the curve (per cent or IoU, by threshold) that a metric maximises to choose its threshold.

    MaxBoxAcc: largest contour at IoU 0.5. MaxBoxAccV2: mean over its three levels, so that one threshold serves all.
    iou and PxAP: the IoU; PxAP itself has no threshold.
    """
    if metric in ("iou", "PxAP"):
        return np.asarray(_field(entry, "iou"), dtype=np.float64)
    every = metric == "MaxBoxAccV2"
    levels = [_field(entry, "all" if every else "largest")[name] for name in (IOU_LEVELS if every else ("50",))]
    return np.asarray(100 * np.mean(np.asarray(levels, dtype=np.float64), axis=0) / max(entry["rows"], 1))


def estimate_tau(entry: Mapping[str, Any], metric: Metric = "MaxBoxAcc") -> float:
    """Return the best threshold of one evaluation, the middle of its plateau: on pseudo-boxes, the tau for test."""
    curve = curve_of(entry, metric)
    return middle(curve) / len(curve)


def rank(entry: Mapping[str, Any], metric: Metric, epoch: int) -> tuple[float, ...]:
    """Return what models are compared by, the larger the better: the metric, then what breaks ties.

    Boxes: MaxBoxAccV2, then IoU, then the later epoch. Masks: IoU, then the later epoch.
    """
    ties: tuple[Metric, ...] = ("MaxBoxAccV2", "iou") if "all" in entry else ("iou",)
    return (score_of(entry, metric), *(score_of(entry, name) for name in ties), epoch)


def doubts(runs: Sequence[Run], annotator: str, choice: Choice, *, metric: Metric = "MaxBoxAcc") -> list[str]:
    """Return what makes a choice less certain than it looks, a sentence each.

    Ties, saturation, a flat curve, a threshold at an end of its range, and a first epoch that no later one surpassed.
    """
    if annotator == "cls":
        return []
    scores = [score_of(entry_of(run.validation, annotator, run, "validation"), metric) for run in runs]
    tied = sum(score == choice.score for score in scores)
    found = []
    if tied > 1:
        found.append(f"{tied} of {len(runs)} epochs tie at {choice.score:.2f}: MaxBoxAccV2, IoU and epoch decided")
    if metric != "iou" and choice.score >= FULL:
        found.append(f"saturated: {annotator} scores {choice.score:.2f}; metric=iou or metric=MaxBoxAccV2 tells more")
    flat = describe_plateau(curve_of(entry_of(choice.run.validation, annotator, choice.run, "validation"), metric))
    epochs = sorted(run.epoch for run in runs if run.run == choice.run.run)
    if len(epochs) > 2 and choice.run.epoch == epochs[0]:
        found.append(f"the first of {len(epochs)} epochs scores best: by {annotator}, training made the maps worse")
    return [*found, *([flat] if flat else []), *doubt_threshold(choice.tau)]


def doubt_threshold(tau: float | None) -> list[str]:
    """Return a sentence where boxes at a threshold say little of their maps: almost all of the image, or its peak."""
    if tau is None or EDGE < tau < 1 - EDGE:
        return []
    return [f"threshold {tau:.3f}: boxes enclose {'nearly the whole image' if tau <= EDGE else 'the peak alone'}"]


def annotator_of(runs: Sequence[Run]) -> str:
    """Return the annotator that chose while the runs were trained: the first one that they name, ``cls`` without any.

    Raises
    ------
    ConfigError
        If runs name different ones.
    """
    first = {next((name for name in run.validation if name != "accuracy"), "cls"): run.name for run in runs}
    if len(first) != 1:
        msg = (
            f"the runs were not chosen by one annotator: {', '.join(f'{run} by {name}' for name, run in first.items())}"
        )
        raise ConfigError(msg, hint="by=NAME: a stage of pseudo-boxes that all runs were scored against, cls, or gt")
    return str(next(iter(first)))


def metric_of(runs: Sequence[Run], annotator: str) -> Metric:
    """Return the metric that suits an annotator's figures: PxAP of masks, else MaxBoxAcc; of ``cls``, of the test's."""
    names = ("gt", *runs[0].validation) if annotator == "cls" else (annotator,)
    places = (runs[0].validation, runs[0].test)
    entries = [where[name] for where in places for name in names if name in where and name != "accuracy"]
    return "PxAP" if entries and "PxAP" in entries[0] else "MaxBoxAcc"


def select(runs: Iterable[Run], annotator: str, *, metric: Metric = "MaxBoxAcc") -> Choice:
    """Choose run, epoch and threshold by one annotator's validation figures, and read nothing else.

    Parameters
    ----------
    runs : iterable of Run
        Ties are broken as in `rank`; of runs that are equal in all of it the first wins.
    annotator : str
        ``"cls"`` chooses by classification accuracy and gives no threshold.
    metric : str
        What is maximised: ``"MaxBoxAcc"``, ``"MaxBoxAccV2"`` (each level at its own best threshold), ``"iou"``,
        ``"PxAP"``.

    Raises
    ------
    DataError
        If a run has no figures of this annotator.
    ConfigError
        If the metric is unknown.
    """
    best: Choice | None = None
    highest: tuple[float, ...] = ()
    for run in runs:
        if annotator == "cls":
            choice = Choice(run, None, float(entry_of(run.validation, "accuracy", run, "validation")))
            height: tuple[float, ...] = (choice.score, run.epoch)
        else:
            entry = entry_of(run.validation, annotator, run, "validation")
            choice = Choice(run, estimate_tau(entry, known_metric(metric)), score_of(entry, metric))
            height = rank(entry, metric, run.epoch)
        if best is None or height > highest:
            best, highest = choice, height
    if best is None:
        msg = "no training runs to choose from"
        raise DataError(msg)
    return best


def score_of(entry: Mapping[str, Any], metric: Metric) -> float:
    """Return the value that a model is chosen by: the metric at its own best thresholds."""
    if metric == "PxAP":
        return float(_field(entry, "PxAP"))
    if metric == "MaxBoxAccV2":
        counts = _field(entry, "all")
        return float(np.mean([100 * max(counts[name]) / max(entry["rows"], 1) for name in IOU_LEVELS]))
    return float(curve_of(entry, metric).max())


def entry_of(entries: Mapping[str, Any], name: str, run: Run, split: str) -> Any:
    """Return the figures of one annotator.

    Raises
    ------
    DataError
        If there are none.
    """
    try:
        return entries[name]
    except KeyError:
        names = ", ".join(sorted("cls" if entry == "accuracy" else entry for entry in entries))
        held = f"those of: {names}" if names else "none"
        msg = f"{run.name} has no {split} figures of {shorten(name)!r}; it has {held}"
        raise DataError(msg) from None


def _field(entry: Mapping[str, Any], name: str) -> Any:
    if name not in entry:
        msg = f"figures of this kind hold no {name!r}, only {sorted(entry)}"
        raise DataError(msg, hint="box data: MaxBoxAcc, MaxBoxAccV2 or iou; mask data: PxAP or iou")
    return entry[name]


def known_metric(metric: Metric) -> Metric:
    """Return a metric that there is.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if metric not in METRICS:
        raise ConfigError(unknown("metric", metric, METRICS))
    return metric
