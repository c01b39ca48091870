"""Commands on Dask workers, one each as one long task: on this machine, or on a running cluster.

A task runs its command as a process of the worker's machine. Dask carries the words of commands and the events of
workers, never arrays, and it decides nothing: which shard a worker makes is settled by leases alone.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from wsolpipe.contract.errors import ClusterError, ConfigError
from wsolpipe.engine.session import software_versions
from wsolpipe.launch.launcher import Command, Ending, Launcher, Order, Place
from wsolpipe.launch.local import Child, ending_of, find_gpus, threads_each

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from distributed import Client, Future

    from wsolpipe.launch.progress import Emit

HOME = "127.0.0.1"
#: Seconds that a connection may be silent before either end closes it.
LINK_SECONDS = 60
SETTINGS: dict[str, Any] = {
    "distributed.comm.timeouts.tcp": f"{LINK_SECONDS}s",
    "distributed.worker.daemon": False,
    "distributed.worker.profile.enabled": False,
}
POLL_SECONDS = 0.2
REPORT_SECONDS = 1.0
WATCH_SECONDS = 2.0
FETCH_SECONDS = 10.0
CONNECT_SECONDS = 3.0
#: Seconds to wait for an unreachable scheduler, after its connection was closed.
RETURN_SECONDS = 15.0
START_SECONDS = 60.0
UNDER_WAY = frozenset(["rows", "progress"])


def _call(
    words: tuple[str, ...], stdin: str, log: str | None, environment: dict[str, str], folder: str | None, topic: str
) -> tuple[int, dict[str, Any]]:
    """Run a command on a Dask worker until it ends, or until its task is cancelled.

    Returns
    -------
    (code, fatal)
        Its exit code, and its own word of what was wrong.
    """
    from distributed import get_worker
    from distributed.core import Status
    from distributed.worker import thread_state

    worker, key = get_worker(), thread_state.key
    last = float("-inf")

    def hear(event: dict[str, Any]) -> None:
        nonlocal last
        if event["event"] not in UNDER_WAY or time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            worker.log_event(topic, event)

    child = Child(Command(words, stdin, Path(log) if log else None), hear, environment, folder)
    while (code := child.code()) is None:
        time.sleep(POLL_SECONDS)
        task = worker.state.tasks.get(key)
        at_work = worker.status in {Status.running, Status.paused}
        if not at_work or task is None or task.state not in {"executing", "long-running"}:  # cancelled, or none waits
            child.terminate()
    return code, child.fatal


class DaskLauncher(Launcher):
    """Commands on the workers of a Dask scheduler."""

    hears: ClassVar = True
    client: Client
    folder: str | None = None

    def __init__(self, order: Order, emit: Emit) -> None:
        super().__init__(order, emit)
        self.resources = contextlib.ExitStack()
        self.futures: dict[Place, tuple[str, Future]] = {}
        self.workers: list[str] = []
        self.watched, self.cut = float("-inf"), False

    def open(self) -> None:
        """Connect, and listen to the events of workers.

        Raises
        ------
        ClusterError
            If there is no scheduler, or it cannot pass commands on.
        """
        import dask

        self.resources.enter_context(_quiet())
        self.resources.enter_context(dask.config.set(SETTINGS))
        self.client = self.resources.enter_context(self.connect())
        pages = "" if find_spec("bokeh") else " (its pages need bokeh: pip install 'wsolpipe[dashboard]')"
        self.emit({"event": "note", "text": f"Dask dashboard: {self.dashboard()}{pages}"})
        self.client.subscribe_topic(self.order.name, lambda event: self.emit(event[1]))  # (time, event)
        self._count()

    def connect(self) -> Client:
        """A client of the scheduler."""
        raise NotImplementedError

    def dashboard(self) -> str:
        """Address of the pages of the scheduler."""
        return str(self.client.dashboard_link)

    def environment(self, worker: str) -> dict[str, str]:  # noqa: ARG002
        """Variables of the commands of a worker."""
        return {}

    def places(self, wanted: int | None) -> Collection[Place]:  # noqa: ARG002
        """Addresses of the workers."""
        return self.workers

    def start(self, commands: Mapping[Place, tuple[str, Command]]) -> Collection[Place]:
        """Submit a task that only the worker of its place can take."""
        with self._connected():
            for place, (name, command) in commands.items():
                future = self.client.submit(
                    _call, command.words, command.stdin, str(command.log.absolute()) if command.log else None,
                    self.environment(str(place)), self.folder, self.order.name,
                    workers=[str(place)], pure=False, key=f"{name.replace(' ', '-')}-{time.monotonic_ns()}",
                )  # fmt: skip
                self.futures[place] = name, future
        return commands.keys()

    def look(self) -> Mapping[Place, Ending]:
        """Commands that ended, or whose worker was lost."""
        with self._connected():
            self._watch()
        ended = {}
        for place, (name, future) in list(self.futures.items()):
            if future.done() or (place not in self.workers and not self.cut):
                ended[place] = self._ending(name, future)
                del self.futures[place]
        return ended

    def close(self, *, done: bool) -> None:  # noqa: ARG002
        """Take back the tasks that run, which ends their commands."""
        with contextlib.suppress(Exception):  # a lost cluster needs no cleaning up
            self.client.cancel([future for _, future in self.futures.values()])
        self.resources.close()

    def _ending(self, name: str, future: Future) -> Ending:
        lost = Ending(f"{name} was lost with its Dask worker")
        if future.status == "finished":
            with contextlib.suppress(TimeoutError, OSError):
                return ending_of(name, *future.result(timeout=FETCH_SECONDS))
        if future.status == "error":
            error = future.exception(timeout=FETCH_SECONDS)
            if isinstance(error, ImportError) or "deserializ" in str(error):
                msg = f"{name}: the cluster could not load the code of the task: {error}"
                hint = (
                    "install the same wsolpipe for the scheduler and every worker, and your own stages for the workers"
                )
                raise ClusterError(msg, hint=hint) from error
            return Ending(f"{name} was lost on the Dask cluster: {error}")
        future.cancel()
        return lost

    def _watch(self) -> None:
        """Check the connection and the workers, every few seconds."""
        status, address = self.client.status, self.order.cluster
        if status == "closed":
            raise self._lost()
        if self.cut != (status == "connecting"):
            self.cut = not self.cut
            state = "is lost; reconnecting" if self.cut else "is restored"
            self.emit({"event": "warning", "text": f"the connection to the Dask scheduler at {address} {state}"})
            if not self.cut:
                self.client.subscribe_topic(self.order.name, lambda event: self.emit(event[1]))
        if not self.cut and time.monotonic() - self.watched > WATCH_SECONDS:
            self._count()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn any error of a client that was closed in between into that of a lost scheduler."""
        try:
            yield
        except ClusterError:
            raise
        except Exception as error:
            if self.client.status in {"closing", "closed"}:
                raise self._lost() from error
            raise

    def _lost(self) -> ClusterError:
        hint = "everything committed is kept: run again once there is a scheduler"
        return ClusterError(f"the Dask scheduler at {self.order.cluster} was lost", hint=hint)

    def _count(self) -> None:
        """See which workers there are."""
        with contextlib.suppress(TimeoutError, OSError):
            self.workers = sorted(self.client.sync(self.client.scheduler.ncores, callback_timeout=FETCH_SECONDS))
            self.watched = time.monotonic()


class HereByDask(DaskLauncher):
    """A Dask scheduler in this process with as many workers as commands are to run at once; only its pages listen."""

    here: ClassVar = True

    def __init__(self, order: Order, emit: Emit) -> None:
        super().__init__(order, emit)
        self.each = self.environments()

    def environments(self) -> list[dict[str, str]]:
        """Variables of each place's commands."""
        return [{}] * (self.order.parallel or 1)

    def connect(self) -> Client:
        """Start scheduler and workers: they live in this process, their commands in others."""
        from distributed import Client, Scheduler, SpecCluster, Worker

        options: dict[str, Any] = {
            "nthreads": 1,
            "memory_limit": 0,
            "dashboard": False,
            "dashboard_address": f"{HOME}:0",
        }
        workers = {number: {"cls": Worker, "options": options} for number in range(len(self.each))}
        scheduler = {"cls": Scheduler, "options": {"protocol": "inproc://", "dashboard_address": f"{HOME}:0"}}
        self.cluster = self.resources.enter_context(SpecCluster(scheduler=scheduler, workers=workers))
        return Client(self.cluster, set_as_default=False)

    def dashboard(self) -> str:
        """Address of the pages: Dask would name that of the network, where nothing listens."""
        return f"http://{HOME}:{self.cluster.scheduler.http_server.port}/status"

    def environment(self, worker: str) -> dict[str, str]:
        """The variables that belong to the place of a worker."""
        return {**threads_each(len(self.each)), **self.each[self.workers.index(worker)]}


class GpusByDask(HereByDask):
    """`HereByDask` with a worker a GPU; a command sees its own device alone, before any library lists devices."""

    reads: ClassVar = ("devices",)

    def environments(self) -> list[dict[str, str]]:
        """Each GPU alone."""
        gpus = find_gpus(self.order)
        self.emit({"event": "note", "text": f"one worker for each of the devices {', '.join(gpus)}"})
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]


class StandingDask(DaskLauncher):
    """A running Dask cluster; its machines need to share only a store, for trainings also the folder.

    The scheduler and its workers must have this package and the same versions of the packages that labels depend on.
    """

    reads: ClassVar = ("start_seconds",)
    restarts = 20

    def __init__(self, order: Order, emit: Emit) -> None:
        super().__init__(order, emit)
        self.folder = None if order.worker else str(Path.cwd())
        self.seen, self.bound = time.monotonic(), order.profile.start_seconds or START_SECONDS

    def connect(self) -> Client:
        """Connect to the scheduler, and check that commands can be passed on."""
        from distributed import Client

        address = self.order.cluster
        check_listens(address)
        try:
            client = Client(address, timeout=RETURN_SECONDS, set_as_default=False, name="wsolpipe")
        except (OSError, ValueError) as error:
            msg = f"what listens at {address} does not answer as a Dask scheduler: {error}"
            raise ClusterError(msg, hint="start one with: dask scheduler") from error
        return client

    def _count(self) -> None:
        """See which workers there are; those that are new must be able to run commands."""
        before = self.workers
        super()._count()
        if set(self.workers) - set(before):
            check_versions(self.client)

    def look(self) -> Mapping[Place, Ending]:
        """As `DaskLauncher.look`; a run without a worker ends after a while."""
        ended = super().look()
        if self.workers:
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > self.bound:
            address = self.order.cluster
            msg = f"no worker is connected to the Dask scheduler at {address} for {self.bound:.0f} s"
            hint = f"start some, and run again: dask worker {address} --nthreads 1 --nworkers N"
            raise ClusterError(msg, hint=hint)
        return ended


def check_listens(address: str) -> None:
    """Check that a server listens at `address`.

    Raises
    ------
    ConfigError
        If the address is not of the form ``tcp://host:port``.
    ClusterError
        If none answers.
    """
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or not port:
        msg = f"cluster={address}: write the scheduler's address as {parts.scheme}://host:port"
        raise ConfigError(msg, hint="it is printed by: dask scheduler")
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            if time.monotonic() < deadline and not isinstance(error, socket.gaierror):
                time.sleep(1.0)
                continue
            msg = f"no Dask scheduler can be reached at {address}: {error.strerror or error}"
            raise ClusterError(msg, hint="start one there with: dask scheduler") from error
        return


def check_versions(client: Client) -> None:
    """Check that the scheduler and every worker can load the code of a task; workers check the rest themselves.

    Raises
    ------
    ClusterError
        If one lacks wsolpipe or has another version of it.
    """
    wanted = software_versions()["wsolpipe"]
    found = client.get_versions(packages=["wsolpipe"])
    processes = {f"the worker at {address}": there for address, there in found["workers"].items()}
    for process, there in {"the Dask scheduler": found["scheduler"], **processes}.items():
        have = there["packages"].get("wsolpipe")
        if have != wanted:
            msg = f"{process} has {f'wsolpipe {have} instead of {wanted}' if have else 'no wsolpipe'}"
            raise ClusterError(msg, hint="install the same version there: labels depend on it")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own log off the terminal, except with ``--debug``: events and errors report what matters."""
    import distributed  # noqa: F401 - creates its loggers, each with its own level

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    before = {name: logging.getLogger(name).level for name in names}
    if "--debug" not in sys.argv:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
