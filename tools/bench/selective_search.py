"""Throughput of selective search over all cores against one thread, in one run, in turns.

A: the proposer called on one decoded image after the other. B: the whole stage ``regions``, which also decodes the
files, with a thread a core. The stage must reach 0.95 of the cores times the single thread.

One thread hardly feels another busy process and as many threads as cores always do, so the clock alone is unfair to B
on a machine with other work. The judged figure therefore leaves out the time for which threads waited in the queue of a
core; on a machine of one's own it is that of the clock. Locks, decoding and idle threads at the end count fully.

    python tools/bench/selective_search.py [--images FOLDER] [--rows 48] [--mode fast]
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ab import Queue, Timing, compare, measure
from figures import report
from prepare import photographs, read_options

from wsolpipe.images.decode import decode
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.regions import RegionsStage, threads_here
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Callable

WANTED = 0.95


def main() -> int:
    """Measure, print, and return 1 where the stage is slower than it must be."""
    options = read_options(__doc__, images=Path, rows=48, repetitions=3, mode=("fast", "quality"))
    paths = photographs(options.images, options.rows)
    images = [decode(path.read_bytes()) for path in paths]
    registry: Any = load_registry()
    stage = RegionsStage(registry.params("regions", {"mode": options.mode}), Context(dataset="bench"))
    stage.setup()

    queue = Queue()
    stage.proposer = Watched(queue.watch(stage.proposer))
    load = queue.watch(lambda row: decode(paths[row].read_bytes()))

    def one_thread() -> None:
        for image in images:
            stage.proposer(image)

    def whole() -> None:
        stage.process(Rows(np.arange(len(paths)), {}, load, threads=1), {})

    def timed(work: Callable[[], None], threads: int) -> Timing:
        queue.take()
        timing = measure(work)
        return Timing(timing.wall, timing.cpu, queue.take() / threads)

    stage.proposer(images[0])
    result = compare(
        lambda: timed(one_thread, 1), lambda: timed(whole, threads_here()), repetitions=options.repetitions, warmup=0
    )
    print(f"selective search {options.mode}, longest side 500, {threads_here()} threads on {os.cpu_count()} cores")
    result.show(a="one thread", b="stage", items=len(paths))
    waits = [statistics.median(timing.waited / timing.wall for timing in side) for side in (result.a, result.b)]
    print(f"  by the clock {result.ratio('wall') / threads_here():.3f} of {threads_here()} × one thread")
    print(f"  in the queue of a core: {waits[0]:.0%} of the time with one thread, {waits[1]:.0%} with {threads_here()}")
    return report([result.figure("stage / one thread a core", "alone", limit=WANTED, times=1 / threads_here())])


class Watched:
    """A proposer whose threads are watched."""

    concurrent = True

    def __init__(self, propose: Callable[[Any], Any]) -> None:
        self.propose = propose

    def __call__(self, image: Any) -> Any:
        """Find regions of an image."""
        return self.propose(image)


if __name__ == "__main__":
    sys.exit(main())
