"""Tables of what a store holds and of what was moved between stores, as commands print them on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from wsolpipe.keys.console import print_skipped, print_table, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.share.collect import Holding
    from wsolpipe.share.transfer import Result


def show_holdings(holdings: Sequence[Holding], *, wide: bool = False) -> None:
    """Print a table a data set, a line a result."""
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


def show_transfer(moved: Result, *, quiet: bool) -> None:
    """Print a line a folder, unless `quiet`, then on standard error what was not moved and why."""
    if not quiet:
        columns = ["data set", "stage", "split", "key", "shards", "moved", "already there", "kept", "refused", "MiB"]
        rows = [
            [
                line.dataset, line.stage, line.split or "–", line.key, line.shards, line.moved, line.same,
                len(line.kept), len(line.refused), round(line.bytes / 2**20, 3),
            ]
            for line in moved.lines
        ]  # fmt: skip
        print_table(columns, rows)
    for line in moved.lines:
        if line.kept:
            shards = ", ".join(str(unit) for unit in line.kept[:10]) + (" …" if len(line.kept) > 10 else "")
            print(f"{line.stage} {line.key}: kept the target's own shards {shards}: other bytes", file=sys.stderr)
    print_skipped(moved.skipped)
    for text in moved.refused:
        print(f"refused: {shown(text)}", file=sys.stderr)
    if moved.retried:
        counts = ", ".join(f"{count} × {verb}" for verb, count in sorted(moved.retried.items()))
        print(f"requests sent again: {counts}", file=sys.stderr)
