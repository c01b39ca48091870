"""Leases: which worker makes a shard now. They avoid double work; correctness rests on commits, not on leases."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.layout import is_key, is_name, read_json, stage_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.base import Backend


ARTIFACTS = "artifacts"
#: How folders beside the stages begin that hold requests and not results.
NOTES = "index-"


@dataclass(frozen=True)
class Folder:
    """Folder of one key of a stage; ``split`` is None for an artifact, ``stage`` may be ``index``."""

    dataset: str
    split: str | None
    stage: str
    key: str

    @property
    def path(self) -> str:
        """Relative to the store."""
        return stage_folder(self.dataset, self.split, self.stage, self.key)


def list_folders(
    backend: Backend,
    *,
    datasets: tuple[str, ...] = (),
    splits: tuple[str, ...] = (),
    stages: tuple[str, ...] = (),
) -> tuple[list[Folder], list[str]]:
    """Folders of every key, and folders whose name no data set, split, stage or key can have (a backup copy, say).

    Parameters
    ----------
    datasets, splits, stages : tuple of str
        Only these; empty means all. Artifacts belong to every split.
    """
    strange: list[str] = []

    def below(folder: str, wanted: tuple[str, ...], fits: Callable[[str], bool] = is_name) -> Iterator[str]:
        for item in backend.names(folder):
            name = item[:-1]
            if not item.endswith("/") or name.startswith(NOTES) or (wanted and name not in wanted):
                continue
            if fits(name):
                yield name
            else:
                strange.append(f"{folder}/{name}".strip("/"))

    found = [
        Folder(dataset, None if second == ARTIFACTS else second, stage, key)
        for dataset in below("", datasets)
        for second in below(dataset, (*splits, ARTIFACTS) if splits else ())
        for stage in below(f"{dataset}/{second}", stages)
        for key in below(f"{dataset}/{second}/{stage}", (), is_key)
    ]
    return found, strange


TRANSFER, REPAIR, GC = "transfer", "repair", "gc"


@contextlib.contextmanager
def marked(leases: Leases, folder: str, command: str) -> Iterator[Lease]:
    """Hold a marker of `command` on `folder` while the body runs.

    Raises
    ------
    StoreError
        If this process holds one already.
    """
    lease = leases.acquire(f"{folder}/leases/{command}-{leases.owner.token}.json")
    if lease is None:
        msg = f"{folder} is marked by another {command} of this process"
        raise StoreError(msg)
    with lease.beating():
        yield lease


def is_marked(leases: Leases, folder: str, command: str) -> bool:
    """Whether a `command` that is not known to be dead works on `folder`.

    Marks of dead ones are removed: a process that was only suspended finds its mark gone when it wakes.
    """
    for file in leases.backend.names(f"{folder}/leases"):
        if file.startswith(f"{command}-"):
            name = f"{folder}/leases/{file}"
            with contextlib.suppress(FileNotFoundError):
                if not leases.is_stale(name, leases.backend.get(name)):
                    return True
                leases.backend.delete(name)
    return False


def is_held(leases: Leases, folder: str) -> bool:
    """Whether any lease on `folder`, of a shard or of a command, is held by another process that may be alive."""
    for file in leases.backend.names(f"{folder}/leases"):
        name = f"{folder}/leases/{file}"
        if leases.owner.token not in name:
            with contextlib.suppress(FileNotFoundError):
                if not leases.is_stale(name, leases.backend.get(name)):
                    return True
    return False


PHASES = ("before_put", "between_arrays", "before_record", "after_record", "heartbeat", "block")
_reached: Counter[str] = Counter()


def fault_point(phase: str) -> None:
    """Kill this process with SIGKILL if ``WSOLPIPE_FAULT=phase:n`` names this phase and it is reached the n-th time."""
    wanted, _, count = os.environ.get("WSOLPIPE_FAULT", "").partition(":")
    if wanted != phase:
        return
    _reached[phase] += 1
    if _reached[phase] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


DEFAULT_TTL = 60.0
#: Longest time to live that may be requested, in seconds.
LONGEST_TTL = 3600.0


@dataclass(frozen=True)
class Owner:
    """The holder of a lease: host, boot, PID namespace, process, and a random token."""

    host: str
    boot: str
    pids: str
    pid: int
    started: str
    token: str

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(
            socket.gethostname(), _boot(), _pid_namespace(), os.getpid(), _started(os.getpid()), secrets.token_hex(8)
        )

    @classmethod
    def of(cls, fields: Any) -> Owner:
        """The holder that a lease names.

        Raises
        ------
        ValueError, TypeError
            If it names no holder.
        """
        owner = cls(**fields)
        if not isinstance(owner.pid, int) or not all(isinstance(item, str) for item in (owner.boot, owner.pids)):
            msg = f"not the holder of a lease: {fields}"
            raise TypeError(msg)
        return owner

    def is_dead(self) -> bool:
        """Whether the holder is known to be gone: same boot and PID namespace, but no such process."""
        here = "" not in {self.boot, self.pids} and (self.boot, self.pids) == (_boot(), _pid_namespace())
        return here and _started(self.pid) != self.started


@dataclass
class Leases:
    """Leases of one worker process on one store.

    A lease is taken over when its process is known to be dead, or when its heartbeat has not changed for its time to
    live *by the clock of the watching process*: clocks of different machines are never compared.
    """

    backend: Backend
    ttl: float = DEFAULT_TTL
    owner: Owner = field(default_factory=Owner.here)
    _seen: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    _beating: list[Lease] = field(default_factory=list)
    _heart: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if not 0 < self.ttl <= LONGEST_TTL:
            msg = f"lease={self.ttl}: a lease lives for more than 0 and at most {LONGEST_TTL:.0f} seconds"
            raise ConfigError(msg)

    def acquire(self, name: str) -> Lease | None:
        """Take the lease `name`; None while another worker holds it."""
        content = self._content(beat=0)
        if self.backend.create(name, content, sync=False):  # no sync: a lease need not survive a power cut
            return Lease(self, name, content)
        try:
            current = self.backend.get(name)
        except FileNotFoundError:
            return None  # released just now: the next round finds it free
        if self.is_stale(name, current) and self.backend.swap(name, current, content):
            return Lease(self, name, content)
        return None

    def sweep(self, folder: str) -> None:
        """Remove the leases of dead holders, which no worker takes over where the work is done.

        Deleted, not taken over first: a holder killed during a renewal left a marker that a takeover waits for.
        """
        for name in self.backend.names(f"{folder}/leases"):
            lease = f"{folder}/leases/{name}"
            with contextlib.suppress(OSError):
                if self.is_stale(lease, self.backend.get(lease)):
                    self.backend.delete(lease)

    def is_stale(self, name: str, content: bytes) -> bool:
        """Whether the holder that wrote `content` is dead or has not renewed it for its time to live."""
        try:
            fields = read_json(content)
            owner, ttl = Owner.of(fields["owner"]), float(fields["ttl"])
        except (ValueError, KeyError, TypeError):
            owner, ttl = None, self.ttl  # torn by a kill: stale after this process's time to live
        if not 0 < ttl <= LONGEST_TTL:  # NaN too
            ttl = self.ttl
        if owner is not None and owner.is_dead():
            return True
        now = time.monotonic()
        seen, since = self._seen.setdefault(name, (content, now))
        if seen != content:
            self._seen[name] = (content, now)
            return False
        return now - since > ttl

    def keep(self, lease: Lease) -> None:
        """Renew a lease from now on, in a thread that all leases share and that ends when there is none."""
        with self._lock:
            self._beating.append(lease)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._heart.start()

    def forget(self, lease: Lease) -> None:
        """Stop renewing a lease; returns once no renewal of it is in progress."""
        with self._lock:
            self._beating.remove(lease)
        with lease.renewing:
            lease.kept = False

    def _beat(self) -> None:
        while True:
            time.sleep(self.ttl / 3)
            with self._lock:
                beating = list(self._beating)
                if not beating:
                    self._heart = None
                    return
            for lease in beating:
                with lease.renewing:
                    if lease.kept:
                        fault_point("heartbeat")
                        lease.renew()

    def _content(self, beat: int, rows: int = 0) -> bytes:
        fields: dict[str, Any] = {
            "owner": vars(self.owner), "ttl": self.ttl, "beat": beat, "time": time.time(), "rows": rows
        }  # fmt: skip
        return json.dumps(fields, sort_keys=True).encode()


@dataclass(eq=False)
class Lease:
    """A lease held by this process.

    Attributes
    ----------
    rows : int
        Rows of its shard done so far; `status` reads it from the next heartbeat on.
    """

    leases: Leases
    name: str
    content: bytes
    lost: bool = False
    beats: int = 0
    kept: bool = True
    rows: int = 0
    renewing: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def beating(self) -> Iterator[Lease]:
        """Renew the lease while the body runs; release it in the end."""
        self.leases.keep(self)
        try:
            yield self
        finally:
            self.leases.forget(self)
            self.release()

    def renew(self) -> None:
        """Write a new heartbeat; mark the lease as lost if another worker took it."""
        self.beats += 1
        content = self.leases._content(self.beats, self.rows)  # noqa: SLF001 - same module, one idea
        with contextlib.suppress(OSError):  # store briefly unreachable: the next heartbeat retries
            if self.leases.backend.swap(self.name, self.content, content):
                self.content = content
            elif not self.still_mine():
                self.lost = True

    def still_mine(self) -> bool:
        """Whether the store still names this holder."""
        try:
            return self.leases.backend.get(self.name) == self.content
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lease back, if it is still held."""
        with contextlib.suppress(OSError):
            if self.still_mine():
                self.leases.backend.delete(self.name)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    """The PID namespace: containers of one machine share its boot, not their process numbers."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot, empty if there is none: detects a reused number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
