"""SLURM through its own programs: submit, query, cancel, requeue."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from wsolpipe.contract.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from wsolpipe.launch.profiles import Profile
    from wsolpipe.launch.progress import Emit

    #: A task of an array: the array's job number, and the task's number in it.
    Task = tuple[str, int]

T = TypeVar("T")
ALIVE = frozenset(
    ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT",
     "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "RESV_DEL_HOLD", "SPECIAL_EXIT"]
)  # fmt: skip
#: Time that one of SLURM's programs may take.
SECONDS = 60
#: Time for which SLURM may not answer, as while its controller restarts; ``profile.start_seconds=`` overrides it.
UNANSWERED_SECONDS = 300.0


@dataclass(frozen=True)
class Job:
    """A task as SLURM reports it: state, and why it waits."""

    state: str
    reason: str

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.state in ALIVE

    @property
    def begun(self) -> bool:
        """Whether it is out of the queue and has not ended."""
        return self.alive and self.state not in {"PENDING", "CONFIGURING"}


@dataclass
class Patience:
    """Asks SLURM, and gives up on it once it has not answered for `bound` seconds.

    Attributes
    ----------
    since : float or None
        When the first of the queries in a row without an answer was made.
    """

    bound: float
    emit: Emit
    since: float | None = None

    @classmethod
    def of(cls, profile: Profile, emit: Emit) -> Self:
        """As long as the profile's ``start_seconds``."""
        return cls(profile.start_seconds or UNANSWERED_SECONDS, emit)

    def ask(self, query: Callable[[str], T], name: str) -> T | None:
        """Answer to a query about the jobs of a name; None without one.

        Raises
        ------
        ClusterError
            If there was none for too long.
        """
        began = time.monotonic()
        try:
            answer = query(name)
        except ClusterError as error:
            if self.since is None:
                self.since = began
                self.emit({"event": "warning", "text": f"{error.message}; asking again"})
            silent = time.monotonic() - self.since
            if silent > self.bound:
                msg = f"SLURM has not answered for {silent:.0f} s: {error.message}"
                hint = (
                    "everything committed is kept: run again, it resumes; profile.start_seconds= sets how long to wait"
                )
                raise ClusterError(msg, hint=hint) from error
            return None
        self.since = None
        return answer


def submit(script: Path, *options: str) -> str:
    """Give a script to ``sbatch``; return the job's number.

    Raises
    ------
    ClusterError
        If sbatch is not installed on this machine, or it refuses.
    """
    if shutil.which("sbatch") is None:
        msg = f"sbatch is not installed on {socket.gethostname()}"
        raise ClusterError(msg, hint="run it on a submit host; print=true shows the script anywhere")
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
    columns = "%F|%K|%T|%r"
    done = _call("squeue", "--noheader", "--array", "--states=all", f"--name={job_name}", f"--format={columns}")
    if done.returncode != 0:
        msg = f"squeue does not answer: {' '.join(done.stderr.split())}"
        raise ClusterError(msg, hint="everything committed is kept: run again, it resumes")
    lines = [line.split("|") for line in done.stdout.split("\n") if line.count("|") == columns.count("|")]
    return {(job, int(task)): Job(state, why) for job, task, state, why in lines if task.isdigit()}


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs; those that have ended are ignored."""
    _call("scancel", *jobs)


def requeue(task: str) -> bool:
    """Put a running task back into the queue; return whether SLURM agreed."""
    return _call("scontrol", "requeue", task).returncode == 0


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {SECONDS} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
