"""Time the CRF filter beside a plain numpy kernel, and measure its accuracy against the exact one: one thread, one run.

    python tools/bench/crf.py [--repeat 9] [--accuracy 4] [--device cpu]

Two clocks, thread CPU seconds, interleaved: ``baseline``, exp(-d²/2) of 3,072 points in 5 dimensions as one float32
matrix, times a 3,072 x 5 matrix, in numpy; ``filter``, ``wsoltrain.crf.dense_filter`` of two channels at 224² in a
batch of 8, a picture. The C++ permutohedral filter that the papers' code shares takes 0.241 of that baseline. On a GPU
both run there, by the clock, and nothing is judged. With ``--accuracy N`` the gradient W·1 - 2 W·S at 224² of N
photographs is compared with the exact float64 one (about ten seconds a photograph).
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy starts its threads

import numpy as np  # noqa: E402
import torch  # noqa: E402
from figures import Figure, report  # noqa: E402
from prepare import read_options, shared_data, shared_folder  # noqa: E402

from exact_crf import accuracy, photographs, soft_maps  # type: ignore[import-not-found]  # noqa: E402
from wsoltrain.losses.crf import dense_filter  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = ("cpu", "cuda")
BATCH, SIZE, POINTS = 8, 224, 3072
LIMIT, GOAL = 0.16, 0.10


def baseline(points: Any, values: Any) -> Any:
    """Dense Gaussian of all pairs of points, times values; of numpy, or of torch on a GPU."""
    squares = (points * points).sum(1)
    distances = squares[:, None] + squares[None] - 2 * (points @ points.T)
    exponential = torch.exp if isinstance(points, torch.Tensor) else np.exp
    return exponential(-0.5 * distances) @ values


def clock(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds: of this thread's processor, or until the GPU is done."""
    if device.type != "cuda":
        start = time.thread_time()
        work()
        return 1e3 * (time.thread_time() - start)
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def main() -> int:
    """Print the figures; 1 if the filter is slower than it must be."""
    given = read_options(__doc__, repeat=9, accuracy=0, device="cpu")
    shared_data("data/ecssd_masks/images")
    torch.set_num_threads(1)
    device = torch.device(given.device)
    on_gpu = device.type == "cuda"
    images, maps = photographs(shared_folder(), BATCH, SIZE).to(device), soft_maps(BATCH, SIZE).to(device)
    values = torch.cat([torch.ones_like(maps), maps], 1)
    rng = np.random.default_rng(0)
    points: Any = 3 * rng.random((POINTS, 5), dtype=np.float32)
    columns: Any = rng.random((POINTS, 5), dtype=np.float32)
    if on_gpu:
        points, columns = torch.from_numpy(points).to(device), torch.from_numpy(columns).to(device)
        baseline(points, columns)
    dense_filter(values, images)  # compiles
    plain, ours = [], []
    for _ in range(given.repeat):
        plain.append(clock(lambda: baseline(points, columns), device))
        ours.append(clock(lambda: dense_filter(values, images), device) / BATCH)
    ratios = [b / a for a, b in zip(plain, ours, strict=True)]
    wanted: dict[str, Any] = {} if on_gpu else {"limit": LIMIT, "goal": GOAL}
    name = f"filter / {'the same kernel by torch' if on_gpu else 'numpy kernel'}, cost"
    figures = [Figure.of(name, ratios, at_most=True, **wanted), Figure.of("filter of a picture", ours, unit="ms")]
    if given.accuracy:
        cosines, errors = accuracy(shared_folder(), given.accuracy, SIZE, dense_filter)
        figures.append(Figure(name="cosine with the exact gradient, median", value=float(np.median(cosines))))
        figures.append(Figure(name="cosine with the exact gradient, worst", value=float(cosines.min())))
        figures.append(Figure(name="error of the sum, worst", value=float(np.abs(errors).max())))
    return report(figures)


if __name__ == "__main__":
    sys.exit(main())
