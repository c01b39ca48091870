"""A whole run: settle the indexes, launch, then read the result from the store; a sweep runs once a combination."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.base import require_first_wins
from wsolpipe.contract.backends.opening import check_place
from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.engine.commit import now
from wsolpipe.engine.data_check import check_before_stages
from wsolpipe.engine.graph import resolve, stage_order, wanted_splits
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.listed import list_index
from wsolpipe.engine.plan import Line, examine, make_plan
from wsolpipe.engine.quarantine import ask_again, dropped_ids, retry_found
from wsolpipe.engine.session import Session
from wsolpipe.launch.ending import (
    EXIT_AGAIN,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_PENDING,
    settle_end,
    stop_on_signals,
)
from wsolpipe.launch.launcher import check, find_launcher
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.launch.progress import Emit


LEAST_BUDGET = 20


@dataclass(frozen=True)
class Ended:
    """The state of the store after a run.

    Attributes
    ----------
    code : int
        Exit code.
    verdict : str
        One line for people.
    submitted : bool
        Whether jobs were left running, which make what is still missing.
    """

    session: Session
    lines: list[Line]
    code: int
    verdict: str
    submitted: bool = False

    def to_json(self, resume: str) -> dict[str, Any]:
        """As published: stages with their counts, the store, and the command that resumes."""
        fields = ("stage", "split", "key", "rows", "done", "quarantined", "shards", "shards_done", "seconds")
        stages = [{name: getattr(line, name) for name in fields} for line in self.lines]
        return {"stages": stages, "store": self.session.config.store, "resume": resume, "verdict": self.verdict}


def name_a_stage(config: RunConfig, command: str) -> None:
    """Refuse a configuration that names no stage, with the names that there are.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if not config.stage:
        msg = f"no stage named; valid: {', '.join(['index', *load_registry(config.stages).entries])}"
        raise ConfigError(msg, hint=f"add stage=…, as in wsolpipe {command} stage=proposals dataset=demo")


def run(config: RunConfig, emit: Emit, stop: threading.Event) -> Ended:
    """Run everything that `config` asks for.

    Raises
    ------
    WsolError
        For an error in the configuration, the data, the weights or the store.
    """
    from wsolpipe.launch.crew import run_workers  # brings the engine, which `plan` need not wait for

    check(config)
    here = find_launcher(config.cluster).here
    session = Session.open(settle_end(config) if here else config)
    if here and config.device != "auto":
        session.device()  # a device that is missing is reported before anything is indexed
    check_place(config.store)
    require_first_wins(session.backend)
    late = threading.Event()

    def receive(event: dict[str, Any]) -> None:
        if event["event"] == "late":
            late.set()
        emit(event)

    with stop_on_signals(stop):
        graph_session = _settle_indexes(session, emit)
        check_before_stages(graph_session, emit)
        if config.force:
            _force(graph_session)
        retry_found(graph_session, resolve(graph_session))
        submitted = run_workers(graph_session, receive, stop)
        graph = resolve(graph_session)
        lines = make_plan(graph_session, graph)
        quarantined = any(line.quarantined for line in lines)
        if quarantined and not submitted and not stop.is_set() and retry_found(graph_session, graph):
            submitted = run_workers(graph_session, receive, stop)
            graph = resolve(graph_session)
            lines = make_plan(graph_session, graph)
    if submitted:
        return Ended(graph_session, lines, EXIT_DONE, submitted, submitted=True)
    leases = Leases(graph_session.backend)
    for folder in [
        *(index.folder for index in graph.indexes.values() if index),
        *(node.folder for node in graph.nodes),
    ]:
        leases.sweep(folder)
    code, verdict = _judge(graph_session, lines, late=late.is_set(), interrupted=stop.is_set())
    return Ended(graph_session, lines, code, verdict)


def _settle_indexes(session: Session, emit: Emit) -> Session:
    """List every split that is needed, so that all workers work with the same rows."""
    keys = {}
    for split in wanted_splits(session, stage_order(session)):
        index, change = list_index(session, split)
        keys[split] = index.key
        emit({"event": "index", "split": split, "rows": index.rows})
        if change:
            emit({"event": "note", "text": f"{split} of {session.dataset.name}: {change}; what is unchanged is kept"})
    return replace(session, config=replace(session.config, index=keys))


def _force(session: Session) -> None:
    """``force=true``: ask for a new generation of every shard of the stages that were named."""
    for node in resolve(session).nodes:
        if node.stage in session.config.stage and not node.blocked:
            for unit, record in examine(session, node, {}).records.items():
                ask_again(session, node.folder, unit, record)


def budget(max_failed: float, rows: int) -> float:
    """Rows that may be quarantined: a share of the rows (at least `LEAST_BUDGET`), or above 1 a number of rows."""
    if max_failed > 1:
        return max_failed
    return max(max_failed * rows, LEAST_BUDGET) if max_failed > 0 else 0


def script(config: RunConfig) -> str:
    """The script that a run would submit; nothing is written and nothing submitted.

    Raises
    ------
    ConfigError
        If its cluster submits no script, or the configuration has an error.
    """
    from wsolpipe.launch.crew import script_of

    check(config)
    return script_of(Session.open(config))


def _judge(session: Session, lines: list[Line], *, late: bool, interrupted: bool) -> tuple[int, str]:
    pending = [line for line in lines if line.shards_done < line.shards or line.key is None]
    worst = EXIT_DONE
    problems: list[str] = []
    for line in lines:
        counted = line.quarantined - _dropped(session, line)
        where = f"{line.stage} of {line.split}"
        if line.rows and line.quarantined == line.rows:
            worst, problems = EXIT_FAILED, [*problems, f"every row of {where} is quarantined"]
        elif counted > budget(session.config.max_failed, line.rows):
            worst = worst or EXIT_PENDING
            problems.append(
                f"{counted} of {line.rows} rows of {where} are quarantined, over max_failed={session.config.max_failed}"
            )
    if pending and late:
        return EXIT_AGAIN, "the wall time is up; everything committed so far is kept"
    if pending and interrupted:
        return EXIT_INTERRUPTED, "interrupted; everything committed so far is kept"
    if pending:
        names = ", ".join(dict.fromkeys(line.stage for line in pending))
        return EXIT_FAILED, f"not made: {names}"
    return worst, "; ".join(problems) or "done"


def _dropped(session: Session, line: Line) -> int:
    """Quarantined rows of a line that were accepted as gone."""
    if line.split is None or not line.quarantined:
        return 0
    gone = dropped_ids(session.backend, session.dataset.name, line.split)
    split = session.store[session.dataset.name][line.split]
    if not gone:
        return 0
    if line.stage == "index":
        table = split.index(line.key).table(["image_id", "reason"]).to_pylist()
        return sum(1 for item in table if item["reason"] and item["image_id"] in gone)
    return sum(1 for item in split.stage(line.stage, line.key).quarantined() if item["image_id"] in gone)


def resume_command(words: list[str] | None = None) -> str:
    """The command line that resumes where this one stopped."""
    given = sys.argv[1:] if words is None else words
    kept = [word for word in given if not word.startswith("force=")]
    return shlex.join(["wsolpipe", *kept])


def remember_command(session: Session, command: str) -> None:
    """Keep the last command of a data set in the store, so that `status` can name it from any shell."""
    note = json.dumps({"command": command, "time": now()}).encode()
    session.backend.replace(f"{session.dataset.name}/last-run.json", note)


#: Figures of `wsolpipe.evaluate.evaluation` that are kept, where a stage has them.
FIGURES = ("iou_top1", "recall50_top1", "box_maxboxacc_v2", "MaxBoxAcc", "MaxBoxAccV2", "PxAP", "mask_iou")


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
        from wsolpipe.engine.chosen_maps import SessionResults
        from wsolpipe.evaluate.evaluation import Options, evaluate

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
    from wsolpipe.launch.display import Display

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
