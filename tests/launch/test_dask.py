"""``cluster=dask-local`` and ``cluster=dask-cuda``: real worker processes, the same bytes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from e2e.toy import object_bytes
from wsolpipe.contract.errors import ClusterError
from wsolpipe.engine.config import build_config
from wsolpipe.launch.launcher import Order
from wsolpipe.launch.local import find_gpus
from wsolpipe.launch.profiles import Profile
from wsolpipe.launch.run import run
from wsolpipe.stages.registry import load_registry


def test_a_sweep_on_dask_workers_makes_what_its_values_share_once(toy):
    done = toy.run("cluster=dask-local", "workers=1", "sweep.frame.spread=1.0,2.0")
    assert done.code == 0, done.err
    lines = json.loads(done.out)["lines"]
    assert [(line["frame.spread"], line["done"]) for line in lines] == [("1.0", 40), ("2.0", 40)]
    assert not list(toy.store.glob("**/leases/*.json"))
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
    done = toy.run("cluster=dask-local", "workers=1", "shade.fault=process", "retries=0", "limit=16", stage="shade")
    assert done.code == 1
    assert "the kernel is broken" in done.err
    assert "not made: shade" in done.err


def test_a_kill_of_the_scheduler_takes_its_workers_along_and_the_same_command_goes_on(toy, undisturbed):
    """The scheduler lives in the process that runs: no worker may outlive it."""
    process = toy.start("cluster=dask-local", "workers=2", "shade.pause=0.1")
    while len(list(toy.store.glob("**/shade/**/commits/*.json"))) < 1 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    workers = {call["pid"] for call in toy.calls("shade")}
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.1)
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110
    done = toy.run("cluster=dask-local", "workers=2")
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def test_a_bar_moves_while_a_shard_is_made(toy, monkeypatch):
    """Events of a shard under way come at once, those of a finished one with it, in their order."""
    for name, value in toy.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(toy.folder / "package"))
    words = toy.words("cluster=dask-local", "shade.pause=1.2", "limit=16", stage="shade")
    config, _ = build_config(words, load_registry(str(toy.stages)))
    told = []
    outcome = run(config, told.append, threading.Event())
    assert outcome.code == 0
    kinds = [event["event"] for event in told if event.get("stage") == "shade"]
    assert kinds[0] == "begin"
    assert kinds[-1] == "shard"
    assert kinds.count("rows") >= 2


def test_dask_workers_end_with_the_wall_time_of_their_machine(toy):
    done = toy.run("cluster=dask-local", "workers=1", "wall_time=0.5")
    assert done.code == 75
    assert done.err.count("of the wall time are left") == 1
    assert "resume with: wsolpipe run" in done.err
    assert not toy.calls("shade")


LOOKS = """
import os
import sys

TORCH_CAME_FIRST = "torch" in sys.modules  # this module is imported before any stage could import torch
DEVICE = os.environ.get("CUDA_VISIBLE_DEVICES")

from toy_stages.chain import Shade, note


class Looks(Shade):
    def setup(self):
        super().setup()
        note("device", device=DEVICE, torch_came_first=TORCH_CAME_FIRST)
"""


def test_each_worker_of_a_gpu_sees_its_device_alone_before_torch_could_look(toy, undisturbed):
    package = toy.stages.parent
    (package / "looks.py").write_text(LOOKS)
    toy.stages.write_text(toy.stages.read_text().replace("toy_stages.chain:Shade", "toy_stages.looks:Looks"))
    gate = toy.folder / "gate"
    process = toy.start("cluster=dask-cuda", "devices=3,GPU-5f2a", f"shade.gate={gate}")
    while len(toy.calls("setup")) < 2 and process.poll() is None:
        time.sleep(0.02)
    gate.touch()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    seen = toy.calls("device")
    assert {call["device"] for call in seen} == {"3", "GPU-5f2a"}
    assert len({call["pid"] for call in seen}) == 2
    assert not any(call["torch_came_first"] for call in seen)
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def test_without_a_gpu_dask_cuda_names_what_was_looked_at_and_what_to_run_instead(toy):
    done = toy.run("cluster=dask-cuda", CUDA_VISIBLE_DEVICES="")
    assert done.code == 1
    assert "no GPU for cluster=dask-cuda: CUDA_VISIBLE_DEVICES=" in done.err
    assert "cluster=dask-local" in done.err
    assert "devices=0,1" in done.err


def test_gpus_are_those_named_then_those_visible_then_those_of_the_driver(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def find(*named, profile=()):
        return find_gpus(Order("dask-cuda", "x", tmp_path, Profile(devices=profile), devices=named))

    assert find() == ["0", "1"]
    program.write_text("#!/bin/sh\necho no driver >&2\nexit 9\n")
    with pytest.raises(ClusterError, match="nvidia-smi failed: no driver"):
        find()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, MIG-7")
    assert find() == ["4", "MIG-7"]
    assert find(profile=[2]) == ["2"]
    assert find("6", profile=[2]) == ["6"]
