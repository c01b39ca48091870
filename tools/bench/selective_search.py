"""Throughput of selective search over all cores against one thread, in one run, in turns.

A: the proposer called on one decoded image after the other. B: the whole stage ``regions``, which also decodes the
files, with a thread a core. The stage must reach 0.95 of the cores times the single thread.

    python tools/bench/selective_search.py --images ../shared/data/cub10
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from ab import compare
from photographs import make_parser, parse

from wsolpipe.images.decode import decode
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.regions import RegionsStage, cores
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    import argparse

WANTED = 0.95


def main() -> int:
    """Measure, print, and return 1 where the stage is slower than it must be."""
    options = read_options()
    names = (options.images / "image_ids.txt").read_text().split()[: options.rows]
    paths = [options.images / "images" / name for name in names]
    images = [decode(path.read_bytes()) for path in paths]
    registry: Any = load_registry()
    stage = RegionsStage(registry.params("regions", {"mode": options.mode}), Context(dataset="bench"))
    stage.setup()

    def one_thread() -> None:
        for image in images:
            stage.proposer(image)

    def whole() -> None:
        rows = Rows(np.arange(len(paths)), {}, lambda row: decode(paths[row].read_bytes()), threads=1)
        stage.process(rows, {})

    result = compare(one_thread, whole, repetitions=options.repetitions)
    print(f"selective search {options.mode}, longest side 500, {cores()} threads on {os.cpu_count()} cores")
    print("\n".join(result.lines(a="one thread", b="stage", items=len(paths), unit="images")))
    share = result.ratio("wall") / cores()
    print(f"{'ok' if share >= WANTED else 'TOO SLOW'}: {share:.3f} of {cores()} × one thread, wanted {WANTED}")
    print(
        f"CPU seconds of the stage: {1 / result.ratio('cpu'):.3f} of one thread's (what a busy machine leaves to see)"
    )
    return int(share < WANTED)


def read_options() -> argparse.Namespace:
    """Command line; the images may also be found through WSOLPIPE_SHARED."""
    parser = make_parser(__doc__, rows=16, repetitions=3)
    parser.add_argument("--mode", choices=("fast", "quality"), default="fast")
    return parse(parser)


if __name__ == "__main__":
    sys.exit(main())
