"""Time PxAP histograms beside the plain numpy ones on real masks: one thread, one run, results compared on the way.

    python tools/bench/pxap.py [--images 60] [--repeat 5]

``plain`` is the definition as the standard evaluator computes it, two calls of ``numpy.histogram`` an image over 1,002
bins; thread CPU seconds, medians over interleaved repetitions. Exit code 1 if a count differs, too.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from figures import Figure, report
from PIL import Image
from prepare import read_options, shared_data

from wsolpipe import metrics

EDGES = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
WANTED = 5.0


def main() -> int:
    """Print the figures and return 1 if the limit or a count is missed."""
    options = read_options(__doc__, images=60, repeat=5)
    folder = shared_data("data/ecssd_masks")
    paths = sorted((folder / "masks").iterdir())[: options.images]
    seconds = np.zeros((2, len(paths), options.repeat))  # plain, ours
    for number, path in enumerate(paths):
        mask = np.asarray(Image.open(path).convert("L").resize((224, 224), Image.Resampling.NEAREST)) > 127
        image = Image.open(next((folder / "images").glob(f"{path.stem}.*"))).convert("L").resize((224, 224))
        score = metrics.minmax(np.asarray(image, dtype=np.float64) + 100.0 * mask)
        metrics.pixel_histograms(score, mask)  # compiles
        for turn in range(options.repeat):
            start = time.thread_time()
            want = np.stack([np.histogram(score[mask == flag], bins=EDGES)[0] for flag in (False, True)])
            middle = time.thread_time()
            got = metrics.pixel_histograms(score, mask)
            seconds[:, number, turn] = middle - start, time.thread_time() - middle
            if not np.array_equal(want, got):
                sys.exit(f"{path.name}: histograms differ")
    plain, ours = np.median(seconds, axis=2).sum(axis=1)
    print(
        f"PxAP, {len(paths)} images of 224 x 224: plain {1000 * plain / len(paths):.2f} ms, "
        f"ours {1000 * ours / len(paths):.3f} ms, histograms equal"
    )
    return report([Figure.of("PxAP / numpy", seconds[0].sum(axis=0) / seconds[1].sum(axis=0), limit=WANTED)])


if __name__ == "__main__":
    sys.exit(main())
