"""Commits, leases, crashes and takeovers against a model: any order of steps of any workers, as hypothesis finds them.

Workers take leases, die, sleep, wake and commit in turns. At each change of the store a worker may be killed, be
overtaken in its sleep, or meet a former holder that wakes. What must hold whatever the order: a lease is taken only
from the dead and the silent; a record names the bytes that lie there, all made by one worker; a record that stands
stays until a holder discards it; and when all is quiet, one more worker finishes the shard.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.layout import commit_name, lease_name, sha256_bytes, shard_object
from wsolpipe.contract.manifest import CommitRecord, StageManifest, read_record
from wsolpipe.engine import commit, leases
from wsolpipe.engine.leases import Lease, Leases, Owner

FOLDER = "toy/train/shade/aaaa000011112222"
NAME = lease_name(FOLDER, 0)
ARRAYS = ("a", "b", "status")
TTL = 10.0
MANIFEST = StageManifest(
    kind="rows", dataset="toy", split="train", stage="shade", key="aaaa000011112222", fingerprint="aa", version=1,
    params={}, columns={}, upstream={}, artifacts={}, basis="", rows=4, shard_rows=4,
    arrays={name: {"dtype": "uint8"} for name in ("a", "b")},
)  # fmt: skip


class Killed(BaseException):
    """SIGKILL: nothing of the worker runs any more."""


class Stepwise(LocalBackend):
    """A worker's view of the store: `before` runs ahead of every change that it makes."""

    def __init__(self, root, before):
        super().__init__(root)
        self.before = before

    def create(self, name, data, *, sync=True):
        self.before("create", name)
        return super().create(name, data, sync=sync)

    def delete(self, name):
        self.before("delete", name)
        super().delete(name)


@dataclass(eq=False)
class Worker:
    """A process: its own view of the store, its leases, and whether it still lives."""

    number: int
    backend: Stepwise
    leases: Leases
    lease: Lease | None = None
    alive: bool = True
    beat: float = 0.0

    def objects(self, kind):
        """What it makes of the shard: the same as everybody, or bytes of its own, as on another device."""
        maker = "same" if kind == "same" else f"worker {self.number}"
        return {name: (shard_object(FOLDER, name, 0, 1), f"{maker} {name}".encode()) for name in ARRAYS}


class Protocol(RuleBasedStateMachine):
    """Workers on one shard."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="protocol-"))
        self.clock = 1000.0
        self.real = (leases.time, Owner.is_dead)
        leases.time = SimpleNamespace(monotonic=lambda: self.clock, time=time.time)
        Owner.is_dead = lambda owner: self._is_dead(owner)
        self.workers: list[Worker] = []
        self.seen: CommitRecord | None = None
        self.store = LocalBackend(self.folder)

    def teardown(self):
        try:
            self._finish()
        finally:
            leases.time, Owner.is_dead = self.real
            shutil.rmtree(self.folder)

    def _is_dead(self, owner):
        """As a process of the same host would find out; every other worker is on a host of its own."""
        worker = next(worker for worker in self.workers if str(worker.number) == owner.started)
        return not worker.alive and worker.number % 2 == 0

    def _worker(self):
        number = len(self.workers)
        backend = Stepwise(self.folder, lambda verb, name: None)
        owner = Owner("host", "boot", "pids", 1, str(number), f"token {number}")
        self.workers.append(Worker(number, backend, Leases(backend, TTL, owner)))
        return self.workers[-1]

    def _holders(self):
        return [worker for worker in self.workers if worker.alive and worker.lease]

    # -- steps -------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self):
        self._acquire(self._worker())

    @rule(data=st.data())
    def acquire(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        if worker.alive and worker.lease is None:
            self._acquire(worker)

    def _acquire(self, worker):
        """Try to take the lease; it may only come from nobody, the dead, or who was silent for its time to live."""
        before = [other for other in self.workers if other.lease is not None and other.lease.still_mine()]
        worker.lease = worker.leases.acquire(NAME)
        if worker.lease is not None:
            assert worker.lease.still_mine()
            assert len(before) <= 1
            assert all(not other.alive or self.clock - other.beat > TTL for other in before)
            worker.beat = self.clock

    @precondition(lambda self: len(self.workers) < 8)
    @rule()
    def take_over(self):
        """A new worker watches until whoever holds the lease is silent for long enough, and takes it."""
        self._take_over()

    def _take_over(self):
        worker = self._worker()
        self._acquire(worker)
        if worker.lease is None:
            self.clock += TTL + 1
            self._acquire(worker)
            assert worker.lease is not None
        return worker

    @precondition(lambda self: self._holders())
    @rule(data=st.data())
    def renew(self, data):
        worker = data.draw(st.sampled_from(self._holders()))
        mine = worker.lease.still_mine()
        worker.lease.renew()
        worker.beat = self.clock
        assert worker.lease.still_mine() == mine
        assert worker.lease.lost >= (not mine)

    @precondition(lambda self: self._holders())
    @rule(data=st.data())
    def release(self, data):
        """Gives back what is its own and nothing else."""
        worker = data.draw(st.sampled_from(self._holders()))
        theirs = None if worker.lease.still_mine() else self._lease_bytes()
        worker.lease.release()
        worker.lease = None
        assert self._lease_bytes() == theirs

    @rule(seconds=st.sampled_from([1.0, TTL / 2, TTL + 1]))
    def wait(self, seconds):
        self.clock += seconds

    @precondition(lambda self: self._holders())
    @rule(data=st.data())
    def kill(self, data):
        data.draw(st.sampled_from(self._holders())).alive = False

    @precondition(lambda self: self._holders())
    @rule(data=st.data(), at=st.integers(1, 4), how=st.sampled_from(["run", "die", "be overtaken", "meet"]))
    def put(self, data, at, how):
        """Commit; at one of its changes the worker dies, is overtaken in its sleep, or meets a holder of old."""
        self._put(data, data.draw(st.sampled_from(self._holders())), at, how)

    def _put(self, data, worker, at, how):
        left = [at]

        def before(verb, name):
            if name.startswith(f"{FOLDER}/leases"):
                return
            left[0] -= 1
            if left[0] == 0 and how == "die":
                raise Killed
            others = [other for other in self._holders() if other is not worker]
            if left[0] == 0 and (how == "be overtaken" or (how == "meet" and others)):
                other = self._take_over() if how == "be overtaken" else data.draw(st.sampled_from(others))
                self._put(data, other, data.draw(st.integers(1, 9)), data.draw(st.sampled_from(["run", "die"])))

        worker.backend.before = before
        kind = data.draw(st.sampled_from(["own", "same"]))
        try:
            made = commit.put(worker.backend, FOLDER, self._record(), worker.objects(kind), worker.lease)
        except Killed:
            worker.alive = False
            return
        finally:
            worker.backend.before = lambda verb, name: None
        if made:
            assert read_record(self.store, FOLDER, 0) is not None

    @precondition(lambda self: self._holders() and self.seen is not None)
    @rule(data=st.data())
    def discard(self, data):
        """A shard that is to be made again is removed by the holder alone."""
        worker = data.draw(st.sampled_from(self._holders()))
        record = read_record(self.store, FOLDER, 0)
        if record is None or not worker.lease.still_mine():
            return
        commit.discard(worker.backend, FOLDER, MANIFEST, record, worker.lease)
        self.seen = None
        assert read_record(self.store, FOLDER, 0) is None

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def a_record_tells_the_truth(self):
        """Its objects are there, are the bytes that it names, and were made by one worker."""
        record = read_record(self.store, FOLDER, 0)
        if record is None:
            return
        found = {name: self.store.get(shard_object(FOLDER, name, 0, 1)) for name in ARRAYS}
        assert {name: sha256_bytes(data) for name, data in found.items()} == {
            name: item.sha256 for name, item in record.objects.items()
        }
        assert len({data.rpartition(b" ")[0] for data in found.values()}) == 1
        if self.seen is not None:
            assert record == self.seen
        self.seen = record

    @invariant()
    def a_finished_shard_stays(self):
        if self.seen is not None:
            assert self.store.size(commit_name(FOLDER, 0)) is not None

    def _finish(self):
        """When all others are quiet for long enough, a new worker finishes the shard."""
        last = self._worker()
        for _ in range(3):
            last.lease = last.lease or last.leases.acquire(NAME)
            self.clock += TTL + 1
        assert last.lease is not None
        if read_record(self.store, FOLDER, 0) is None:
            assert commit.put(last.backend, FOLDER, self._record(), last.objects("own"), last.lease)
        self.a_record_tells_the_truth()
        assert list(self.store.litter()) == []

    def _record(self):
        return CommitRecord(shard=0, start=0, stop=4, objects={})

    def _lease_bytes(self):
        try:
            return self.store.get(NAME)
        except FileNotFoundError:
            return None


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=100, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
