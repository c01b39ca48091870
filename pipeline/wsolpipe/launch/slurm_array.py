"""``cluster=slurm-array``: a job array whose tasks take leases until none is left; only the store coordinates them.

The run that submits it need not wait: ``wait=false`` leaves the array running. One that waits reports what is made,
replaces tasks that were lost, and cancels the array if it is interrupted.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ClusterError, DeviceError
from wsolpipe.engine.config import for_worker
from wsolpipe.engine.graph import resolve
from wsolpipe.launch import slurm
from wsolpipe.launch.jobs import Jobs, Patience, end_of, quoted
from wsolpipe.launch.task import Order, as_error, read_note
from wsolpipe.launch.watch import StoreWatch

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from wsolpipe.engine.session import Session
    from wsolpipe.launch.events import Emit
    from wsolpipe.launch.slurm import Job, Task

FALSE_STARTS = 2
"""Times that a task may end before its worker starts: such an error does not go away by itself."""
FRUITLESS = 3
"""Times in a row that a task may be lost without any progress, as where memory is too small."""
LOST_LOOKS = 3
END_SECONDS = 90.0
FINAL_LOOKS = 3


def run_slurm_array(session: Session, emit: Emit, stop: threading.Event) -> str | None:
    """Submit an array of ``workers=`` tasks and watch it until nothing is left.

    Returns
    -------
    str or None
        With ``wait=false``, what was submitted and how to follow it.

    Raises
    ------
    ClusterError
        If SLURM is missing or refuses the job, or tasks are lost repeatedly.
    WsolError
        The error of a task.
    """
    resolve(
        session, fetch=True
    )  # weights are downloaded here, where there is a network, and their errors are raised now
    store = StoreWatch(session, emit)
    if store.look():
        return None
    array = Array.of(session)
    array.write()
    job = slurm.submit(array.script)
    emit({"event": "note", "text": f"job {job}: {session.config.workers} tasks, script and logs in {array.folder}"})
    if not session.config.wait:
        return f"job {job} is submitted\n{_ways_to_look(session, job)}"
    crew = Crew(array, job, emit)
    try:
        crew.watch(store, stop)
    finally:
        crew.dismiss()
    return None


def script_text(session: Session) -> str:
    """The script that ``cluster=slurm-array`` would submit; nothing is written."""
    return Array.of(session).text()


class Array(Jobs):
    """A job array: its tasks and the options of SLURM."""

    @property
    def script(self) -> Path:
        """The batch script."""
        return self.folder / "array.sh"

    @property
    def order(self) -> Path:
        """The file that its tasks read."""
        return self.folder / "order.json"

    def write(self) -> None:
        """Write script and order into the log folder.

        Raises
        ------
        ClusterError
            If the folder cannot be written.
        """
        config = self.session.config
        settled = replace(for_worker(config), threads=config.threads or self.profile.cpus, store=self._store())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.script.write_text(self.text())
            Order(settled, self.lead, self.profile.resubmits).write(self.order)
        except OSError as error:
            raise self.unwritable(error) from error

    def text(self) -> str:
        """The batch script."""
        config, profile = self.session.config, self.profile
        throttle = f"%{profile.max_jobs}" if profile.max_jobs else ""
        log = str(self.folder / "%A_%a.log").replace("%%", "%")
        options = [
            f"--job-name={self.name}",
            f"--array=0-{config.workers - 1}{throttle}",
            *profile.options(),
            f"--chdir={Path.cwd()}",
            f"--output={log}",
            "--open-mode=append",
            "--requeue",
            f"--signal=B:USR1@{self.lead}",
        ]
        command = f"{profile.python} -m wsolpipe.launch.task {shlex.quote(str(self.order))}"
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH {quoted(option)}" for option in options),
            "",
            f"# {','.join(config.stage)} of {self.session.dataset.name} into {self._store()}",
            "# Each task makes shards until none is left. It may start late, be cancelled, killed, or run out of time:",
            "# others finish its shards. If its time was up it ends with 75 and goes back into the queue.",
            *profile.prologue(),
            f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{profile.cpus}}}",
            f"exec {command}",
        ]
        return "\n".join(lines) + "\n"

    def _store(self) -> str:
        store = self.session.config.store
        return store if "://" in store else str(Path(store).expanduser().absolute())


@dataclass
class Slot:
    """One of the tasks, and the job that it is in now."""

    task: Task
    losses: int = 0
    false_starts: int = 0
    fruitless: int = 0
    made: int = 0
    missed: int = 0
    ended: bool = False
    memory: str | None = None


@dataclass
class Crew:
    """The tasks of an array, as the run that waits for them tracks them."""

    array: Array
    job: str
    emit: Emit
    slots: list[Slot] = field(default_factory=list)
    reported: str = ""

    def __post_init__(self) -> None:
        self.patience = Patience.of(self.array.profile, self.emit)
        self.slots = [Slot((self.job, number)) for number in range(self.array.session.config.workers)]

    def watch(self, store: StoreWatch, stop: threading.Event) -> None:
        """Watch queue and store until no task is left, or nothing is left to do.

        Raises
        ------
        ClusterError
            If tasks are lost too often, or SLURM does not answer.
        WsolError
            The error of a task.
        """
        while not stop.is_set():
            tasks = self._look()
            whole = store.look()
            if whole:
                self._let_end(stop)
                return
            for slot in self.slots:
                if tasks is not None and not slot.ended:
                    job = tasks.get(slot.task)
                    self._judge(slot, job.state if job else None, store.made)
            if all(slot.ended for slot in self.slots):
                return
            stop.wait(self.array.profile.poll_seconds)

    def _let_end(self, stop: threading.Event) -> None:
        """Nothing is left to do: cancel the pending tasks, and wait briefly until the running ones end."""
        slurm.cancel(["--state=PENDING", *{slot.task[0] for slot in self.slots}])
        for _ in range(FINAL_LOOKS):
            if stop.wait(self.array.profile.poll_seconds):
                return
            tasks = self._look()
            for slot in self.slots:
                job = tasks.get(slot.task) if tasks is not None else None
                slot.ended = slot.ended or (tasks is not None and (job is None or job.state not in slurm.ALIVE))
            if all(slot.ended for slot in self.slots):
                return

    def dismiss(self) -> None:
        """Cancel the tasks that are left, and wait until they have ended and released their leases."""
        left = {slot.task[0] for slot in self.slots if not slot.ended}
        if not left:
            return
        slurm.cancel(left)
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            tasks = self._look()
            if tasks is not None and not any(job.state in slurm.ALIVE for job in tasks.values()):
                return
            time.sleep(min(1.0, self.array.profile.poll_seconds))
        self.emit({"event": "warning", "text": f"jobs {', '.join(sorted(left))} do not end; see squeue"})

    def _look(self) -> dict[Task, Job] | None:
        """All tasks, and a note where the queue has changed; None while SLURM does not answer, as while it restarts."""
        tasks = self.patience.ask(slurm.tasks, self.array.name)
        if tasks is None:
            return None
        summary = _queue_in_words(tasks.values())
        if summary not in {"", self.reported}:
            self.emit({"event": "note", "text": f"queue: {summary}"})
            self.reported = summary
        return tasks

    def _judge(self, slot: Slot, state: str | None, made: int) -> None:
        """Judge the state of a task: running, done, cancelled on purpose, or lost and replaced."""
        if state in slurm.ALIVE:
            slot.missed = 0
            return
        slot.missed += 1
        if state is None and slot.missed < LOST_LOOKS:
            return
        note = read_note(self.array.folder, slot.task)
        slot.ended, slot.missed = True, 0
        error = as_error(note)
        name = f"task {slot.task[1]} of job {slot.task[0]}"
        if isinstance(error, DeviceError):
            state = error.message
        elif error is not None:
            raise error
        if state == "CANCELLED":
            self.emit({"event": "warning", "text": f"{name} was cancelled; other tasks take over its work"})
        elif state != "COMPLETED" and not note.get("done"):
            slot.fruitless, slot.made = (slot.fruitless + 1 if made == slot.made else 1), made
            if state == "OUT_OF_MEMORY":
                slot.memory = self.array.profile.more_memory(slot.memory)
            self._replace(slot, f"{name} ended: {state or 'gone from the queue'}", began="began" in note)

    def _replace(self, slot: Slot, ended: str, *, began: bool) -> None:
        slot.losses += 1
        slot.false_starts = 0 if began else slot.false_starts + 1
        log = self.array.folder / f"{slot.task[0]}_{slot.task[1]}.log"
        if slot.false_starts >= FALSE_STARTS:
            msg = f"{ended}, before its worker started; {log} ends with\n{end_of(log)}"
            raise ClusterError(msg, hint="show the script with print=true; modules and set-up come from the profile")
        if slot.fruitless >= FRUITLESS or slot.losses > self.array.profile.resubmits:
            vain = f", {slot.fruitless} times without progress" if slot.fruitless >= FRUITLESS else ""
            msg = f"{ended}, and was replaced {slot.losses - 1} times already{vain}; {log} ends with\n{end_of(log)}"
            raise ClusterError(msg, hint="everything committed is kept: ask for more memory or time and run again")
        options = [f"--array={slot.task[1]}", *([f"--mem={slot.memory}"] if slot.memory else [])]
        job = slurm.submit(self.array.script, *options)
        slot.task, slot.ended = (job, slot.task[1]), False
        more = f" with {slot.memory} of memory" if slot.memory else ""
        self.emit({"event": "warning", "text": f"{ended}; submitted again as job {job}{more}"})


def _queue_in_words(jobs: Iterable[Job]) -> str:
    """Such as ``2 running, 1 pending (Priority)``; empty once all have ended."""
    counts = Counter(
        job.state.lower() + (f" ({job.reason})" if job.state == "PENDING" and job.reason not in {"", "None"} else "")
        for job in jobs
        if job.state in slurm.ALIVE and job.state != "COMPLETING"
    )
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items(), reverse=True))


def _ways_to_look(session: Session, job: str) -> str:
    store = shlex.quote(session.config.store)
    return f"wsolpipe status store={store} shows how far it is; scancel {job} ends it; the same run again resumes"
