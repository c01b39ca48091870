"""Top of the page: what was labelled, its quality in one sentence, and baselines to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.schema import Status
from wsolpipe.engine.clock import now
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.report.material import Material

#: Lines of the comparison, weakest baseline first.
STEPS = (
    ("centre", "Centred box", "0.8 of each side of every image"),
    ("otsu", "Map alone", "largest Otsu region of the first map"),
    ("candidates", "Average proposal", "mean over all of a row"),
    ("top1", "Top proposal", "the one with the best score"),
    ("best5", "Best of five", "upper bound: the best of the first five"),
)


def _facts(material: Material) -> Mapping[str, Any]:
    quality = material.quality
    manifest = material.index.manifest
    means = quality.means()
    lead = "top1" if "top1" in means else "otsu" if "otsu" in means else None
    steps = [
        {"name": name, "label": label, "meaning": meaning, "value": means[name]}
        for name, label, meaning in STEPS
        if name in means
    ]
    counts = [
        ("rows", len(quality.status)),
        ("done", int(quality.shown.sum())),
        ("quarantined", int((quality.status == Status.QUARANTINED).sum())),
        ("classes", len(np.unique(quality.labels[quality.labels >= 0]))),
        ("rows with ground truth", manifest.rows_with_truth),
    ]
    return {
        "title": manifest.title or material.dataset,
        "licence": manifest.licence or "not stated",
        "made": now()[:16].replace("T", " ") + " UTC",
        "counts": counts,
        "lead": lead,
        "lead_name": "Top proposal" if lead == "top1" else "Largest region of the first map",
        "value": means.get(lead or "", float("nan")),
        "centre": means.get("centre", float("nan")),
        "recall": quality.recall(lead) if lead else float("nan"),
        "scored": int(quality.scored.sum()),
        "steps": steps,
        "selection": ", ".join(f"{key}={value}" for key, value in manifest.selection.items()),
    }


SECTION = Section(
    name="overview",
    title="",
    order=0,
    facts=_facts,
)
