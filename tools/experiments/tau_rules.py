"""Compare rules that choose a threshold by pseudo-boxes with the threshold that ground truth would choose.

    python tools/experiments/tau_rules.py dataset=FILE.yaml store=STORE [by=proposals] [maps=cls_maps,cams]
        [checkpoints=RUN,RUN]

Each rule sees maps and pseudo-boxes of the validation split and nothing else; figures are of the test split at the
threshold that it chose. ``maps`` are stages whose first map of each row is scored, ``checkpoints`` folders of runs of
``wsoltrain fit``, all of one method: their figures are averaged. ``oracle`` chooses on the test split itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.images.dataset import load_dataset
from wsolpipe.maps.foreground import largest_region_box, otsu_threshold
from wsolpipe.metrics.boxes import box_areas, iou_matrix
from wsolpipe.metrics.confidence import middle
from wsolpipe.metrics.maxbox import iou_curves, largest_boxes
from wsoltrain.data.config import Labelling
from wsoltrain.inference.model import load_trained
from wsoltrain.training.scoreboard import Evaluator, NetworkMaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.evaluate.map_sources import MapSource
    from wsolpipe.evaluate.truth import Truth

    Floats = np.ndarray[Any, np.dtype[Any]]

T = 500
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


class Seen:
    """Maps [N, S, S] in 0..1 and boxes [M, 4] of each, in pixels of the map, with IoU and area at each threshold."""

    def __init__(self, maps: Floats, boxes: list[Floats]) -> None:
        self.maps, self.boxes = maps, boxes
        self.largest = iou_curves(maps, boxes, thresholds=T)
        self.all = iou_curves(maps, boxes, thresholds=T, contours="all")
        self.areas = np.stack([box_areas(largest_boxes(each, thresholds=T), inclusive=True) for each in maps])


def first_best(seen: Seen) -> float:
    """The first threshold at which most boxes are right at IoU 0.5: the field's rule."""
    return int((seen.largest >= 0.5).mean(0).argmax()) / T


def plateau(seen: Seen) -> float:
    """The middle of that threshold's plateau."""
    return middle((seen.largest >= 0.5).mean(0)) / T


def three_levels(seen: Seen) -> float:
    """MaxBoxAccV2's three levels and all contours."""
    return middle(np.mean([(seen.all >= level).mean(0) for level in (0.3, 0.5, 0.7)], 0)) / T


def many_levels(seen: Seen) -> float:
    """Six levels of the largest contour."""
    return middle(np.mean([(seen.largest >= level).mean(0) for level in LEVELS], 0)) / T


def mean_iou(seen: Seen) -> float:
    """Mean IoU."""
    return middle(seen.largest.mean(0)) / T


def median_iou(seen: Seen) -> float:
    """Median IoU: rows with a wrong pseudo-box have no say."""
    return middle(np.median(seen.largest, 0)) / T


def area(seen: Seen) -> float:
    """Where boxes are as large as pseudo-boxes, by the median of their ratio."""
    own = np.array([box_areas(box, inclusive=True).max() for box in seen.boxes])
    ratio = np.median(np.log(np.maximum(seen.areas, 1) / own[:, None]), 0)
    return int(np.abs(ratio).argmin()) / T


def agreed(seen: Seen) -> float:
    """Mean IoU over rows whose pseudo-box and some threshold's box agree at IoU 0.7, all rows where few do."""
    rows = seen.largest.max(1) >= 0.7
    return middle(seen.largest[rows if rows.sum() >= 5 else slice(None)].mean(0)) / T


def half(seen: Seen) -> float:
    """Half of the map's peak, whatever the pseudo-boxes say."""
    del seen
    return 0.5


RULES: dict[str, Callable[[Seen], float]] = {
    "first best (as before)": first_best,
    "middle of the plateau": plateau,
    "three levels, all contours": three_levels,
    "six levels": many_levels,
    "mean IoU": mean_iou,
    "median IoU": median_iou,
    "equal areas": area,
    "mean IoU, agreeing rows": agreed,
    "half of the peak": half,
}


def figures(seen: Seen, tau: float) -> list[float]:
    """MaxBoxAcc, MaxBoxAccV2 and mean IoU at a threshold."""
    place = round(tau * T)
    v2 = np.mean([(seen.all[:, place] >= level).mean() for level in (0.3, 0.5, 0.7)])
    return [100 * (seen.largest[:, place] >= 0.5).mean(), 100 * v2, seen.largest[:, place].mean()]


def otsu_figures(seen: Seen) -> list[float]:
    """The same with each map's own Otsu threshold and its largest region."""
    best = []
    for each, boxes in zip(seen.maps, seen.boxes, strict=True):
        levels = (255 * each).astype(np.uint8)
        box = largest_region_box(levels > otsu_threshold(levels))
        best.append(0.0 if box is None else iou_matrix(box[None] - [0, 0, 1, 1], boxes, inclusive=True).max())
    ious = np.array(best)
    shares = [(ious >= level).mean() for level in (0.3, 0.5, 0.7)]
    return [100 * shares[1], 100 * float(np.mean(shares)), float(ious.mean())]


def collect(source: MapSource, truth: Truth, *, normalise: bool) -> Seen:
    """Maps of all rows that have a box."""
    frame, maps, boxes = Frame(normalise=normalise), [], []
    for batch in source.batches():
        for row, raw in zip(batch.rows.tolist(), batch.maps, strict=True):
            if raw is not None and len(truth.boxes(row)):
                maps.append(frame.map(raw, str(row)))
                boxes.append(frame.boxes(truth.boxes(row), tuple(truth.rows.sizes[row])))
    return Seen(np.stack(maps), boxes)


def of_stages(results: StoreResults, stages: list[str], by: str) -> Iterator[tuple[str, Seen, Seen]]:
    """Name, what pseudo-boxes say of validation, and ground truth of test, of each stage."""
    rows = {split: results.rows(split) for split in ("val", "test")}
    for stage in stages:
        sources = {split: StageMaps(results.view(stage, split), 0, rows[split]) for split in rows}
        words = (("val", by), ("test", "gt"))
        val, test = (collect(sources[s], find_truth(results, rows[s], word), normalise=True) for s, word in words)
        yield stage, val, test


def of_runs(store: str, dataset: Any, folders: list[str], by: str) -> Iterator[tuple[str, Seen, Seen]]:
    """The same of each run's best weights."""
    device = torch.device("cpu")
    for folder in folders:
        trained, seen = load_trained(folder, device=device), []
        for split, word in (("val", by), ("test", "gt")):
            place = Labelling(store, dataset.name, split, maps=None, boxes=None)
            evaluator = Evaluator(trained.recipe, place, str(dataset.image_root()), [word], 0)
            source = NetworkMaps(trained.model, evaluator.stream, device, trained.recipe.method)
            seen.append(collect(source, evaluator.truths[word], normalise=not source.has_unit_maps()))
        yield folder, seen[0], seen[1]


def at(seen: Seen, tau: float) -> list[float]:
    """Threshold and figures."""
    return [tau, *figures(seen, tau)]


def report(name: str, pairs: list[tuple[Seen, Seen]]) -> None:
    """Print a line a rule: threshold and figures, means over the pairs."""
    print(f"{name}, {len(pairs)} of them: tau, MaxBoxAcc, MaxBoxAccV2, mean IoU on test")
    lines = {rule: [at(test, choose(val)) for val, test in pairs] for rule, choose in RULES.items()}
    lines["Otsu of each map"] = [[np.nan, *otsu_figures(test)] for _, test in pairs]
    lines["oracle"] = [at(test, plateau(test)) for _, test in pairs]
    for rule, found in lines.items():
        tau, accuracy, v2, iou = np.mean(found, 0)
        print(f"  {rule:28} {tau:6.3f} {accuracy:7.1f} {v2:7.1f} {100 * iou:7.1f}", flush=True)


def main(words: list[str]) -> int:
    """Print the tables."""
    values = {"by": "proposals", "maps": "", "checkpoints": "", **dict(word.split("=", 1) for word in words)}
    dataset = load_dataset(values["dataset"])
    results = StoreResults(values["store"], dataset.name, None)
    stages, folders = (list(filter(None, values[name].split(","))) for name in ("maps", "checkpoints"))
    for name, val, test in of_stages(results, stages, values["by"]):
        report(name, [(val, test)])
    if folders:
        report("runs", [(val, test) for _, val, test in of_runs(values["store"], dataset, folders, values["by"])])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
