"""Commands as SLURM jobs: ``cluster=slurm-array`` and ``cluster=slurm``.

All are tasks of job arrays of one script. ``slurm-array`` submits all at once and needs no waiting process; ``slurm``
submits as many as there is work for. Workers share nothing but the store, so no job listens to the network.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wsolpipe.contract.errors import ClusterError
from wsolpipe.contract.layout import read_json
from wsolpipe.launch import slurm
from wsolpipe.launch.launcher import Command, Ending, Launcher, Order, Place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from wsolpipe.launch.progress import Emit
    from wsolpipe.launch.slurm import Job, Task

#: Time for which workers of ``cluster=slurm`` may all wait in the queue; ``profile.start_seconds=`` overrides it.
START_SECONDS = 6 * 3600.0
#: Time between submissions of workers that were refused while others run.
ASK_SECONDS = 60.0
#: Looks at the queue after which a task without an ending counts as lost: shared folders show files late.
LOST_LOOKS = 3
END_SECONDS = 90.0
FINAL_LOOKS = 3


class JobArray(Launcher):
    """A job array, submitted at once, whose tasks need neither a scheduler nor a waiting process."""

    detached: ClassVar = True
    scripted: ClassVar = True
    reads: ClassVar = None
    start_seconds: ClassVar[float | None] = None

    def __init__(self, order: Order, emit: Emit) -> None:
        super().__init__(order, emit)
        self.profile, self.folder = order.profile, order.folder
        self.restarts, self.poll_seconds = self.profile.resubmits, self.profile.poll_seconds
        self.names = list(order.commands)
        self.tasks: dict[Place, Task] = {}
        self.missed: Counter[Place] = Counter()
        self.memory: dict[Place, str] = {}
        self.patience = slurm.Patience.of(self.profile, emit)
        self.reported, self.refused = "", ""
        self.ask_again, self.seen = float("-inf"), time.monotonic()

    # -- places and starts ---------------------------------------------------------------------------------------

    def places(self, wanted: int | None) -> Collection[Place]:  # noqa: ARG002
        """Numbers of tasks."""
        return range(len(self.names) or self.order.parallel or 1)

    def start(self, commands: Mapping[Place, tuple[str, Command]]) -> Collection[Place]:
        """Submit the script for the tasks of these places.

        Raises
        ------
        ClusterError
            If SLURM refuses it and no other task runs, or the folder cannot be written.
        """
        if time.monotonic() < self.ask_again:
            return ()
        self._write()
        for memory in {self.memory.get(place) for place in commands}:
            numbers = {
                place: self.names.index(name) if self.names else int(str(place))
                for place, (name, _) in commands.items()
                if self.memory.get(place) == memory
            }
            options = [self._array(numbers.values()), *([f"--mem={memory}"] if memory else [])]
            try:
                job = slurm.submit(self.script_file, *options)
            except ClusterError as error:
                if not self.tasks:
                    raise
                self.ask_again = time.monotonic() + ASK_SECONDS  # a limit of jobs a user may be reached
                if self.refused != error.message:
                    self.refused = error.message
                    self.emit({"event": "warning", "text": error.message})
                return ()
            self.tasks |= {place: (job, number) for place, number in numbers.items()}
            more = f" with {memory} of memory" if memory else ""
            text = f"job {job}: {len(numbers)} tasks{more}, script and logs in {self.folder}"
            self.emit({"event": "note", "text": text})
        return commands.keys()

    def _array(self, numbers: Collection[int]) -> str:
        """Option that names the tasks of a submission."""
        whole = len(numbers) > 1 and max(numbers) - min(numbers) == len(numbers) - 1
        listed = f"{min(numbers)}-{max(numbers)}" if whole else ",".join(map(str, sorted(numbers)))
        most = self.profile.max_jobs if self.order.worker else None
        return f"--array={listed}{f'%{most}' if most and len(numbers) > 1 else ''}"

    # -- looking -------------------------------------------------------------------------------------------------

    def look(self) -> Mapping[Place, Ending]:
        """Tasks that ended, as they or SLURM reported.

        Raises
        ------
        ClusterError
            If SLURM does not answer for too long, or no worker begins in time.
        """
        jobs = self._queue()
        ended = {}
        for place, task in list(self.tasks.items()):
            ending = self._judge(place, task, jobs)
            if ending is not None:
                ended[place] = ending
                self.missed.pop(place, None)
                del self.tasks[place]
        return ended

    def _judge(self, place: Place, task: Task, jobs: Mapping[Task, Job] | None) -> Ending | None:
        """How a task ended, None while it may still be at work."""
        name, note = f"task {task[1]} of job {task[0]}", self._note(task)
        if "code" in note:
            return Ending.reported(f"{name} ended with code {note['code']}", note["code"], note)
        job = jobs.get(task) if jobs is not None else None
        if jobs is None or (job is not None and job.alive):
            self.missed[place] = 0
            return None
        self.missed[place] += 1
        state = job.state if job is not None else "gone from the queue"
        if self.missed[place] < LOST_LOOKS and state != "CANCELLED":
            return None
        if state == "OUT_OF_MEMORY" and (more := self.profile.more_memory(self.memory.get(place))):
            self.memory[place] = more
        began = "began" in note or self.order.worker is None
        if state == "CANCELLED":
            return Ending(f"{name} was cancelled", cancelled=True)
        return Ending(f"{name} ended: {state}", 0 if state == "COMPLETED" else None, began=began)

    def _queue(self) -> dict[Task, Job] | None:
        """Return all tasks, and a note if the queue has changed; None while SLURM does not answer."""
        jobs = self.patience.ask(slurm.tasks, self.order.name)
        if jobs is None:
            return None
        summary = _queue_in_words(jobs.values())
        if summary not in {"", self.reported}:
            self.emit({"event": "note", "text": f"queue: {summary}"})
            self.reported = summary
        self._bound_wait(jobs, summary)
        return jobs

    def _bound_wait(self, jobs: Mapping[Task, Job], summary: str) -> None:
        """End a run whose workers have all waited for too long."""
        now, bound = time.monotonic(), self.start_seconds
        waits = any(job.alive for job in jobs.values()) and not any(job.begun for job in jobs.values())
        self.seen = self.seen if waits else now
        if bound is not None and now - self.seen > (self.profile.start_seconds or bound):
            msg = f"no worker for {now - self.seen:.0f} s: {summary}"
            raise ClusterError(msg, hint="profile.start_seconds= sets how long to wait; everything committed is kept")

    def _note(self, task: Task) -> dict[str, Any]:
        """Return what a task noted of itself; empty before it began."""
        try:
            return dict(read_json((self.folder / f"{task[0]}_{task[1]}.json").read_text()))
        except (OSError, ValueError):
            return {}

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self, *, done: bool) -> None:
        """Cancel the remaining tasks, and wait until they have ended and released their leases."""
        if done and self.tasks:
            slurm.cancel(["--state=PENDING", *{task[0] for task in self.tasks.values()}])
            for _ in range(FINAL_LOOKS):
                time.sleep(self.poll_seconds)
                self.look()
                if not self.tasks:
                    return
        left = {f"{job}_{place}" for job, place in self.tasks.values()}
        if not left:
            return
        slurm.cancel(left)
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            jobs = self._queue()
            if jobs is not None and not any(jobs[task].alive for task in self.tasks.values() if task in jobs):
                return
            time.sleep(min(1.0, self.poll_seconds))
        self.emit({"event": "warning", "text": f"jobs {', '.join(sorted(left))} do not end; see squeue"})

    # -- the script ----------------------------------------------------------------------------------------------

    @property
    def script_file(self) -> Path:
        """The batch script."""
        return self.folder / "array.sh"

    def log_of(self, place: Place) -> Path | None:
        """The log of a worker's last job."""
        logs = sorted(self.folder.glob(f"*_{place}.log"), key=lambda path: path.stat().st_mtime)
        return logs[-1] if logs else self.folder / f"JOB_{place}.log"

    def _write(self) -> None:
        """Write the script, and what workers read, into the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.script_file.write_text(self.script())
            if self.order.worker is not None:
                self._orders.touch(mode=0o600)
                self._orders.write_text(self.order.worker.stdin)
        except OSError as error:
            msg = f"cannot write scripts and logs to {self.folder}: {error.strerror}"
            hint = "choose a folder that compute nodes share: profile.logs=FOLDER"
            raise ClusterError(msg, hint=hint) from error

    @property
    def _orders(self) -> Path:
        return self.folder / "order.json"

    def script(self) -> str:
        """The batch script."""
        profile, worker = self.profile, self.order.worker
        options = [
            f"--job-name={self.order.name}", self._array(range(len(self.places(None)))), *profile.options(),
            f"--chdir={Path.cwd()}", f"--output={str(self.folder / '%A_%a.log').replace('%%', '%')}",
            "--open-mode=append",
        ]  # fmt: skip
        if worker is not None:
            options += ["--requeue", f"--signal=B:USR1@{profile.lead}"]
        body = self._worker_lines(worker) if worker is not None else self._command_lines()
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH {_quoted(option)}" for option in options),
            "",
            *profile.prologue(),
            f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{profile.cpus}}}",
            *body,
        ]
        return "\n".join(lines) + "\n"

    def _worker_lines(self, worker: Command) -> list[str]:
        return [
            "# Each task makes shards until none is left. It may start late, be cancelled, killed, or run out of time:",
            "# others finish its shards. If its time was up it ends with 75 and goes back into the queue.",
            f"exec {self.profile.python} {shlex.join([*worker.words, str(self._orders)])}",
        ]

    def _command_lines(self) -> list[str]:
        """Each task runs its own command, and notes its exit code unless a signal ended it."""
        cases = []
        for number, name in enumerate(self.names):
            command = self.order.commands[name]
            log = shlex.quote(str(command.log.absolute() if command.log else self.folder / f"{name}.log"))
            cases.append(f"{number}) set -- {shlex.join(command.words)}; log={log} ;;")
        note = shlex.quote(str(self.folder.absolute())) + "/${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}.json"
        return [
            "case $SLURM_ARRAY_TASK_ID in", *cases, "esac",
            f'{self.profile.python} "$@" >>"$log" 2>&1',
            "code=$?",
            f'if [ $code -lt 128 ]; then echo "{{\\"code\\": $code}}" > {note}; fi',
            "exit $code",
        ]  # fmt: skip


class Jobs(JobArray):
    """Jobs that come while there is work for them, and end with the run that submitted them."""

    adapts: ClassVar = True
    detached: ClassVar = False
    start_seconds: ClassVar = START_SECONDS

    def places(self, wanted: int | None) -> Collection[Place]:
        """As many as there is work for."""
        most = len(super().places(wanted))
        if self.names:
            return range(most)
        bounds = [most, self.profile.max_jobs or most, most if wanted is None else wanted]
        return range(min(bounds))


def _queue_in_words(jobs: Iterable[Job]) -> str:
    """Such as ``2 running, 1 pending (Priority)``; empty once all have ended."""
    counts = Counter(
        job.state.lower() + (f" ({job.reason})" if job.state == "PENDING" and job.reason not in {"", "None"} else "")
        for job in jobs
        if job.alive and job.state != "COMPLETING"
    )
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items(), reverse=True))


def _quoted(option: str) -> str:
    """An option as sbatch reads it from a script: quotes where there is a space."""
    name, separator, value = option.partition("=")
    return f'{name}{separator}"{value}"' if " " in value else option
