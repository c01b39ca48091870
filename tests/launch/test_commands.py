"""Whole commands as processes, on a Dask cluster and as SLURM jobs: exit codes, and what was lost is started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from dask_cluster import start_dask
from wsolpipe.contract.errors import ClusterError, ConfigError
from wsolpipe.engine.config import LAUNCHERS
from wsolpipe.launch.crew import Crew
from wsolpipe.launch.launcher import Command, Order
from wsolpipe.launch.profiles import Profile
from wsoltrain.runs.settle import CLUSTERS

if TYPE_CHECKING:
    from pathlib import Path

GOOD = ["-c", "print('learning')"]
BAD = ["-c", "import sys; sys.exit('error: nothing to learn')"]
KILLED_ONCE = [
    "-c",
    "import os, pathlib, signal\n"
    "mark = pathlib.Path('begun')\n"
    "if not mark.exists():\n    mark.touch(); os.kill(os.getpid(), signal.SIGKILL)",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(cluster, commands, folder, *, parallel=2, stop=None, **profile):
    told: list[str] = []
    folder.mkdir(exist_ok=True)
    logged = {name: Command(tuple(words), log=folder / f"{name}.log") for name, words in commands.items()}
    order = Order(cluster, "wsol-test", folder, Profile(**profile), logged, parallel=parallel)
    codes = Crew(order, lambda event: told.append(event["text"]), stop or threading.Event()).run()
    return codes, told


def test_processes_end_with_their_own_codes_and_a_killed_one_is_started_again(tmp_path):
    codes, told = run("local", {"good": GOOD, "bad": BAD, "killed": KILLED_ONCE}, tmp_path / "logs")
    assert codes == {"good": 0, "bad": 1, "killed": 0}
    assert (tmp_path / "logs" / "good.log").read_text() == "learning\n"
    assert "nothing to learn" in (tmp_path / "logs" / "bad.log").read_text()
    assert "killed was killed by SIGKILL; it is started again" in told


def test_a_stop_ends_what_runs_and_begins_nothing_more(tmp_path):
    stop = threading.Event()
    begins = "import pathlib, time; pathlib.Path('{0}').touch(); time.sleep(60)"
    commands = {name: ["-c", begins.format(name)] for name in ("first", "second")}
    threading.Thread(target=lambda: (_until(tmp_path / "first"), stop.set())).start()
    codes, _ = run("local", commands, tmp_path / "logs", parallel=1, stop=stop)
    assert codes == {}
    assert not (tmp_path / "second").exists()


def _until(path: Path) -> None:
    while not path.exists():
        threading.Event().wait(0.02)


def test_workers_of_a_dask_cluster_run_them_in_this_folder(tmp_path):
    (tmp_path / "dask").mkdir()
    with start_dask(tmp_path / "dask") as dask:
        dask.add_worker(dict(os.environ))
        where = ["-c", "import pathlib; pathlib.Path('made-here').touch()"]
        codes, _ = run(dask.address, {"where": where, "bad": BAD}, tmp_path / "logs")
    assert codes == {"where": 0, "bad": 1}
    assert (tmp_path / "made-here").exists()
    assert "nothing to learn" in (tmp_path / "logs" / "bad.log").read_text()


@pytest.mark.slurm
def test_jobs_end_with_their_own_codes_and_a_killed_one_is_submitted_again(slurm, tmp_path):
    commands = {"good": GOOD, "bad": BAD, "killed": KILLED_ONCE}
    codes, told = run("slurm", commands, tmp_path / "logs", parallel=None, poll_seconds=0.3)
    assert codes == {"good": 0, "bad": 1, "killed": 0}
    assert (tmp_path / "logs" / "good.log").read_text() == "learning\n"
    assert any("ended: FAILED; it is started again" in line for line in told)


@pytest.mark.slurm
def test_a_cancelled_job_ends_the_command_with_a_reason(slurm, tmp_path):
    def cancel() -> None:
        slurm.wait(lambda: (tmp_path / "begun").exists())
        for job in slurm.running():
            slurm.call("scancel", job)

    commands = {"long": ["-c", "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(120)"]}
    threading.Thread(target=cancel).start()
    with pytest.raises(ClusterError, match="task 0 of job .* was cancelled"):
        run("slurm-array", commands, tmp_path / "logs", parallel=None, poll_seconds=0.3)


def carry_out(path, **order):
    path.write_text(json.dumps({"parallel": 1, "profile": [], **order}))
    return subprocess.run(
        [sys.executable, "-m", "wsolpipe.launch.crew", str(path)], capture_output=True, text=True, check=False
    )


def test_the_module_tells_what_is_wrong_with_an_order(tmp_path):
    done = carry_out(tmp_path / "order.json", cluster="slrm", commands={})
    assert done.returncode == ConfigError.exit_code
    assert json.loads(done.stdout)["error"].startswith("unknown cluster 'slrm'; did you mean 'slurm'")


def test_the_module_carries_out_an_order_and_returns_the_codes(tmp_path):
    done = carry_out(tmp_path / "order.json", cluster="local", commands={"good": GOOD, "bad": BAD})
    assert (done.returncode, json.loads(done.stdout)) == (0, {"codes": {"good": 0, "bad": 1}}), done.stderr
    assert (tmp_path / "good.log").read_text() == "learning\n"


def test_the_trainer_offers_every_cluster():
    assert set(CLUSTERS) <= set(LAUNCHERS.names())
    assert set(LAUNCHERS.names()) - set(CLUSTERS) <= {"tls://"}
