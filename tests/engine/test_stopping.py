"""A run that is asked to stop ends inside a block, blames no row for it, and keeps what it finished."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from wsolpipe.launch.run import run

if TYPE_CHECKING:
    from engine.bench import Bench


def stop_at(bench: Bench, count: int, *words: str, stage: str):
    """Run, and ask to stop at the `count`-th report of progress inside a block; the run's outcome."""
    stop, seen = threading.Event(), []

    def hear(event):
        bench.events.append(event)
        if event["event"] == "progress":
            seen.append(event)
            if len(seen) == count:
                stop.set()

    bench.events = []
    return run(bench.session(*words, stage=stage).config, hear, stop), len(seen)


def test_a_stop_inside_a_block_ends_the_run_without_blaming_a_row(bench, monkeypatch):
    """The stop used to be taken for a fault of a row: the block was halved and made again, down to single rows."""
    outcome, seen = stop_at(bench, 3, stage="pixels")
    assert outcome.code == 130
    assert seen == 3
    assert bench.go(stage="pixels").code == 0
    assert outcome.lines[-1].quarantined == 0
