"""``cluster=slurm``: Dask workers that are jobs, as many as there is work for, each replaced when its wall time ends.

The scheduler lives in the run's own process. Without it jobs end by themselves: a running one at once, one that starts
later within `DEATH_SECONDS`.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from wsolpipe.contract.errors import ClusterError
from wsolpipe.engine.graph import resolve
from wsolpipe.launch import slurm
from wsolpipe.launch.dask import LINK_SECONDS, SETTINGS, Dispatch, dashboard_note, quiet
from wsolpipe.launch.dask_site import site_order
from wsolpipe.launch.jobs import Jobs, Patience, end_of, quoted

if TYPE_CHECKING:
    import threading

    from dask_jobqueue import SLURMCluster

    from wsolpipe.engine.session import Session
    from wsolpipe.launch.events import Emit
    from wsolpipe.launch.slurm import Job

DEATH_SECONDS = 60
IDLE_SECONDS = 30
START_SECONDS = 6 * 3600.0
"""Seconds that jobs may wait in the queue without a worker; ``profile.start_seconds=`` overrides it."""
FALSE_STARTS = 2
"""Jobs in a row that may end before their worker starts: such an error does not go away by itself."""
ASK_SECONDS = 60.0
"""Seconds between submissions of a worker that was refused."""
SLURM_SETTINGS: dict[str, Any] = {
    **SETTINGS,
    "distributed.scheduler.unknown-task-duration": "10m",  # one worker per unit until durations are known
    "distributed.deploy.lost-worker-timeout": "3s",
}


def run_slurm(session: Session, emit: Emit, stop: threading.Event) -> None:
    """Run on up to ``workers=`` jobs of SLURM.

    Raises
    ------
    ClusterError
        If dask-jobqueue or SLURM is missing, SLURM refuses the job, or no worker starts.
    WsolError
        What a worker raised.
    """
    import dask

    job = _job_class()
    if shutil.which("sbatch") is None:
        raise slurm.no_sbatch()
    resolve(
        session, fetch=True
    )  # weights are downloaded here, where there is a network, and their errors are raised now
    plan = Jobs.of(session)
    plan.make_folder()
    config = replace(session.config, threads=session.config.threads or plan.profile.cpus)
    session = replace(session, config=config)
    most = min(config.workers, plan.profile.max_jobs or config.workers)
    with (
        quiet(),
        dask.config.set(SLURM_SETTINGS),
        site_order(session, lead=plan.lead) as order,
        _cluster(job, plan) as cluster,
        cluster.get_client() as client,
    ):
        emit(dashboard_note(cluster.dashboard_link))
        emit({"event": "note", "text": f"jobs {plan.name}: up to {most} at a time, logs in {plan.folder}"})
        crew = Crew(cluster, plan, emit)
        cluster.adapt(minimum=1, maximum=most, interval="1s", target_duration="1s", wait_count=IDLE_SECONDS)
        Dispatch(session, client, emit, stop, order=order, watch=crew).run()


def script_text(session: Session) -> str:
    """The script of one worker's job; nothing is written and nothing submitted.

    Raises
    ------
    ClusterError
        If dask-jobqueue is not installed.
    """
    job = _job_class()
    return str(job("tcp://SCHEDULER:PORT", name="WORKER", **_job_words(Jobs.of(session))).job_script())


def _job_class() -> Any:
    """The class of jobs; it keeps the errors of sbatch in `refusals`, which Dask would only log."""
    try:
        from dask_jobqueue.slurm import SLURMJob
        from distributed.core import Status
    except ImportError as error:
        msg = f"cluster=slurm needs dask-jobqueue: {error}"
        hint = "pip install 'wsolpipe[slurm]', or use cluster=slurm-array, which needs nothing"
        raise ClusterError(msg, hint=hint) from error

    class WorkerJob(SLURMJob):  # type: ignore[misc]
        refusals: ClassVar[list[str]] = []

        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, OSError) as error:
                message = str(error).partition("stderr:")[2] or str(error)
                self.refusals.append(" ".join(message.replace("sbatch: error:", "").split()))
                self.status = Status.running  # so that Dask does not submit at once again: there is no job

        async def close(self) -> None:
            self.status = Status.closed  # at once: Dask looks at it while scancel is still at work
            await super().close()

    return WorkerJob


def _job_words(plan: Jobs) -> dict[str, Any]:
    """Options of dask-jobqueue for a job. Of its own header only the name is kept: the profile gives the rest."""
    profile = plan.profile
    extra = ["--memory-limit", "0", "--no-dashboard", "--preload", "wsolpipe.launch.dask_guard"]
    if profile.wall_seconds is not None:  # for workers that wait for a unit; units end earlier
        end = max(1.0, profile.wall_seconds - plan.lead / 2)
        extra += ["--lifetime", f"{end:g}s", "--lifetime-stagger", f"{plan.lead / 4:g}s"]
    settings = [
        f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{profile.cpus}}}",
        f"export DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP={LINK_SECONDS}s",
        "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
    ]
    return {
        "cores": 1, "processes": 1, "memory": "1GB", "nanny": False, "job_cpu": profile.cpus,
        "python": f"exec {profile.python}",  # the worker itself is the process that SLURM signals
        "job_name": plan.name, "death_timeout": DEATH_SECONDS, "worker_extra_args": extra,
        "job_directives_skip": [" -p ", " -A ", " -n ", " -t ", " --cpus-per-task=", " --mem="],
        "job_extra_directives": [
            quoted(option) for option in [*profile.options(), "--ntasks=1", f"--output={plan.folder}/%j.log"]
        ],
        "job_script_prologue": [*profile.prologue(), *settings],
        "interface": profile.interface,
    }  # fmt: skip


def _cluster(job: Any, plan: Jobs) -> SLURMCluster:
    from dask_jobqueue import SLURMCluster

    try:
        return SLURMCluster(
            job_cls=job, name=plan.name, scheduler_options={"dashboard_address": "127.0.0.1:0"}, **_job_words(plan)
        )
    except (RuntimeError, ValueError, OSError) as error:
        msg = f"the Dask scheduler did not start here: {error}"
        raise ClusterError(msg, hint="profile.interface= names the network that compute nodes reach") from error


@dataclass
class Crew:
    """Watches the jobs: reports what they wait for, replaces those lost before their worker started."""

    cluster: SLURMCluster
    plan: Jobs
    emit: Emit
    looked: float = float("-inf")
    seen: float = field(default_factory=time.monotonic)
    began: set[str] = field(default_factory=set)
    false_starts: int = 0
    refused: int = 0
    reported: str = ""
    reported_refusal: str = ""
    asked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.patience = Patience.of(self.plan.profile, self.emit)

    def __call__(self, workers: int) -> None:
        """Look at the queue, every few seconds.

        Raises
        ------
        ClusterError
            If SLURM refuses every job, jobs end before their worker starts, or none starts in time.
        """
        now = time.monotonic()
        if workers:
            self.seen, self.false_starts, self.reported = now, 0, ""
        if now - self.looked < self.plan.profile.poll_seconds:
            return
        self.looked = now
        self.began |= {str(name) for name in self.cluster.observed}
        jobs = self.patience.ask(slurm.jobs, self.plan.name)
        if jobs is None:
            return
        alive = [job for job in jobs.values() if job.state in slurm.ALIVE]
        self._report_refusals(alive)
        self._replace_ended(jobs)
        if not workers:
            self._wait(alive, now - self.seen)

    def _report_refusals(self, alive: list[Job]) -> None:
        """Raise on a refusal while there is no job; else only warn, since a limit of jobs per user may be reached."""
        refusals = self.cluster.job_cls.refusals
        fresh, self.refused = refusals[self.refused :], len(refusals)
        if fresh and not alive:
            msg = f"sbatch refused a worker's job: {fresh[-1]}"
            raise ClusterError(msg, hint="show it with print=true; its options come from the profile (profile.FIELD=)")
        if fresh and fresh[-1] != self.reported_refusal:
            self.reported_refusal = fresh[-1]
            self.emit({"event": "warning", "text": f"sbatch refused another worker: {fresh[-1]}"})

    def _replace_ended(self, jobs: dict[str, Job]) -> None:
        """Drop jobs that were refused, or ended before their worker started, so that Dask submits others."""
        for name, item in list(self.cluster.workers.items()):
            number = item.job_id
            if number is None and item.status.name == "running" and self.looked - self.asked > ASK_SECONDS:
                self.asked = self.looked
                self._forget(name)
            job = jobs.get(str(number))
            if job is None or job.state in slurm.ALIVE or str(name) in self.began:
                continue
            self._forget(name)
            ended = f"job {number} ended ({job.state}) before its worker started"
            self.false_starts += job.state != "CANCELLED"
            if self.false_starts >= FALSE_STARTS:
                log = self.plan.folder / f"{number}.log"
                msg = f"{ended}; {log} ends with\n{end_of(log)}"
                raise ClusterError(
                    msg, hint="show the script with print=true; modules and set-up come from the profile"
                )
            self.emit({"event": "warning", "text": f"{ended}; another one is submitted"})

    def _forget(self, name: Any) -> None:
        """Remove a job from Dask's list, so that Dask replaces it."""

        async def drop() -> None:
            job = self.cluster.workers.pop(name, None)
            if job is not None:
                await job.close()

        self.cluster.loop.add_callback(drop)

    def _wait(self, alive: list[Job], seconds: float) -> None:
        bound = self.plan.profile.start_seconds or START_SECONDS
        states = [
            f"job {job.number} is {job.state.lower()}" + (f" ({job.reason})" if job.waits else "") for job in alive
        ]
        waiting = ", ".join(states) or "no job is in the queue"
        if seconds > bound:
            msg = f"no worker for {seconds:.0f} s: {waiting}"
            raise ClusterError(msg, hint="profile.start_seconds= sets how long to wait; everything committed is kept")
        if waiting != self.reported and alive:
            self.reported = waiting
            self.emit({"event": "note", "text": f"waiting for a worker: {waiting}"})
