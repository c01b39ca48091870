"""``cluster=dask-local``: real worker processes, the same bytes."""

from __future__ import annotations

import os
import signal
import time

from e2e.toy import object_bytes


def test_dask_workers_make_the_bytes_of_one_process(toy, undisturbed):
    done = toy.run("cluster=dask-local", "workers=2", "shade.pause=0.05")
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
    assert not list(toy.store.glob("**/leases/*.json"))
    assert done.line("frame")["shards_done"] == 3
    made = [call["first"] for call in toy.calls("shade")]
    assert sorted(made) == sorted(set(made))


def test_a_killed_dask_worker_costs_its_shard_in_flight_and_no_more(toy, undisturbed):
    process = toy.start("cluster=dask-local", "workers=2", "shade.pause=0.15")
    while len(toy.calls("shade")) < 5 and process.poll() is None:
        time.sleep(0.02)
    victim = toy.calls("shade")[-1]["pid"]
    os.kill(victim, signal.SIGKILL)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
    assert not list(toy.store.glob("**/leases/*.json"))


def test_a_dask_run_ends_at_a_signal_and_another_launcher_goes_on(toy, undisturbed):
    process = toy.start("cluster=dask-local", "workers=1", "shade.pause=0.1")
    while len(list(toy.store.glob("**/shade/**/commits/*.json"))) < 1 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    done = toy.run()
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def test_a_broken_stage_ends_a_dask_run_too(toy):
    toy.stages.write_text(toy.stages.read_text().replace("block: 4", "block: 16"))
    done = toy.run("cluster=dask-local", "workers=1", "shade.fault=process", "retries=0", "limit=16", stage="shade")
    assert done.code == 1
    assert "the kernel is broken" in done.err
    assert "not made: shade" in done.err
