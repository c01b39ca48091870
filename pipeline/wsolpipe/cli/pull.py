"""``wsolpipe pull``."""

from __future__ import annotations

import threading

from wsolpipe.cli.command import make_command

KEYS = ("from", "store", "dataset", "stages", "split", "rows", "keys", "jobs", "trust", "replace")


@make_command("pull", keys=KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Take finished shards from another store; run then uses them as its own.

    \b
    from=STORE     a folder, s3://bucket/folder or https://host/folder
    store=STORE    where they go (default: $WSOLPIPE_STORE or ./wsol-store)
    dataset=NAME   only this data set
    stages=S[,S…]  only these stages (default: all but pixels)
    split=, rows=a:b, jobs=8
    keys=newest    or all, or the first digits of keys
    trust=A[,A…]   addresses, or digests of published checksums.txt; others are refused
    replace=newer  take later generations over shards that are here; else what is here stays
    """
    from wsolpipe.cli import transfer
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.launch.signals import stop_on_signals
    from wsolpipe.share.pull import pull

    given = transfer.words_of(words, KEYS)
    if not given.get("from"):
        msg = "no source named"
        raise ConfigError(msg, hint="add from=STORE, as in wsolpipe pull from=s3://bucket/labels")
    if given.get("replace", "never") not in {"never", "newer"}:
        msg = f"replace={given['replace']}: write newer, or leave it out"
        raise ConfigError(msg)
    wanted, jobs = transfer.selection_of(given), transfer.jobs_of(given)

    def act() -> int:
        stop = threading.Event()
        with stop_on_signals(stop):
            moved = pull(
                given["from"], given["store"], wanted, trust=given.get("trust"),
                newer=given.get("replace") == "newer", jobs=jobs, emit=transfer.tell, stop=stop,
            )  # fmt: skip
        return transfer.show(moved, {"from": given["from"], "to": given["store"]}, as_json=as_json)

    return transfer.resumable(act)
