"""``wsolpipe publish``."""

from __future__ import annotations

import sys
import threading

from wsolpipe.cli.command import make_command

ABOUT = ("licence", "title", "description", "citation", "url", "version")
KEYS = ("to", "store", "dataset", "stages", "split", "rows", "keys", "jobs", *ABOUT)


@make_command("publish", keys=KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Push a data set's labels with a card, croissant.json and checksums, for anybody to pull.

    \b
    to=STORE       a folder or s3://bucket/folder; a web server before it makes it an https:// store
    dataset=NAME   the data set, by its name in the store
    licence=…      needed where the data set's YAML names none
    title=, description=, citation=, url=, version=    what the card says
    store=, stages=, split=, rows=, keys=, jobs=       as for push
    """
    from wsolpipe.cli import transfer
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.launch.signals import stop_on_signals
    from wsolpipe.share.publish import About, publish

    given = transfer.words_of(words, KEYS)
    for key, example in (("to", "to=s3://bucket/labels"), ("dataset", "dataset=birds")):
        if not given.get(key):
            msg = f"publish needs {key}="
            raise ConfigError(msg, hint=f"add {key}=…, as in {example}")
    wanted, jobs = transfer.selection_of(given), transfer.jobs_of(given)
    about = About(given["dataset"], **{key: given[key] for key in ABOUT if given.get(key)})

    def act() -> int:
        stop = threading.Event()
        with stop_on_signals(stop):
            done = publish(given["store"], given["to"], wanted, about, jobs=jobs, emit=transfer.print_folder, stop=stop)
        heading = {"from": given["store"], "to": given["to"], "files": done.files, "checksums": done.digest}
        code = transfer.show(done.moved, heading, as_json=as_json)
        print(f"published {done.files} files; others trust them with trust={done.digest}", file=sys.stderr)
        return code

    return transfer.resumable(act)
