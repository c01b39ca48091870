"""Nothing that a run starts can be reached from the network: the listening sockets of every ``cluster=``."""

from __future__ import annotations

import time

import psutil
import pytest

from wsolpipe.engine.config import ADDRESS, LAUNCHERS

WORDS = {
    "local": ("workers=2",),
    "dask-local": ("workers=2",),
    "dask-cuda": ("devices=0,1",),
    "slurm": ("workers=2", "profile.poll_seconds=0.2", "profile.logs=logs"),
    "slurm-array": ("workers=2", "profile.poll_seconds=0.2", "profile.logs=logs"),
}
AT_HOME = {"127.0.0.1", "::1"}


def test_every_cluster_that_a_run_starts_is_listened_to():
    assert set(WORDS) == {name for name in LAUNCHERS.names() if not name.endswith(ADDRESS)}


def listening(top: int, beside: list[int]) -> dict[str, set[str]]:
    """Addresses at which a process, those it started and those `beside` it listen, by their command lines."""
    found: dict[str, set[str]] = {}
    first = psutil.Process(top)
    for process in [first, *first.children(recursive=True), *map(psutil.Process, beside)]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.setdefault(" ".join(process.cmdline())[:200], set()).add(connection.laddr.ip)
    return found


@pytest.mark.parametrize(
    "cluster", [pytest.param(name, marks=pytest.mark.slurm if "slurm" in name else ()) for name in WORDS]
)
def test_a_run_listens_on_this_machine_only(toy, cluster, request):
    if "slurm" in cluster:
        toy.environment = request.getfixturevalue("slurm").environment
    gate = toy.folder / "gate"
    process = toy.start(f"cluster={cluster}", *WORDS[cluster], f"shade.gate={gate}")
    while len(toy.calls("setup")) < 2 and process.poll() is None:
        time.sleep(0.02)
    found = listening(process.pid, [call["pid"] for call in toy.calls("setup")])
    gate.touch()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert {address for addresses in found.values() for address in addresses} <= AT_HOME, found
