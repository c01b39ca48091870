"""``wsolpipe verify``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command, print_json, print_table

DAMAGED = 4


@make_command("verify", keys=("deep",))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Read every object of a store again: digests, shapes, NaN, box bounds. Exit code 4 if anything is wrong.

    \b
    store=DIR      the store (default: $WSOLPIPE_STORE or ./wsol-store)
    dataset=NAME   only this data set, by its name in the store
    stage=S[,S…]   only these stages
    deep=false     look at records and at the sizes of what they name, and read nothing else (default: true)
    """
    from wsolpipe import open_store
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.config import build_config
    from wsolpipe.share.verify import verify
    from wsolpipe.stages.registry import load_registry

    config, extra = build_config(words, load_registry(), also=("deep",))
    deep = extra.get("deep", True)
    if not isinstance(deep, bool):
        msg = f"deep={deep}: write deep=true or deep=false"
        raise ConfigError(msg)
    store = open_store(config.store)
    problems = list(verify(store, dataset=config.dataset or None, stages=config.stage, deep=deep))
    if as_json:
        print_json({"store": config.store, "problems": [problem.to_json() for problem in problems]})
    elif problems:
        print_table(["kind", "where", "shard", "what"], [[p.kind, p.where, p.shard, p.text] for p in problems])
        print(f"{len(problems)} problems; wsolpipe repair store={config.store} removes what is torn")
    else:
        print(f"{config.store}: everything agrees with its records" + ("" if deep else " in size; nothing was read"))
    return DAMAGED if problems else 0
