"""The seam between a run and where its shards run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from wsolpipe.contract.errors import ConfigError
from wsolpipe.engine.clusters import CLUSTERS, find_cluster

if TYPE_CHECKING:
    import threading

    from wsolpipe.engine.session import Session
    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.launch.events import Emit


class Launcher(Protocol):
    """Runs everything that a session asks for; returns when nothing is left or `stop` is set.

    What is not done, and why, is read from the store afterwards, not from a launcher. One that leaves its jobs running
    (``wait=false``) returns a line about them for the user.
    """

    def __call__(self, session: Session, emit: Emit, stop: threading.Event) -> str | None: ...


def load_launcher(cluster: str) -> Launcher:
    """Import the launcher of ``cluster=``."""
    return cast("Launcher", _load(find_cluster(cluster).launcher))


def script_of(session: Session) -> str:
    """The script that the session's ``cluster=`` would submit.

    Raises
    ------
    ConfigError
        If it submits none.
    """
    cluster = session.config.cluster
    script = find_cluster(cluster).script
    if script is None:
        with_script = ", ".join(name for name, item in CLUSTERS.items() if item.script)
        msg = f"print=true: cluster={cluster} submits no script"
        raise ConfigError(msg, hint=f"clusters that do: {with_script}")
    return str(_load(script)(session))


def check(config: RunConfig) -> None:
    """Refuse what a launcher cannot use, before any work is done.

    Raises
    ------
    ConfigError
        If the cluster profile cannot be used, or a key has no meaning with this cluster.
    """
    from wsolpipe.launch.profiles import load_profile

    cluster = find_cluster(config.cluster)
    if config.profile or config.profile_fields or cluster.workers == "jobs":
        load_profile(config)
    idle = [name for name in config.profile_fields if cluster.reads is not None and name not in cluster.reads]
    if idle:
        readers = " or ".join(
            f"cluster={name}" for name, item in CLUSTERS.items() if item.reads is None or idle[0] in item.reads
        )
        msg = f"profile.{idle[0]}= says nothing to cluster={config.cluster}"
        also = "; wall_time=SECONDS bounds workers of this machine" if idle[0] == "time" else ""
        raise ConfigError(msg, hint=f"add {readers}{also}")
    if not config.wait and not cluster.detached:
        detached = " or ".join(name for name, item in CLUSTERS.items() if item.detached)
        msg = f"wait=false: workers of cluster={config.cluster} end with the run that started them"
        raise ConfigError(msg, hint=f"cluster={detached} runs without a waiting process")


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
