"""``wsolpipe pull``."""

from __future__ import annotations

import threading

from wsolpipe.cli.command import make_command

KEYS = ("from", "store", "dataset", "stages", "split", "rows", "keys", "jobs", "check", "trust", "replace")


@make_command("pull", keys=KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Copy finished shards from another store; run then uses them as its own.

    \b
    from=STORE     a folder, s3://bucket/folder or https://host/folder
    store=STORE    where they go (default: $WSOLPIPE_STORE or ./wsol-store)
    dataset=NAME   only this data set
    stages=S[,S…]  only these stages (default: all but pixels)
    split=, rows=a:b, jobs=8
    keys=newest    newest finished keys and what they were made of; or all, or the first digits of keys
    check=true     read what this store holds and replace what is damaged (default: compare sizes)
    trust=A[,A…]   addresses, or digests of published checksums.txt; others are refused
    replace=newer  replace shards of this store by later generations (default: keep them)
    """
    from wsolpipe.cli import transfer
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.launch.signals import stop_on_signals
    from wsolpipe.share.transfer import pull

    given = transfer.words_of(words, KEYS)
    if not given.get("from"):
        msg = "no source named"
        raise ConfigError(msg, hint="add from=STORE, as in wsolpipe pull from=s3://bucket/labels")
    if given.get("replace", "never") not in {"never", "newer"}:
        msg = f"replace={given['replace']}: write newer, or leave it out"
        raise ConfigError(msg)
    wanted, jobs, check = transfer.selection_of(given), transfer.jobs_of(given), transfer.check_of(given)

    def act() -> int:
        stop = threading.Event()
        with stop_on_signals(stop):
            moved = pull(
                given["from"], given["store"], wanted, trust=given.get("trust"),
                newer=given.get("replace") == "newer", check=check, jobs=jobs, emit=transfer.print_folder, stop=stop,
            )  # fmt: skip
        return transfer.show(moved, {"from": given["from"], "to": given["store"]}, as_json=as_json)

    return transfer.resumable(act)
