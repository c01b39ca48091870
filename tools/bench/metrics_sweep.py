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
from statistics import median
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


def measure(data: Path, name: str, contours: str, images: int, repeat: int) -> dict[str, Any]:
    """Return milliseconds a map and the ratios for one kind of map and one mode, and seconds of each repetition."""
    maps, boxes, scores = golden(data, name)
    key = "MaxBoxAcc_counts" if contours == "largest" else "MaxBoxAccV2_counts"
    levels = sorted(scores[key])
    ious = [int(level) / 100 for level in levels]
    counts = metrics.maxbox_counts(maps, boxes, contours=contours, ious=ious, threads=1)  # type: ignore[arg-type]
    equal = all(np.array_equal(row, scores[key][level]) for row, level in zip(counts, levels, strict=True))
    chosen = list(range(0, len(maps), max(1, len(maps) // images)))
    times: dict[str, list[float]] = {"bare": [], "plain": [], "sweep": []}
    turns = {kind: np.zeros(repeat) for kind in times}
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

        work = {"bare": run_bare, "plain": run_plain, "sweep": run_sweep}
        runs = [{kind: clocked(task) for kind, task in work.items()} for _ in range(repeat)]
        for kind in times:
            times[kind].append(median(run[kind] for run in runs))
            turns[kind] += [run[kind] for run in runs]
    total = {kind: sum(seconds) for kind, seconds in times.items()}
    worst = min(plain / sweep for plain, sweep in zip(times["plain"], times["sweep"], strict=True))
    return {
        "maps": name,
        "contours": contours,
        "images": len(chosen),
        **{f"{kind}_ms": 1000 * seconds / len(chosen) for kind, seconds in total.items()},
        "over_plain": total["plain"] / total["sweep"],
        "over_bare": total["bare"] / total["sweep"],
        "worst_batch": worst,
        "counts_equal_reference": equal,
        "turns": turns,
    }


def main() -> int:
    """Print a table and the figures, and return 1 if a limit or a count is missed."""
    options = read_options(__doc__, images=40, repeat=3)
    cv2.setNumThreads(1)
    data = shared_data("data")
    rows = [
        measure(data, name, contours, options.images, options.repeat)
        for contours in ("largest", "all")
        for name in ("cam", "attn_mean")
    ]
    head = ("maps", "contours", "bare ms", "plain ms", "sweep ms", "x bare", "x plain", "worst", "counts")
    print(" ".join(f"{word:>9}" for word in head))
    for row in rows:
        cells = [row["maps"], row["contours"]]
        cells += [f"{row[kind]:.2f}" for kind in ("bare_ms", "plain_ms", "sweep_ms")]
        cells += [f"{row[kind]:.1f}" for kind in ("over_bare", "over_plain", "worst_batch")]
        cells.append("equal" if row["counts_equal_reference"] else "DIFFER")
        print(" ".join(f"{cell:>9}" for cell in cells))
    missed = report(pooled([row for row in rows if row["contours"] == contours]) for contours in WANTED)
    return int(missed or not all(row["counts_equal_reference"] for row in rows))


def pooled(rows: list[dict[str, Any]]) -> Figure:
    """Both kinds of map in one mode together: median of the repetitions."""
    contours = rows[0]["contours"]
    plain, sweep = (sum(row["turns"][kind] for row in rows) for kind in ("plain", "sweep"))
    name = f"sweep / plain, {contours} contour{'s' if contours == 'all' else ''}"
    return Figure.of(name, plain / sweep, limit=WANTED[contours], goal=GOAL)


if __name__ == "__main__":
    sys.exit(main())
