"""``wsolpipe check``."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys.console import print_json, print_table

if TYPE_CHECKING:
    from wsolpipe.images.check import SplitFacts

LISTED = ("dataset", "store", "split", "root", "accept", "limit", "rows", "workers", "threads", "wide")
MOST_CLASSES = 20


@make_command("check", listed=LISTED)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Look for faults of a data set that would spoil training: shared images, missing classes, labels or boxes.

    The index of each split is made first, as run stage=index makes it. Errors stop run unless accept= names them; the
    exit code is 3 where there is one.

    \b
    wsolpipe check dataset=birds.yaml
    """
    from wsolpipe.contract.errors import ConfigError, DataError, RunFailed
    from wsolpipe.engine.data_check import ready_indexes, refused_findings
    from wsolpipe.engine.session import Session
    from wsolpipe.images.check import find_faults, find_unlisted, read_facts
    from wsolpipe.launch.display import Display
    from wsolpipe.launch.run import run

    config, _ = configure(words)
    if config.stage:
        msg = "check looks at the data set, before any stage"
        raise ConfigError(msg, hint="leave stage= out; wsolpipe verify reads the results of stages again")
    config = replace(config, stage=("index",), accept=(*config.accept, "all"))
    with Display() as display:
        outcome = run(config, display, threading.Event())
    session = Session.open(replace(config, accept=config.accept[:-1]))
    indexes = ready_indexes(session)
    if any(split not in indexes for split in session.splits):
        raise RunFailed(outcome.verdict)
    facts = [read_facts(index) for index in indexes.values()]
    findings = [*find_faults(session.dataset, facts), *find_unlisted(session.dataset, list(indexes.values()))]
    refused = refused_findings(session, findings)
    if as_json:
        print_json({"splits": [item.to_json() for item in facts], "findings": findings,
                    "refused": [item.name for item in refused]})  # fmt: skip
    else:
        _show(facts, wide=config.wide)
        for item in findings:
            level = "accepted" if item.level == "error" and item not in refused else item.level
            print(f"{level}: {item.line()}")
        if not findings:
            print("no fault found")
    if refused:
        names = ",".join(dict.fromkeys(item.name for item in refused))
        print(f"run stops at what is called an error, unless accept={names}", file=sys.stderr)
    return DataError.exit_code if refused else 0


def _show(facts: list[SplitFacts], *, wide: bool) -> None:
    """One line for each split, then one for each class."""
    described = [item.to_json() for item in facts]
    rows: list[list[Any]] = []
    for item in described:
        lost = sum(found["rows"] for found in item["quarantined"].values())
        sizes = " ".join("x".join(map(str, item[name])) for name in ("smallest", "median", "largest"))
        turned = sum(count for turn, count in item["orientations"].items() if turn != "1")
        formats = ", ".join(f"{count:,} {name}" for name, count in item["formats"].items())
        rows.append(
            [
                item["split"],
                item["rows"],
                item["unlabelled"],
                lost,
                item["boxes"],
                item["masks"],
                formats,
                sizes,
                turned,
            ]
        )
    columns = [
        "split",
        "images",
        "no label",
        "quarantined",
        "boxes",
        "masks",
        "formats",
        "pixels: least, median, largest",
        "turned by EXIF",
    ]
    print_table(columns, rows, wide=wide)
    names = list(dict.fromkeys(name for item in described for name in item["labels"]))
    shown = names if wide else names[:MOST_CLASSES]
    if shown:
        counts = [[name, *(item["labels"].get(name, 0) for item in described)] for name in shown]
        print_table(["class", *(item["split"] for item in described)], counts, wide=wide)
    if len(names) > len(shown):
        print(f"and {len(names) - len(shown):,} more classes: wide=true shows them\n")
