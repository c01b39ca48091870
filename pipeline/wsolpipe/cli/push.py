"""``wsolpipe push``."""

from __future__ import annotations

import threading

from wsolpipe.cli.command import make_command
from wsolpipe.cli.transfer import CHECK, SELECTION_KEYS
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, require
from wsolpipe.keys.run_keys import STORE

KEYS = (
    Key("to", kinds.filled(kinds.file(kinds.STORE)), "where they go: a folder or s3://bucket/folder"),
    STORE,
    *SELECTION_KEYS,
    CHECK,
)


@make_command("push", keys=KEYS, as_run=False)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Copy finished shards to another store: only what it lacks, checked, resumable."""
    from wsolpipe.cli import transfer
    from wsolpipe.launch.ending import stop_on_signals
    from wsolpipe.share.transfer import push

    given = transfer.words_of(words, KEYS)
    require(given, "wsolpipe push", to="s3://bucket/labels")
    wanted = transfer.selection_of(given)

    def act() -> int:
        stop = threading.Event()
        with stop_on_signals(stop):
            moved = push(
                given["store"], given["to"], wanted, check=given["check"], jobs=given["jobs"],
                emit=transfer.print_folder, stop=stop,
            )  # fmt: skip
        return transfer.show(moved, {"from": given["store"], "to": given["to"]}, as_json=as_json)

    return transfer.resumable(given["store"], act)
