"""``wsolpipe ls``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key
from wsolpipe.keys.run_keys import STORE, WIDE

DATASET = Key("dataset", kinds.name("name of a data set in the store", source="stored dataset"), "only this data set")
STAGES = Key("stages", kinds.list_of(kinds.name("name of a stage", source="stored stage")), "only these stages", ())
RUNS = Key(
    "runs",
    kinds.list_of(kinds.file("folder")),
    "folders of wsoltrain fit, or above several: what they read is in use",
    (),
)
KEYS = (STORE, DATASET, STAGES, RUNS, WIDE)


@make_command("ls", keys=KEYS, as_run=False)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """List what a store holds: rows, size, age, who refers to it, and what newer results have replaced."""
    from wsolpipe import open_store
    from wsolpipe.cli.transfer import words_of
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.contract.nearest import unknown
    from wsolpipe.share.collect import Rule, survey, total
    from wsolpipe.share.store_tables import show_holdings

    given = words_of(words, KEYS)
    backend = open_store(given["store"]).backend
    found = survey(backend, Rule(runs=given["runs"]), dataset=given["dataset"] or "")
    there = {item.item.stage for item in found}
    for name in given["stages"]:
        if name not in there:
            raise ConfigError(unknown(f"stage of {given['store']}", name, there))
    chosen = [item for item in found if not given["stages"] or item.item.stage in given["stages"]]
    if as_json:
        print_json({"store": given["store"], "results": [item.to_json() for item in chosen]})
        return 0
    show_holdings(chosen, wide=given["wide"])
    print(f"{len(chosen)} results, {total(chosen) / 2**20:,.1f} MiB in {sum(item.files for item in chosen):,} files")
    if any(item.replaced_by and not item.users for item in chosen):
        print(f"wsolpipe gc store={given['store']} shows which of them nothing refers to")
    return 0
