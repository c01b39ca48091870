"""Leases: a dead holder's is taken at once, a silent one's after a time by the watcher's clock, a live one's never."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import commit_name
from wsolpipe.contract.manifest import CommitRecord, read_record
from wsolpipe.engine import commit, leases
from wsolpipe.engine.leases import Leases, Owner

NAME = "toy/train/shade/aa/leases/0.json"
FOLDER = "toy/train/shade/aa"
HOLD = """
import sys
from pathlib import Path
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.engine.leases import Leases
assert Leases(LocalBackend(Path(sys.argv[1])), ttl=1000).acquire(sys.argv[2])
"""


@pytest.fixture
def backend(tmp_path):
    return LocalBackend(tmp_path / "store")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    return now


def elsewhere(holder: Leases) -> Leases:
    """The same holder as if on another machine, whose processes cannot be looked at."""
    holder.owner = Owner(**{**vars(holder.owner), "host": "other", "boot": "other boot"})
    return holder


def test_a_lease_is_held_by_one_and_free_after_release(backend):
    first, second = Leases(backend), Leases(backend)
    lease = first.acquire(NAME)
    assert lease is not None
    assert second.acquire(NAME) is None
    assert first.acquire(NAME) is None
    lease.release()
    assert second.acquire(NAME) is not None


def test_a_dead_processs_lease_is_taken_over_at_once(backend):
    subprocess.run([sys.executable, "-c", HOLD, str(backend.root), NAME], check=True)
    assert backend.size(NAME)
    taken = Leases(backend).acquire(NAME)
    assert taken is not None
    assert taken.still_mine()


def test_a_dead_processs_lease_is_swept_away_also_where_it_died_at_a_renewal(backend):
    """Killed inside a swap, it leaves a marker that nobody else may pass for ten seconds."""
    subprocess.run([sys.executable, "-c", HOLD, str(backend.root), NAME], check=True)
    (backend.root / FOLDER / "leases" / ".0.json.guard").touch()
    Leases(backend).sweep(FOLDER)
    assert backend.names(f"{FOLDER}/leases") == []


def test_a_living_holders_lease_is_not_swept_away(backend):
    assert Leases(backend).acquire(NAME) is not None
    Leases(backend).sweep(FOLDER)
    assert backend.names(f"{FOLDER}/leases") == ["0.json"]


def test_a_number_used_again_by_another_process_does_not_keep_a_lease(backend):
    holder = Leases(backend)
    holder.owner = Owner(**{**vars(holder.owner), "started": "12"})  # this pid, but of a process begun long ago
    assert holder.acquire(NAME)
    assert Leases(backend).acquire(NAME) is not None


def test_a_process_of_another_container_is_not_taken_for_dead(backend, clock):
    """Containers of one machine have one boot, but number their processes apart."""
    holder = Leases(backend, ttl=60)
    holder.owner = Owner(**{**vars(holder.owner), "pids": "pid:[1]", "pid": 999_999})
    assert holder.acquire(NAME)
    watcher = Leases(backend, ttl=60)
    assert watcher.acquire(NAME) is None
    clock[0] += 61
    assert watcher.acquire(NAME) is not None


def test_a_silent_holder_is_given_its_own_time_to_live_by_the_watchers_clock(backend, clock):
    assert elsewhere(Leases(backend, ttl=60)).acquire(NAME)
    watcher = Leases(backend, ttl=5)  # its own ttl does not matter
    assert watcher.acquire(NAME) is None
    clock[0] += 59
    assert watcher.acquire(NAME) is None
    clock[0] += 2
    assert watcher.acquire(NAME) is not None


def test_a_heartbeat_starts_the_watchers_clock_again(backend, clock):
    lease = elsewhere(Leases(backend, ttl=60)).acquire(NAME)
    watcher = Leases(backend)
    for _ in range(3):
        assert watcher.acquire(NAME) is None
        clock[0] += 50
        lease.renew()
    assert watcher.acquire(NAME) is None
    assert lease.still_mine()


def test_the_time_written_by_another_machine_is_not_believed(backend, clock):
    lease = elsewhere(Leases(backend, ttl=60)).acquire(NAME)
    content = {**json.loads(lease.content), "time": 0.0}  # a clock that is decades behind
    backend.replace(NAME, json.dumps(content).encode())
    watcher = Leases(backend)
    assert watcher.acquire(NAME) is None
    clock[0] += 30
    assert watcher.acquire(NAME) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": {"pid": 1}}'])
def test_a_torn_lease_counts_as_silent(backend, clock, content):
    backend.replace(NAME, content)
    watcher = Leases(backend, ttl=60)
    assert watcher.acquire(NAME) is None
    clock[0] += 61
    assert watcher.acquire(NAME) is not None


def test_a_holder_learns_that_its_lease_was_taken_and_does_not_release_it(backend, clock):
    lease = elsewhere(Leases(backend, ttl=1)).acquire(NAME)
    watcher = Leases(backend)
    watcher.acquire(NAME)
    clock[0] += 2
    taken = watcher.acquire(NAME)
    lease.renew()
    assert lease.lost
    lease.release()
    assert taken.still_mine()


def test_the_heartbeat_runs_while_the_work_does(backend):
    lease = Leases(backend, ttl=0.15).acquire(NAME)
    with lease.beating():
        first = backend.get(NAME)
        deadline = time.monotonic() + 10
        while json.loads(backend.get(NAME))["beat"] < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert backend.get(NAME) != first
        assert Leases(backend).acquire(NAME) is None
    assert backend.size(NAME) is None


# -- commits of owners that met -------------------------------------------------------------------------------------


def objects(content: bytes):
    return {name: (f"{FOLDER}/data.zarr/{name}/c/0", content + name.encode()) for name in ("a", "b", "c")}


def stored(backend):
    return {name: backend.get(target) for name, (target, _) in objects(b"").items() if backend.size(target)}


@pytest.fixture
def sleeper(backend, clock):
    """A holder whose lease was taken while it slept, and the new holder."""
    old = elsewhere(Leases(backend, ttl=1)).acquire(NAME)
    watcher = Leases(backend)
    watcher.acquire(NAME)
    clock[0] += 2
    return old, watcher.acquire(NAME)


class Waking(LocalBackend):
    """Lets another owner act at the n-th creation, as the scheduler of a machine would."""

    def __init__(self, root, at, act):
        super().__init__(root)
        self.at, self.act = at, act

    def create(self, name, data, *, sync=True):
        self.at -= 1
        if self.at == 0:
            self.act()
        return super().create(name, data, sync=sync)


RECORD = CommitRecord(shard=0, start=0, stop=4, objects={})


def check_whole(backend, owners):
    """Either no record stands, or it tells the truth about objects that one owner made."""
    record = read_record(backend, FOLDER, 0)
    found = stored(backend)
    if record is not None:
        assert found in [{name: data for name, (_, data) in objects(owner).items()} for owner in owners]
        for name, data in found.items():
            assert record.objects[name].sha256 == commit.sha256_bytes(data)
    return record


@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_a_woken_owner_of_other_bytes_harms_nothing_wherever_it_wakes(backend, sleeper, turn):
    """The new owner is at its n-th creation when the old one wakes and runs to its end."""
    old, new = sleeper
    told = []
    busy = Waking(backend.root, turn, lambda: told.append(commit.put(backend, FOLDER, RECORD, objects(b"old"), old)))
    commit.put(busy, FOLDER, RECORD, objects(b"new"), new)
    if check_whole(backend, [b"old", b"new"]) is None:
        assert commit.put(backend, FOLDER, RECORD, objects(b"new"), new)  # the next round makes it again
    assert check_whole(backend, [b"old", b"new"]) is not None


@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_an_owner_that_sleeps_in_the_middle_of_its_commit_harms_nothing(backend, sleeper, turn):
    """The old owner is at its n-th creation when it sleeps; the new one runs to its end before it wakes."""
    old, new = sleeper
    told = []
    asleep = Waking(backend.root, turn, lambda: told.append(commit.put(backend, FOLDER, RECORD, objects(b"new"), new)))
    assert not commit.put(asleep, FOLDER, RECORD, objects(b"old"), old)
    assert told == [True]
    assert check_whole(backend, [b"new"]) is not None


@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_owners_of_equal_bytes_may_both_run_and_one_record_stands(backend, sleeper, turn):
    old, new = sleeper
    asleep = Waking(backend.root, turn, lambda: commit.put(backend, FOLDER, RECORD, objects(b"same"), new))
    commit.put(asleep, FOLDER, RECORD, objects(b"same"), old)
    assert check_whole(backend, [b"same"]) is not None


def test_objects_of_a_killed_worker_are_replaced_only_by_the_holder(backend, sleeper):
    old, new = sleeper
    target, _ = objects(b"")["a"]
    backend.create(target, b"left by a killed worker")
    assert not commit.put(backend, FOLDER, RECORD, objects(b"old"), old)
    assert backend.get(target) == b"left by a killed worker"
    assert commit.put(backend, FOLDER, RECORD, objects(b"new"), new)
    assert check_whole(backend, [b"new"]) is not None


def test_a_holder_that_lost_its_lease_at_the_record_leaves_none_of_bytes_it_did_not_make(backend, sleeper):
    """It makes the record last of all; the new owner has put other bytes between its objects and that record."""
    old, new = sleeper
    assert new.still_mine()

    def replace_all():
        for target, data in objects(b"new").values():
            backend.delete(target)
            backend.create(target, data)

    asleep = Waking(backend.root, 4, replace_all)
    assert not commit.put(asleep, FOLDER, RECORD, objects(b"old"), old)
    assert read_record(backend, FOLDER, 0) is None


class Dying(LocalBackend):
    """Notes what has certainly reached the disk whenever an object is created."""

    def __init__(self, root):
        super().__init__(root)
        self.synced, self.standing = set(), {}

    def create(self, name, data, *, sync=True):
        self.standing[name] = frozenset(self.synced)
        self.synced |= {name} if sync else set()
        return super().create(name, data, sync=sync)

    def sync(self, names):
        self.synced |= set(names)
        super().sync(names)


def test_a_power_cut_never_leaves_a_record_without_its_objects(backend):
    """Whatever the record names is on the disk before the record is written, and the record once `put` returns."""
    lease, careful = Leases(backend).acquire(NAME), Dying(backend.root)
    assert commit.put(careful, FOLDER, RECORD, objects(b"own"), lease)
    name = commit_name(FOLDER, 0)
    assert careful.standing[name] == {target for target, _ in objects(b"").values()}
    assert name in careful.synced


def test_a_lease_is_renewed_three_times_in_its_time_to_live(backend, monkeypatch):
    """A holder whose store was out of reach for two heartbeats still keeps its lease."""
    slept = []
    holder = Leases(backend, ttl=9.0)
    lease = holder.acquire(NAME)

    def sleep(seconds):
        slept.append(seconds)
        holder._beating.clear()  # the heart stops after one look

    monkeypatch.setattr(leases, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic))
    holder.keep(lease)
    holder._heart.join(5)
    assert slept == [3.0]


def test_a_shard_is_discarded_only_by_the_holder_and_its_record_first(backend, sleeper, monkeypatch):
    from wsolpipe.contract.manifest import StageManifest

    old, new = sleeper
    assert commit.put(backend, FOLDER, RECORD, objects(b"new"), new)
    record = read_record(backend, FOLDER, 0)
    manifest = StageManifest(
        kind="rows", dataset="toy", split="train", stage="shade", key="aa", fingerprint="aa", version=1, params={},
        columns={}, upstream={}, artifacts={}, basis="", rows=4, shard_rows=4,
        arrays={name: {"dtype": "uint8"} for name in ("a", "b", "c")},
    )  # fmt: skip
    with pytest.raises(StoreError, match="taken by another worker"):
        commit.discard(backend, FOLDER, manifest, record, old)
    assert check_whole(backend, [b"new"]) is not None
    removed = []
    delete = backend.delete
    monkeypatch.setattr(backend, "delete", lambda name: (removed.append(name), delete(name)))
    commit.discard(backend, FOLDER, manifest, record, new)
    assert removed[0] == f"{FOLDER}/commits/0.json"
    assert stored(backend) == {}
