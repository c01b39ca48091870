"""``wsolpipe gc``."""

from __future__ import annotations

import sys

from wsolpipe.cli.command import make_command
from wsolpipe.cli.ls import DATASET, RUNS
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key
from wsolpipe.keys.run_keys import STORE

KEYS = (
    STORE, DATASET,
    Key("remove", kinds.flag(), "remove what is shown; false: only show it", False),
    Key("days", kinds.number(0), "keep what has a manifest or record of the last so many days", 7, unit="days"),
    Key("keep", kinds.list_of(kinds.text("beginning of a key")), "results that stay, and all they were made of", ()),
    Key("drop", kinds.list_of(kinds.text("beginning of a key")), "results that nothing replaces and that may go", ()),
    RUNS,
)  # fmt: skip


@make_command("gc", keys=KEYS, as_run=False)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Show, and with remove=true remove, results that newer ones have replaced and that nothing refers to.

    \b
    wsolpipe gc store=stores/birds                  shows what would go
    wsolpipe gc store=stores/birds remove=true      removes it
    wsolpipe gc store=stores/birds drop=3fa9        also a result that nothing replaces

    Kept are: the newest result of every stage, split and choice of parameters, whatever is young or in use, and
    everything that a kept result was made of. Runs may go on meanwhile.
    """
    from wsolpipe import open_store
    from wsolpipe.cli.transfer import words_of
    from wsolpipe.share.collect import Rule, collect, survey, total
    from wsolpipe.share.store_tables import show_holdings

    given = words_of(words, KEYS)
    backend = open_store(given["store"]).backend
    rule = Rule(given["days"], given["keep"], given["drop"], given["runs"])
    dataset = given["dataset"] or ""
    garbage = [holding for holding in survey(backend, rule, dataset=dataset) if not holding.kept]
    done = collect(backend, rule, dataset=dataset) if given["remove"] and garbage else None
    if as_json:
        removed = [item.key for item in done.removed] if done else []
        left = [{"key": item.key, "why": why} for item, why in done.left] if done else []
        found = [holding.to_json() for holding in garbage]
        print_json({"store": given["store"], "garbage": found, "removed": removed, "left": left})
        return 0
    if not garbage:
        print(f"{given['store']}: something refers to every result, or it is younger than {given['days']:g} days")
        return 0
    show_holdings(garbage)
    said = f"{len(garbage)} results, {total(garbage) / 2**20:,.1f} MiB"
    if done is None:
        print(f"{said}; nothing was removed: add remove=true to remove them")
        return 0
    print(f"{said}; {len(done.removed)} removed")
    for item, why in done.left:
        print(f"left: {item.stage} {item.key}: {why}", file=sys.stderr)
    return 0
