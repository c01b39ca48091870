"""The folder of a run: its lock, and ``run.json``, which records what was run, where, and for how long.

One training at a time writes into a folder, and what a dead one held is taken over.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import ConfigError, RunFailed, writing
from wsolpipe.metrics.protocol import RUN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.engine.leases import Lease, Leases
    from wsoltrain.training.loop import Trainer

NAME = "run.lease"
_log = logging.getLogger(__name__)


class RunLock:
    """A folder that is held; a tracker, so that a training whose folder was taken over ends before it writes there."""

    def __init__(self, lease: Lease, out: Path) -> None:
        self.lease, self.out = lease, out

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:  # noqa: ARG002 - a tracker's
        """Make sure that the folder is still held.

        Raises
        ------
        RunFailed
            If another training took it, as this process stood still for too long.
        """
        if self.lease.lost:
            msg = f"{self.out} was taken over by another training at step {step}, as this one gave no sign of life"
            raise RunFailed(msg, hint="the other one continues from the last checkpoint")

    def close(self) -> None:
        """Do nothing; the folder is given back by `hold`."""


@contextmanager
def hold(out: Path) -> Iterator[RunLock]:
    """Hold a run's folder, by a lease as shards of a store are held, for as long as the block runs.

    A lease of a process that has ended is taken over at once, one from another machine when it is not renewed for its
    time to live.

    Raises
    ------
    ConfigError
        If another training holds it.
    AccessError
        If the folder cannot be written.
    """
    from wsolpipe.engine.leases import Leases

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    leases = Leases(LocalBackend(out))
    with _taken(leases, out).beating() as lease:
        yield RunLock(lease, out)


def _taken(leases: Leases, out: Path) -> Lease:
    """Take the lease; where its holder cannot be looked up from here, wait for a sign of life."""
    here, first = (leases.owner.boot, leases.owner.pids), b""
    while (lease := leases.acquire(NAME)) is None:
        try:
            seen = leases.backend.get(NAME)
        except FileNotFoundError:
            continue
        owner = _owner(seen)
        if seen != (first or seen) or (owner.get("boot"), owner.get("pids")) == here:
            msg = f"{out} is held by another training: process {owner.get('pid')} on {owner.get('host')}"
            raise ConfigError(msg, hint="out=FOLDER for a second run; wait for the first one, or end it")
        if not first:
            _log.warning("%s was held on %s: waiting %.0f s for a sign of life", out, owner.get("host"), leases.ttl)
        first = seen
        time.sleep(min(1.0, leases.ttl / 10))
    return lease


def _owner(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)["owner"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


PACKAGES = ("wsolpipe", "torch", "torchvision", "timm", "numpy", "zarr")
#: Events after which the hours are written: what a kill loses of them is less than an epoch.
KEPT_AT = frozenset({"speed", "val"})


class RunRecord:
    """Keeps ``run.json``; a tracker, so that the hours grow with the run. A run that resumes adds to its hours.

    Parameters
    ----------
    out : Path
        Folder of the run.
    about : mapping
        Further plain values of the file.
    gpus : int
        GPUs that the run's processes use.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], *, gpus: int) -> None:
        self.path, self.gpus, self.since = out / RUN_FILE, gpus, time.monotonic()
        before = read_record(self.path)
        self.spent = {name: float(before.get(name, 0.0)) for name in ("hours", "gpu_hours")}
        self.fields = {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "host": socket.gethostname(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "begun": before.get("begun") or datetime.now(UTC).isoformat(timespec="seconds"),
            "starts": int(before.get("starts", 0)) + 1,
            "versions": {"python": sys.version.split()[0], **_versions()},
            **about,
        }
        self._keep()

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Bring the hours up to date after an epoch and after a validation."""
        if kind in KEPT_AT:
            self._keep()

    def close(self) -> None:
        """Bring the hours up to date."""
        self._keep()

    def _keep(self) -> None:
        hours = (time.monotonic() - self.since) / 3600
        spent = {"hours": self.spent["hours"] + hours, "gpu_hours": self.spent["gpu_hours"] + hours * self.gpus}
        text = json.dumps({**self.fields, **{name: round(value, 5) for name, value in spent.items()}}, indent=1)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            half = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            half.write_text(text + "\n", encoding="utf-8")
            half.replace(self.path)


def record_run(trainer: Trainer) -> RunRecord:
    """Begin the record of a training in this process."""
    settings, rows = trainer.settings, trainer.stream.items.rows
    labelling, device = settings.labelling, trainer.device
    keys = {f"{view.stage} of {view.split}": view.key for view in rows.views}
    keys |= {f"index of {labelling.split}": rows.index.key, **trainer.artifacts.keys}
    about = {
        "store": labelling.store,
        "dataset": labelling.dataset,
        "split": labelling.split,
        "val": settings.val,
        "root": str(Path(settings.root).absolute()),
        **{name: value for name in ("images", "where") if (value := getattr(labelling, name))},
        "keys": keys,
        "device": _device_name(device),
        "processes": trainer.group.world,
    }
    return RunRecord(settings.out, about, gpus=trainer.group.world if device.type == "cuda" else 0)


def _device_name(device: Any) -> str:
    if device.type != "cuda":
        return str(device)
    import torch

    return f"{device} {torch.cuda.get_device_name(device)}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run; empty where there is none that can be read."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    return {}
