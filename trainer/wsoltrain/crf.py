"""Public names of the CRF loss: `dense_filter` and `crf_loss`."""

from __future__ import annotations

from wsoltrain.losses.crf import crf_loss, dense_filter

__all__ = ["crf_loss", "dense_filter"]
