"""``wsolpipe adopt``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command, print_json, print_table

PENDING = 2


@make_command("adopt", keys=("key", "reason"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Accept shards of an older key as those of the present one, on purpose; the reason is kept in every record.

    \b
    stage=S dataset=D   as for run, with the same stage.parameter=value words
    key=OLD             first digits of the key to accept (wsolpipe status lists keys)
    reason="…"          why its results may stand
    store=, split=      as for run
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.config import build_config
    from wsolpipe.engine.session import Session
    from wsolpipe.keys.values import split_words
    from wsolpipe.share.adopt import adopt
    from wsolpipe.stages.registry import load_registry

    given = split_words(words)
    config, _ = build_config(words, load_registry(given.get("stages")), also=("key", "reason"))
    if len(config.stage) != 1 or "index" in config.stage or not given.get("key"):
        msg = "adopt takes one stage and one key"
        raise ConfigError(msg, hint='wsolpipe adopt stage=cls_maps dataset=D key=0123abcd reason="…"')
    done = adopt(Session.open(config, need_root=False), config.stage[0], given["key"], given.get("reason", ""))
    if as_json:
        print_json({"store": config.store, "adopted": [item.to_json() for item in done]})
    else:
        rows = [
            [item.stage, item.split, item.old, item.new, item.shards, item.present, len(item.left)] for item in done
        ]
        print_table(["stage", "split", "from", "to", "adopted", "there already", "left"], rows)
        for item in done:
            for shard, why in item.left:
                print(f"left: shard {shard} of {item.split}: {why}")
    return PENDING if any(item.left for item in done) else 0
