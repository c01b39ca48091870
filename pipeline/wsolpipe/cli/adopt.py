"""``wsolpipe adopt``."""

from __future__ import annotations

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.keys.key import Key

PENDING = 2


KEYS = (
    Key("key", kinds.text("beginning of a key"), "key to accept; wsolpipe status lists keys"),
    Key("reason", kinds.text(), "why its results are valid", ""),
)


@make_command("adopt", keys=KEYS, listed=("stage", "dataset", "store", "split"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Accept shards of an older key as those of the present one, on purpose; the reason is kept in every record."""
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.session import Session
    from wsolpipe.share.adopt import adopt

    config, own = configure(words, KEYS)
    if len(config.stage) != 1 or "index" in config.stage or not own["key"]:
        msg = "adopt takes one stage and one key"
        raise ConfigError(msg, hint='wsolpipe adopt stage=cls_maps dataset=D key=0123abcd reason="…"')
    done = adopt(Session.open(config, need_root=False), config.stage[0], own["key"], own["reason"])
    if as_json:
        print_json({"store": config.store, "adopted": [item.to_json() for item in done]})
    else:
        rows = [
            [item.stage, item.split, item.old, item.new, item.shards, item.present, len(item.left)] for item in done
        ]
        print_table(["stage", "split", "from", "to", "adopted", "already there", "not adopted"], rows)
        for item in done:
            for shard, why in item.left:
                print(f"not adopted: shard {shard} of {item.split}: {why}")
    return PENDING if any(item.left for item in done) else 0
