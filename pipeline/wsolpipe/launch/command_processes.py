"""Whole commands as processes of this machine, several at once, each with a GPU of its own where there are several."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ClusterError

if TYPE_CHECKING:
    import threading

    from wsolpipe.launch.commands import CommandOrder
    from wsolpipe.launch.events import Emit

POLL_SECONDS = 0.2
END_SECONDS = 20.0
RESTARTS = 3
"""Times that a process is started again after a signal ended it, as where memory ran out."""


def run_processes(order: CommandOrder, emit: Emit, stop: threading.Event) -> dict[str, int]:
    """Run commands as processes of this machine; see `wsolpipe.launch.commands.Runner`.

    Raises
    ------
    ClusterError
        If ``dask-cuda`` finds no GPU.
    """
    devices = _devices(order)
    parallel = order.parallel or max(1, len(devices))
    waiting, codes, losses = list(order.commands), dict[str, int](), dict.fromkeys(order.commands, 0)
    running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
    try:
        while (waiting or running) and not stop.is_set():
            for place in range(parallel):
                if waiting and place not in running:
                    name = waiting.pop(0)
                    device = devices[place % len(devices)] if devices else None
                    running[place] = name, _start(order, name, parallel, device)
                    emit({"event": "note", "text": f"{name} begins; log in {order.log(name)}"})
            for place, (name, process) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[place]
                if code < 0 and losses[name] < RESTARTS:
                    losses[name] += 1
                    waiting.insert(0, name)
                    emit({"event": "note", "text": f"{name} was ended by signal {-code}; it is started again"})
                else:
                    codes[name] = code
                    emit({"event": "note", "text": f"{name} ended with {code}"})
            stop.wait(POLL_SECONDS)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return codes


def _devices(order: CommandOrder) -> list[str]:
    """Numbers of the GPUs that commands share out among them; empty where none is asked for."""
    if order.cluster != "dask-cuda":
        return []
    visible = order.profile.devices or tuple(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
    if not visible:
        import torch

        visible = tuple(map(str, range(torch.cuda.device_count())))
    if not visible:
        msg = "cluster=dask-cuda: this machine has no GPU that torch can use"
        raise ClusterError(msg, hint="cluster=local")
    return list(visible)


def _start(order: CommandOrder, name: str, parallel: int, device: str | None) -> subprocess.Popen[bytes]:
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    with order.log(name).open("ab") as log:
        words = [sys.executable, *order.commands[name]]
        return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
