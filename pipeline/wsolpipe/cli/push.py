"""``wsolpipe push``."""

from __future__ import annotations

import threading

from wsolpipe.cli.command import make_command

KEYS = ("to", "store", "dataset", "stages", "split", "rows", "keys", "jobs", "check")


@make_command("push", keys=KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Copy finished shards to another store: only what it lacks, checked, resumable.

    \b
    to=STORE       a folder or s3://bucket/folder
    store=STORE    where they are (default: $WSOLPIPE_STORE or ./wsol-store)
    dataset=NAME   only this data set
    stages=S[,S…]  only these stages (default: all but pixels)
    split=, rows=a:b, jobs=8
    keys=newest    newest finished keys and what they were made of; or all, or the first digits of keys
    check=true     read what the target holds and replace what is damaged (default: compare sizes)
    """
    from wsolpipe.cli import transfer
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.launch.signals import stop_on_signals
    from wsolpipe.share.transfer import push

    given = transfer.words_of(words, KEYS)
    if not given.get("to"):
        msg = "no target named"
        raise ConfigError(msg, hint="add to=STORE, as in wsolpipe push to=s3://bucket/labels")
    wanted, jobs, check = transfer.selection_of(given), transfer.jobs_of(given), transfer.check_of(given)

    def act() -> int:
        stop = threading.Event()
        with stop_on_signals(stop):
            moved = push(
                given["store"], given["to"], wanted, check=check, jobs=jobs, emit=transfer.print_folder, stop=stop
            )
        return transfer.show(moved, {"from": given["store"], "to": given["to"]}, as_json=as_json)

    return transfer.resumable(act)
