"""``wsolpipe status``."""

from __future__ import annotations

import time
from typing import Any

from wsolpipe.cli.command import make_command, print_json, print_table


@make_command("status", keys=("watch", "every"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Say how far every stage of a store is; needs no cluster and no data set.

    \b
    store=DIR      the store (default: $WSOLPIPE_STORE or ./wsol-store)
    dataset=NAME   only this data set, by its name in the store or its YAML file
    stage=S[,S…]   only these stages
    watch=true     show it again every few seconds (every=5)
    """
    from wsolpipe import open_store
    from wsolpipe.engine.config import build_config
    from wsolpipe.engine.status import last_command, survey
    from wsolpipe.keys.values import split_words
    from wsolpipe.stages.registry import load_registry

    registry = load_registry(split_words(words).get("stages"))
    config, extra = build_config(words, registry, also=("watch", "every"))
    while True:
        store = open_store(config.store)
        dataset = _name_in_store(config.dataset)
        if dataset:
            store[dataset]  # raises with the names that there are
        lines = survey(store, dataset=dataset, stages=config.stage)
        resume = last_command(store, dataset)
        if as_json:
            print_json({"stages": lines, "store": config.store, "resume": resume})
        else:
            _show(lines, resume)
        if extra.get("watch") is not True:
            return 0
        time.sleep(float(extra.get("every", 5)))


def _name_in_store(dataset: str) -> str | None:
    """Name of a data set in the store, also where the YAML is named that describes it; None without any."""
    from wsolpipe.images.dataset import load_dataset

    if dataset.endswith((".yaml", ".yml")):
        return load_dataset(dataset, need_root=False).name
    return dataset or None


def _show(lines: list[dict[str, Any]], resume: str | None) -> None:
    columns = [
        "data set",
        "stage",
        "split",
        "key",
        "rows",
        "done",
        "quarantined",
        "shards",
        "img/s",
        "ETA s",
        "at work",
    ]
    rows = [
        [
            line["dataset"], line["stage"], line["split"] or "–", line["key"], line["rows"] or None, line["done"],
            line["quarantined"], f"{line['shards_done']}/{line['shards']}", line["rows_per_second"],
            line["eta_seconds"],
            f"{line['running']}" + (f" ({line['stale_leases']} stale)" if line["stale_leases"] else ""),
        ]
        for line in lines
    ]  # fmt: skip
    print_table(columns, rows)
    for line in lines:
        for shard, reason in line["failures"].items():
            print(f"failed: {line['stage']} of {line['split']} shard {shard}: {reason}")
    if resume:
        print(f"last command: {resume}")
