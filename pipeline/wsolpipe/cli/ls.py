"""``wsolpipe ls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.cli.command import make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table, shown
from wsolpipe.keys.key import Key
from wsolpipe.keys.run_keys import STORE, WIDE

if TYPE_CHECKING:
    from wsolpipe.share.collect import Holding

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
    show(chosen, wide=given["wide"])
    print(f"{len(chosen)} results, {total(chosen) / 2**20:,.1f} MiB in {sum(item.files for item in chosen):,} files")
    if any(item.replaced_by and not item.users for item in chosen):
        print(f"wsolpipe gc store={given['store']} shows which of them nothing refers to")
    return 0


def show(holdings: list[Holding], *, wide: bool = False) -> None:
    """A table a data set, a line a result."""
    columns = ["stage", "split", "key", "rows", "MiB", "days", "state"]
    for name in dict.fromkeys(holding.item.dataset for holding in holdings):
        lines = []
        for holding in holdings:
            item = holding.item
            if item.dataset == name:
                rows = getattr(item.manifest, "rows", None) if item.split else None
                lines.append([item.stage, item.split or "–", item.key, rows, round(holding.bytes / 2**20, 3),
                              f"{holding.days:.1f}", _state(holding)])  # fmt: skip
        print_table(columns, lines, title=shown(name), wide=wide)


def _state(holding: Holding) -> str:
    """Who reads a result, what replaces it, and what keeps it."""
    users = ", ".join(holding.users[:2]) + (f" and {len(holding.users) - 2} more" if len(holding.users) > 2 else "")
    parts = [
        f"read by {users}" if users else "",
        f"replaced by {holding.replaced_by[:8]}" if holding.replaced_by else holding.kept,
    ]
    return "; ".join(part for part in parts if part) or "nothing refers to it"
