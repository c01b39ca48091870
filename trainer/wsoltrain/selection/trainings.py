"""Several trainings of one command: in this process, or each a process or job of its own on any cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ClusterError, ConfigError, WsolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LAUNCHER = "wsolpipe.launch.commands"
"""Module that runs whole commands on a cluster; a process of its own, since the trainer knows no cluster."""
LOG_BYTES = 4096


@dataclass(frozen=True)
class Training:
    """One run of ``wsoltrain fit``.

    Attributes
    ----------
    name : str
        Unique among those that are started together.
    words : tuple of str
        Of ``wsoltrain fit``, ``out=`` among them; given again, they resume.
    """

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """Where trainings run.

    Attributes
    ----------
    cluster : str
        As ``cluster=`` of ``wsolpipe run``.
    parallel : int or None
        Trainings at once; None: one here, one a GPU with ``dask-cuda``, all elsewhere.
    profile : tuple of str
        Words of the site's profile: ``profile=NAME``, ``profiles=FILE``, ``field=value``.
    """

    cluster: str = "local"
    parallel: int | None = None
    profile: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether trainings run in this process, one after another."""
        return self.cluster == "local" and self.parallel in (None, 1)


def run_trainings(
    trainings: Sequence[Training], site: Site, folder: Path, train: Callable[[Training], None]
) -> dict[str, str]:
    """Run trainings to their end, those that failed before once more.

    Parameters
    ----------
    trainings : sequence of Training
    site : Site
    folder : Path
        Folder for logs, which all machines of the site share.
    train : callable
        Runs one in this process.

    Returns
    -------
    dict of str to str
        Name of each that failed, and why.

    Raises
    ------
    ConfigError
        If the cluster or its profile is unknown.
    ClusterError
        If the cluster cannot be used or is lost.
    """
    if not trainings:
        return {}
    if not site.here:
        return _launch(trainings, site, folder)
    failed = {}
    for training in trainings:
        try:
            train(training)
        except WsolError as error:
            failed[training.name] = str(error)
    return failed


def _launch(trainings: Sequence[Training], site: Site, folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    order = folder / "commands.order"
    commands = {each.name: ["-m", "wsoltrain", "fit", *each.words] for each in trainings}
    content = {"cluster": site.cluster, "parallel": site.parallel, "commands": commands, "profile": site.profile}
    order.write_text(json.dumps(content))
    for each in trainings:
        _log(folder, each).unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, "-m", LAUNCHER, str(order)], stdout=subprocess.PIPE, text=True) as process:
        told, _ = process.communicate()
    result: dict[str, Any] = json.loads(told or "{}")
    if "codes" not in result:
        refused = ConfigError if process.returncode == ConfigError.exit_code else ClusterError
        why = result.get("error") or f"{LAUNCHER} ended with {process.returncode}"
        raise refused(why, hint=result.get("hint"))
    codes = result["codes"]
    if process.returncode:
        msg = f"interrupted; {sum(code == 0 for code in codes.values())} of {len(trainings)} trainings have ended"
        raise ClusterError(msg, hint="the same command resumes")
    return {each.name: _why(_log(folder, each), codes[each.name]) for each in trainings if codes[each.name]}


def _log(folder: Path, training: Training) -> Path:
    return folder / f"{training.name}.log"


def _why(log: Path, code: int) -> str:
    """The error that a training's log ends with."""
    lines = log.read_text(errors="replace")[-LOG_BYTES:].splitlines() if log.exists() else []
    last = max((place for place, line in enumerate(lines) if line.startswith("error: ")), default=None)
    told = f"ended with {code}" if last is None else " ".join(lines[last:]).removeprefix("error: ")
    return f"{told} (log: {log})"
