"""The values of ``cluster=``: what starts the workers of a run, and trainings, is found by one of these names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.named import Registry
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESS = "://"
"""How the name of a launcher ends that takes an address, such as ``tcp://`` of ``cluster=tcp://host:port``."""
LAUNCHERS: Registry[Any] = Registry(
    "cluster",
    "wsolpipe.launchers",
    {
        "local": "wsolpipe.launch.local:Processes",
        "dask-local": "wsolpipe.launch.dask:HereByDask",
        "dask-cuda": "wsolpipe.launch.dask:GpusByDask",
        "slurm": "wsolpipe.launch.jobs:Jobs",
        "slurm-array": "wsolpipe.launch.jobs:JobArray",
        "tcp://": "wsolpipe.launch.dask:StandingDask",
        "tls://": "wsolpipe.launch.dask:StandingDask",
    },
    base="wsolpipe.launch.launcher:Launcher",
)


def offered_clusters(given: Mapping[str, str]) -> list[str]:  # noqa: ARG001 - as all that help and completion offer
    """Names that ``cluster=`` takes beside addresses."""
    return [name for name in LAUNCHERS.names() if not name.endswith(ADDRESS)]


def launcher_name(cluster: str) -> str:
    """Name of the launcher that a value of ``cluster=`` means.

    Raises
    ------
    ConfigError
        If there is none; names the nearest.
    """
    kind, separator, _ = cluster.partition(ADDRESS)
    name = kind + separator
    if name not in LAUNCHERS:
        raise ConfigError(unknown("cluster", cluster, [*offered_clusters({}), "tcp://host:port"]))
    return name
