"""How results were made: keys, parameters, weights, time, versions; anchors of classes; and what figures mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.engine.session import software_versions
from wsolpipe.evaluate.glossary import read_glossary
from wsolpipe.pages.pictures import heat
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.contract.manifest import CommitRecord, StageManifest
    from wsolpipe.report.material import Material


def _facts(material: Material) -> Mapping[str, Any]:
    stages = [_index_line(material)]
    for artifact in material.artifacts:
        records = [artifact.record] if artifact.record else []
        stages.append(_line(artifact.manifest, records, shards=1))
    for view in material.views:
        stages.append(_line(view.manifest, list(view.committed().values()), shards=len(view.shards)))
    return {"stages": stages, "software": _software(material)}


def _index_line(material: Material) -> dict[str, Any]:
    made = material.index.manifest
    return {
        "stage": "index", "key": made.key, "version": None, "created": _when(made.created), "rows": made.rows,
        "done": made.rows - made.quarantined, "quarantined": made.quarantined, "seconds": None, "rate": None,
        "bytes": None, "where": "", "shards": "", "params": _pairs(made.params), "weights": [], "summary": [],
    }  # fmt: skip


def _line(manifest: StageManifest, records: Sequence[CommitRecord], *, shards: int) -> dict[str, Any]:
    seconds = sum(record.seconds for record in records)
    rows = sum(record.stop - record.start for record in records)
    artifact = manifest.kind == "artifact"
    return {
        "stage": manifest.stage,
        "key": manifest.key,
        "version": manifest.version,
        "created": _when(manifest.created),
        "rows": None if artifact else manifest.rows,
        "done": None if artifact else sum(record.ok + record.no_object for record in records),
        "quarantined": None if artifact else sum(len(record.quarantined) for record in records),
        "seconds": seconds,
        "rate": rows / seconds if rows and seconds else None,
        "bytes": sum(item.bytes for record in records for item in record.objects.values()),
        "where": ", ".join(sorted({record.device for record in records if record.device})),
        "shards": f"{len(records)} of {shards} shards",
        "params": _pairs(manifest.params),
        "weights": [(item.name, item.source, item.sha256[:12]) for item in manifest.weights],
        "summary": _pairs(_total([record.summary for record in records])),
    }


def _total(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers summed over shards; anything else as the last shard says."""
    total: dict[str, Any] = {}
    for summary in summaries:
        for name, value in summary.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            total[name] = total.get(name, 0) + value if number else value
    return total


def _pairs(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value as typed on the command line)."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found += _pairs(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value if isinstance(value, str) else json.dumps(_rounded(value))))
    return found


def _rounded(value: Any) -> Any:
    """A number that was measured, to four digits; settings are shorter."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _software(material: Material) -> list[tuple[str, str]]:
    """Versions that made the stages, and where this page's differ."""
    seen: dict[str, set[str]] = {}
    made = [*(item.manifest for item in material.artifacts), *(item.manifest for item in material.views)]
    for manifest in made:
        for name, version in manifest.software.items():
            seen.setdefault(name, set()).add(version)
    here = software_versions()
    found = [(name, ", ".join(sorted(versions))) for name, versions in sorted(seen.items())]
    return [*found, ("page made by wsolpipe", here.get("wsolpipe", "unknown"))]


def _when(created: str) -> str:
    return created[:16].replace("T", " ")


STAGES = Section(name="stages", title="How it was made", order=50, facts=_facts)


SHOWN = (("text vectors", "plain"), ("anchors", "anchors"))
PAIRS = 5


def _anchor_facts(material: Material) -> Mapping[str, Any] | None:
    try:
        artifact = material.store[material.dataset].artifact("text_anchors")
        tensors = artifact.read("anchors.safetensors")
        about = json.loads(artifact.read("anchors.json"))
    except StoreError:
        return None
    from safetensors.numpy import load

    loaded, names = load(tensors), [str(name) for name in about["names"]]
    shown = [_cosines(title, loaded[key], names) for title, key in SHOWN]
    return {"shown": shown, "how": about["orthogonal"], "key": artifact.key, "count": len(names)}


def _cosines(title: str, vectors: Any, names: Sequence[str]) -> dict[str, Any]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    first, second = np.triu_indices(len(names), 1)
    pairs = cosines[first, second]
    order = np.argsort(-pairs, kind="stable")[:PAIRS].tolist()
    return {
        "title": title,
        "gram": heat(np.round(255 * cosines.clip(0, 1)).astype(np.uint8)),
        "pairs": [(names[first[at]], names[second[at]], float(pairs[at])) for at in order],
        "largest": float(pairs.max(initial=0.0)),
        "mean": float(pairs.mean()) if len(pairs) else 0.0,
    }


ANCHORS = Section(name="anchors", title="Class anchors", order=45, facts=_anchor_facts)


GLOSSARY = Section("glossary", "Glossary", 60, lambda _: {"entries": list(read_glossary().values())})
