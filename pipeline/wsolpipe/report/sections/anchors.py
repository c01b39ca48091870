"""Anchors of classes before and after orthogonalising: the cosine of each pair, and the classes that are most alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.pages.pictures import heat
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.report.material import Material

SHOWN = (("text vectors", "plain"), ("anchors", "anchors"))
PAIRS = 5


def _facts(material: Material) -> Mapping[str, Any] | None:
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


SECTION = Section(name="anchors", title="Class anchors", order=45, facts=_facts)
