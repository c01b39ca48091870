"""Time the scoring of one pass of validation maps against five annotators beside against one.

    python tools/bench/annotators.py [--maps 100] [--repetitions 7] [--thresholds 200]

Golden CAMs are scored as after an epoch of training: curves of the largest and of all contours, Otsu boxes, figures of
each annotator. Making the maps, which costs the same however many annotators there are, is left out: a whole pass
costs less than this ratio. Processor time of one thread, pairs in turns. The annotators are ground truth and four
levels of noise. Exit code 1 if five cost more than 1.2 times one.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its threads

import numpy as np
from ab import compare
from figures import report
from prepare import read_options, shared_data

from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_scores import score_against
from wsolpipe.evaluate.map_sources import MapBatch, RowTable
from wsolpipe.evaluate.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT, BATCH = 1.2, 32


class GoldenMaps:
    """Maps in memory; see `wsolpipe.evaluate.map_sources.MapSource`."""

    labels, name, quarantined = "true", "golden", 0

    def __init__(self, maps: np.ndarray[Any, Any]) -> None:
        self.maps = maps

    def batches(self) -> Iterator[MapBatch]:
        """As a network gives them."""
        for first in range(0, len(self.maps), BATCH):
            rows = np.arange(first, min(first + BATCH, len(self.maps)))
            yield MapBatch(rows, list(self.maps[rows]))


def golden(data: Path, count: int) -> tuple[np.ndarray[Any, Any], Truth]:
    """CAMs and the ground truth of their images."""
    packed = np.load(data / "golden/ilsvrc_val_maps.npz", allow_pickle=False)
    ids = [str(name) for name in packed["ids"][:count]]
    folder, boxes, sizes = data / "ilsvrc_val_acuity", dict[str, list[list[float]]](), {}
    for line in (folder / "image_sizes.txt").read_text(encoding="utf-8").split():
        name, *size = line.split(",")
        sizes[name] = [int(side) for side in size]
    for line in (folder / "localization.txt").read_text(encoding="utf-8").split():
        name, *edges = line.split(",")
        boxes.setdefault(name, []).append([float(edge) for edge in edges])
    plain = np.ones(len(ids), np.int64)
    rows = RowTable(
        "val", ids, [[0]] * len(ids), np.array([sizes[name] for name in ids]), plain, frozenset(), plain == 0
    )
    return packed["cam"][:count], Truth("gt", rows, {row: np.array(boxes[name]) for row, name in enumerate(ids)})


def main() -> int:
    """Print both sides and the figure; 1 if its limit, or equal results, are missed."""
    options = read_options(__doc__, maps=100, repetitions=7, thresholds=200)
    maps, truth = golden(shared_data("data"), options.maps)
    five = {"gt": truth, **{f"noisy:{level}": truth.disturbed(level / 100, 0) for level in (10, 20, 30, 40)}}
    found: dict[int, Any] = {}

    def score(truths: dict[str, Truth]) -> None:
        settings: dict[str, Any] = {"threads": 1, "thresholds": options.thresholds, "details": False, "more": ("otsu",)}
        scores = score_against(GoldenMaps(maps), truths, Frame(), **settings)
        found[len(truths)] = scores["gt"].entry()

    timed = compare(lambda: score({"gt": truth}), lambda: score(five), repetitions=options.repetitions)
    timed.show(a="one annotator", b="five annotators", items=len(maps), unit="maps")
    if json.dumps(found[1]) != json.dumps(found[5]):
        print("the figures of ground truth differ")
        return 1
    return report([timed.figure("five annotators / one, cost", "cpu", limit=LIMIT, cost=True)])


if __name__ == "__main__":
    sys.exit(main())
