"""SLURM through its own commands: submit, query, cancel, requeue."""

from __future__ import annotations

import shutil
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Task = tuple[str, int]
"""A task of an array: the array's job number, and the task's number in it."""

ALIVE = frozenset(
    ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT",
     "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "RESV_DEL_HOLD", "SPECIAL_EXIT"]
)  # fmt: skip
SECONDS = 60


@dataclass(frozen=True)
class Job:
    """A job as SLURM reports it: number, state, and why it waits."""

    number: str
    state: str
    reason: str

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.state == "PENDING"


def no_sbatch() -> ClusterError:
    """The error for a machine where jobs cannot be submitted."""
    msg = f"sbatch is not installed on {socket.gethostname()}"
    return ClusterError(msg, hint="run it on a submit host; print=true shows the script anywhere")


def submit(script: Path, *options: str) -> str:
    """Give a script to ``sbatch``; return the job's number.

    Raises
    ------
    ClusterError
        If there is no sbatch on this machine, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise no_sbatch()
    done = _call("sbatch", "--parsable", *options, str(script))
    if done.returncode != 0:
        message = " ".join(done.stderr.replace("sbatch: error:", "").split())
        msg = f"sbatch refused {script}: {message}"
        raise ClusterError(msg, hint="options of jobs come from the profile (profile=, profile.field=value)")
    return done.stdout.strip().partition(";")[0]


def tasks(job_name: str) -> dict[Task, Job]:
    """Tasks of the arrays of this name that SLURM still knows of.

    Raises
    ------
    ClusterError
        If SLURM does not answer.
    """
    lines = _queue(job_name, "%F|%K|%T|%r")
    return {(job, int(task)): Job(job, state, why) for job, task, state, why in lines if task.isdigit()}


def jobs(job_name: str) -> dict[str, Job]:
    """Jobs of this name that SLURM still knows of, by number.

    Raises
    ------
    ClusterError
        If SLURM does not answer.
    """
    return {job: Job(job, state, reason) for job, state, reason in _queue(job_name, "%i|%T|%r")}


def _queue(job_name: str, columns: str) -> list[list[str]]:
    done = _call("squeue", "--noheader", "--array", "--states=all", f"--name={job_name}", f"--format={columns}")
    if done.returncode != 0:
        msg = f"squeue does not answer: {' '.join(done.stderr.split())}"
        raise ClusterError(msg, hint="everything committed is kept: run again, it resumes")
    return [line.split("|") for line in done.stdout.split("\n") if line.count("|") == columns.count("|")]


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs; those that have ended are ignored."""
    _call("scancel", *jobs)


def requeue(task: str) -> bool:
    """Put a running task back into the queue; return whether SLURM agreed."""
    return _call("scontrol", "requeue", task).returncode == 0


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
