"""``wsolpipe repair``."""

from __future__ import annotations

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys.console import print_json, print_table, shown


@make_command("repair", listed=("store", "dataset", "stage"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Remove or set aside what is damaged, orphaned or left by killed processes; the next run makes it again."""
    from wsolpipe import open_store
    from wsolpipe.engine.status import last_command
    from wsolpipe.images.offers import stored_name
    from wsolpipe.share.repair import repair

    config, _ = configure(words)
    store, dataset = open_store(config.store), stored_name(config.dataset) or None
    done = repair(store, dataset=dataset, stages=config.stage)
    if as_json:
        print_json({"store": config.store, "mended": [{**problem.to_json(), "done": text} for problem, text in done]})
        return 0
    if not done:
        print(f"{config.store}: nothing to repair")
        return 0
    print_table(["kind", "where", "shard", "done"], [[p.kind, p.where, p.shard, text] for p, text in done])
    command_line = last_command(store, dataset)
    if command_line:
        print(shown(f"now run: {command_line}"))
    return 0
