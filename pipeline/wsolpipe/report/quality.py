"""Boxes against ground truth, row by row: the arrays behind every figure of a report, and the rows that it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.box_scores import BoxScores, score_boxes, score_centred
from wsolpipe.evaluate.evaluation import Options
from wsolpipe.evaluate.map_scores import KeptIous, MapScores
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.evaluate.scored import OTSU, score
from wsolpipe.evaluate.truth import Truth, truth_of_index

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Index, StageView

Array = np.ndarray[Any, Any]

Group = Literal["best", "median", "worst", "random", "quarantined"]
RANKED: tuple[Group, ...] = ("best", "median", "worst")
#: Values of a row that may lead the page, the best first.
LEADS = ("top1", "cut", "otsu")


@dataclass(frozen=True)
class Pick:
    """A row of the gallery and the group it was chosen for."""

    row: int
    group: Group


@dataclass(frozen=True)
class Quality:
    """One value a row; NaN where a row has none.

    Attributes
    ----------
    status : uint8 [N]
        `Status` of the shown stage; quarantined rows of the index are marked where no stage was made.
    labels : int64 [N]
        First label, −1 where there is none.
    sizes : float64 [N, 2]
        (width, height) of the images.
    truth : Truth
        Ground-truth boxes.
    scored : bool [N]
        Rows in the denominators: made, not quarantined, with ground truth, of a class that has an object.
    ious : dict of str to float64 [N]
        Best IoU with any ground-truth box, of: ``top1``, ``best5``, ``candidates`` (mean over the row's boxes),
        ``otsu`` (largest Otsu region of the first map), ``cut`` (its largest region at the threshold that suits these
        rows best, as the standard evaluator counts), ``centre`` (box of 0.8 of each side).
    share : float64 [N]
        Area of the largest ground-truth box over the area of the image.
    source : int64 [N]
        Map that the first box came from, −1 where there is none.
    score : float64 [N]
        Score of the first box.
    maps : MapScores or None
        The first map at every threshold.
    """

    status: Array
    labels: Array
    sizes: Array
    truth: Truth
    scored: Array
    share: Array
    source: Array
    score: Array
    ious: dict[str, Array] = field(default_factory=dict)
    maps: MapScores | None = None

    @property
    def lead(self) -> str | None:
        """The value that leads the page: of the boxes, else of the map; None without ground truth."""
        return next((name for name in LEADS if name in self.ious and self.scored.any()), None)

    @property
    def tau(self) -> float | None:
        """Threshold of ``cut``."""
        return None if self.maps is None else self.maps.best_tau()

    @property
    def shown(self) -> Array:
        """Rows with a result, bool [N]."""
        return np.asarray((self.status == Status.OK) | (self.status == Status.NO_OBJECT))

    @property
    def ranking(self) -> Array:
        """Order of the gallery, float64 [N]: by IoU of the first box, else of its map, else by score."""
        return self.score if self.lead is None else self.ious[self.lead]

    def means(self) -> dict[str, float]:
        """Mean over the rows that count, by name."""
        return (
            {name: float(values[self.scored].mean()) for name, values in self.ious.items()} if self.scored.any() else {}
        )

    def recall(self, name: str, level: float = 0.5) -> float:
        """Share of the rows that count whose IoU reaches `level`."""
        return float((self.ious[name][self.scored] >= level).mean())

    def truth_of(self, row: int) -> Array:
        """Ground-truth boxes of a row, float64 [M, 4]."""
        return self.truth.boxes(row)


def measure(index: Index, boxes: StageView | None, maps: StageView | None) -> Quality:
    """Score the boxes of a stage, or else the Otsu boxes of its maps, against the ground truth of its index."""
    truth = truth_of_index(index)
    count, table = len(truth.rows), truth.rows
    labels = np.array([table.label(row) for row in range(count)], np.int64)
    sizes = table.sizes.astype(np.float64)
    view = boxes or maps
    if view is None:
        status = np.where(table.quarantined, Status.QUARANTINED, Status.OK).astype(np.uint8)
        status[table.left] = Status.ABSENT
    else:
        status = _fit(view.status(), count, Status.ABSENT)
    source, first_scores = np.full(count, -1, np.int64), np.full(count, np.nan)
    if boxes is not None and "source" in boxes.manifest.arrays:
        source = _fit(boxes["source"].filled()[:, 0].astype(np.int64), count, -1)
    if boxes is not None and "scores" in boxes.manifest.arrays:
        first_scores = _fit(boxes["scores"].filled()[:, 0].astype(np.float64), count, np.nan)
    made = np.isin(status, (Status.OK, Status.NO_OBJECT))
    found = score_boxes(boxes, truth) if boxes is not None else score_centred(truth, ~made)
    several = boxes is not None and boxes.manifest.arrays["boxes"].shape[0] > 1
    names = (*(("top1",) if boxes is not None else ()), *(("best5", "candidates") if several else ()), "centre")
    ious = {name: _column(found, f"iou_{name}", count) for name in names}
    scored = ~np.isnan(ious["centre"])
    scores = None
    if maps is not None and scored.any():
        frame = Options().of_predictions(maps.manifest.params).frame()
        found_maps = score(StageMaps(maps, 0, table), truth, OTSU, frame=frame, keep=KeptIous, details=False)
        scores, own = found_maps.maps, found_maps.single
        assert scores is not None
        assert own is not None
        ious["otsu"] = np.where(scored, np.nan_to_num(_column(own, "iou_top1", count)), np.nan)
        ious["cut"] = np.where(scored, np.nan_to_num(cut_ious(scores, scores.best_tau() or 0.0, count)), np.nan)
    return Quality(status, labels, sizes, truth, scored, _shares(truth, sizes), source, first_scores, ious, scores)


def cut_ious(scores: MapScores, tau: float, rows: int) -> Array:
    """IoU of each row's box at one threshold, float64 [rows]; NaN where a row is not scored."""
    column = np.full(rows, np.nan)
    if isinstance(scores.kept, KeptIous):
        numbers, ious = scores.kept.at(round(tau * scores.boxes.thresholds), scores.boxes.thresholds)
        column[numbers] = ious
    return column


def _column(found: BoxScores, name: str, rows: int) -> Array:
    """One value a row, NaN where the row is not scored."""
    column = np.full(rows, np.nan)
    column[found.rows] = found.ious[name]
    return column


def _shares(truth: Truth, sizes: Array) -> Array:
    """Area of each row's largest ground-truth box over that of its image, NaN without one."""
    share = np.full(len(sizes), np.nan)
    for row, boxes in truth.found.items():
        share[row] = (boxes[:, 2:] - boxes[:, :2]).prod(1).max() / max(sizes[row].prod(), 1)
    return share


def _fit(values: Array, rows: int, fill: float) -> Array:
    """`values` cut or filled to `rows` rows: the index may have grown since the stage was made."""
    if len(values) >= rows:
        return values[:rows]
    return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), fill, values.dtype)])


def choose(values: np.ndarray[Any, Any], eligible: np.ndarray[Any, Any], *, n: int, seed: int) -> list[Pick]:
    """Choose up to `n` rows: a quarter each of the best, median and worst by value, the rest at random.

    Parameters
    ----------
    values : float [N]
        One value a row, NaN where a row cannot be ranked. Equal values are ranked by row.
    eligible : int [M]
        Rows that may be shown.
    n : int
        Rows wanted; fewer where fewer are eligible.
    seed : int
        Of the random part, which is drawn from all eligible rows, ranked or not, and does not depend on the values of
        rows outside it.

    Returns
    -------
    list of Pick
        Each row once: best first, then median, worst (worst first) and random in row order.
    """
    ranked = eligible[~np.isnan(values[eligible])]
    ranked = ranked[np.lexsort((ranked, -values[ranked]))]
    quarter = min(n // 4, len(ranked) // 3)
    middle = (len(ranked) - quarter) // 2
    parts = {
        "best": ranked[:quarter],
        "median": ranked[middle : middle + quarter],
        "worst": ranked[len(ranked) - quarter :][::-1],
    }
    picks = [Pick(int(row), group) for group in RANKED for row in parts[group]]
    rest = np.setdiff1d(eligible, [pick.row for pick in picks])
    drawn = np.random.default_rng(seed).permutation(rest)[: n - len(picks)]
    return picks + [Pick(int(row), "random") for row in sorted(drawn)]
