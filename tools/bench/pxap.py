"""Time PxAP histograms beside the plain numpy ones on real masks: one thread, one run, results compared on the way.

    python tools/bench/pxap.py [--images 60] [--repeat 5] [--json]

``plain`` is the definition as the standard evaluator computes it, two calls of ``numpy.histogram`` an image over 1,002
bins; thread CPU seconds, medians over interleaved repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from wsolpipe import metrics

ROOT = Path(__file__).resolve().parents[2]
EDGES = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])


def main() -> int:
    """Print the figures and return 1 if the bound or a count is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("WSOLPIPE_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = options.shared / "data/ecssd_masks"
    plain_times, our_times, equal = [], [], True
    for path in sorted((folder / "masks").iterdir())[: options.images]:
        mask = np.asarray(Image.open(path).convert("L").resize((224, 224), Image.Resampling.NEAREST)) > 127
        image = Image.open(next((folder / "images").glob(f"{path.stem}.*"))).convert("L").resize((224, 224))
        score = metrics.minmax(np.asarray(image, dtype=np.float64) + 100.0 * mask)
        plain, ours = [], []
        for _ in range(options.repeat):
            start = time.thread_time()
            want = np.stack([np.histogram(score[mask == flag], bins=EDGES)[0] for flag in (False, True)])
            middle = time.thread_time()
            got = metrics.pixel_histograms(score, mask)
            plain.append(middle - start)
            ours.append(time.thread_time() - middle)
            equal = equal and np.array_equal(want, got)
        plain_times.append(median(plain))
        our_times.append(median(ours))
    result = {
        "images": len(our_times),
        "plain_ms": 1000 * sum(plain_times) / len(plain_times),
        "ours_ms": 1000 * sum(our_times) / len(our_times),
        "ratio": sum(plain_times) / sum(our_times),
        "bound": 5.0,
        "histograms_equal": bool(equal),
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(
            f"PxAP, {result['images']} images of 224 x 224: plain {result['plain_ms']:.2f} ms,"
            f" ours {result['ours_ms']:.3f} ms, {result['ratio']:.1f} x (bound 5),"
            f" histograms {'equal' if equal else 'DIFFER'}"
        )
    return int(result["ratio"] < 5.0 or not equal)


if __name__ == "__main__":
    sys.exit(main())
