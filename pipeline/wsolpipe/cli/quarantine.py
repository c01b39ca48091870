"""``wsolpipe quarantine``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command, print_json, print_table


@make_command("quarantine", keys=("ids",))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """List rows that were given up, try them again, or accept that they are gone.

    \b
    wsolpipe quarantine list  stage=proposals dataset=D
    wsolpipe quarantine retry stage=proposals dataset=D [ids=a.jpg,b.jpg]   then: wsolpipe run …
    wsolpipe quarantine drop  stage=proposals dataset=D [ids=a.jpg,b.jpg]   no longer counted against max_failed
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.contract.nearest import unknown
    from wsolpipe.engine.config import build_config
    from wsolpipe.engine.quarantine import drop, quarantined_rows, retry
    from wsolpipe.engine.session import Session
    from wsolpipe.keys.values import split_words
    from wsolpipe.stages.registry import load_registry

    actions = {"list", "retry", "drop"}
    given = [word for word in words if "=" not in word]
    action = given[0] if given else "list"
    if action not in actions or len(given) > 1:
        raise ConfigError(unknown("quarantine action", " ".join(given), actions))
    rest = [word for word in words if "=" in word]
    registry = load_registry(split_words(rest).get("stages"))
    config, _ = build_config([word for word in rest if not word.startswith("ids=")], registry)
    wanted = split_words(rest).get("ids")
    ids = set(wanted.split(",")) if wanted else None
    session = Session.open(config, need_root=False)
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
