"""``cluster=slurm`` on a real SLURM cluster: jobs that come with the work, cancelled, timed out, left alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.toy import object_bytes

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


def start_demo(store, *words):
    command = [sys.executable, "-m", "wsolpipe.cli.main", "run", *DEMO, f"store={store}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)


def test_the_demo_survives_a_cancelled_worker_and_then_the_loss_of_the_run(slurm, tmp_path):
    """The shipped images and weights. Jobs end by themselves where the process that submitted them is killed."""
    words = worker_words(tmp_path, "lease=5")
    disturbed = start_demo(tmp_path / "jobs", *words)
    slurm.wait(lambda: commits(tmp_path / "jobs", "cls_maps") >= 1 or disturbed.poll() is not None, 120)
    assert disturbed.poll() is None, disturbed.communicate()
    slurm.call("scancel", slurm.running()[0])
    standing = commits(tmp_path / "jobs", "cls_maps")
    slurm.wait(lambda: commits(tmp_path / "jobs", "cls_maps") > standing or disturbed.poll() is not None, 60)
    assert commits(tmp_path / "jobs", "proposals") < 4, "too quick to be disturbed"
    disturbed.kill()
    _, told = disturbed.communicate()
    assert "Traceback" not in told
    slurm.wait(lambda: not alive(slurm), 75)
    kept = object_bytes(tmp_path / "jobs")
    assert kept
    again = start_demo(tmp_path / "jobs", *words)
    undisturbed = start_demo(tmp_path / "local")
    _, told = again.communicate(timeout=200)
    assert again.returncode == 0, told
    _, told = undisturbed.communicate(timeout=200)
    assert undisturbed.returncode == 0, told
    assert object_bytes(tmp_path / "jobs") == object_bytes(tmp_path / "local")
    assert kept.items() <= object_bytes(tmp_path / "jobs").items()
    assert commits(tmp_path / "jobs", "proposals") == 4
    assert not list((tmp_path / "jobs").glob("**/leases/*.json"))
    assert not list((tmp_path / "jobs").glob("demo/launch-*.json"))
    slurm.wait(lambda: not alive(slurm), 20)


def test_as_many_jobs_are_submitted_as_there_is_work_for(slurm, toy, undisturbed):
    """The palette is one unit, the stage behind it three: three jobs come then, of the eight that may."""
    assert toy.run(stage="shade").code == 0
    gate = toy.folder / "gate"
    process = toy.start(*worker_words(toy.folder, f"palette.gate={gate}", "frame.pause=0.3", workers=8))
    slurm.wait(lambda: toy.calls("palette") or process.poll() is not None, 60)
    assert len(alive(slurm)) == 1
    gate.touch()
    out, told = process.communicate(timeout=150)
    assert process.returncode == 0, told
    assert 2 <= len(slurm_jobs(told)) <= 4
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def slurm_jobs(told):
    """Tasks of every submission that a run spoke of."""
    counts = re.findall(r"^job \d+: (\d+) tasks", told, re.MULTILINE)
    return [job for count in counts for job in range(int(count))]


def test_a_worker_whose_time_is_up_begins_nothing_more_and_is_replaced(slurm, toy, undisturbed):
    words = worker_words(toy.folder, "wall_time=8", "shade.pause=0.8", workers=1)
    done = toy.run(*words)
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
    workers = {call["pid"] for call in toy.calls() if call["what"] in {"shade", "frame"}}
    assert len(workers) >= 2
    made = [call["first"] for call in toy.calls("shade")]
    assert sorted(made) == sorted(set(made))  # no block was made twice: none was cut by the end of a worker
    (log,) = (toy.folder / "logs").rglob("*.log")
    assert "back in the queue" in log.read_text()


def test_what_keeps_workers_from_coming_is_explained(slurm, toy):
    refused = toy.run(*worker_words(toy.folder, "profile.partition=gpuu"))
    assert refused.code == 1
    assert "sbatch refused" in refused.err
    assert "invalid partition specified: gpuu" in refused.err
    assert "resume with: wsolpipe run" in refused.err
    broken = toy.run(*worker_words(toy.folder, "profile.python=/no/such/python", workers=1))
    assert broken.code == 1
    assert "before it began" in broken.err
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
    assert "queue: 1 pending (PartitionDown)" in done.err or "queue: 2 pending (PartitionDown)" in done.err
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
    (command,) = [line for line in lines if line.startswith("exec /site/bin/python -m wsolpipe.launch.process ")]
    assert command.endswith("/order.json")
    subprocess.run(["/bin/bash", "-n"], input=done.json["script"], text=True, check=True)
    assert not toy.store.exists()
    nowhere = toy.run("cluster=slurm")
    assert nowhere.code == 1
    assert "sbatch is not installed on" in nowhere.err


def test_a_cluster_whose_controller_is_gone_is_not_waited_for(toy, tmp_path):
    """As where SLURM_CONF names a machine that is down: sbatch gives up, and so does the run."""
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "ClusterName=gone\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=9\nMessageTimeout=1\n"
        "AuthType=auth/munge\nNodeName=n1\nPartitionName=p Nodes=n1 Default=YES\n"
    )
    for cluster in ("slurm", "slurm-array"):
        done = toy.run(f"cluster={cluster}", f"profile.logs={toy.folder / 'logs'}", SLURM_CONF=str(conf))
        assert done.code == 1
        assert "sbatch refused" in done.err
        assert "resume with: wsolpipe run" in done.err
