"""Runs the command line in forks of a process that has everything imported, so that tests pay for imports once.

Reads a JSON line a command (program, argv, env, cwd, out, err, kill_after, ended), answers with the exit status of
`os.waitpid`. Where `ended` names a file, it answers with the number of the process at once, and the status goes there.
Each command is a process of its own, in a session of its own, that ends as the real one does: kills included.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import numcodecs  # noqa: F401
import pandas as pd  # noqa: F401
import PIL.Image
import PIL.JpegImagePlugin
import PIL.PngImagePlugin  # noqa: F401
import pyarrow.compute  # noqa: F401
import pyarrow.dataset  # noqa: F401
import pyarrow.parquet  # noqa: F401
import rich.progress
import rich.table  # noqa: F401
import torch  # noqa: F401
import zarr  # noqa: F401

import wsolpipe.cli.health
import wsolpipe.cli.main
import wsolpipe.cli.run
import wsolpipe.cli.store
import wsolpipe.cli.transfer
import wsolpipe.engine.status
import wsolpipe.engine.worker
import wsolpipe.images.offers
import wsolpipe.launch.crew
import wsolpipe.launch.display
import wsolpipe.launch.local
import wsolpipe.launch.process
import wsolpipe.launch.run
import wsolpipe.launch.terminal
import wsolpipe.models.weight_sources
import wsolpipe.share.collect
import wsolpipe.share.publish
import wsolpipe.share.repair
import wsolpipe.share.transfer
import wsolpipe.share.verify  # noqa: F401

SECONDS = 900
PROGRAMS = {
    "wsolpipe": ["wsolpipe.cli.main"],
    "wsolpipe with networks": ["wsolpipe.cli.main", "timm"],
    "wsoltrain": [
        "wsoltrain.cli.main", "wsoltrain.cli.fit", "wsoltrain.training.loop", "wsoltrain.inference.model",
        "wsoltrain.methods.dips", "timm",
    ],
}  # fmt: skip
"""Module of the command line, then what it imports late; a program is imported when it is first asked for."""


def become(order: dict[str, Any]) -> None:
    """Be the command: its environment, folder, arguments and outputs."""
    signal.alarm(SECONDS)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.path[:0] = [path for path in order["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    for stream, name in ((1, "out"), (2, "err")):
        target = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, stream)
    sys.stdin.close()
    program = order["program"]
    sys.argv = [program.split()[0], *order["argv"]]
    code: object = 1
    try:
        importlib.import_module(PROGRAMS[program][0]).main()
    except SystemExit as ended:
        code = ended.code
    end(code if isinstance(code, int) else int(code is not None))


def end(code: int) -> None:
    """End as the interpreter does, without taking down what the parent imported: that took three times a command."""
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(pid: int, kill_after: float | None) -> int:
    """Exit status of a child; its whole session is killed if it takes longer than `kill_after` seconds."""
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):  # it may not have got as far as a session of its own
            os.kill(pid, signal.SIGKILL)
            os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def begin(order: dict[str, Any]) -> int:
    """Start a command; return the number of its process, which leads a session of its own."""
    ready, started = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(ready)
        os.close(started)
        become(order)
    os.close(started)
    os.read(ready, 1)  # it has its session
    os.close(ready)
    return pid


def keep(order: dict[str, Any]) -> int:
    """Start a command that a process of its own waits for and notes the end of; return the command's number."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        pid = begin(order)
        os.write(writing, b"%d\n" % pid)
        for open_file in (0, 1, writing):
            os.close(open_file)
        status = wait(pid, None)
        with open(f"{order['ended']}.part", "w") as file:  # noqa: PTH123
            file.write(str(status))
        os.rename(f"{order['ended']}.part", order["ended"])  # noqa: PTH104
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        return int(file.readline())


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers whose commands have ended
                pass
        for module in PROGRAMS[order["program"]]:
            importlib.import_module(module)
        print(keep(order) if order["ended"] else wait(begin(order), order["kill_after"]), flush=True)


if __name__ == "__main__":
    main()
