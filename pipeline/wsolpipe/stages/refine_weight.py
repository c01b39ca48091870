"""The weight of a refinement, chosen on a validation split by pseudo-boxes, for each kind of map; 0 is a choice."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.schema import Status
from wsolpipe.images.geometry import resize
from wsolpipe.metrics.boxes import LEVELS
from wsolpipe.stages.base import Array, ArtifactStage, Made, Rows
from wsolpipe.stages.marks import NamesStage
from wsolpipe.stages.refine import WEIGHT, RefinementParams, require_maps, require_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.map_scores import MapScores
    from wsolpipe.evaluate.map_sources import MapBatch, MapSource
    from wsolpipe.evaluate.truth import Truth

BATCH = 128


def _weights(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or min(values) < 0 or max(values) > 1 or len(set(values)) < len(values):
        msg = "weights are different numbers from 0 to 1"
        raise ValueError(msg)
    return tuple(sorted(values))


class RefineWeightParams(RefinementParams):
    """Parameters of `RefineWeight`; those that refine has too follow it.

    Attributes
    ----------
    map
        Slot of the maps that the weight is chosen by, for all of them
    split
        Split that it is chosen on
    against
        Stage of pseudo-boxes there, not made of these maps: val_boxes (with val_boxes.annotator=file released ones), or
        proposals
    metric
        Figure that decides, at the threshold that is best for each weight: the lowest weight counts that is within a
        standard error of the best
    weights
        Weights to choose from, 0 to 1
    rows
        Rows of the split that take part, evenly spread; they are kept in memory, about 200 kB each
    """

    map: Annotated[int, Field(ge=0)]
    split: str
    against: Annotated[
        str,
        NamesStage(
            "boxes",
            apart_from="maps",
            instead="name boxes of something else, such as refine_weight.against=val_boxes val_boxes.annotator=ss, or "
            "give the weight: refine.w=0.5",
        ),
    ]
    metric: Literal["MaxBoxAcc", "MaxBoxAccV2", "iou"]
    weights: Annotated[tuple[float, ...], AfterValidator(_weights)]
    rows: Annotated[int, Field(ge=1, le=100_000)]


class RefineWeight(ArtifactStage[RefineWeightParams]):
    """Scores maps at every weight against pseudo-boxes of another split; ground truth is not read.

    References
    ----------
    The rule of one standard error: Breiman et al., "Classification and regression trees", 1984, section 3.4.3.
    """

    @classmethod
    def needs(cls, params: RefineWeightParams, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stage of maps, the segments where they are read, and the pseudo-boxes."""
        return (*params.read_stages(), params.against)

    @classmethod
    def splits_needed(cls, params: RefineWeightParams) -> tuple[str, ...]:
        """The split that the weight is chosen on."""
        return (params.split,)

    @classmethod
    def rows_read(cls, params: RefineWeightParams, rows: int) -> int:
        """At most `RefineWeightParams.rows`."""
        return min(rows, params.rows)

    @classmethod
    def without_split(cls, params: RefineWeightParams, split: str) -> str | None:  # noqa: ARG003
        """Advise a given weight, or another split."""
        return "give the weight, refine.w=0.7, or a split with pseudo-boxes, refine_weight.split=NAME"

    def produce(self, splits: Mapping[str, Rows]) -> Made:
        """Score each weight.

        Raises
        ------
        ConfigError
            If a stage holds no maps, no such slot, or no boxes.
        DataError
            If no row has a map and a pseudo-box.
        """
        params, upstream = self.params, self.context.upstream
        source, boxes = upstream[params.maps], upstream[params.against]
        require_maps(source, params, upstream.get("segments"))
        require_slot(source, params.map, key="refine_weight.map")
        truth, chosen = rows_to_judge([(source, params.map)], boxes, params.rows)
        if not len(chosen):
            msg = f"no row of {params.split} has both a map of {source.stage} and a box of {boxes.stage}"
            raise DataError(msg, hint="give the weight: refine.w=0.7")
        maps, ends = self._ends(splits[params.split], chosen)
        curve, values = [], []
        for w in params.weights:
            self.context.check()
            source_at = MadeMaps(chosen, partial(_mixed, maps, ends, w))
            figures, by_row = judge(source_at, truth, params.metric, self.context.threads)
            curve.append({"w": w, **figures})
            values.append(by_row)
        w = params.weights[lowest_equal(np.array(values))]
        summary = {"w": w, "metric": params.metric, "against": truth.name, "rows": len(chosen), "curve": curve}
        text = json.dumps({"maps": params.maps, "by": params.by, "split": params.split, **summary}, indent=1)
        return Made(files={WEIGHT: f"{text}\n".encode()}, summary=summary)

    def _ends(self, rows: Rows, chosen: Array) -> tuple[list[Array], Array]:
        """Levels of the chosen rows as they are stored, and at weight 0 and 1 in float16 [2, n, size, size]."""
        params, plan = self.params, self.params.plan()
        view = self.context.upstream[params.maps]
        maps: list[Array] = []
        ends = np.zeros((2, len(chosen), params.size, params.size), np.float16)
        for start in range(0, len(chosen), BATCH):
            numbers = chosen[start : start + BATCH]
            levels = view["maps"][numbers, params.map].astype(np.float32)
            grids = view["grid_hw"][numbers] if "grid_hw" in view.manifest.arrays else None
            labels = self.context.upstream["segments"]["labels"][numbers] if params.by == "segments" else None
            for at, number in enumerate(numbers.tolist()):
                self.context.check()
                one = levels[at] if grids is None else levels[at, : grids[at, 0], : grids[at, 1]]
                seen = resize(rows.load(number), (params.size, params.size)) if labels is None else labels[at]
                maps.append(one)
                for w in (0, 1):
                    ends[w, start + at] = plan.refine(one[None], seen, float(w), self.context.device)[0]
            self.context.progress(start + len(numbers), len(chosen))
        return maps, ends


def rows_to_judge(maps: Sequence[tuple[StageView, int]], boxes: StageView, most: int) -> tuple[Truth, Array]:
    """Boxes of a stage as truth, and at most so many rows, evenly spread, with such a box and each slot's map."""
    from wsolpipe.evaluate.map_sources import rows_of_index
    from wsolpipe.evaluate.truth import truth_of_stage

    truth = truth_of_stage(boxes, rows_of_index(boxes.index()))
    usable = np.flatnonzero(np.all([view.status() == Status.OK for view, _ in maps], axis=0))
    usable = usable[np.isin(usable, list(truth.found))]
    chosen = usable[np.linspace(0, len(usable) - 1, min(most, len(usable))).round().astype(np.int64)]
    for view, slot in maps:
        chosen = chosen[finite_rows(view, slot, chosen)]
    return truth, chosen


def judge(source: MapSource, truth: Truth, metric: str, threads: int) -> tuple[dict[str, float], Array]:
    """Figures of maps, each at its best threshold, and what each row adds to one of them, float64 [n]."""
    from wsolpipe.evaluate.scored import score

    scores = score(source, truth, threads=threads, details=False, keep=True).maps
    assert scores is not None
    found = scores.result()
    figures = {"MaxBoxAcc": found["MaxBoxAcc"], "MaxBoxAccV2": found["MaxBoxAccV2"]["mean"], "iou": found["iou"]}
    return figures, _by_row(scores, metric)


def finite_rows(source: StageView, slot: int, rows: Array) -> Array:
    """Which rows' maps can be scored, bool [n]; only maps of floats, of your own stage, may hold others."""
    if source.manifest.arrays["maps"].dtype == "uint8":
        return np.ones(len(rows), np.bool_)
    parts = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
    return np.concatenate(
        [np.zeros(0, np.bool_), *(np.isfinite(source["maps"][part, slot]).all(axis=(1, 2)) for part in parts)]
    )


def lowest_equal(values: Array) -> int:
    """First line of values [W, n] whose mean is within a standard error of the best line's, row by row.

    The error is that of the mean of paired differences (Breiman et al., "Classification and regression trees", 1984,
    section 3.4.3): a weight that gains nothing but noise is not taken.
    """
    best = values[int(values.mean(axis=1).argmax())]
    gaps = best - values
    errors = gaps.std(axis=1, ddof=1) / np.sqrt(values.shape[1]) if values.shape[1] > 1 else np.zeros(len(values))
    return int((gaps.mean(axis=1) <= errors).argmax())


def _by_row(scores: MapScores, metric: str) -> Array:
    """Return what each row adds to a figure at that figure's best thresholds, float64 [n]."""
    assert scores.kept is not None
    names = {"MaxBoxAcc": ["largest 0.5"], "iou": ["iou"], "MaxBoxAccV2": [f"all {level}" for level in LEVELS]}[metric]
    curves = [scores.kept.get(name)[1].astype(np.float64) for name in names]
    return np.asarray(np.mean([curve[:, int(curve.mean(axis=0).argmax())] for curve in curves], axis=0))


class MadeMaps:
    """Maps of some rows as the evaluator reads them, made as they are asked for: of a slice of the rows at once."""

    labels, quarantined = "true", 0

    def __init__(self, rows: Array, make: Callable[[slice], list[Any]]) -> None:
        self.rows, self.make = rows, make

    def batches(self) -> Iterator[MapBatch]:
        from wsolpipe.evaluate.map_sources import MapBatch

        for start in range(0, len(self.rows), BATCH):
            part = slice(start, start + BATCH)
            yield MapBatch(self.rows[part], self.make(part))


def _mixed(maps: list[Array], ends: Array, w: float, part: slice) -> list[Any]:
    """Maps between weight 0, where they are as they are stored, and 1."""
    plain, made = ends[:, part].astype(np.float32)
    return list((1 - np.float32(w)) * plain + np.float32(w) * made) if w else maps[part]
