"""Whole commands on a cluster, such as trainings: each one process, which runs to its end and can be run again.

    python -m wsolpipe.launch.commands ORDER.json

The order is a `CommandOrder` as JSON. Printed at the end is JSON: the exit code of each command, or what went wrong
with the cluster. A command that was lost, not one that failed, is started again.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from wsolpipe.contract.errors import WsolError
from wsolpipe.engine.clusters import find_cluster
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.keys.words import parse_value, split_words
from wsolpipe.launch.process import follow
from wsolpipe.launch.profiles import load_profile
from wsolpipe.launch.signals import EXIT_INTERRUPTED, stop_on_signals

if TYPE_CHECKING:
    from wsolpipe.launch.events import Emit
    from wsolpipe.launch.profiles import Profile


@dataclass(frozen=True)
class CommandOrder:
    """Commands, and where they run.

    Attributes
    ----------
    cluster : str
        As in ``cluster=``.
    parallel : int or None
        Commands that run at once; None: one, or one a GPU with ``dask-cuda``, or all with jobs.
    folder : Path
        Folder of logs, ``<name>.log``, that all machines share.
    commands : dict of str to list of str
        Words of each after the interpreter's, such as ``-m wsoltrain fit …``, by a name that is unique; all run in this
        process's folder.
    profile : Profile
        Of the site.
    """

    cluster: str
    parallel: int | None
    folder: Path
    commands: dict[str, list[str]]
    profile: Profile

    def log(self, name: str) -> Path:
        """File of what a command prints."""
        return self.folder / f"{name}.log"

    @classmethod
    def read(cls, path: Path) -> CommandOrder:
        """From a JSON file with `cluster`, `parallel`, `commands`, and `profile`, words of ``cluster.KEY=value``.

        Raises
        ------
        ConfigError
            If the cluster, the profile or one of its fields is unknown.
        """
        content = json.loads(path.read_text())
        find_cluster(content["cluster"])
        site = split_words(content["profile"])
        name, file = site.pop("profile", None), site.pop("profiles", None)
        fields = {field: parse_value(text) for field, text in site.items()}
        profile = load_profile(RunConfig(profile=name, profiles=file, profile_fields=fields))
        return cls(content["cluster"], content["parallel"], path.parent, content["commands"], profile)


class Runner(Protocol):
    """Runs all commands of an order to their end and returns their exit codes; those left at `stop` are missing."""

    def __call__(self, order: CommandOrder, emit: Emit, stop: threading.Event) -> dict[str, int]: ...


def run_commands(order: CommandOrder, emit: Emit, stop: threading.Event) -> dict[str, int]:
    """Run the commands of an order where its cluster says; see `Runner`.

    Raises
    ------
    ClusterError
        If the cluster cannot be used or is lost.
    """
    order.folder.mkdir(parents=True, exist_ok=True)
    module, _, name = find_cluster(order.cluster).commands.partition(":")
    runner = cast("Runner", getattr(import_module(module), name))
    return runner(order, emit, stop)


def main() -> int:
    """Run an order until it ends or the process that asked for it does; notes go to standard error."""
    stop = threading.Event()
    follow(os.getppid(), stop)

    def tell(event: dict[str, Any]) -> None:
        print(event["text"], file=sys.stderr, flush=True)

    try:
        order = CommandOrder.read(Path(sys.argv[1]))
        with stop_on_signals(stop):
            codes = run_commands(order, tell, stop)
    except WsolError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return error.exit_code
    print(json.dumps({"codes": codes}))
    return EXIT_INTERRUPTED if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
