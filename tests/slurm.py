"""A real SLURM cluster of this host for tests, and what tests ask of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOOL = Path(__file__).resolve().parents[1] / "tools" / "slurm" / "cluster.py"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")


def missing() -> list[str]:
    """Programs of a SLURM cluster that this machine lacks."""
    return [name for name in NEEDED if shutil.which(name) is None]


@dataclass(frozen=True)
class Slurm:
    """A running cluster: `environment` makes commands use it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str) -> str:
        """Standard output of one of SLURM's commands."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def states(self, job: str | None = None) -> dict[str, str]:
        """State of every job, or of one array's tasks, also of those that ended in the last minutes."""
        chosen = ["-j", job] if job else []
        lines = self.call("squeue", "-h", "-r", "-t", "all", "-o", "%i %T", *chosen).split("\n")
        return dict(line.split() for line in lines if line.strip())

    def running(self) -> list[str]:
        return [job for job, state in self.states().items() if state == "RUNNING"]

    def number(self, task: str) -> int:
        """A task's own job number, which names its processes; `task` is as `states` tells it."""
        told = self.call("scontrol", "show", "job", "-o", task)
        return int(told.split("JobId=")[1].split()[0])

    def kill_step(self, task: str) -> list[int]:
        """``kill -9`` what runs a task on its node, and all that it runs; return the process numbers."""
        found = subprocess.run(
            ["pgrep", "-f", rf"^slurmstepd: \[{self.number(task)}\."], capture_output=True, text=True, check=False
        )
        victims = [pid for step in map(int, found.stdout.split()) for pid in (step, *_descendants(step))]
        assert victims, f"no process runs {task}"
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return victims

    def wait(self, holds: Callable[[], bool], seconds: float = 240) -> None:
        """Wait until `holds`; fail with the queue as it stands."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"after {seconds} s the queue is {self.states()}"
            time.sleep(0.1)

    def clear(self) -> None:
        """Cancel whatever is left of a test."""
        self.call("scancel", "--full", f"--user={os.getuid()}")
        alive = {"RUNNING", "PENDING", "COMPLETING"}
        self.wait(lambda: not alive & set(self.states().values()))


@contextmanager
def serve_slurm() -> Iterator[Slurm]:
    """A cluster of two nodes in a folder of its own; it ends with this process, however that ends."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path may have 107 characters
    holder = subprocess.Popen(
        [sys.executable, str(TOOL), "hold", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline().startswith("export SLURM_CONF="), "the cluster did not start"
        yield Slurm(folder)
    finally:
        holder.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _descendants(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    children = [int(child) for child in found.split()]
    return [*children, *(below for child in children for below in _descendants(child))]
