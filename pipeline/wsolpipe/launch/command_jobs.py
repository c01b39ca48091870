"""Whole commands as SLURM jobs, one each; a job that was lost or ran out of time is submitted again and resumes."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ClusterError
from wsolpipe.launch import slurm
from wsolpipe.launch.jobs import Patience, end_of, quoted

if TYPE_CHECKING:
    import threading

    from wsolpipe.launch.commands import CommandOrder
    from wsolpipe.launch.events import Emit
    from wsolpipe.launch.slurm import Job

LOST_LOOKS = 3
"""Looks at the queue after which a job without an exit code counts as lost: shared folders show files late."""


@dataclass
class _Submitted:
    job: str
    losses: int = 0
    missed: int = 0


def run_jobs(order: CommandOrder, emit: Emit, stop: threading.Event) -> dict[str, int]:
    """Run commands as SLURM jobs; see `wsolpipe.launch.commands.Runner`.

    Raises
    ------
    ClusterError
        If SLURM is missing, refuses a job or does not answer, or a job is lost more often than the profile allows.
    """
    crew = _Crew(order, emit)
    try:
        while (crew.waiting or crew.running) and not stop.is_set():
            crew.look()
            stop.wait(order.profile.poll_seconds)
    finally:
        if crew.running:
            slurm.cancel(each.job for each in crew.running.values())
    return crew.codes


class _Crew:
    """Jobs of one order."""

    def __init__(self, order: CommandOrder, emit: Emit) -> None:
        self.order, self.emit = order, emit
        self.name = f"wsol-{secrets.token_hex(4)}"
        self.waiting, self.running = list(order.commands), dict[str, _Submitted]()
        self.codes: dict[str, int] = {}
        self.patience = Patience.of(order.profile, emit)
        for name in order.commands:
            self._ending(name).unlink(missing_ok=True)

    def look(self) -> None:
        """Submit what may run, and see what has ended."""
        bounds = [bound for bound in (self.order.parallel, self.order.profile.max_jobs) if bound]
        while self.waiting and len(self.running) < min(bounds, default=len(self.order.commands)):
            name = self.waiting.pop(0)
            self.running[name] = _Submitted(self._submit(name))
            self.emit({"event": "note", "text": f"{name} is job {self.running[name].job}; log {self.order.log(name)}"})
        found = self._queue()
        for name, each in list(self.running.items()):
            if self._ending(name).exists():
                self.codes[name] = int(self._ending(name).read_text() or "1")
                del self.running[name]
                self.emit({"event": "note", "text": f"{name} ended with {self.codes[name]}"})
            elif found is not None:
                self._judge(name, each, found.get(each.job))

    def _judge(self, name: str, each: _Submitted, job: Job | None) -> None:
        if job is not None and job.state in slurm.ALIVE:
            each.missed = 0
            return
        each.missed += 1
        if each.missed < LOST_LOOKS:
            return
        state = job.state if job is not None else "gone from the queue"
        if state == "CANCELLED":
            msg = f"job {each.job} of {name} was cancelled"
            raise ClusterError(msg, hint="the same command resumes what was not finished")
        if each.losses >= self.order.profile.resubmits:
            log = self.order.log(name)
            msg = (
                f"job {each.job} of {name} ended: {state}, the {each.losses + 1}th time; {log} ends with\n{end_of(log)}"
            )
            raise ClusterError(msg, hint="more memory or time in the profile; the same command resumes")
        each.job, each.losses, each.missed = self._submit(name), each.losses + 1, 0
        self.emit({"event": "note", "text": f"{name}: {state}; submitted again as job {each.job}"})

    def _queue(self) -> dict[str, Job] | None:
        """Jobs by number; None while SLURM does not answer."""
        return self.patience.ask(slurm.jobs, self.name)

    def _ending(self, name: str) -> Path:
        """File of a command's exit code."""
        return self.order.folder / f"{name}.code"

    def _submit(self, name: str) -> str:
        script = self.order.folder / f"{name}.sh"
        script.write_text(self._script(name))
        return slurm.submit(script.absolute())

    def _script(self, name: str) -> str:
        profile = self.order.profile
        log = str(self.order.log(name).absolute()).replace("%", "%%")
        options = [f"--job-name={self.name}", *profile.options(), f"--chdir={Path.cwd()}", f"--output={log}"]
        ending = shlex.quote(str(self._ending(name).absolute()))
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH {quoted(option)}" for option in (*options, "--open-mode=append")),
            *profile.prologue(),
            f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{profile.cpus}}}",
            f"{profile.python} {shlex.join(self.order.commands[name])}",
            "code=$?",
            f"if [ $code -lt 128 ]; then echo $code > {ending}; fi",
        ]
        return "\n".join(lines) + "\n"
