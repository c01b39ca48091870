"""Commands kept running until each has ended: workers that share the shards of a run, or trainings with names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ClusterError, WsolError
from wsolpipe.engine.config import for_worker, launcher_name
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.session import Session, software_versions
from wsolpipe.engine.worker import Worker
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.keys.words import parse_value, split_words
from wsolpipe.launch.ending import EXIT_AGAIN, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, stop_on_signals
from wsolpipe.launch.launcher import Command, Ending, Launcher, Order, Place, find_launcher
from wsolpipe.launch.process import WorkOrder, follow
from wsolpipe.launch.profiles import load_profile
from wsolpipe.launch.progress import Emit, StoreWatch

#: Times that a worker may end before it begins: such an error does not go away by itself.
FALSE_STARTS = 2
#: Times in a row that a worker may be lost without any progress, as where memory is too small.
FRUITLESS = 3
#: Time without anything to do after which a worker ends that is started again once there is work.
IDLE_SECONDS = 30.0
LOG_LINES = 12
TOKEN = "launch-"


def run_workers(session: Session, emit: Emit, stop: threading.Event) -> str | None:
    """Run everything that a session asks for, where its ``cluster=`` says; what is done is read from the store then.

    Returns
    -------
    str or None
        With ``wait=false``, what was submitted and how to follow it.

    Raises
    ------
    ClusterError
        If the cluster cannot be used, or workers are lost too often.
    WsolError
        The error of a worker.
    """
    config = session.config
    if config.cluster == "local" and config.workers == 1:
        Worker(session, emit, stop).run()
        return None
    kind = find_launcher(config.cluster)
    if not kind.here:
        resolve(session, fetch=True)  # weights are fetched here, where there is a network; their errors are raised now
    look = None if kind.hears else StoreWatch(session, emit).look
    with _token(session, kind) as token:
        order = order_of(session, token)
        Crew(order, emit, stop, look).run(wait=config.wait)
    if config.wait:
        return None
    store = f"wsolpipe status store={config.store} shows how far it is"
    return f"{order.name} is submitted\n{store}; scancel --name={order.name} ends it; the same run again resumes"


def order_of(session: Session, token: str = "") -> Order:
    """The workers of a run, as its cluster starts them."""
    config, kind, profile = session.config, find_launcher(session.config.cluster), load_profile(session.config)
    name = f"wsolpipe-{re.sub(r'[^A-Za-z0-9_.-]', '_', session.dataset.name)}-{secrets.token_hex(3)}"
    threads = config.threads or (session.threads() if kind.here else profile.cpus if kind.scripted else 0)
    wanted: dict[str, Any] = {field: _whole(getattr(config, field)) for field in ("dataset", "store", "stages", "root")}
    settled = replace(for_worker(config), threads=threads, **wanted)
    lead, requeues = (profile.lead, profile.resubmits) if kind.scripted else (0, 0)
    work = WorkOrder(
        settled, {} if kind.here else software_versions(), token, lead, requeues, IDLE_SECONDS if kind.adapts else None
    )
    return Order(
        config.cluster, name, profile.log_folder / name, profile,
        worker=Command(("-m", "wsolpipe.launch.process"), stdin=work.to_json()), parallel=config.workers,
        devices=config.devices, spread=config.device in {"auto", "cuda"},
    )  # fmt: skip


def script_of(session: Session) -> str:
    """The script that the session's ``cluster=`` would submit; nothing is written."""
    return find_launcher(session.config.cluster)(order_of(session), lambda event: None).script()


def _whole(text: str | None) -> str | None:
    """A path made absolute: workers may run in another folder. Names and URLs are kept."""
    return str(Path(text).absolute()) if text and "://" not in text and Path(text).exists() else text


@contextlib.contextmanager
def _token(session: Session, kind: type[Launcher]) -> Iterator[str]:
    """Name of a lease that workers elsewhere must find, and that ends them when it ends; empty if none is needed.

    It is removed when this process ends, or by the next run if this one is killed.
    """
    if kind.here or kind.detached:
        yield ""
        return
    leases, folder = Leases(session.backend, ttl=session.config.lease), session.dataset.name
    for name in session.backend.names(folder):
        left = leases.acquire(f"{folder}/{name}") if name.startswith(TOKEN) else None
        if left is not None:
            left.release()
    token = leases.acquire(f"{folder}/{TOKEN}{secrets.token_hex(8)}.json")
    assert token is not None
    with token.beating():
        yield token.name


@dataclass
class _Losses:
    """How often a command was lost, before it began and in a row without progress."""

    total: int = 0
    false_starts: int = 0
    fruitless: int = 0
    made: int = 0


class Crew:
    """Keeps commands running until each has ended, and starts again those that were lost.

    Parameters
    ----------
    stop : threading.Event
        Ends everything once it is set.
    look : callable, optional
        Number of units that could be made now, None once nothing is left; called at each look.
    """

    def __init__(
        self, order: Order, emit: Emit, stop: threading.Event, look: Callable[[], int | None] | None = None
    ) -> None:
        self.order, self.emit, self.stop, self.look = order, emit, stop, look
        self.made = 0
        self.launcher = find_launcher(order.cluster)(order, self.hear)
        self.waiting, self.codes = list(order.commands), dict[str, int]()
        self.running: dict[Place, str] = {}
        self.finished: dict[Place, int] = {}
        self.losses: defaultdict[str, _Losses] = defaultdict(_Losses)

    def hear(self, event: dict[str, Any]) -> None:
        """Pass an event on, and count finished rows."""
        self.made += event["event"] == "shard"
        self.emit(event)

    def run(self, *, wait: bool = True) -> dict[str, int]:
        """Run all commands to their end; return the exit codes of those that have a name.

        Parameters
        ----------
        wait : bool
            False: leave them running once they are started.

        Raises
        ------
        ClusterError
            If the cluster cannot be used or is lost, or a command is lost too often.
        WsolError
            The error of a worker.
        """
        wanted = self.look() if self.look else None
        if self.look and wanted is None:
            return {}
        done = False
        try:
            self.launcher.open()
            while not self.stop.is_set():
                places = self.launcher.places(wanted)
                self._start(places)
                if not wait:
                    return {}
                if not self.running and self._is_over(places, wanted):
                    break
                self.stop.wait(self.launcher.poll_seconds)
                for place, ending in self.launcher.look().items():
                    self._take(place, ending)
                wanted = self.look() if self.look else None
                if self.look and wanted is None:
                    done = True
                    break
        finally:
            if wait:
                self.launcher.close(done=done)
        return self.codes

    def _start(self, places: Collection[Place]) -> None:
        """Start what waits, at the places that are free."""
        commands: dict[Place, tuple[str, Command]] = {}
        free = [place for place in places if place not in self.running]
        if self.order.worker is not None:
            commands = {place: (f"worker {place}", self.order.worker) for place in free if self._may_work(place)}
        elif self.waiting:
            for place in free[: (self.order.most or len(free)) - len(self.running)]:
                if self.waiting:
                    name = self.waiting.pop(0)
                    commands[place] = name, self.order.commands[name]
        if not commands:
            return
        started = self.launcher.start(commands)
        for place, (name, _) in commands.items():
            if place in started:
                self.running[place] = name
            elif self.order.worker is None:
                self.waiting.insert(0, name)

    def _may_work(self, place: Place) -> bool:
        """Whether a worker can have something to do at a place: it never ended there, or more was made since."""
        return place not in self.finished or (self.launcher.adapts and self.made > self.finished[place])

    def _is_over(self, places: Collection[Place], wanted: int | None) -> bool:
        if self.order.worker is None:
            return not self.waiting
        return wanted == 0 or (bool(self.finished) and not any(self._may_work(place) for place in places))

    def _take(self, place: Place, ending: Ending) -> None:
        """Note how a command ended."""
        name, works = self.running.pop(place), self.order.worker is not None
        if ending.cancelled and not works:
            raise ClusterError(ending.how, hint="the same command resumes what was not finished")
        if ending.cancelled:
            self.emit({"event": "warning", "text": f"{ending.how}; others take over its work"})
            self.finished[place] = self.made
        elif ending.code is None or (works and ending.code == EXIT_AGAIN and not self.launcher.here):
            self._start_again(place, name, ending)
        elif not works:
            self.codes[name] = ending.code
            self.emit({"event": "note", "text": f"{name} ended with {ending.code}"})
        elif ending.code in {EXIT_DONE, EXIT_AGAIN}:
            self.finished[place] = self.made
        else:
            raise ending.error or ClusterError(f"{name} ended with code {ending.code}", hint="run again: it resumes")

    def _start_again(self, place: Place, name: str, ending: Ending) -> None:
        """Start a lost command again, unless it has failed too often."""
        lost, command = self.losses[name], self.order.commands.get(name)
        log = command.log if command else self.launcher.log_of(place)
        end = f"; {log} ends with\n{end_of(log)}" if log is not None else ""
        lost.total += 1
        lost.false_starts = 0 if ending.began else lost.false_starts + 1
        lost.fruitless, lost.made = (lost.fruitless + 1 if self.made == lost.made else 1), self.made
        if lost.false_starts >= FALSE_STARTS:
            msg = f"{ending.how}, before it began{end}"
            raise ClusterError(msg, hint="show the script with print=true; modules and set-up come from the profile")
        vain = self.order.worker is not None and lost.fruitless >= FRUITLESS
        often = lost.total > self.launcher.restarts
        if often and self.order.worker is None:
            self.codes[name] = EXIT_FAILED
            self.emit({"event": "warning", "text": f"{ending.how}, the {lost.total}th time{end}"})
            return
        if vain or often:
            why = f", {lost.fruitless} times without progress" if vain else ""
            msg = f"{ending.how}, and was started again {lost.total - 1} times already{why}{end}"
            hint = "everything committed is kept: run again with fewer workers, more memory or more time; it resumes"
            raise ending.error or ClusterError(msg, hint=hint)
        self.waiting[:0] = [name] if self.order.worker is None else []
        self.emit({"event": "warning", "text": f"{ending.how}; it is started again"})


def end_of(log: Path) -> str:
    """The last lines of a log, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return "  (the file does not exist: is the folder shared with the compute nodes?)"
    return "\n".join(f"  {line}" for line in lines)


def read_order(path: Path) -> Order:
    """The commands of a JSON file; their logs, ``<name>.log``, go beside it, into a folder that all machines share.

    Raises
    ------
    ConfigError
        If the cluster, the profile or one of its fields is unknown.
    """
    content = json.loads(path.read_text())
    launcher_name(content["cluster"])
    site = split_words(content["profile"])
    name, file = site.pop("profile", None), site.pop("profiles", None)
    fields = {field: parse_value(text) for field, text in site.items()}
    profile = load_profile(RunConfig(profile=name, profiles=file, profile_fields=fields))
    folder = path.parent.absolute()
    commands = {name: Command(tuple(words), log=folder / f"{name}.log") for name, words in content["commands"].items()}
    order = f"wsol-{secrets.token_hex(4)}"
    return Order(content["cluster"], order, folder, profile, commands, parallel=content["parallel"])


def main() -> int:
    """Run an order until it ends or the process that asked for it does; notes go to standard error."""
    stop = threading.Event()
    follow(os.getppid(), stop)

    def tell(event: dict[str, Any]) -> None:
        print(event["text"], file=sys.stderr, flush=True)

    try:
        with stop_on_signals(stop):
            codes = Crew(read_order(Path(sys.argv[1])), tell, stop).run()
    except WsolError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return error.exit_code
    print(json.dumps({"codes": codes}))
    return EXIT_INTERRUPTED if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
