"""``wsolpipe publish``."""

from __future__ import annotations

import sys
import threading

from wsolpipe.cli.command import make_command
from wsolpipe.cli.transfer import SELECTION_KEYS
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, require
from wsolpipe.keys.run_keys import STORE

ABOUT = (
    Key("licence", kinds.text(), "licence of the labels; needed where the data set's YAML names none"),
    Key("title", kinds.text(), "title of the card"),
    Key("description", kinds.text(), "what the labels are, for the card"),
    Key("citation", kinds.text(), "what to cite, for the card"),
    Key("url", kinds.text(), "address of the published store, for the card"),
    Key("version", kinds.text(), "version of the labels, for the card"),
)
KEYS = (
    Key(
        "to",
        kinds.filled(kinds.file(kinds.STORE)),
        "where they go: a folder, s3://bucket/folder, gs://, az:// or hf://datasets/owner/name",
    ),
    STORE,
    *SELECTION_KEYS,
    *ABOUT,
)


@make_command("publish", keys=KEYS, as_run=False)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Push a data set's labels with a card, croissant.json and checksums, for anybody to pull."""
    from wsolpipe.cli import transfer
    from wsolpipe.launch.ending import stop_on_signals
    from wsolpipe.share.about import About
    from wsolpipe.share.hub_upload import publish_to_hub
    from wsolpipe.share.publish import publish

    given = transfer.words_of(words, KEYS)
    require(given, "wsolpipe publish", to="s3://bucket/labels", dataset="birds")
    wanted = transfer.selection_of(given)
    about = About(given["dataset"], **{key.name: given[key.name] for key in ABOUT if given[key.name]})

    def act() -> int:
        stop = threading.Event()
        with stop_on_signals(stop):
            send = publish_to_hub if given["to"].startswith("hf:") else publish
            done = send(
                given["store"], given["to"], wanted, about, jobs=given["jobs"], emit=transfer.print_folder, stop=stop
            )
        heading = {"from": given["store"], "to": given["to"], "files": done.files, "checksums": done.digest}
        code = transfer.show(done.moved, heading, as_json=as_json)
        print(f"published {done.files} files; others trust them with trust={done.digest}", file=sys.stderr)
        return code

    return transfer.resumable(given["store"], act)
