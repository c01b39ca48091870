"""Scores of anything that localizes, with the rule that its threshold comes from: the one place that assembles them.

What is scored is a stage of boxes or masks, maps of a stage, a folder or a network, or a centred box. Boxes and masks
need no threshold. Maps take one by a rule: a `Threshold` that is known, or a `Chooser` that finds it on another split
by what stands there for ground truth, as the realistic protocol does (thesis, chapter 4).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import StageView
from wsolpipe.evaluate.box_scores import BoxScores, is_val_boxes, score_boxes, score_centred, score_val_boxes
from wsolpipe.evaluate.figures import FIGURES, Frame
from wsolpipe.evaluate.map_scores import MapScores, score_against
from wsolpipe.evaluate.map_sources import MapSource, StageMaps, check_rows
from wsolpipe.evaluate.mask_scores import MaskEvaluation, score_masks
from wsolpipe.evaluate.otsu_scores import OtsuScores
from wsolpipe.evaluate.results import RankedMaps, Ranks
from wsolpipe.metrics.confidence import Values, intervals_of, paired_tests

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from wsolpipe.evaluate.truth import Truth
    from wsolpipe.metrics.protocol import Metric

CENTRED = "centred box"
AT_OTSU = "Otsu of each map"
#: Figures of maps that do not depend on a threshold.
WITHOUT = ("accuracy_top1", "accuracy_top5", "CL", "PxAP")


@dataclass(frozen=True)
class Threshold:
    """Where the threshold of figures comes from; shown beside them.

    Attributes
    ----------
    tau : float or None
        None where each figure takes its own best one, each map its own, or boxes need none.
    by : str
        What chose it, such as ``pseudo-boxes of proposals 1f2e of val``; empty for figures without a threshold.
    oracle : bool
        Whether the truth of the very images that are scored chose it.
    rows : int or None
        Rows that it was chosen on.
    metric : str or None
        What it makes best there.
    """

    tau: float | None = None
    by: str = ""
    oracle: bool = False
    rows: int | None = None
    metric: str | None = None

    def __str__(self) -> str:
        """Return words for a table: ``0.312 by pseudo-boxes of proposals 1f2e of val``."""
        seen = " (oracle)" if self.oracle else ""
        if self.tau is None:
            return f"{'its best on ' if seen and not self.by.startswith(AT_OTSU) else ''}{self.by}{seen}"
        return f"{self.tau:.3f} {'' if self.by == 'given' else 'by '}{self.by}{seen}"

    def figures(self) -> dict[str, Any]:
        """Return the fields by which results state it."""
        chosen = {"tau_rows": self.rows, "tau_metric": self.metric} if self.rows is not None else {}
        return {"tau_from": self.by, "oracle": self.oracle, **chosen}


#: Each figure at its own best threshold of the scored images, as the field's evaluator.
BEST = Threshold(by="these images", oracle=True)
OTSU = Threshold(by=AT_OTSU)


@dataclass(frozen=True)
class Chooser:
    """Basis on which a threshold is chosen: maps of some split and what they are scored against there.

    Attributes
    ----------
    source : MapSource
    truth : Truth
    frame : Frame
    metric : str or None
        What is maximised; None for MaxBoxAcc, or pixel IoU (PxAP's counterpart) where there are only masks.
    threads : int or None
    """

    source: MapSource
    truth: Truth
    frame: Frame
    metric: Metric | None = None
    threads: int | None = None

    def scores(self) -> MapScores:
        """Score the maps of that split."""
        return score_against(
            self.source, {"": self.truth}, self.frame, threads=self.threads, details=False, more=()
        )[""]  # fmt: skip

    def threshold(self, scored: Truth | None = None) -> Threshold:
        """Choose the threshold.

        Parameters
        ----------
        scored : Truth, optional
            What it is going to be used against; chosen by that very truth, it is an oracle.

        Raises
        ------
        ConfigError
            If the truth holds nothing that the metric is of.
        """
        found, split = self.scores(), self.truth.rows.split
        same = scored is not None and (self.truth.name, split) == (scored.name, scored.rows.split)
        rows = found.boxes.rows_scored or len(self.truth.masks)
        by = f"{self.truth.name} of {split}"
        return Threshold(found.choose_tau(self.metric), by, same, rows, self.metric or found.metric)


Rule = Threshold | Chooser


@dataclass(frozen=True)
class Line:
    """One method on one split; figures that its truth has no boxes or masks for are None.

    Attributes
    ----------
    name : str
        Of the method.
    accuracy, v2 : float or None
        MaxBoxAcc and MaxBoxAccV2, per cent.
    iou : float or None
        Mean IoU of boxes; pixel IoU where the truth is masks alone.
    threshold : str
        Threshold of its boxes and where it comes from.
    pxap : float or None
        PxAP, per cent.
    rows, rows_quarantined : int
        Scored rows, and rows left out because their image cannot be read.
    top1, top5, accuracy_top1 : float or None
        Top-1 and Top-5 localization and accuracy, per cent, where classes are predicted.
    oracle : bool
        Whether the threshold was chosen by the truth of the very images that are scored.
    """

    name: str
    accuracy: float | None
    v2: float | None
    iou: float | None
    threshold: str = ""
    pxap: float | None = None
    rows: int = 0
    rows_quarantined: int = 0
    top1: float | None = None
    top5: float | None = None
    accuracy_top1: float | None = None
    oracle: bool = False


@dataclass(frozen=True)
class Scored:
    """Figures of the scored rows, and the contribution of each row.

    Attributes
    ----------
    name : str
    threshold : Threshold
    maps : MapScores or None
        Counts at every threshold, for maps.
    boxes : BoxScores or None
        Of boxes.
    masks : MaskEvaluation or None
        Of masks.
    mask_figures : dict
        Figures of masks, with the rows that take part in none.
    beside : tuple of Scored
        What it is compared with.
    """

    name: str
    threshold: Threshold = Threshold()
    maps: MapScores | None = None
    boxes: BoxScores | None = None
    masks: MaskEvaluation | None = None
    mask_figures: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[Scored, ...] = ()

    def at(self, threshold: Threshold) -> Scored:
        """Return the same scores read at another threshold."""
        return replace(self, threshold=threshold)

    @property
    def single(self) -> BoxScores | None:
        """Scores of boxes without a threshold to choose: those of boxes, or of each map's own Otsu box."""
        if self.maps is None or self.threshold.by != AT_OTSU or not self.maps.truth.found:
            return self.boxes
        otsu = self.maps.more["otsu"]
        assert isinstance(otsu, OtsuScores)
        return otsu.scores(self.maps.quarantined)

    def figures(self) -> dict[str, Any]:
        """Return all figures under the names that scripts rely on."""
        single = self.single
        if self.masks is not None:
            return dict(self.mask_figures)
        if self.maps is None:
            return {} if single is None else single.figures
        if self.threshold.by != AT_OTSU:
            return {**self.maps.result(self.threshold.tau), **self.threshold.figures()}
        found = {name: value for name, value in self.maps.result(0.0).items() if name in WITHOUT}
        if single is None and self.maps.pixels is not None:
            found["pixel_iou"] = self.maps.entry()["otsu"]["iou"][0]
        return {**found, **({} if single is None else single.as_maps()), "tau": None, **self.threshold.figures()}

    def values(self) -> Values:
        """Return what single rows add to each figure; of maps only where they were kept."""
        if self.masks is not None:
            return {"mask_iou": (np.array(self.masks.rows), np.array(self.masks.ious))}
        single = self.single
        if single is None:
            assert self.maps is not None
            return self.maps.row_values(self.threshold.tau)
        if self.maps is not None:
            return single.map_values()
        return {name: (single.rows, each) for name, each in single.values().items()}

    def intervals(self) -> dict[str, Any]:
        """Return the bootstrap interval of each figure; empty where no row was scored."""
        return intervals_of({name: found for name, found in self.values().items() if len(found[0])})

    def tests(self, other: Scored, *figures: str) -> dict[str, Any]:
        """Return the paired test of figures, by default of all that both have, on the rows that both have.

        Boxes are compared with maps by the figures of maps; maps need to have been scored with ``keep``.
        """
        mine, its = self.values(), other.values()
        if (self.maps is None) != (other.maps is None):
            mine, its = (each.values() if each.single is None else each.single.map_values() for each in (self, other))
        return paired_tests({name: mine[name] for name in figures or mine if name in mine}, its)

    @property
    def rows(self) -> int:
        """Rows that were scored."""
        if self.masks is not None:
            return len(self.masks.rows)
        if self.maps is None:
            return 0 if self.boxes is None else len(self.boxes.rows)
        pixels = self.maps.pixels
        masked = 0 if pixels is None else pixels.rows - pixels.rows_without_mask
        return self.maps.boxes.rows_scored or masked

    def line(self) -> Line:
        """Return the line of this result in a table of methods."""
        single, found = self.single, self.figures()
        if single is not None and self.maps is None:
            found = single.as_maps()
        quarantined = single.figures if single is not None else found
        pixels = self.maps is not None and self.maps.metric == "PxAP"
        v2 = (found.get("MaxBoxAccV2") or {}).get("mean")
        return Line(
            self.name, found.get("MaxBoxAcc"), v2, found.get("pixel_iou" if pixels else "iou"), str(self.threshold),
            found.get("PxAP"), self.rows, quarantined.get("rows_quarantined", 0), found.get("top1_loc"),
            found.get("top5_loc"), found.get("accuracy_top1"), self.threshold.oracle,
        )  # fmt: skip

    def beats(self) -> dict[str, bool]:
        """Say of each method beside whether this one is above it at all its thresholds.

        Compared are MaxBoxAccV2 (PxAP for masks) and IoU.
        """
        return beats(self.line(), [each.line() for each in self.beside])


def beats(own: Line, others: Sequence[Line]) -> dict[str, bool]:
    """Whether a line is above each other method in MaxBoxAccV2 (PxAP for masks) and in IoU, at all its thresholds."""
    verdict: dict[str, bool] = {}
    for other in others:
        pairs = [(own.iou, other.iou), (own.pxap, other.pxap) if own.v2 is None else (own.v2, other.v2)]
        better = all(mine is not None and theirs is not None and mine > theirs for mine, theirs in pairs)
        verdict[other.name] = verdict.get(other.name, True) and better
    return verdict


def score(
    subject: MapSource | StageView | None,
    truth: Truth,
    rule: Rule = BEST,
    *,
    name: str = "",
    beside: Iterable[Scored] = (),
    frame: Frame | None = None,
    ranks: Ranks | None = None,
    **options: Any,
) -> Scored:
    """Score something that localizes.

    Parameters
    ----------
    subject : MapSource, StageView or None
        Maps; a finished stage of boxes or masks; None for a centred box of 0.8 of each side.
    truth : Truth
    rule : Threshold or Chooser
        Where the threshold of maps comes from; boxes and masks need none.
    name : str
        What lines and messages call it.
    beside : iterable of Scored
        What it is compared with.
    frame : Frame, optional
        In which maps meet boxes and masks.
    ranks : Ranks, optional
        Classes by another network, for Top-1 and Top-5 figures of maps.
    **options
        Of maps, as `score_against` takes them: ``keep``, ``details``, ``more``, ``thresholds``, ``classes``,
        ``threads``, ``watch``.

    Raises
    ------
    ConfigError
        If a stage holds neither boxes nor masks, was made of other rows, or the truth holds nothing for it.
    DataError
        If a map or mask cannot be read or scored.
    """
    others = tuple(beside)
    if subject is None:
        return Scored(name or CENTRED, boxes=score_centred(truth), beside=others)
    if not isinstance(subject, StageView):
        threshold = rule.threshold(truth) if isinstance(rule, Chooser) else rule
        if threshold.by == AT_OTSU:
            every = FIGURES.names() if options.get("details", True) else ()
            options["more"] = {"otsu", *(every if options.get("more") is None else options["more"])}
        source = subject if ranks is None else RankedMaps(subject, ranks)
        scores = score_against(source, {"": truth}, frame or Frame(), **options)[""]
        return Scored(name, threshold, maps=scores, beside=others)
    check_rows(subject, truth.rows)
    arrays = subject.manifest.arrays
    if "boxes" in arrays:
        found = score_val_boxes(subject, truth) if is_val_boxes(subject) else score_boxes(subject, truth)
        return Scored(name or subject.stage, boxes=found, beside=others)
    if "masks" in arrays:
        mask_figures, masks = score_masks(subject, truth)
        return Scored(name or subject.stage, masks=masks, mask_figures=mask_figures, beside=others)
    msg = f"stage {subject.stage} holds neither boxes nor maps nor masks, but {', '.join(sorted(arrays))}"
    raise ConfigError(msg)


def score_beside(
    truth: Truth,
    *,
    boxes: Sequence[StageView] = (),
    maps: StageView | None = None,
    rules: Collection[Rule] = (BEST,),
    keep: bool = False,
) -> list[Scored]:
    """Score what a localizer is held against: a centred box, the first map of a stage by each rule, stages of boxes.

    Where the truth holds masks alone, boxes are left out. `keep` keeps what each row adds, for paired tests.

    Raises
    ------
    ConfigError
        If a stage was made of other rows.
    """
    for view in (*boxes, *([maps] if maps is not None else [])):
        check_rows(view, truth.rows)
    found = [score(None, truth)] if truth.found else []
    if maps is not None:
        own = score(StageMaps(maps, 0, truth.rows), truth, name=maps.stage, details=False, more=("otsu",), keep=keep)
        known = [rule.threshold(truth) if isinstance(rule, Chooser) else rule for rule in rules]
        found += [own.at(rule) for rule in known if truth.found or rule.by != AT_OTSU]
    return [*found, *(score(view, truth) for view in boxes if truth.found)]
