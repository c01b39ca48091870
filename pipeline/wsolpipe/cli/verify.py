"""``wsolpipe verify``."""

from __future__ import annotations

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_skipped, print_table
from wsolpipe.keys.key import Key

DAMAGED = 4


KEYS = (Key("deep", kinds.flag(), "read every object; false: only records and the sizes of objects", True),)


@make_command("verify", keys=KEYS, listed=("store", "dataset", "stage"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Read every object of a store again: digests, shapes, NaN, box bounds. Exit code 4 if anything is wrong."""
    from wsolpipe import open_store
    from wsolpipe.contract.errors import NotFoundError
    from wsolpipe.contract.nearest import unknown
    from wsolpipe.engine.folders import list_folders
    from wsolpipe.images.offers import stored_name
    from wsolpipe.share.verify import verify

    config, own = configure(words, KEYS)
    deep = own["deep"]
    store, dataset = open_store(config.store), stored_name(config.dataset) or None
    for name in config.stage:
        if name not in (held := {folder.stage for folder in list_folders(store.backend)[0]}):
            raise NotFoundError(unknown(f"stage of {config.store}", name, held))
    problems = list(verify(store, dataset=dataset, stages=config.stage, deep=deep))
    if as_json:
        print_json({"store": config.store, "problems": [problem.to_json() for problem in problems]})
    elif problems:
        print_table(["kind", "where", "shard", "what"], [[p.kind, p.where, p.shard, p.text] for p in problems])
        print(f"{len(problems)} problems; wsolpipe repair store={config.store} removes or sets aside what is damaged")
    else:
        print(f"{config.store}: everything agrees with its records" + ("" if deep else " in size; nothing was read"))
    print_skipped(list_folders(store.backend, datasets=(dataset,) if dataset else ())[1])
    return DAMAGED if problems else 0
