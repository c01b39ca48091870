"""``wsolpipe status``."""

from __future__ import annotations

import time
from typing import Any

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import duration, print_json, print_skipped, print_table, shown
from wsolpipe.keys.key import Key

KEYS = (
    Key("watch", kinds.flag(), "show it again and again", False),
    Key("every", kinds.number(0.1, 86400), "time between two looks of watch=true", 5, unit="seconds"),
)


@make_command("status", keys=KEYS, listed=("store", "dataset", "stage", "wide"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Show the progress of every stage of a store; needs no cluster and no data set."""
    from wsolpipe import open_store
    from wsolpipe.engine.status import last_command, survey

    config, own = configure(words, KEYS)
    while True:
        store = open_store(config.store)
        dataset = _name_in_store(config.dataset)
        if dataset:
            store[dataset]  # raises with the names that there are
        lines, failed, skipped = survey(store, dataset=dataset, stages=config.stage)
        resume = last_command(store, dataset)
        if as_json:
            print_json({"stages": lines, "failed": failed, "skipped": skipped, "store": config.store, "resume": resume})
        else:
            _show(lines, failed, resume, wide=config.wide)
            print_skipped(skipped)
        if not own["watch"]:
            return 0
        time.sleep(own["every"])


def _name_in_store(dataset: str) -> str | None:
    """Name of a data set in the store, also where the YAML is named that describes it; None without any."""
    if dataset.endswith((".yaml", ".yml")):
        from wsolpipe.images.dataset import load_dataset

        return load_dataset(dataset, need_root=False).name
    return dataset or None


def _show(lines: list[dict[str, Any]], failed: list[dict[str, Any]], resume: str | None, *, wide: bool) -> None:
    columns = ["stage", "split", "key", "rows", "done", "quarantined", "shards", "img/s", "left", "running"]
    rows = [
        [
            line["stage"], line["split"] or "–", line["key"], line["rows"] or None,
            f"{line['done']:,}" + (f" (+{line['under_way']:,})" if line["under_way"] else ""),
            line["quarantined"], f"{line['shards_done']}/{line['shards']}", line["rows_per_second"],
            duration(line["eta_seconds"]) if line["eta_seconds"] else None,
            f"{line['running']}" + (f" ({line['stale_leases']} stale)" if line["stale_leases"] else ""),
        ]
        for line in lines
    ]  # fmt: skip
    names = list(dict.fromkeys(line["dataset"] for line in lines))
    for name in names:
        shown_rows = [row for row, line in zip(rows, lines, strict=True) if line["dataset"] == name]
        print_table(columns, shown_rows, title=shown(name), wide=wide)
    for line in [*lines, *failed]:
        for shard, reason in line["failures"].items():
            unit = f" of {line['split']} shard {shard}" if line["split"] else ""
            print(shown(f"failed: {line['stage']}{unit}: {reason}"))
        for text in line["damaged"]:
            print(shown(f"damaged: {text}"))
    if any(line["damaged"] for line in lines):
        print("wsolpipe repair sets aside or removes what is damaged, run makes it again")
    if failed:
        print(f"{len(failed)} keys without a finished shard are not listed; wsolpipe repair removes them")
    if resume:
        print(shown(f"last command: {resume}"))
