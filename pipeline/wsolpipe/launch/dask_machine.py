"""``cluster=dask-local`` and ``cluster=dask-cuda``: Dask workers of this machine, as many as asked for or one a GPU."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ClusterError
from wsolpipe.launch.dask import SETTINGS, Dispatch, dashboard_note, no_bound, quiet
from wsolpipe.launch.dask_task import Order
from wsolpipe.launch.profiles import load_profile

if TYPE_CHECKING:
    import threading

    from wsolpipe.engine.session import Session
    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.launch.events import Emit


def run_dask_local(session: Session, emit: Emit, stop: threading.Event) -> None:
    """Run on ``workers=`` processes of this machine."""
    _run(session, [{}] * session.config.workers, emit, stop)


def run_dask_cuda(session: Session, emit: Emit, stop: threading.Event) -> None:
    """Run on one process a GPU of this machine; each sees only its own device, set before any library lists devices.

    Raises
    ------
    ClusterError
        If there is no GPU and none was named.
    """
    devices = find_devices(session.config)
    emit({"event": "note", "text": f"one worker for each of the devices {', '.join(devices)}"})
    if session.config.device == "auto":  # a torch build without CUDA must fail, not run on the CPU
        session = replace(session, config=replace(session.config, device="cuda"))
    _run(session, [{"CUDA_VISIBLE_DEVICES": device} for device in devices], emit, stop)


def find_devices(config: RunConfig) -> list[str]:
    """Devices to use: those named, else those of CUDA_VISIBLE_DEVICES, else all that the driver lists.

    Raises
    ------
    ClusterError
        If there is none.
    """
    named = config.devices or load_profile(config).devices
    if named:
        return list(named)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found, looked = [part.strip() for part in visible.split(",") if part.strip()], f"CUDA_VISIBLE_DEVICES={visible}"
    else:
        found, looked = _listed_by_driver()
    if not found:
        msg = f"no GPU for cluster=dask-cuda: {looked}"
        raise ClusterError(msg, hint="name them with devices=0,1, or run on the CPU with cluster=dask-local workers=N")
    return found


def _listed_by_driver() -> tuple[list[str], str]:
    """Numbers of the GPUs that nvidia-smi lists, and its message."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "CUDA_VISIBLE_DEVICES is not set, and nvidia-smi is not installed on this machine"
    done = subprocess.run(
        [program, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    message = " ".join((done.stderr or done.stdout).split()) or "nothing"
    if done.returncode:
        return [], f"nvidia-smi failed: {message}"
    return done.stdout.split(), "nvidia-smi lists none"


def _run(session: Session, environments: list[dict[str, str]], emit: Emit, stop: threading.Event) -> None:
    """Run on one process of this machine for each of `environments`."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    threads = session.config.threads or max(1, (os.cpu_count() or 1) // len(environments))
    settings = {
        **SETTINGS,
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    options: dict[str, Any] = {
        "host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.CRITICAL + 1,
    }  # fmt: skip
    workers = {number: {"cls": Nanny, "options": {**options, "env": env}} for number, env in enumerate(environments)}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    order = Order.here(session.config)
    with (
        quiet(),
        dask.config.set(settings),
        SpecCluster(scheduler=scheduler, workers=workers) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        emit(dashboard_note(cluster.dashboard_link))
        Dispatch(session, client, emit, stop, order=order, watch=no_bound).run()
