"""Time the CRF filter beside a plain numpy kernel, and measure its accuracy against the exact one: one thread, one run.

    python tools/bench/crf.py [--repeat 9] [--accuracy 4] [--json]

Two clocks, thread CPU seconds, interleaved: ``baseline``, exp(-d²/2) of 3,072 points in 5 dimensions as one float32
matrix, times a 3,072 x 5 matrix, in numpy; ``filter``, ``wsoltrain.crf.dense_filter`` of two channels at 224² in a
batch of 8, a picture. The C++ permutohedral filter that the papers' code shares takes 0.241 of that baseline. With
``--accuracy N`` the gradient W·1 - 2 W·S at 224² of N photographs is compared with the exact float64 one (about ten
seconds a photograph).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy starts its threads

import numpy as np  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from exact_crf import accuracy, photographs, soft_maps  # type: ignore[import-not-found]  # noqa: E402
from wsoltrain.losses.crf import dense_filter  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH, SIZE, POINTS = 8, 224, 3072


def baseline(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Dense Gaussian of all pairs of points, times values."""
    squares = (points * points).sum(1)
    distances = squares[:, None] + squares[None] - 2 * (points @ points.T)
    product: np.ndarray = np.exp(-0.5 * distances) @ values
    return product


def clock(work: Callable[[], object]) -> float:
    """CPU milliseconds of this thread."""
    start = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - start)


def main() -> None:
    """Print the figures, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--accuracy", type=int, default=0, help="photographs at 224² to compare with the exact kernel")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("WSOLPIPE_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images, maps = photographs(given.shared, BATCH, SIZE), soft_maps(BATCH, SIZE)
    values = torch.cat([torch.ones_like(maps), maps], 1)
    rng = np.random.default_rng(0)
    points = 3 * rng.random((POINTS, 5), dtype=np.float32)
    columns = rng.random((POINTS, 5), dtype=np.float32)
    dense_filter(values, images)  # compiles
    times = [
        (clock(lambda: baseline(points, columns)), clock(lambda: dense_filter(values, images)) / BATCH)
        for _ in range(given.repeat)
    ]
    plain, ours = (median(column) for column in zip(*times, strict=True))
    figures = {"baseline_ms": plain, "filter_ms": ours, "ratio": median(b / a for a, b in times)}
    if given.accuracy:
        cosines, errors = accuracy(given.shared, given.accuracy, SIZE, dense_filter)
        figures |= {
            "cosine_median": float(np.median(cosines)),
            "cosine_worst": float(cosines.min()),
            "sum_error": float(np.abs(errors).max()),
        }
    if given.json:
        print(json.dumps(figures))
        return
    print("  ".join(f"{name} {value:.5g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
