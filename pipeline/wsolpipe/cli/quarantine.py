"""``wsolpipe quarantine``."""

from __future__ import annotations

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.keys.key import Key

ACTIONS = kinds.choice("list", "retry", "drop")
KEYS = (Key("ids", kinds.list_of(kinds.text("image_id")), "only these rows", (), otherwise="all quarantined rows"),)


@make_command("quarantine", keys=KEYS, listed=("stage", "dataset", "store", "split"), positional=ACTIONS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """List quarantined rows, try them again, or accept that they have no result.

    \b
    wsolpipe quarantine list  stage=proposals dataset=D
    wsolpipe quarantine retry stage=proposals dataset=D [ids=a.jpg,b.jpg]   then: wsolpipe run …
    wsolpipe quarantine drop  stage=proposals dataset=D [ids=a.jpg,b.jpg]   no longer counted against max_failed
    """
    from wsolpipe import open_store
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.contract.nearest import unknown
    from wsolpipe.engine.quarantine import drop, quarantined_rows, retry
    from wsolpipe.engine.session import Session

    given = [word for word in words if "=" not in word]
    action = given[0] if given else "list"
    if action not in ACTIONS.choices or len(given) > 1:
        raise ConfigError(unknown("quarantine action", " ".join(given), ACTIONS.choices))
    config, own = configure((word for word in words if "=" in word), KEYS)
    ids = set(own["ids"]) or None
    session = Session.open(config, need_root=False)
    open_store(config.store)  # raises where there is none
    if action == "list":
        rows = quarantined_rows(session)
        if as_json:
            print_json(rows)
        else:
            print_table(
                ["row", "image_id", "stage", "split", "reason", "dropped"],
                [
                    [
                        item["row"],
                        item["image_id"],
                        item["stage"],
                        item["split"],
                        item["reason"],
                        "yes" if item["dropped"] else "",
                    ]
                    for item in rows
                ],
            )
        return 0
    changed = retry(session, ids) if action == "retry" else drop(session, ids)
    if as_json:
        print_json({"action": action, "rows": changed})
    elif action == "retry":
        print(f"{changed} rows will be tried again by the next run")
    else:
        print(f"{changed} rows no longer count against max_failed")
    return 0
