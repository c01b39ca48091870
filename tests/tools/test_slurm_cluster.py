"""The private SLURM cluster that the launchers' tests run on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slurm import TOOL

pytestmark = pytest.mark.slurm


def test_two_nodes_run_two_jobs_at_once(slurm, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --array=0-1\n#SBATCH --output={tmp_path}/%a.log\n"
        f"while [ ! -e {tmp_path}/end ]; do sleep 0.2; done\n"
    )
    job = slurm.call("sbatch", "--parsable", str(script)).strip()
    slurm.wait(lambda: set(slurm.states(job).values()) == {"RUNNING"})
    assert len(slurm.states(job)) == 2
    slurm.kill_step(f"{job}_0")
    slurm.call("scancel", f"{job}_1")
    slurm.wait(lambda: slurm.states(job)[f"{job}_1"] == "CANCELLED")


def test_a_cluster_ends_with_its_holder_and_leaves_no_daemon(slurm_cluster, tmp_path):
    folder = tmp_path / "c"
    holder = subprocess.Popen(
        [sys.executable, str(TOOL), "hold", str(folder), "nodes=1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline().startswith(b"export SLURM_CONF=")
    pids = json.loads((folder / "pids.json").read_text())
    assert len(pids) == 3
    holder.communicate(timeout=30)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
