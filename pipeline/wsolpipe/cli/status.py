"""``wsolpipe status``."""

from __future__ import annotations

import time

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_skipped, shown
from wsolpipe.keys.key import Key

KEYS = (
    Key("watch", kinds.flag(), "show it again and again", False),
    Key("every", kinds.number(0.1, 86400), "time between two looks of watch=true", 5, unit="seconds"),
)


@make_command("status", keys=KEYS, listed=("store", "dataset", "stage", "wide"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Show the progress of every stage of a store; needs no cluster and no data set."""
    from wsolpipe import open_store
    from wsolpipe.engine.status import last_command, survey
    from wsolpipe.images.offers import stored_name
    from wsolpipe.launch.terminal import show_status

    config, own = configure(words, KEYS)
    while True:
        store = open_store(config.store)
        dataset = stored_name(config.dataset) or None
        if dataset:
            store[dataset]  # raises with the names that there are
        lines, failed, skipped = survey(store, dataset=dataset, stages=config.stage)
        resume = last_command(store, dataset)
        if as_json:
            print_json({"stages": lines, "failed": failed, "skipped": skipped, "store": config.store, "resume": resume})
        else:
            show_status(lines, failed, wide=config.wide)
            if resume:
                print(shown(f"last command: {resume}"))
            print_skipped(skipped)
        if not own["watch"]:
            return 0
        time.sleep(own["every"])
