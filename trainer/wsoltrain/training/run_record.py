"""``run.json`` in the folder of a run: what was run where, what of the store it reads, and the hours that it took."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.writing import writing
from wsolpipe.metrics.protocol import RUN_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.training.loop import Trainer

PACKAGES = ("wsolpipe", "torch", "torchvision", "timm", "numpy", "zarr")
#: Events after which the hours are written: what a kill loses of them is less than an epoch.
KEPT_AT = frozenset({"speed", "val"})


class RunRecord:
    """Keeps ``run.json``; a tracker, so that the hours grow with the run. A run that goes on adds to its hours.

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
