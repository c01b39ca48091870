"""What happened, in a line for a log."""

from __future__ import annotations

from typing import Any


def tell(event: dict[str, Any]) -> str | None:
    """Line for one event of a run; None for those that only move a bar."""
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
