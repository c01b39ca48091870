"""The seam between a run and where its shards run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from wsolpipe.contract.errors import ConfigError
from wsolpipe.engine.config import ADDRESSES

if TYPE_CHECKING:
    import threading

    from wsolpipe.engine.config import RunConfig
    from wsolpipe.engine.session import Session

Emit = Callable[[dict[str, Any]], None]
HERE = frozenset(["local", "dask-local", "dask-cuda"])
"""Clusters whose workers run on this machine and end with the job around it."""
JOBS = ("slurm", "slurm-array")
"""Clusters whose workers are jobs."""


class Launcher(Protocol):
    """Makes everything that a session asks for; returns when nothing is left or `stop` is set.

    What is left undone, and why, is read from the store afterwards, not from a launcher. One that leaves jobs to
    themselves (``wait=false``) returns what to say of them.
    """

    def __call__(self, session: Session, emit: Emit, stop: threading.Event) -> str | None: ...


def find(cluster: str) -> Launcher:
    """Launcher of ``cluster=``; `wsolpipe.engine.config.CLUSTERS` lists the names."""
    if cluster.startswith(ADDRESSES):
        from wsolpipe.launch.dask_address import run_at_address

        return run_at_address
    if cluster == "dask-local":
        from wsolpipe.launch.dask_machine import run_dask_local

        return run_dask_local
    if cluster == "dask-cuda":
        from wsolpipe.launch.dask_machine import run_dask_cuda

        return run_dask_cuda
    if cluster == "slurm":
        from wsolpipe.launch.dask_slurm import run_slurm

        return run_slurm
    if cluster == "slurm-array":
        from wsolpipe.launch.slurm_array import run_slurm_array

        return run_slurm_array
    from wsolpipe.launch.local import run_local

    return run_local


def find_script(cluster: str) -> Callable[[Session], str]:
    """What makes the script that ``cluster=`` would submit.

    Raises
    ------
    ConfigError
        If it submits none.
    """
    if cluster == "slurm":
        from wsolpipe.launch.dask_slurm import script_text as job_script

        return job_script
    if cluster == "slurm-array":
        from wsolpipe.launch.slurm_array import script_text

        return script_text
    msg = f"print=true: cluster={cluster} submits no script"
    raise ConfigError(msg, hint=f"clusters that do: {', '.join(JOBS)}")


def check(config: RunConfig) -> None:
    """Refuse what a launcher would stumble over, before anything is done.

    Raises
    ------
    ConfigError
        If the cluster profile cannot be used, or a word has no sense with this cluster.
    """
    from wsolpipe.launch.profiles import load_profile

    if config.profile or config.profile_fields or config.cluster in JOBS:
        load_profile(config)
    if not config.wait and config.cluster != "slurm-array":
        msg = f"wait=false: workers of cluster={config.cluster} end with the run that started them"
        raise ConfigError(msg, hint="cluster=slurm-array needs nobody to wait")
