"""Anchors of classes before and after orthogonalising: cosines of all pairs, and t-SNE."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from wsolpipe.contract.errors import StoreError
from wsolpipe.pages.pictures import heat
from wsolpipe.report.page import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.report.material import Material

STAGE = "text_anchors"
NAMED = 60
"""Classes up to which points carry their names."""
SIDE, MARGIN = 300.0, 34.0


def _facts(material: Material) -> Mapping[str, Any] | None:
    try:
        artifact = material.store[material.dataset].artifact(STAGE)
        tensors = artifact.read("anchors.safetensors")
        about = json.loads(artifact.read("anchors.json"))
    except StoreError:
        return None
    from safetensors.numpy import load

    loaded = load(tensors)
    names = [str(name) for name in about["names"]]
    shown = [_one(title, loaded[key], names) for title, key in (("text vectors", "plain"), ("anchors", "anchors"))]
    return {"shown": shown, "how": about["orthogonal"], "key": artifact.key, "count": len(names)}


def _one(title: str, vectors: Any, names: Sequence[str]) -> dict[str, Any]:
    from wsolpipe.ops.tsne import tsne

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    apart = cosines[~np.eye(len(unit), dtype=bool)]
    return {
        "title": title,
        "gram": heat(np.round(255 * cosines.clip(0, 1)).astype(np.uint8)),
        "points": _scatter(tsne(unit), names, title),
        "largest": float(apart.max(initial=0.0)),
        "mean": float(apart.mean()) if len(apart) else 0.0,
    }


def _scatter(places: Any, names: Sequence[str], title: str) -> Markup:
    """Points as SVG in the page's colours; each says its class."""
    low, spread = places.min(axis=0), max(float(np.ptp(places, axis=0).max()), 1e-12)
    marks = []
    for (x, y), name in zip(MARGIN + (SIDE - 2 * MARGIN) * (places - low) / spread, names, strict=True):
        text = f'<text x="{x:.1f}" y="{y - 5:.1f}" text-anchor="middle">{{}}</text>' if len(names) <= NAMED else ""
        mark = Markup('<circle class="column top1" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
        marks.append(mark.format(x, y, name) + Markup(text).format(name))  # noqa: S704 - numbers alone are put in before
    frame = Markup('<svg viewBox="0 0 {0:.0f} {0:.0f}" role="img" aria-label="{1}">{2}</svg>')
    return frame.format(SIDE, f"t-SNE of {title}", Markup("").join(marks))


SECTION = Section(
    name="anchors",
    title="Class anchors",
    order=45,
    facts=_facts,
    style=".anchors{display:flex;flex-wrap:wrap;gap:2rem}.anchors figure{margin:0;width:300px}"
    ".anchors img{width:300px;height:300px;image-rendering:pixelated}.anchors text{font-size:10px;fill:currentColor}",
)
