"""Whole commands on a cluster, such as trainings: each one process, which runs to its end and can be run again.

    python -m wsolpipe.launch.commands ORDER.json

The order is JSON: `cluster`, `parallel`, `commands` (name -> words after the interpreter's) and `profile`, arguments of
the site's profile. Printed at the end is JSON: the exit code of each command, or what went wrong with the cluster.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import WsolError
from wsolpipe.engine.config import launcher_name
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.keys.words import parse_value, split_words
from wsolpipe.launch.crew import Crew
from wsolpipe.launch.ending import EXIT_INTERRUPTED, stop_on_signals
from wsolpipe.launch.launcher import Command, Order
from wsolpipe.launch.process import follow
from wsolpipe.launch.profiles import load_profile


def read_order(path: Path) -> Order:
    """The commands of a JSON file; their logs, ``<name>.log``, go beside it, into a folder that all machines share.

    Raises
    ------
    ConfigError
        If the cluster, the profile or one of its fields is unknown.
    """
    content = json.loads(path.read_text())
    launcher_name(content["cluster"])
    site = split_words(content["profile"])
    name, file = site.pop("profile", None), site.pop("profiles", None)
    fields = {field: parse_value(text) for field, text in site.items()}
    profile = load_profile(RunConfig(profile=name, profiles=file, profile_fields=fields))
    folder = path.parent.absolute()
    commands = {name: Command(tuple(words), log=folder / f"{name}.log") for name, words in content["commands"].items()}
    order = f"wsol-{secrets.token_hex(4)}"
    return Order(content["cluster"], order, folder, profile, commands, parallel=content["parallel"])


def main() -> int:
    """Run an order until it ends or the process that asked for it does; notes go to standard error."""
    stop = threading.Event()
    follow(os.getppid(), stop)

    def tell(event: dict[str, Any]) -> None:
        print(event["text"], file=sys.stderr, flush=True)

    try:
        with stop_on_signals(stop):
            codes = Crew(read_order(Path(sys.argv[1])), tell, stop).run()
    except WsolError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return error.exit_code
    print(json.dumps({"codes": codes}))
    return EXIT_INTERRUPTED if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
