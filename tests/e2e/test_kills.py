"""Workers killed at any moment: what stands in the end has the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

from e2e.toy import Toy, litter, object_bytes, records
from wsolpipe.engine.leases import PHASES

KILLS = 3
KILLS_AFTER_A_COMMIT = 2
MOST_KILLS = 15
SEED = 20
NETWORKS = "wsolpipe with networks"


def kill_group(process):
    """Kill a run and its workers at once, as a node that goes down does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def begin(toy, *words, store):
    """Start a run; return once its work begins."""
    before = toy.log.stat().st_size if toy.log.exists() else 0
    process = toy.start(*words, store=store)
    while process.poll() is None and (not toy.log.exists() or toy.log.stat().st_size == before):
        time.sleep(0.005)
    return process


def open_gate(toy, gate, workers):
    """Let workers go on once that many hold a shard each."""
    deadline = time.monotonic() + 90
    while len({call["pid"] for call in toy.calls("setup")}) < workers:
        assert time.monotonic() < deadline, "the workers did not begin"
        time.sleep(0.02)
    gate.touch()


def commits(store):
    return len(list(store.glob("**/commits/*.json")))


def check_equal(toy, undisturbed):
    """Everything is committed and has the bytes of an undisturbed run; no lease is left."""
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
    for stage in ("shade", "frame", "palette"):
        mine, theirs = records(toy.store, stage), records(undisturbed.store, stage)
        assert {name: record.content for name, record in mine.items()} == {
            name: record.content for name, record in theirs.items()
        }
    assert not list(toy.store.glob("**/leases/*.json"))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("phase", PHASES)
def test_a_kill_at_any_phase_of_a_commit_changes_no_byte(toy, undisturbed, phase, count):
    words = ("lease=0.3", "shade.pause=0.15", "frame.pause=0.15") if phase == "heartbeat" else ()
    killed = toy.run(*words, WSOLPIPE_FAULT=f"{phase}:{count}")
    assert killed.code == -signal.SIGKILL
    done = toy.run()
    assert done.code == 0, done.err
    check_equal(toy, undisturbed)


@pytest.mark.slow
def test_workers_killed_in_a_commit_are_replaced_or_resumed(toy, undisturbed):
    """Each of two workers dies at its eighth passing of the phase, and so does whoever replaces it and gets there."""
    first = toy.run("workers=2", WSOLPIPE_FAULT="between_arrays:8")
    assert first.code in {0, 1}
    assert "was killed by SIGKILL; it is started again" in first.err
    if first.code:
        assert "it resumes" in first.err
        done = toy.run("workers=2")
        assert done.code == 0, done.err
    check_equal(toy, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # bounds a hang; on a loaded machine every start of the workers takes long
def test_two_workers_killed_at_random_moments_change_no_byte(toy, undisturbed):
    """One store is killed again and again until it is done, then the next; `test_torture.py` does it to one worker.

    A moment is drawn as a number of commits and a pause after them, so that it does not depend on the machine's load.
    """
    workers = 2
    rng = random.Random(SEED + workers)
    words = (f"workers={workers}", "shade.pause=0.02", "frame.pause=0.02")
    kills = after_a_commit = stores = 0
    while (kills < KILLS or after_a_commit < KILLS_AFTER_A_COMMIT) and kills < MOST_KILLS:
        store = toy.folder / f"store{stores}"
        stores += 1
        while True:
            process = begin(toy, *words, store=store)
            wanted = commits(store) + rng.randrange(4)
            while process.poll() is None and commits(store) < wanted:
                time.sleep(0.005)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 0.1))
            if process.poll() is not None:
                _, told = process.communicate()
                assert process.returncode == 0, told
                break
            committed = commits(store)
            kill_group(process)
            kills += 1
            after_a_commit += committed > 1  # the index has one of its own
        assert object_bytes(store) == object_bytes(undisturbed.store)
        assert not list(store.glob("**/leases/*.json"))
    print(f"workers={workers}: {kills} kills, {after_a_commit} after the first commit, {stores} stores")
    assert kills >= KILLS
    assert after_a_commit >= KILLS_AFTER_A_COMMIT


def test_a_run_whose_parent_alone_is_killed_leaves_workers_that_end(toy, undisturbed):
    process = toy.start("workers=2", "shade.pause=0.1", "lease=5")
    while not toy.calls("shade"):
        time.sleep(0.02)
    workers = {call["pid"] for call in toy.calls()}
    process.kill()
    process.communicate()
    done = toy.run()
    assert done.code == 0, done.err
    check_equal(toy, undisturbed)
    deadline = time.monotonic() + 15
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
    check_equal(toy, undisturbed)


def test_a_worker_that_slept_through_its_lease_harms_nothing(toy, undisturbed):
    """SIGSTOP is what a laptop's lid, a paused container or a swapping node does."""
    sleeper = toy.start("lease=0.5", "shade.pause=0.3")
    while not toy.calls("shade"):
        time.sleep(0.02)
    os.killpg(sleeper.pid, signal.SIGSTOP)
    try:
        other = toy.run("lease=0.5")
        assert other.code == 0, other.err
        before = object_bytes(toy.store)
        files = [path for path in toy.store.rglob("*") if path.is_file()]
        # the sleeper may have been stopped in the middle of renewing its lease, and then ends that
        stamps = {path: path.stat().st_mtime_ns for path in files if path.parent.name != "leases"}
    finally:
        os.killpg(sleeper.pid, signal.SIGCONT)
    _, told = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 0, told
    assert object_bytes(toy.store) == before == object_bytes(undisturbed.store)
    touched = [path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert touched == ["last-run.json"]
    assert litter(toy.store) == []


def test_two_runs_at_once_share_one_store(toy, undisturbed):
    gate = toy.folder / "gate"
    runs = [toy.start(f"shade.gate={gate}", "lease=5") for _ in range(2)]
    open_gate(toy, gate, 2)
    told = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    check_equal(toy, undisturbed)
    made = [call["first"] for call in toy.calls("shade")]
    assert {call["pid"] for call in toy.calls("shade")} == {run.pid for run in runs}
    assert len(made) == len(set(made))  # nothing was made twice


def test_three_workers_make_the_bytes_of_one(toy, undisturbed):
    gate = toy.folder / "gate"
    process = toy.start("workers=3", f"shade.gate={gate}")
    open_gate(toy, gate, 3)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    check_equal(toy, undisturbed)
    assert len({call["pid"] for call in toy.calls("shade")} - {process.pid}) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_run_cleanly_and_the_next_goes_on(toy, undisturbed, number):
    workers = 2 if number == signal.SIGTERM else 1
    process = toy.start(f"workers={workers}", "shade.pause=0.1")
    while commits(toy.store) < 2:
        time.sleep(0.02)
    os.kill(process.pid, number)
    out, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert "resume with: wsolpipe run" in told
    assert "Traceback" not in told
    assert '"resume"' in out
    assert not list(toy.store.glob("**/leases/*.json"))
    before = len(toy.calls("shade"))
    done = toy.run()
    assert done.code == 0, done.err
    check_equal(toy, undisturbed)
    assert len(toy.calls("shade")) - before < 10


@pytest.mark.slow
def test_the_demo_survives_a_kill(tmp_path):
    """The real chain of the shipped data set: trained classifier, maps and proposals."""
    toy = Toy(tmp_path)

    def run(store: str, **fault: str) -> int:
        words = ["stage=proposals", "dataset=demo", "split=val", "shard_rows=4", "limit=8", "classifier.epochs=1"]
        return toy.command_line(["run", *words, f"store={tmp_path / store}"], program=NETWORKS, **fault).code

    assert run("whole") == 0
    assert run("killed", WSOLPIPE_FAULT="between_arrays:3") == -9
    assert run("killed") == 0
    assert object_bytes(tmp_path / "killed") == object_bytes(tmp_path / "whole")
