"""``cluster=slurm`` on a real SLURM cluster: workers cancelled, timed out, left alone, and the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.toy import make_toy, object_bytes

pytestmark = pytest.mark.slurm

DEMO = ("stage=proposals", "dataset=demo", "split=train", "limit=32", "shard_rows=8", "classifier.epochs=1")
ALIVE = {"RUNNING", "PENDING", "COMPLETING", "CONFIGURING"}


def worker_words(folder, *words, workers=2):
    return (
        "cluster=slurm", f"workers={workers}", "profile.poll_seconds=0.5", f"profile.logs={folder / 'logs'}", *words,
    )  # fmt: skip


def commits(store, stage="shade"):
    return len(list(Path(store).glob(f"**/{stage}/*/commits/*.json")))


def alive(slurm):
    return [job for job, state in slurm.states().items() if state in ALIVE]


def workers_of(name):
    """Worker processes of this machine, whatever SLURM knows of them."""
    assert name.startswith("wsolpipe-")
    found = subprocess.run(["pgrep", "-f", f"name {name}"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def start_demo(store, *words):
    command = [sys.executable, "-m", "wsolpipe.cli.main", "run", *DEMO, f"store={store}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)


def test_the_demo_survives_a_cancelled_worker_and_then_the_loss_of_the_scheduler(slurm, tmp_path):
    """The shipped images and weights. The scheduler goes with the process that runs: what it leaves ends by itself."""
    words = worker_words(tmp_path)
    disturbed = start_demo(tmp_path / "dask", *words)
    slurm.wait(lambda: commits(tmp_path / "dask", "cls_maps") >= 1 or disturbed.poll() is not None, 120)
    assert disturbed.poll() is None, disturbed.communicate()
    slurm.call("scancel", slurm.running()[0])
    standing = commits(tmp_path / "dask", "cls_maps")
    slurm.wait(lambda: commits(tmp_path / "dask", "cls_maps") > standing or disturbed.poll() is not None, 60)
    assert commits(tmp_path / "dask", "proposals") < 4, "too quick to be disturbed"
    disturbed.kill()
    _, told = disturbed.communicate()
    assert "Dask dashboard: http://" in told
    assert "Traceback" not in told
    slurm.wait(lambda: not alive(slurm), 75)
    name = told.partition("jobs ")[2].partition(":")[0]
    slurm.wait(lambda: not workers_of(name), 75)
    kept = object_bytes(tmp_path / "dask")
    assert kept
    again = start_demo(tmp_path / "dask", *words)
    undisturbed = start_demo(tmp_path / "local")
    _, told = again.communicate(timeout=200)
    assert again.returncode == 0, told
    _, told = undisturbed.communicate(timeout=200)
    assert undisturbed.returncode == 0, told
    assert object_bytes(tmp_path / "dask") == object_bytes(tmp_path / "local")
    assert kept.items() <= object_bytes(tmp_path / "dask").items()
    assert commits(tmp_path / "dask", "proposals") == 4
    assert not list((tmp_path / "dask").glob("**/leases/*.json"))
    assert not list((tmp_path / "dask").glob("demo/launch-*.json"))
    slurm.wait(lambda: not alive(slurm), 20)


def test_a_worker_whose_time_is_up_begins_nothing_more_and_is_replaced(slurm, toy, undisturbed):
    words = worker_words(toy.folder, "wall_time=8", "shade.pause=0.8", workers=1)
    done = toy.run(*words)
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
    workers = {call["pid"] for call in toy.calls() if call["what"] in {"shade", "frame"}}
    assert len(workers) >= 2
    made = [call["first"] for call in toy.calls("shade")]
    assert sorted(made) == sorted(set(made))  # no block was made twice: none was cut by the end of a worker
    assert len(list((toy.folder / "logs").rglob("*.log"))) >= 2


def test_what_keeps_workers_from_coming_is_explained(slurm, toy):
    refused = toy.run(*worker_words(toy.folder, "profile.partition=gpuu"))
    assert refused.code == 1
    assert "sbatch refused a worker's job: invalid partition specified: gpuu" in refused.err
    assert "resume with: wsolpipe run" in refused.err
    broken = toy.run(*worker_words(toy.folder, "profile.python=/no/such/python", workers=1))
    assert broken.code == 1
    assert "before its worker started" in broken.err
    assert "/no/such/python: No such file or directory" in broken.err
    assert "Traceback" not in refused.err + broken.err
    assert not alive(slurm)


def test_a_queue_that_never_moves_ends_the_run_and_its_jobs(slurm, toy):
    slurm.call("scontrol", "update", "PartitionName=debug", "State=DOWN")
    try:
        done = toy.run(*worker_words(toy.folder, "profile.start_seconds=4"))
    finally:
        slurm.call("scontrol", "update", "PartitionName=debug", "State=UP")
    assert done.code == 1
    assert "waiting for a worker: job" in done.err
    assert "is pending (PartitionDown)" in done.err
    assert "no worker for" in done.err
    assert "profile.start_seconds=" in done.err
    assert not alive(slurm)


def test_print_shows_a_workers_script_and_needs_no_slurm(toy, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    site = toy.folder / "site.yaml"
    site.write_text(
        "default: gpu\nprofiles: {gpu: {partition: gpu, account: lab, gpus: 1, cpus: 4, memory: 16G, time: '2:00:00',"
        " modules: [cuda/12.4], setup: [source /site/env.sh], sbatch: ['--constraint=a100|h100'],"
        " python: /site/bin/python}}\n"
    )
    done = toy.run("cluster=slurm", f"profiles={site}", "print=true")
    assert done.code == 0, done.err
    lines = done.json["script"].splitlines()
    for line in (
        "#SBATCH --partition=gpu", "#SBATCH --account=lab", "#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=16G", "#SBATCH --time=2:00:00", "#SBATCH --constraint=a100|h100", "module load cuda/12.4",
        "source /site/env.sh",
    ):  # fmt: skip
        assert line in lines
    (command,) = [line for line in lines if line.startswith("exec /site/bin/python -m distributed.cli.dask_worker ")]
    assert "--death-timeout 60" in command
    assert "--lifetime 7140s --lifetime-stagger 30s" in command  # two minutes are SLURM's notice, by default
    subprocess.run(["/bin/bash", "-n"], input=done.json["script"], text=True, check=True)
    assert not toy.store.exists()
    nowhere = toy.run("cluster=slurm")
    assert nowhere.code == 1
    assert "sbatch is not installed on" in nowhere.err


def test_without_dask_jobqueue_the_way_out_is_named(tmp_path):
    toy = make_toy(tmp_path, rows=4)
    (tmp_path / "package" / "dask_jobqueue.py").write_text("raise ModuleNotFoundError('No module named dask_jobqueue')")
    done = toy.run("cluster=slurm")
    assert done.code == 1
    assert "pip install 'wsolpipe[slurm]'" in done.err
    assert "cluster=slurm-array" in done.err
