"""The localizers: what each paper's network is, built from a name."""

from __future__ import annotations

from wsoltrain.models.localizers import KINDS, Localizer, Prediction, build

__all__ = ["KINDS", "Localizer", "Prediction", "build"]
