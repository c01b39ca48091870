"""``wsolpipe pull``."""

from __future__ import annotations

import threading

from wsolpipe.cli.command import make_command
from wsolpipe.cli.transfer import CHECK, SELECTION_KEYS
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, require
from wsolpipe.keys.run_keys import STORE

KEYS = (
    Key(
        "from",
        kinds.filled(kinds.file(kinds.STORE)),
        "where they are: a folder, s3://bucket/folder, gs://, az://, hf://datasets/owner/name or https://host/folder",
    ),
    STORE,
    *SELECTION_KEYS,
    CHECK,
    Key("trust", kinds.text(), "addresses, or digests of published checksums.txt, with commas; others are refused"),
    Key("replace", kinds.choice("never", "newer"), "newer: replace shards of this store by later generations", "never"),
)


@make_command("pull", keys=KEYS, as_run=False)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Copy finished shards from another store; run then uses them as its own."""
    from wsolpipe.cli import transfer
    from wsolpipe.launch.ending import stop_on_signals
    from wsolpipe.share.transfer import pull

    given = transfer.words_of(words, KEYS)
    require(given, "wsolpipe pull", **{"from": "s3://bucket/labels"})
    wanted = transfer.selection_of(given)

    def act() -> int:
        stop = threading.Event()
        with stop_on_signals(stop):
            moved = pull(
                given["from"], given["store"], wanted, trust=given["trust"],
                newer=given["replace"] == "newer", check=given["check"], jobs=given["jobs"],
                emit=transfer.print_folder, stop=stop,
            )  # fmt: skip
        return transfer.show(moved, {"from": given["from"], "to": given["store"]}, as_json=as_json)

    return transfer.resumable(given["from"], act)
