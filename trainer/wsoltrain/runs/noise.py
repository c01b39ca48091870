"""How much noise a selection tolerates: runs chosen again by disturbed boxes (thesis, section 4.6.6 and figure 4.4).

Runs that were trained with ``outcomes=true`` keep the boxes of all validation maps at all thresholds, or the maps where
the truth is masks. Against them each level of noise, drawn several times, is an annotator that picks the epoch of each
run, its threshold, and a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.glossary import format_figure
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import DATASET, STORE, store_of
from wsolpipe.metrics.kept_maps import SUFFIX, CutBoxes, KeptMaps
from wsolpipe.metrics.pixels import PixelEvaluation
from wsolpipe.metrics.protocol import (
    Choice,
    Run,
    entry_of,
    estimate_tau,
    figures,
    figures_of_curves,
    read_runs,
    select,
)
from wsolpipe.metrics.protocol_tables import figures_at
from wsolpipe.pages.charts import Curve, Plot, save_plots
from wsoltrain.runs.evaluate import align
from wsoltrain.runs.settle import A_SPLIT
from wsoltrain.training.scoreboard import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wsolpipe.evaluate.truth import Truth
    from wsolpipe.metrics.protocol import Metric

    #: Noise in per cent, and the number of its draw.
    Level = tuple[int, int]


class _Keys:
    """Keys of ``wsoltrain noise``.

    Attributes
    ----------
    runs
        folder of runs that were trained with outcomes=true test=test
    val
        split that the runs were chosen by
    levels
        noise of the ground-truth boxes or masks, per cent
    draws
        draws of each level
    metric
        figure that chooses; PxAP: of masks; auto: MaxBoxAcc where there are boxes, else PxAP
    plots
        folder for plots: SVG, and PDF and PNG for papers
    """

    runs = Key(kinds.file("folder"))
    dataset = DATASET
    store = STORE
    val = Key(A_SPLIT, "val")
    levels = Key(kinds.list_of(kinds.integer(1)), tuple(range(5, 51, 5)), unit="per cent")
    draws = Key(kinds.integer(1), 3)
    metric = Key(kinds.choice("auto", "MaxBoxAcc", "iou", "PxAP"), "auto")
    plots = Key(kinds.or_null(kinds.file("folder")))


KEYS = keys_of_class(_Keys)
#: Undisturbed ground truth, which the others are compared with.
TRUTH: Level = (0, 0)
#: Where bins of the distance between epochs begin.
APART = (0, 1, 2, 5, 10)
RULES = ("VT", "TT")


@dataclass(frozen=True)
class Study:
    """Choice of each level in each run.

    Attributes
    ----------
    choices : dict of Level to list of Choice
        One a run, in the order of `runs`; `TRUTH` among the levels.
    runs : list of str
        Folders of the runs.
    metric : str
    """

    choices: Mapping[Level, Sequence[Choice]]
    runs: Sequence[str]
    metric: Metric

    def lines(self) -> list[dict[str, Any]]:
        """Figures of each level over runs and draws, ground truth's own first.

        Keys: ``noise`` (per cent); ``VT`` and ``TT``, each with ``mean``, ``min`` and ``max`` of the metric on test at
        the level's own threshold and at the best one of the test split; ``chosen``, the mean over draws of the run that
        the level likes best, at its own threshold; ``lost``, ground truth's mean less that of the level; ``apart``,
        runs by the distance of the epoch from that which ground truth picks (bins begin at `APART`).
        """
        percents = sorted({percent for percent, _ in self.choices})
        lines = [self._line(percent) for percent in percents]
        return [{**line, "lost": lines[0]["VT"]["mean"] - line["VT"]["mean"]} for line in lines]

    def _line(self, percent: int) -> dict[str, Any]:
        levels = [level for level in self.choices if level[0] == percent]
        picked = [choice for level in levels for choice in self.choices[level]]
        runs = {level: [choice.run for choice in self.choices[level]] for level in levels}
        best = [select(runs[level], _name(level), metric=self.metric) for level in levels]
        found: dict[str, Any] = {"noise": percent}
        for rule in RULES:
            values = [self._on_test(choice, rule) for choice in picked]
            found[rule] = {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
        found["chosen"] = float(np.mean([self._on_test(choice, "VT") for choice in best]))
        counts = np.histogram(self.distances(percent), bins=[*APART, np.inf])[0]
        found["apart"] = dict(zip(map(str, APART), counts.tolist(), strict=True))
        return found

    def distances(self, percent: int) -> list[int]:
        """Epochs between what a level picks and what ground truth picks, of each run and draw."""
        return [
            abs(choice.run.epoch - true.run.epoch)
            for level, choices in self.choices.items()
            if level[0] == percent
            for choice, true in zip(choices, self.choices[TRUTH], strict=True)
        ]

    def _on_test(self, choice: Choice, rule: str) -> float:
        truth = entry_of(choice.run.test, "gt", choice.run, "test")
        tau = choice.tau if rule == "VT" and choice.tau is not None else estimate_tau(truth, self.metric)
        return float(figures_at(truth, tau)[self.metric])

    def plots(self) -> dict[str, Plot]:
        """Test figures by level, and the share of runs whose epoch is so near to ground truth's."""
        lines = self.lines()
        span, unit = max(1, lines[-1]["noise"]), 1 if self.metric == "iou" else 100
        across = np.array([line["noise"] for line in lines])
        words = {"mean": "mean", "min": "worst run", "max": "best run"}
        curves = [
            Curve(label, np.array([line["VT"][key] for line in lines]) / unit, across) for key, label in words.items()
        ]
        curves.append(Curve("chosen run", np.array([line["chosen"] for line in lines]) / unit, across))
        figure = Plot(f"{self.metric} on test by noise of validation boxes", "noise, per cent", curves, far=span)
        noisy = [line["noise"] for line in lines if line["noise"]]
        shown = list(dict.fromkeys((noisy[0], noisy[len(noisy) // 2], noisy[-1])))
        far = max(1, *(distance for percent in shown for distance in self.distances(percent)))
        steps = np.arange(far + 1)
        near = [
            Curve(f"{percent} %", np.mean(np.array(self.distances(percent))[:, None] <= steps, 0), steps)
            for percent in shown
        ]
        apart = Plot("Epochs at most so far from ground truth's", "epochs apart", near, far=far)
        return {"noise-figures": figure, "noise-epochs": apart}


def study_noise(folder: Path, truth: Truth, *, percents: Sequence[int], draws: int, metric: Metric) -> Study:
    """Choose again, of all runs below a folder, by ground truth and by each level of noise.

    Parameters
    ----------
    folder : Path
        Runs of ``wsoltrain fit`` or trials of a search with ``outcomes=true`` and ``test=``.
    truth : Truth
        Ground truth of the validation split.
    percents : sequence of int
        Levels of noise (`wsolpipe.metrics.noise`).
    draws : int
        Of each level, with seeds 0, 1, 2 …
    metric : str
        MaxBoxAcc or iou of boxes, PxAP of masks.

    Raises
    ------
    DataError
        If no run kept its boxes, one has no test figures, or rows have no ground truth or are of another split.
    """
    levels = [TRUTH, *((percent, draw) for percent in percents for draw in range(draws))]
    disturbed = [truth.disturbed(percent / 100, draw) if percent else truth for percent, draw in levels]
    places = sorted(place.parent for place in folder.rglob(OUTCOMES) if place.is_dir())
    if not places:
        msg = f"no run in {folder} kept the boxes of its validation maps"
        raise DataError(msg, hint="wsoltrain fit outcomes=true test=test …, or search with both")
    choices: dict[Level, list[Choice]] = {level: [] for level in levels}
    cache: dict[tuple[int, bytes], list[list[Any]]] = {}
    for place in places:
        epochs = list(_epochs(place, levels, disturbed, cache, metric))
        for level in levels:
            choice = select(epochs, _name(level), metric=metric)
            kept = {_name(level): choice.run.validation[_name(level)]}
            run = Run(str(place.relative_to(folder)), choice.run.epoch, kept, choice.run.test)
            choices[level].append(Choice(run, choice.tau, choice.score))
    return Study(choices, [str(place.relative_to(folder)) for place in places], metric)


def _name(level: Level) -> str:
    return f"noisy:{level[0]}, draw {level[1]}" if level != TRUTH else "gt"


def _epochs(
    place: Path, levels: Sequence[Level], disturbed: Sequence[Truth], cache: dict[tuple[int, bytes], list[list[Any]]],
    metric: Metric,
) -> Iterator[Run]:  # fmt: skip
    """Epochs of a run, each level an annotator of validation."""
    known = {run.epoch: run for run in read_runs(place / "runs")}
    masks = metric == "PxAP"
    files = sorted(path for path in (place / OUTCOMES).glob("*.npz") if path.name.endswith(SUFFIX) == masks)
    if not files:
        msg = f"{place / OUTCOMES} holds no epoch with {'maps' if masks else 'boxes'}"
        raise DataError(msg, hint="a training with outcomes=true keeps boxes, and maps where the truth is masks")
    for path in files:
        number = path.name.removesuffix(SUFFIX).removesuffix(".npz")
        run = known.get(int(number))
        if run is None or "gt" not in run.test:
            msg = f"{place}, epoch {number} has no figures of a test split"
            raise DataError(msg, hint="train with test=test, which ground truth scores after each epoch")
        if masks:
            found = _mask_entries(KeptMaps.read(path), disturbed)
        else:
            kept = CutBoxes.read(path)
            split = (kept.side, kept.rows.tobytes())
            if split not in cache:
                cache[split] = _scored(kept, disturbed)
            sets = cache[split]
            rows = [row for row, boxes in enumerate(sets[0]) if len(boxes)]
            judged = next((entry for entry in run.validation.values() if isinstance(entry, dict)), run.test["gt"])
            curves = kept.curves(sets, thresholds=len(judged["iou"]))
            found = [figures_of_curves(curve[rows]) for curve in curves]
        entries = {_name(level): entry for level, entry in zip(levels, found, strict=True)}
        yield Run(run.run, run.epoch, entries, {"gt": run.test["gt"]})


def _mask_entries(kept: KeptMaps, disturbed: Sequence[Truth]) -> list[dict[str, Any]]:
    """Figures of kept maps against the masks of each level."""
    _check_rows(kept.rows, disturbed[0])
    frame = Frame(side=kept.side, normalise=not kept.unit)
    found = [PixelEvaluation() for _ in disturbed]
    for place, row in enumerate(kept.rows.tolist()):
        score = frame.map(kept.values[place], disturbed[0].rows.ids[row])
        for truth, own in zip(disturbed, found, strict=True):
            own.add(score, *(truth.mask(row, kept.side) or (None,)))
    return [figures(own) for own in found]


def _check_rows(rows: Any, truth: Truth) -> None:
    known = len(truth.rows.ids)
    if len(rows) and (rows.max() >= known or rows.min() < 0):
        msg = f"the runs kept other rows than the {known} rows of {truth.rows.split}"
        raise DataError(msg, hint="val= the split that the runs were trained with, and their dataset= and store=")


def _scored(kept: CutBoxes, disturbed: Sequence[Truth]) -> list[list[Any]]:
    """Boxes of each level for the kept rows, in the frame."""
    rows, frame = disturbed[0].rows, Frame(side=kept.side)
    where = f"the {len(rows.ids)} rows of {rows.split}"
    _check_rows(kept.rows, disturbed[0])
    sizes = [(int(rows.sizes[row][0]), int(rows.sizes[row][1])) for row in kept.rows]
    found = [
        [frame.boxes(truth.boxes(int(row)), size) for row, size in zip(kept.rows, sizes, strict=True)]
        for truth in disturbed
    ]
    if not any(len(boxes) for boxes in found[0]):
        msg = f"{where} have no ground-truth box to be disturbed"
        raise DataError(msg, hint="metric=PxAP disturbs masks")
    return found


def study(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Choose again as `KEYS` say; the figures, and lines of text.

    Raises
    ------
    ConfigError
        If a level is above 100 %.
    DataError
        As `study_noise`.
    """
    from wsolpipe.evaluate.results import StoreResults
    from wsolpipe.evaluate.truth import find_truth
    from wsolpipe.images.dataset import load_dataset

    wrong = [level for level in values["levels"] if level > 100]
    if wrong:
        msg = f"levels={wrong[0]}: noise is a percentage from 1 to 100"
        raise ConfigError(msg, hint="levels=5,10,20")
    dataset = load_dataset(values["dataset"])
    results = StoreResults(store_of(values["store"]), dataset.name, dataset.mask_root())
    truth, draws = find_truth(results, results.rows(values["val"]), "gt"), values["draws"]
    metric = values["metric"]
    if metric == "auto":
        metric = "MaxBoxAcc" if truth.found or not truth.masks else "PxAP"
    found = study_noise(Path(values["runs"]), truth, percents=values["levels"], draws=draws, metric=metric)
    lines = found.lines()
    files = save_plots(Path(values["plots"]), found.plots()) if values["plots"] else []
    text = f"{len(found.runs)} runs, {draws} draws of each level; {metric} on test"
    result = {"runs": len(found.runs), "draws": draws, "metric": metric, "levels": lines}
    return result, [*align(_tabulate(lines, metric)), text, *map(str, files)]


def _tabulate(lines: Sequence[Mapping[str, Any]], metric: str) -> list[list[str]]:
    """One line for each level: figures at its own threshold and at the test split's, and runs by distance of epochs."""
    begins = list(lines[0]["apart"])
    ends = [*(str(int(after) - 1) for after in begins[1:]), ""]
    names = [
        first if first == last else f"{first}-{last}" if last else f"{first}+"
        for first, last in zip(begins, ends, strict=True)
    ]
    rules = [word for rule in RULES for word in (f"{rule} mean", "min", "max")]
    table = [["noise", *rules, "chosen", "lost", *(f"{name} apart" for name in names)]]
    for line in lines:
        shown = [line[rule][key] for rule in RULES for key in ("mean", "min", "max")]
        figures = [str(format_figure(metric, value)) for value in (*shown, line["chosen"], line["lost"])]
        table.append([f"{line['noise']} %" if line["noise"] else "gt", *figures, *map(str, line["apart"].values())])
    return table
