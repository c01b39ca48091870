"""Stages of a table's cells, run, planned and scored by the pipeline: the one place where a table calls its engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import RunFailed
from wsolpipe.metrics.confidence import intervals_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.keys.run_keys import RunConfig


def _configure(words: Sequence[str]) -> RunConfig:
    from wsolpipe.engine.config import build_config
    from wsolpipe.stages.registry import load_registry

    return build_config(tuple(words), load_registry(None), also=())[0]


def run_stage(words: Sequence[str]) -> dict[str, str]:
    """Run a stage by the words of ``wsolpipe run``; the key of each stage that was made.

    Raises
    ------
    RunFailed
        If shards are left, with the verdict of the run.
    WsolError
        As the run raises it.
    """

    from wsolpipe.launch.display import Display
    from wsolpipe.launch.ending import EXIT_INTERRUPTED
    from wsolpipe.launch.run import run

    config = _configure(words)
    with Display(config.log) as display:
        ended = run(config, display, threading.Event())
    if ended.code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if ended.code:
        raise RunFailed(ended.verdict)
    return {line.stage: line.key for line in ended.lines if line.key}


def plan_stage(words: Sequence[str]) -> tuple[bool, float | None]:
    """Say whether ``wsolpipe run`` with these words has something to make, and for how many seconds of one worker.

    Returns
    -------
    bool, float or None
        None where no shard was measured.
    """
    from wsolpipe.engine.plan import plan_all, seconds_left
    from wsolpipe.engine.session import Session

    lines, _ = plan_all([Session.open(_configure(words), need_root=False)])
    return any(line.reason != "done" for line in lines), seconds_left(lines)


def score_stage(words: Sequence[str]) -> dict[str, Any]:
    """Score a stage by the words of ``wsolpipe eval``: ``figures``, ``intervals``, ``rows`` and ``threshold``.

    Figures of boxes have the names of those of maps beside their own.

    Raises
    ------
    WsolError
        As the evaluation raises it.
    """
    from wsolpipe.engine.evaluating import evaluate_words

    (found,) = evaluate_words([*words, "interval=true"])
    scored, figures, intervals = found.scored, found.figures, found.figures.get("intervals", {})
    assert scored is not None
    if scored.boxes is not None:
        figures = {**figures, **scored.boxes.as_maps()}
        intervals = {**intervals, **(intervals_of(scored.boxes.map_values()) if scored.rows else {})}
    return {"figures": figures, "intervals": intervals, "rows": scored.rows, "threshold": scored.threshold}
