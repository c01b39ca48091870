"""Quarantined rows, and why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from wsolpipe.engine.quarantine import dropped_ids
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material

MOST_ROWS = 200


def _facts(material: Material) -> Mapping[str, Any] | None:
    rows = material.quarantined
    if not rows:
        return None
    gone = dropped_ids(material.store.backend, material.dataset, material.split)
    return {
        "rows": rows[:MOST_ROWS],
        "total": len(rows),
        "reasons": Counter(item["reason"] for item in rows).most_common(8),
        "paths": any(item["path"] != item["image_id"] for item in rows),
        "dropped": gone,
        "any_dropped": any(item["image_id"] in gone for item in rows),
    }


SECTION = Section(
    name="quarantine",
    title="Quarantined rows",
    order=30,
    facts=_facts,
)
