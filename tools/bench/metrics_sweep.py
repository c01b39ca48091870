"""Time the threshold sweep beside plain OpenCV on the golden maps: one thread, one run, counts compared on the way.

    python tools/bench/metrics_sweep.py [--images 195] [--repeat 3]

Three clocks a mode, thread CPU seconds so that other work on the machine disturbs little: ``bare``, only the thousand
OpenCV calls of one map (threshold, contours, areas, boxes); ``plain``, the test oracle, which adds IoU in vectorised
numpy; ``sweep``, ``wsolpipe.metrics.iou_curves`` on one thread. Medians over repetitions, all three
in turns of ten maps. Exit code 1 if a count differs from the reference's, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its threads

import cv2
import numpy as np
from figures import Figure, report
from numpy.typing import NDArray
from prepare import read_options, shared_data

from metrics import oracle  # type: ignore[import-not-found]
from wsolpipe import metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Maps = NDArray[np.float64]
Boxes = list[NDArray[np.float64]]
BATCH = 10
WANTED, GOAL = {"largest": 25.0, "all": 35.0}, 60.0


def golden(data: Path, name: str) -> tuple[Maps, Boxes, dict[str, Any]]:
    """Return maps in the evaluator's frame, boxes, and the reference's scores of every fourth golden image."""
    packed = np.load(data / "golden/ilsvrc_val_maps.npz")
    raw = packed["cam"][::4] if name == "cam" else packed["attn"].mean(axis=1)[::4]
    folder = data / "ilsvrc_val_acuity"
    sizes: dict[str, tuple[float, float]] = {}
    for line in (folder / "image_sizes.txt").read_text().split():
        image, width, height = line.split(",")
        sizes[image] = (float(width), float(height))
    boxes: dict[str, list[list[float]]] = {}
    for line in (folder / "localization.txt").read_text().split():
        image, *edges = line.split(",")
        boxes.setdefault(image, []).append([float(edge) for edge in edges])
    ids = [str(image) for image in packed["ids"][::4]]
    scores = json.loads((data / "golden/ilsvrc_val_scores.json").read_text())[name]
    return metrics.standard_maps(raw), [metrics.standard_boxes(boxes[i], sizes[i]) for i in ids], scores


def bare(score: NDArray[np.float64], contours: str) -> None:
    """Make the OpenCV calls of one map and nothing else."""
    levels = (score * 255).astype(np.uint8)
    peak = int(levels.max())
    for tau in np.arange(0, 1, 0.001):
        _, binary = cv2.threshold(levels, int(tau * peak), 255, cv2.THRESH_BINARY)
        found, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if contours == "largest":
            cv2.boundingRect(max(found, key=cv2.contourArea))
        else:
            for contour in found:
                cv2.boundingRect(contour)


def clocked(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this thread that some work takes."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def measure(data: Path, name: str, contours: str, images: int, repeat: int) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each repetition by what was clocked, of one kind of map in one mode."""
    maps, boxes, scores = golden(data, name)
    key = "MaxBoxAcc_counts" if contours == "largest" else "MaxBoxAccV2_counts"
    levels = sorted(scores[key])
    ious = [int(level) / 100 for level in levels]
    counts = metrics.maxbox_counts(maps, boxes, contours=contours, ious=ious, threads=1)  # type: ignore[arg-type]
    if not all(np.array_equal(row, scores[key][level]) for row, level in zip(counts, levels, strict=True)):
        sys.exit(f"{name}, {contours}: counts differ from the reference's")
    chosen = list(range(0, len(maps), max(1, len(maps) // images)))
    turns = {kind: np.zeros(repeat) for kind in ("bare", "plain", "sweep")}
    # Batches of the three kinds in turns: each works on warm caches, none on a machine in another mood.
    for first in range(0, len(chosen), BATCH):
        batch = chosen[first : first + BATCH]
        scores_in, boxes_in = maps[batch], [boxes[number] for number in batch]

        def run_bare(scores: Maps = scores_in) -> None:
            for score in scores:
                bare(score, contours)

        def run_plain(scores: Maps = scores_in, truth: Boxes = boxes_in) -> None:
            for score, targets in zip(scores, truth, strict=True):
                oracle.iou_curve(score, targets, contours=contours)

        def run_sweep(scores: Maps = scores_in, truth: Boxes = boxes_in) -> None:
            metrics.iou_curves(scores, truth, contours=contours, threads=1)  # type: ignore[arg-type]

        for turn in range(repeat):
            for kind, work in (("bare", run_bare), ("plain", run_plain), ("sweep", run_sweep)):
                turns[kind][turn] += clocked(work)
    spent = ", ".join(f"{kind} {1000 * np.median(seconds) / len(chosen):.2f} ms" for kind, seconds in turns.items())
    print(f"{name}, {contours}, {len(chosen)} maps: {spent} a map; counts equal the reference's")
    return turns


def main() -> int:
    """Print the figures, and return 1 if a limit or a count is missed."""
    options = read_options(__doc__, images=40, repeat=3)
    cv2.setNumThreads(1)
    data = shared_data("data")
    figures = []
    for contours, wanted in WANTED.items():
        kinds = [measure(data, name, contours, options.images, options.repeat) for name in ("cam", "attn_mean")]
        plain, sweep = (np.sum([turns[kind] for turns in kinds], axis=0) for kind in ("plain", "sweep"))
        name = f"sweep / plain, {contours} contour{'s' if contours == 'all' else ''}"
        figures.append(Figure.of(name, plain / sweep, limit=wanted, goal=GOAL))
    return report(figures)


if __name__ == "__main__":
    sys.exit(main())
