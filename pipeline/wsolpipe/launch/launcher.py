"""Starters of commands, of a run's workers and of trainings alike: one interface for every ``cluster=``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from wsolpipe.contract import errors
from wsolpipe.contract.errors import ConfigError, DeviceError, WsolError
from wsolpipe.engine.config import LAUNCHERS, launcher_name
from wsolpipe.launch.profiles import Profile, load_profile

if TYPE_CHECKING:
    from pathlib import Path

    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.launch.progress import Emit

#: Where one command runs at a time: a slot of this machine, a Dask worker, a task of a job array.
Place = Hashable


@dataclass(frozen=True)
class Command:
    """A process that runs to its end and can be run again.

    Attributes
    ----------
    words : tuple of str
        After the interpreter's, such as ``-m wsoltrain fit …``.
    stdin : str
        What it reads on standard input.
    log : Path or None
        File to which what it prints is appended; None where its standard output is a line of JSON an event.
    """

    words: tuple[str, ...]
    stdin: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes
    ----------
    how : str
        For people, such as ``worker 0 was killed by SIGKILL``.
    code : int or None
        Its exit code; None if it was lost, and is to be started again.
    error : WsolError or None
        What it said was wrong.
    began : bool
        Whether it was seen to begin.
    cancelled : bool
        Whether somebody ended it on purpose.
    """

    how: str
    code: int | None = None
    error: WsolError | None = None
    began: bool = True
    cancelled: bool = False

    @classmethod
    def reported(cls, how: str, code: int, fatal: Mapping[str, Any] | None) -> Ending:
        """Ending of a process that left a note of its fault with `kind`, `message` and `hint`."""
        if fatal is None or "kind" not in fatal:
            return cls(how, code)
        kind: type[WsolError] = getattr(errors, fatal["kind"], WsolError)
        error = kind(fatal["message"], hint=fatal["hint"])
        return cls(error.message, error=error) if isinstance(error, DeviceError) else cls(how, code, error)


@dataclass(frozen=True)
class Order:
    """Commands to run, and where.

    Attributes
    ----------
    cluster : str
        As in ``cluster=``.
    name : str
        Of these commands among others: of their jobs, and of the folder of their files.
    folder : Path
        For scripts and logs; all machines share it where commands are jobs.
    profile : Profile
        Of the site.
    commands : dict of str to Command
        By name. Each runs once, and its exit code counts.
    worker : Command or None
        Instead, what every place runs: workers that share one piece of work, of which any may end before the others.
    parallel : int or None
        Commands at once; None: as many as the cluster has places for.
    devices : tuple of str
        GPUs of this machine that were named.
    spread : bool
        Whether commands on this machine get a GPU each where there are several.
    """

    cluster: str
    name: str
    folder: Path
    profile: Profile
    commands: dict[str, Command] = field(default_factory=dict)
    worker: Command | None = None
    parallel: int | None = None
    devices: tuple[str, ...] = ()
    spread: bool = False

    @property
    def most(self) -> int | None:
        """Commands that run at once at most; None without a bound."""
        bounds = [bound for bound in (self.parallel, self.profile.max_jobs, len(self.commands)) if bound]
        return min(bounds, default=None)


class Launcher(ABC):
    """Starts commands at places, and says which have ended. Used from one thread, in a ``with``.

    Attributes
    ----------
    here : bool
        Whether commands are processes of this machine, which end with the job around it.
    hears : bool
        Whether it passes on the events of workers; otherwise they are read from the store.
    adapts : bool
        Whether it starts no more workers than there is work for now, and others later.
    detached : bool
        Whether a run may leave its workers running (``wait=false``).
    scripted : bool
        Whether it has a `script`.
    reads : tuple of str or None
        Fields of a profile that it reads; None for all.
    restarts : int
        Times that one command is started again after it was lost.
    poll_seconds : float
        Time between two looks.
    """

    here: ClassVar[bool] = False
    hears: ClassVar[bool] = False
    adapts: ClassVar[bool] = False
    detached: ClassVar[bool] = False
    scripted: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...] | None] = ()
    restarts: int = 3
    poll_seconds: float = 0.2

    def __init__(self, order: Order, emit: Emit) -> None:
        self.order, self.emit = order, emit

    def open(self) -> None:  # noqa: B027 - most have nothing to connect to
        """Connect to what is to run commands, or start it.

        Raises
        ------
        ClusterError
            If it cannot be used.
        """

    @abstractmethod
    def places(self, wanted: int | None) -> Collection[Place]:
        """Places that can run a command now, used or not; `wanted`: commands for which there is work, if known."""

    @abstractmethod
    def start(self, commands: Mapping[Place, tuple[str, Command]]) -> Collection[Place]:
        """Start a command, with its name, at each place; return the places where it was started.

        Raises
        ------
        ClusterError
            If none will ever start.
        """

    @abstractmethod
    def look(self) -> Mapping[Place, Ending]:
        """Commands that have ended since the last look.

        Raises
        ------
        ClusterError
            If what runs them is lost.
        """

    @abstractmethod
    def close(self, *, done: bool) -> None:
        """End what still runs, after a short wait for it to end if all is `done`, and release the cluster."""

    def log_of(self, place: Place) -> Path | None:  # noqa: ARG002
        """Log file of the worker at a place; None without one."""
        return None

    def script(self) -> str:
        """Text of the script that would be submitted."""
        raise NotImplementedError


def find_launcher(cluster: str) -> type[Launcher]:
    """The launcher of a value of ``cluster=``.

    Raises
    ------
    ConfigError
        If there is none, or it cannot be imported.
    """
    found: type[Launcher] = LAUNCHERS.find(launcher_name(cluster))
    return found


def check(config: RunConfig) -> None:
    """Refuse what a launcher cannot use, before any work is done.

    Raises
    ------
    ConfigError
        If the cluster profile cannot be used, or a key has no meaning with this cluster.
    """
    kind = find_launcher(config.cluster)
    if config.profile or config.profiles or config.profile_fields or not kind.here:
        load_profile(config)
    unread = [name for name in config.profile_fields if kind.reads is not None and name not in kind.reads]
    if unread:
        also = "; wall_time=SECONDS bounds workers of this machine" if unread[0] == "time" else ""
        msg = f"profile.{unread[0]}= says nothing to cluster={config.cluster}"
        raise ConfigError(msg, hint=f"add {_those(lambda item: item.reads is None or unread[0] in item.reads)}{also}")
    if config.print and not kind.scripted:
        msg = f"print=true: cluster={config.cluster} submits no script"
        raise ConfigError(msg, hint=f"it is for {_those(lambda item: item.scripted)}")
    if not config.wait and not kind.detached:
        msg = f"wait=false: workers of cluster={config.cluster} end with the run that started them"
        raise ConfigError(msg, hint=f"{_those(lambda item: item.detached)} runs without a waiting process")


def _those(fits: Callable[[type[Launcher]], bool]) -> str:
    return " or ".join(f"cluster={name}" for name in LAUNCHERS.names() if fits(LAUNCHERS.find(name)))
