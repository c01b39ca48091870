"""Events of a run: what receives them, and how one reads as a line of a log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]
"""Receives every event of a run: a plain dictionary with a field ``event``."""


def describe(event: dict[str, Any]) -> str | None:
    """One line for an event of a run; None for those that only move a progress bar."""
    kind = event["event"]
    if kind in {"note", "late"}:
        return str(event["text"])
    if kind == "warning":
        return f"warning: {event['text']}"
    if kind == "failure":
        where = f"{event['stage']} {event['split'] or ''} shard {event['shard']}"
        return f"failed (try {event['tries']}): {where}: {event['error']}"
    if kind == "shard":
        bad = f", {event['quarantined']} quarantined" if event["quarantined"] else ""
        what = "made" if event["split"] is None else f"shard {event['shard']}: {event['rows']} rows{bad}"
        how = "taken over" if event.get("taken_over") else f"{event['seconds']:.1f} s"
        return f"{event['stage']} {event['split'] or ''} {what}, {how}"
    return None
