"""A Dask scheduler and its workers as processes of their own, the way users start them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass
class DaskCluster:
    """`prefix` goes before each command (``ip netns exec NAME`` puts it on another host)."""

    folder: Path
    host: str = "127.0.0.1"
    prefix: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the scheduler; `address` is known afterwards."""
        note = self.folder / "scheduler.json"
        note.unlink(missing_ok=True)
        self.scheduler = self._spawn(
            self.prefix, "dask_scheduler", "--host", self.host, "--port", "0", "--no-dashboard",
            "--scheduler-file", str(note), env=dict(os.environ), cwd=self.folder,
        )  # fmt: skip
        while not note.exists() and self.scheduler.poll() is None:
            time.sleep(0.05)
        self.address = json.loads(note.read_text())["address"]

    def add_worker(
        self, env: Mapping[str, str], *options: str, prefix: Sequence[str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker process in a folder that is not the run's."""
        return self._spawn(
            self.prefix if prefix is None else prefix, "dask_worker", self.address, "--nthreads", "1", "--no-nanny",
            "--no-dashboard", "--death-timeout", "60", *options, env=dict(env), cwd=cwd or self.folder,
        )  # fmt: skip

    def _spawn(
        self, prefix: Sequence[str], program: str, *words: str, env: dict[str, str], cwd: Path
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", f"distributed.cli.{program}", *words],
                env={**env, **self.settings, "OMP_NUM_THREADS": "1"}, cwd=cwd, stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End every process."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def start_dask(folder: Path, **options: object) -> Iterator[DaskCluster]:
    """A running scheduler without workers, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder, **options)  # type: ignore[arg-type]
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
