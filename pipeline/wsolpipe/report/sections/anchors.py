"""Anchors of classes before and after orthogonalising: cosines of all pairs, and t-SNE."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.pages.charts import Curve, Plot, draw_chart
from wsolpipe.pages.pictures import heat
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.contract.reader import Artifact
    from wsolpipe.report.material import Material

STAGE = "text_anchors"
SHOWN = (("text vectors", "plain"), ("anchors", "anchors"))


def _read(material: Material) -> tuple[Artifact, dict[str, Any], dict[str, Any]] | None:
    """The artifact, its vectors by name and what it says of them; None where the store has none."""
    try:
        artifact = material.store[material.dataset].artifact(STAGE)
        tensors = artifact.read("anchors.safetensors")
        about = json.loads(artifact.read("anchors.json"))
    except StoreError:
        return None
    from safetensors.numpy import load

    return artifact, load(tensors), about


def _facts(material: Material) -> Mapping[str, Any] | None:
    found = _read(material)
    if found is None:
        return None
    artifact, loaded, about = found
    shown = [_one(title, loaded[key], about["names"]) for title, key in SHOWN]
    return {"shown": shown, "how": about["orthogonal"], "key": artifact.key, "count": len(about["names"])}


def _plots(material: Material) -> dict[str, Plot]:
    found = _read(material)
    return {} if found is None else {key: _scatter(title, found[1][key], found[2]["names"]) for title, key in SHOWN}


def _unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _one(title: str, vectors: Any, names: Sequence[str]) -> dict[str, Any]:
    unit = _unit(vectors)
    cosines = unit @ unit.T
    apart = cosines[~np.eye(len(unit), dtype=bool)]
    return {
        "title": title,
        "gram": heat(np.round(255 * cosines.clip(0, 1)).astype(np.uint8)),
        "points": draw_chart(_scatter(title, vectors, names)),
        "largest": float(apart.max(initial=0.0)),
        "mean": float(apart.mean()) if len(apart) else 0.0,
    }


def _scatter(title: str, vectors: Any, names: Sequence[str]) -> Plot:
    """The classes by t-SNE of their vectors."""
    from wsolpipe.ops.tsne import tsne

    places = tsne(_unit(vectors))
    x, y = ((places - places.min(axis=0)) / max(float(np.ptp(places, axis=0).max()), 1e-12)).T
    points = [Curve("top1", "class", x, y)]
    return Plot(f"t-SNE of {title}", "", points, "points", names=[str(name) for name in names])


SECTION = Section(
    name="anchors",
    title="Class anchors",
    order=45,
    facts=_facts,
    plots=_plots,
    style=".anchors{display:flex;flex-wrap:wrap;gap:2rem}.anchors figure{margin:0;width:300px}"
    ".anchors img{width:300px;height:300px;image-rendering:pixelated}"
    ".anchors .chart text{font-size:19px;fill:currentColor}",
)
