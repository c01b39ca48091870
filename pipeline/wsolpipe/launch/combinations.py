"""Sweeps of ``run``: one run a combination of values, and the figures of each."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import WsolError
from wsolpipe.engine.graph import stage_order
from wsolpipe.engine.lookup import SessionResults
from wsolpipe.engine.session import Session
from wsolpipe.evaluate.evaluation import Options, evaluate
from wsolpipe.launch.display import Display
from wsolpipe.launch.run import remember_command, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.engine.plan import Line
    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.launch.run import Ended

FIGURES = ("iou_top1", "recall50_top1", "box_maxboxacc_v2", "MaxBoxAcc", "MaxBoxAccV2", "PxAP", "mask_iou")
"""Figures of `wsolpipe.evaluate.evaluation` that are kept, where a stage has them."""


@dataclass(frozen=True)
class Tried:
    """One combination of values: its configuration, and how its run ended."""

    values: dict[str, str]
    config: RunConfig
    outcome: Ended

    @property
    def name(self) -> str:
        """The values as they are typed."""
        return spell(self.values)

    def lines(self) -> list[dict[str, Any]]:
        """Make one line for each split and requested stage, with the figures that its ground truth gives."""
        asked = [line for line in self.outcome.lines if line.stage in self.config.stage and line.stage != "index"]
        fields = ("stage", "split", "key", "rows", "done", "quarantined")
        return [
            {**self.values, **{name: getattr(line, name) for name in fields}, "figures": self._figures(line)}
            for line in asked
        ]

    def _figures(self, line: Line) -> dict[str, Any]:
        """Figures against ground truth; none where a stage is unfinished, an artifact, or without ground truth."""
        if line.split is None or self.outcome.submitted or line.shards_done < line.shards or not line.shards:
            return {}
        results = SessionResults(self.outcome.session)
        try:
            found = evaluate(results, line.stage, line.split, Options(key=line.key)).figures
        except WsolError as error:
            print(f"{line.stage} of {line.split} is not scored: {error.message}", file=sys.stderr)
            return {}
        kept = {name: found[name] for name in FIGURES if found.get(name) is not None}
        return {name: value["mean"] if isinstance(value, dict) else value for name, value in kept.items()}


def spell(values: dict[str, str]) -> str:
    """Spell a combination of values as it is typed."""
    return " ".join(f"{name}={text}" for name, text in values.items())


def run_each(points: Sequence[tuple[dict[str, str], RunConfig]], resume: str) -> list[Tried]:
    """Run every combination, one after the other, on the cluster that the configuration names.

    What several combinations have in common is made once, and what is finished is not made again, as in any run. A
    combination that ends with work left does not stop the others.

    Raises
    ------
    ConfigError
        If any of them is wrong, before the first is run.
    """
    for _, config in points:
        stage_order(Session.open(config))  # reads the parameters of every stage
    tried: list[Tried] = []
    stop = threading.Event()
    with Display(points[0][1].log) as display:
        for number, (values, config) in enumerate(points, 1):
            print(f"{number} of {len(points)}: {spell(values)}", file=sys.stderr)
            tried.append(Tried(values, config, run(config, display, stop)))
            remember_command(tried[-1].outcome.session, resume)
            if stop.is_set():
                break
    return tried
