"""``cluster=local``: commands as processes of this machine, which need no scheduler beside the store's leases."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar

from wsolpipe.contract.errors import ClusterError
from wsolpipe.launch.launcher import Command, Ending, Launcher, Order, Place

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from wsolpipe.launch.progress import Emit

END_SECONDS = 30.0


class Child:
    """A command as a process of this machine.

    Parameters
    ----------
    hear : callable
        Receives every event of a command without a log, in a thread.
    environment : mapping
        Variables beside those of this process.
    folder : str or None
        Where it runs; None for here.
    """

    def __init__(self, command: Command, hear: Emit, environment: Mapping[str, str], folder: str | None = None) -> None:
        self.hear, self.fatal = hear, dict[str, Any]()
        with contextlib.ExitStack() as files:
            log = files.enter_context(command.log.open("ab")) if command.log else None
            self.process = subprocess.Popen(
                [sys.executable, *command.words], env={**os.environ, **environment}, cwd=folder,
                stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL, stdout=log or subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self.process.stdin:
                self.process.stdin.write(command.stdin.encode())
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "fatal":
                self.fatal = event
            else:
                self.hear(event)

    def code(self) -> int | None:
        """Its exit code, None while it runs; a negative one is that of the signal that ended it."""
        if self.process.poll() is None:
            return None
        self.reader.join(END_SECONDS)
        return self.process.returncode

    def terminate(self) -> None:
        """Ask it to end cleanly."""
        if self.process.poll() is None:
            self.process.terminate()

    def join(self) -> None:
        """Wait for its end; kill it if it does not end."""
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)


def ending_of(name: str, code: int, fatal: Mapping[str, Any]) -> Ending:
    """How a process ended: lost, if by a signal."""
    if code < 0:
        return Ending(f"{name} was killed by {signal.Signals(-code).name}")
    return Ending.reported(f"{name} ended with code {code}", code, fatal)


class Processes(Launcher):
    """Processes of this machine, with a GPU each where there are several and none was chosen."""

    here: ClassVar = True
    hears: ClassVar = True

    def __init__(self, order: Order, emit: Emit) -> None:
        super().__init__(order, emit)
        self.children: dict[Place, tuple[str, Child]] = {}
        self.devices = gpus_of(order)[0] if order.spread else []

    def places(self, wanted: int | None) -> Collection[Place]:  # noqa: ARG002
        """Slots, as many as commands run at once."""
        return range(self.order.parallel or 1)

    def start(self, commands: Mapping[Place, tuple[str, Command]]) -> Collection[Place]:
        """Start processes."""
        for place, (name, command) in commands.items():
            environment = threads_each(self.order.parallel or 1)
            if len(self.devices) > 1:
                environment["CUDA_VISIBLE_DEVICES"] = self.devices[int(str(place)) % len(self.devices)]
            self.children[place] = name, Child(command, self.emit, environment)
            if command.log:
                self.emit({"event": "note", "text": f"{name} begins; log in {command.log}"})
        return commands.keys()

    def look(self) -> Mapping[Place, Ending]:
        """Processes that have ended."""
        codes = {place: child.code() for place, (_, child) in self.children.items()}
        ended = {place: code for place, code in codes.items() if code is not None}
        gone = {place: self.children.pop(place) for place in ended}
        return {place: ending_of(gone[place][0], code, gone[place][1].fatal) for place, code in ended.items()}

    def close(self, *, done: bool) -> None:  # noqa: ARG002 - one that has nothing to do has ended
        """End what runs, cleanly if it can."""
        for _, child in self.children.values():
            child.terminate()
        for _, child in self.children.values():
            child.join()


def threads_each(processes: int) -> dict[str, str]:
    """Variables that share the cores of this machine out among processes, unless they are set."""
    share = max(1, (os.cpu_count() or 1) // processes)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share))}


def find_gpus(order: Order) -> list[str]:
    """GPUs to use: those named, else those of CUDA_VISIBLE_DEVICES, else all that the driver lists.

    Raises
    ------
    ClusterError
        If there is none.
    """
    found, looked = gpus_of(order)
    if not found:
        msg = f"no GPU for cluster=dask-cuda: {looked}"
        raise ClusterError(msg, hint="name them with devices=0,1, or run on the CPU with cluster=dask-local workers=N")
    return found


def gpus_of(order: Order) -> tuple[list[str], str]:
    """GPUs to use, none where there is none, and where they were looked for."""
    named, visible = order.devices or order.profile.devices, os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return list(named), ""
    if visible is not None:
        return [part.strip() for part in visible.split(",") if part.strip()], f"CUDA_VISIBLE_DEVICES={visible}"
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "CUDA_VISIBLE_DEVICES is not set, and nvidia-smi is not installed on this machine"
    done = subprocess.run(
        [program, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    message = " ".join((done.stderr or done.stdout).split()) or "nothing"
    return ([], f"nvidia-smi failed: {message}") if done.returncode else (done.stdout.split(), "nvidia-smi lists none")
