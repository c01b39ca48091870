"""Evaluation by ``wsolpipe eval``: a stage of boxes, maps or masks, or a folder of maps, scored and compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.box_scores import over_time
from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_sources import FolderMaps, RowTable, StageMaps, StoredSource, check_rows, rows_of_index
from wsolpipe.evaluate.results import Ranks, Results, counterpart, read_beside
from wsolpipe.evaluate.scored import BEST, OTSU, Chooser, Scored, Threshold, score
from wsolpipe.evaluate.truth import TRUTH, Truth, find_truth
from wsolpipe.metrics.maxbox import CONVENTIONS
from wsolpipe.metrics.noise import LEVELS, LOSSES
from wsolpipe.metrics.scoremaps import ScoreMaps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.map_scores import MapScores
    from wsolpipe.keys.run_keys import RowList
    from wsolpipe.metrics.protocol import Metric

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Options:
    """Options of an evaluation besides the stage and its split: ground truth, thresholds, metrics.

    Attributes
    ----------
    slot : int
        Which map of a stage of maps.
    key : str or None
        Which of several results of a stage.
    maps : str or None
        Folder of score maps instead of a stage.
    labels : {"true", "predicted"}
        Whose class the maps of a folder are of; a stage knows.
    against : str
        See `wsolpipe.evaluate.truth.find_truth`.
    convention : {"standard", "clean"}
    resolution : int
        Side of the frame; anything but 224 only with ``clean``.
    normalise : bool
        Min-max each map.
    tau : float, "otsu" or None
        Threshold chosen beforehand; "otsu" for each map's own.
    tau_from : str or None
        What to estimate the threshold on, in the split `tau_split`, with the maps of `tau_maps` (a folder) or of the
        same stage with the same parameters; the words of `against`.
    metric : str or None
        What `tau_from` maximises; default MaxBoxAcc, PxAP's counterpart (pixel IoU) on masks.
    corloc : str or None
        ``pooled`` or ``class``: CorLoc of the maps at one threshold, or (an oracle) at each class's own best.
    figures : collection of str or None
        Names of `wsolpipe.evaluate.figures.FIGURES` that are counted of maps; None for all.
    interval : bool
        Bootstrap intervals; memory grows with the rows then.
    beside : str or None
        For a paired test: another key, another stage (``STAGE`` or ``STAGE:KEY``), or another folder of maps.
    noise : str or None
        ``boxes`` or ``masks``: what thresholds become when what they are chosen by (`tau_from`, else `against`) is
        disturbed.
    threads : int or None
        Threads that score maps and read masks; one a core by default.
    seed : int
        Of the noise.
    rows : RowList or None
        The only images that are scored; all by default. A threshold is chosen on all rows of its split.
    source : callable
        From a stage of maps, a slot and the rows to a `StoredSource`: `StageMaps`, or one that chooses among slots.
    ranks : callable or None
        From the rows to their classes by another network, for Top-1 and Top-5 figures; None for what the maps say.
    """

    slot: int = 0
    key: str | None = None
    maps: str | None = None
    labels: str = "true"
    against: str = "truth"
    convention: str = "standard"
    resolution: int = 224
    normalise: bool = True
    tau: float | Literal["otsu"] | None = None
    tau_from: str | None = None
    tau_split: str = "val"
    tau_maps: str | None = None
    metric: str | None = None
    corloc: str | None = None
    figures: Collection[str] | None = None
    interval: bool = False
    beside: str | None = None
    noise: str | None = None
    threads: int | None = None
    seed: int = 0
    rows: RowList | None = None
    source: Callable[[StageView, int, RowTable], StoredSource] = StageMaps
    ranks: Callable[[RowTable], Ranks] | None = None

    def frame(self) -> Frame:
        """Return how maps and boxes meet."""
        return Frame(CONVENTIONS[self.convention], self.resolution, self.normalise)

    def of_predictions(self, params: Mapping[str, Any]) -> Options:
        """Return options for a stage of a localizer's maps, scored as the trainer scores them.

        Its frame and scaling are those of its parameters `side` and `unit`, and its own threshold `tau` is taken where
        none is asked for. Of any other stage, these options.
        """
        if not {"tau", "unit", "side"} <= params.keys():
            return self
        tau = params["tau"] if self.tau is None and self.tau_from is None else self.tau
        return replace(self, normalise=not params["unit"], resolution=int(params["side"]), tau=tau)


@dataclass(frozen=True)
class Evaluated:
    """Figures, and the data of their curves and plots.

    Attributes
    ----------
    figures : dict
    maps : MapScores or None
    view : StageView or None
        The stage that was scored; None for a folder.
    ious : dict of str to float array [rows]
        Of boxes: ``iou_top1``, ``iou_best5``, ``iou_centre`` of each scored row; of masks ``mask_iou``,
        ``mask_iou_centre``.
    scored : Scored or None
        With what each row adds, for further comparisons.
    """

    figures: dict[str, Any]
    maps: MapScores | None = None
    view: StageView | None = None
    ious: dict[str, Array] = field(default_factory=dict)
    scored: Scored | None = None


def evaluate(results: Results, stage: str | None, split: str, options: Options) -> Evaluated:
    """Score a stage of boxes, of maps or of masks, or a folder of maps.

    Parameters
    ----------
    results : Results
        Where stages and rows are looked up.
    stage : str or None
        None for the folder ``options.maps``.
    split : str
    options : Options

    Raises
    ------
    ConfigError
        If the stage holds neither boxes nor maps nor masks, the folder no map of the split, or options contradict
        each other.
    StoreError
        If the stage is not there or not finished.
    DataError
        If a map or mask cannot be read or scored.
    """
    if stage is None:
        rows = results.rows(split)
        head = {"maps": options.maps, "dataset": results.dataset, "split": split}
        return _evaluate_maps(results, _folder(options, rows), rows, options, head, None)
    view = results.view(stage, split, options.key)
    rows = rows_of_index(results.index_of(view))
    head = {"stage": stage, "dataset": view.dataset, "split": split, "key": view.key}
    if "maps" not in view.manifest.arrays:
        return _evaluate_plain(results, view, rows, options, head)
    both = "boxes" in view.manifest.arrays  # maps at the stage's own threshold, and beside them its boxes
    options = options.of_predictions(view.manifest.params) if both else options
    found = _evaluate_maps(results, options.source(view, options.slot, rows), rows, options, head, view)
    if both:
        truth = _truth(results, rows, options)
        boxes = score(view, truth).boxes if truth.found else None
        found.figures.update({} if boxes is None else {"boxes": boxes.figures})
        found.figures.update(_video(over_time(view, results.index_of(view), boxes)))
    return found


def _truth(results: Results, rows: RowTable, options: Options) -> Truth:
    """Return the truth of the requested rows."""
    truth = find_truth(results, rows, options.against)
    if options.rows is None:
        return truth
    return truth.of_rows(options.rows.find(rows.ids, dataset=results.dataset, split=rows.split))


def _video(found: dict[str, Any]) -> dict[str, Any]:
    return {"video": found} if found else {}


def _evaluate_plain(
    results: Results, view: StageView, rows: RowTable, options: Options, head: dict[str, Any]
) -> Evaluated:
    """Score a stage of boxes or of masks, which have no threshold."""
    given = {name for name in ("tau", "tau_from", "noise", "metric", "corloc") if getattr(options, name) is not None}
    given |= {"select"} if options.source is not StageMaps else set()
    given |= {"classifier"} if options.ranks is not None else set()
    given |= {"figures"} if options.figures is not None else set()
    kind = "boxes" if "boxes" in view.manifest.arrays else "masks"
    if given and kind in view.manifest.arrays:
        msg = f"{', '.join(sorted(given))}: {view.stage} holds {kind}, which have no threshold"
        raise ConfigError(msg, hint="these arguments are for maps")
    truth = _truth(results, rows, options)
    scored = score(view, truth)
    result = {**head, "against": truth.name, **scored.figures()}
    if scored.boxes is not None:
        result |= _video(over_time(view, results.index_of(view), scored.boxes))
    if options.interval and scored.rows:
        result["intervals"] = scored.intervals()
    if options.beside:
        stage, key = read_beside(view, options.beside)
        other = results.view(stage, view.split, key)
        tests = scored.tests(score(other, truth))
        rows_of_both = next((test["rows"] for test in tests.values()), 0)
        result["beside"] = {"stage": other.stage, "key": other.key, "rows": rows_of_both, **tests}
    if scored.boxes is not None:
        ious = {name: scored.boxes.ious[name] for name in ("iou_top1", "iou_best5", "iou_centre")}
        return Evaluated(result, view=view, ious=ious, scored=scored)
    assert scored.masks is not None
    ious = {"mask_iou": np.array(scored.masks.ious), "mask_iou_centre": np.array(scored.masks.centre)}
    return Evaluated(result, view=view, ious=ious, scored=scored)


def _evaluate_maps(
    results: Results,
    source: StoredSource,
    rows: RowTable,
    options: Options,
    head: dict[str, Any],
    view: StageView | None,
) -> Evaluated:
    chooser = None if options.tau_from is None else _chooser(results, options, view)
    truth = _truth(results, rows, options)
    ranks = None if options.ranks is None else options.ranks(rows)
    rule = chooser or _given(options.tau, view)
    scored = score(
        source, truth, rule, frame=options.frame(), ranks=ranks, keep=options.interval or options.beside is not None,
        threads=options.threads, classes=options.corloc is not None, more=options.figures,
    )  # fmt: skip
    assert scored.maps is not None
    result = {**head, "against": truth.name, **source.origin, **({"classifier": ranks.name} if ranks else {})}
    result |= scored.figures()
    if options.corloc == "class" and "CorLoc" in result:
        result["CorLoc"] = scored.maps.boxes.corloc(class_oracle=True)
    if options.interval:
        result["intervals"] = scored.intervals()
    if options.beside is not None:
        result["beside"] = _beside(results, scored, rows, options, view)
    if options.noise is not None:
        judge = chooser or Chooser(source, truth, options.frame(), _metric(options), options.threads)
        result["noise"] = noise_study(judge, scored.maps, options.noise, options.seed)
    return Evaluated(result, scored.maps, view, scored=scored)


def _metric(options: Options) -> Metric | None:
    return cast("Metric | None", options.metric)


def _given(tau: float | Literal["otsu"] | None, view: StageView | None) -> Threshold:
    """Rule of a threshold that the user or the stage gives; the best one where neither does."""
    if tau is None or tau == "otsu":
        return BEST if tau is None else OTSU
    own = view is not None and view.manifest.params.get("tau") == tau
    return Threshold(tau, f"the stage {view.stage}" if own and view is not None else "given")


def _chooser(results: Results, options: Options, view: StageView | None) -> Chooser:
    """Return what ``tau_from=`` asks for; ground truth is read only where it is asked for by name.

    Parameters
    ----------
    view : StageView or None
        What is scored; its counterpart in ``tau_split`` is looked up. None for a folder of maps.
    """
    word = str(options.tau_from)
    if view is None:
        rows = results.rows(options.tau_split, without_truth=word not in TRUTH)
        source: StoredSource = _folder(options, rows, options.tau_maps)
    else:
        twin = counterpart(results, view, options.tau_split)
        rows = rows_of_index(results.index_of(twin))
        source = options.source(twin, options.slot, rows)
    return Chooser(source, find_truth(results, rows, word), options.frame(), _metric(options), options.threads)


def _folder(options: Options, rows: RowTable, folder: str | None = None) -> FolderMaps:
    """Return the maps of a folder, by default of the one that is scored."""
    return FolderMaps(ScoreMaps(str(folder or options.maps)), rows, options.labels)


def _beside(
    results: Results, scored: Scored, rows: RowTable, options: Options, view: StageView | None
) -> dict[str, Any]:
    """Test against another result of the same stage, another stage of maps or another folder, its threshold alike."""
    word, twin = str(options.beside), None
    if view is None:
        other: StoredSource = _folder(options, rows, word)
        name, options = {"maps": word}, replace(options, maps=word, tau_maps=None)
    else:
        stage, key = read_beside(view, word)
        twin = results.view(stage, view.split, key)
        check_rows(twin, rows)
        options = replace(options, source=StageMaps) if twin.stage != view.stage else options
        other, name = options.source(twin, options.slot, rows), {"stage": twin.stage, "key": twin.key}
    assert scored.maps is not None
    rule = scored.threshold if options.tau_from is None else _chooser(results, options, twin)
    theirs = score(
        other, scored.maps.truth, rule, frame=options.frame(), threads=options.threads, keep=True, details=False
    )
    return {**name, "tau": theirs.threshold.tau, **scored.tests(theirs)}


def noise_study(chooser: Chooser, scores: MapScores, kind: str, seed: int) -> list[dict[str, Any]]:
    """Return figures at thresholds that disturbed boxes or masks chose, by the rules of `wsolpipe.metrics.noise`.

    Parameters
    ----------
    chooser : Chooser
        Its truth is disturbed.
    scores : MapScores
        Of the scored rows, against the undisturbed truth.
    kind : {"boxes", "masks"}

    Returns
    -------
    list of dict
        One a level: ``tau``, what the disturbed truth says of it (``…_by_noisy``), and the figures at it.

    Raises
    ------
    ConfigError
        If the truth has none of that kind.
    """
    names, levels = (("MaxBoxAcc", "iou"), LEVELS) if kind == "boxes" else (("PxAP", "pixel_iou"), LOSSES)
    if not (chooser.truth.found if kind == "boxes" else chooser.truth.masks):
        msg = f"noise={kind}: {chooser.truth.name} of {chooser.truth.rows.split} holds no {kind}"
        raise ConfigError(msg)
    if kind == "masks" and chooser.metric is None:
        chooser = replace(chooser, metric="PxAP")
    found = []
    for level in levels:
        seen = replace(chooser, truth=chooser.truth.disturbed(level, seed)).scores()
        tau = seen.choose_tau(chooser.metric)
        noisy, true = seen.result(tau), scores.result(tau)
        line = {"level": level, "tau": tau, **{f"{name}_by_noisy": noisy[name] for name in names}}
        found.append({**line, **{f"{name}_at_tau": true[name] for name in names}})
    return found
