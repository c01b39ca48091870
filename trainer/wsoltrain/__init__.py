"""wsoltrain: localizers trained on the pseudo-labels of a store, scored by the realistic protocol, and used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from wsoltrain.inference.localizer import Localizer

__all__ = ["load"]


def load(named: str | Path, *, device: str = "auto", anchors: str | None = None) -> Localizer:
    """Load a trained localizer, or an exported one: ``wsoltrain.load("runs/x")("photo.jpg")`` finds its object.

    See `wsoltrain.inference.localizer.load`.
    """
    from wsoltrain.inference import localizer  # torch takes seconds to import

    return localizer.load(named, device=device, anchors=anchors)
