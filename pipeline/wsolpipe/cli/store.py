"""``wsolpipe ls``, ``gc``, ``explain`` and ``adopt``: what a store holds, and why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from wsolpipe import open_store
from wsolpipe.cli.command import configure, make_command
from wsolpipe.cli.transfer import SELECTION_KEYS, STORED_DATASET, selection_of, words_of
from wsolpipe.contract.errors import ConfigError, unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table, shown
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import STORE, WIDE
from wsolpipe.launch.ending import EXIT_PENDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.share.collect import Holding


class _LsKeys:
    """Keys of ``wsolpipe ls``, some of ``gc`` too.

    Attributes
    ----------
    stages
        only these stages
    runs
        folders of wsoltrain fit, or above several: what they read is in use
    """

    store = STORE
    dataset = STORED_DATASET
    stages = Key(kinds.list_of(kinds.name("name of a stage", source="stored stage")), ())
    runs = Key(kinds.list_of(kinds.file("folder")), ())
    wide = WIDE


LS_KEYS = keys_of_class(_LsKeys)
_, _, _, RUNS, _ = LS_KEYS


@make_command("ls", keys=LS_KEYS, as_run=False)
def ls_command(words: tuple[str, ...], as_json: bool) -> int:
    """List what a store holds: rows, size, age, who refers to it, and what newer results have replaced."""
    from wsolpipe.share.collect import Rule, survey, total

    given = words_of(words, LS_KEYS)
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
    _show_holdings(chosen, wide=given["wide"])
    print(f"{len(chosen)} results, {total(chosen) / 2**20:,.1f} MiB in {sum(item.files for item in chosen):,} files")
    if any(item.replaced_by and not item.users for item in chosen):
        print(f"wsolpipe gc store={given['store']} shows which of them nothing refers to")
    return 0


class _GcKeys:
    """Keys of ``wsolpipe gc``.

    Attributes
    ----------
    remove
        remove what is shown; false: only show it
    days
        keep what has a manifest or record of the last so many days
    keep
        results that stay, and all they were made of
    drop
        results that nothing replaces and that may go
    """

    store = STORE
    dataset = STORED_DATASET
    remove = Key(kinds.flag(), False)
    days = Key(kinds.number(0), 7, unit="days")
    keep = Key(kinds.list_of(kinds.text("beginning of a key")), ())
    drop = Key(kinds.list_of(kinds.text("beginning of a key")), ())
    runs = RUNS


GC_KEYS = keys_of_class(_GcKeys)


@make_command("gc", keys=GC_KEYS, as_run=False)
def gc_command(words: tuple[str, ...], as_json: bool) -> int:
    """Show, and with remove=true remove, results that newer ones have replaced and that nothing refers to.

    \b
    wsolpipe gc store=stores/birds                  shows what would go
    wsolpipe gc store=stores/birds remove=true      removes it
    wsolpipe gc store=stores/birds drop=3fa9        also a result that nothing replaces

    Kept are: the newest result of every stage, split and choice of parameters, whatever is young or in use, and
    everything that a kept result was made of. Runs may go on meanwhile.
    """
    from wsolpipe.share.collect import Rule, collect, survey, total

    given = words_of(words, GC_KEYS)
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
    _show_holdings(garbage)
    said = f"{len(garbage)} results, {total(garbage) / 2**20:,.1f} MiB"
    if done is None:
        print(f"{said}; nothing was removed: add remove=true to remove them")
        return 0
    print(f"{said}; {len(done.removed)} removed")
    for item, why in done.left:
        print(f"left: {item.stage} {item.key}: {why}", file=sys.stderr)
    return 0


EXPLAIN_KEYS = (STORE, *(key for key in SELECTION_KEYS if key.name in {"dataset", "stages", "split"}))


@make_command("explain", keys=EXPLAIN_KEYS, as_run=False, positional=kinds.text("beginning of a key"))
def explain_command(words: tuple[str, ...], as_json: bool) -> int:
    """Explain why two keys of a stage differ: which parameter, weights file, index column or upstream stage changed.

    \b
    wsolpipe explain A B [store=STORE] [dataset=NAME] [split=S]
    A, B           first digits of a key, stage/key, or STORE/dataset/split/stage/key
    """
    from wsolpipe.share.other_keys import NOTHING, explain, locate

    named = [word for word in words if "=" not in word]
    given = words_of(tuple(word for word in words if "=" in word), EXPLAIN_KEYS)
    if len(named) != 2:
        msg = f"explain compares two keys; given: {' '.join(named) or 'none'}"
        raise ConfigError(msg, hint="wsolpipe explain A B; wsolpipe status lists keys")
    open_store(given["store"])  # raises where there is none
    wanted = selection_of(given)
    one, other = (locate(word, given["store"], wanted) for word in named)
    found = explain(one, other)
    if as_json:
        print_json({"a": one.found.folder, "b": other.found.folder, "differences": found})
    elif found:
        rows = [[item.field, _short(item.before), _short(item.after)] for item in found]
        print_table(["field", one.found.folder, other.found.folder], rows)
    else:
        print(f"{one.found.folder} and {other.found.folder} differ in {NOTHING}")
    return 0


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:16]}…" if len(text) > 40 else text


class _AdoptKeys:
    """Keys of ``wsolpipe adopt``.

    Attributes
    ----------
    key
        key to accept; wsolpipe status lists keys
    reason
        why its results are valid
    """

    key = Key(kinds.text("beginning of a key"))
    reason = Key(kinds.text(), "")


ADOPT_KEYS = keys_of_class(_AdoptKeys)


@make_command("adopt", keys=ADOPT_KEYS, listed=("stage", "dataset", "store", "split"))
def adopt_command(words: tuple[str, ...], as_json: bool) -> int:
    """Accept shards of an older key as those of the present one, on purpose; the reason is kept in every record."""
    from wsolpipe.engine.session import Session
    from wsolpipe.share.other_keys import adopt

    config, own = configure(words, ADOPT_KEYS)
    if len(config.stage) != 1 or "index" in config.stage or not own["key"]:
        msg = "adopt takes one stage and one key"
        raise ConfigError(msg, hint='wsolpipe adopt stage=cls_maps dataset=D key=0123abcd reason="…"')
    done = adopt(Session.open(config, need_root=False), config.stage[0], own["key"], own["reason"])
    if as_json:
        print_json({"store": config.store, "adopted": done})
    else:
        rows = [
            [item.stage, item.split, item.old, item.new, item.shards, item.present, len(item.left)] for item in done
        ]
        print_table(["stage", "split", "from", "to", "adopted", "already there", "not adopted"], rows)
        for item in done:
            for shard, why in item.left:
                print(f"not adopted: shard {shard} of {item.split}: {why}")
    return EXIT_PENDING if any(item.left for item in done) else 0


def _show_holdings(holdings: Sequence[Holding], *, wide: bool = False) -> None:
    """Print a table a data set, a line a result."""
    columns = ["stage", "split", "key", "rows", "MiB", "days", "state"]
    for name in dict.fromkeys(holding.item.dataset for holding in holdings):
        lines = []
        for holding in holdings:
            item = holding.item
            if item.dataset == name:
                rows = getattr(item.manifest, "rows", None) if item.split else None
                lines.append([item.stage, item.split or "–", item.key, rows, round(holding.bytes / 2**20, 3),
                              f"{holding.days:.1f}", _state_of(holding)])  # fmt: skip
        print_table(columns, lines, title=shown(name), wide=wide)


def _state_of(holding: Holding) -> str:
    """Who reads a result, what replaces it, and what keeps it."""
    users = ", ".join(holding.users[:2]) + (f" and {len(holding.users) - 2} more" if len(holding.users) > 2 else "")
    parts = [
        f"read by {users}" if users else "",
        f"replaced by {holding.replaced_by[:8]}" if holding.replaced_by else holding.kept,
    ]
    return "; ".join(part for part in parts if part) or "nothing refers to it"
