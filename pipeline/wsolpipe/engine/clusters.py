"""The values of ``cluster=``: where the workers of each run, and the function that launches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown

ADDRESSES = ("tcp://", "tls://")
"""How a `cluster=` begins that names the scheduler of a Dask cluster."""


@dataclass(frozen=True)
class Cluster:
    """One kind of cluster.

    Attributes
    ----------
    launcher : str
        ``package.module:function`` of its `wsolpipe.launch.launcher.Launcher`; imported when it is used.
    commands : str
        ``package.module:function`` of its `wsolpipe.launch.commands.Runner`, for whole commands such as trainings.
    workers : "here", "jobs" or "elsewhere"
        Processes of this machine, which end with the job around them; jobs of a scheduler; or workers that were started
        elsewhere.
    script : str or None
        ``package.module:function`` that returns the script it would submit; None where it submits none.
    detached : bool
        Whether a run may leave its workers running (``wait=false``).
    reads : tuple of str or None
        Fields of a profile that it reads; None for all.
    """

    launcher: str
    commands: str
    workers: Literal["here", "jobs", "elsewhere"]
    script: str | None = None
    detached: bool = False
    reads: tuple[str, ...] | None = None


_HERE, _JOBS = "wsolpipe.launch.command_processes:run_processes", "wsolpipe.launch.command_jobs:run_jobs"
_DASK, _SLURM, _ARRAY = "wsolpipe.launch.dask_machine", "wsolpipe.launch.dask_slurm", "wsolpipe.launch.slurm_array"
CLUSTERS = {
    "local": Cluster("wsolpipe.launch.local:run_local", _HERE, "here", reads=()),
    "dask-local": Cluster(f"{_DASK}:run_dask_local", _HERE, "here", reads=()),
    "dask-cuda": Cluster(f"{_DASK}:run_dask_cuda", _HERE, "here", reads=("devices",)),
    "slurm": Cluster(f"{_SLURM}:run_slurm", _JOBS, "jobs", f"{_SLURM}:script_text"),
    "slurm-array": Cluster(f"{_ARRAY}:run_slurm_array", _JOBS, "jobs", f"{_ARRAY}:script_text", detached=True),
}
_ADDRESS = Cluster(
    "wsolpipe.launch.dask_address:run_at_address",
    "wsolpipe.launch.command_futures:run_futures",
    "elsewhere",
    reads=("start_seconds",),
)


def find_cluster(name: str) -> Cluster:
    """Look up a value of ``cluster=``: a name of `CLUSTERS` or the address of a Dask scheduler.

    Raises
    ------
    ConfigError
        If it is neither; names the nearest.
    """
    if name.startswith(ADDRESSES):
        return _ADDRESS
    if name not in CLUSTERS:
        raise ConfigError(unknown("cluster", name, [*CLUSTERS, "tcp://host:port"]))
    return CLUSTERS[name]
