"""Public names of the stream: its source, its items, and its batches."""

from __future__ import annotations

from wsoltrain.data.stream import ItemConfig, Labelling, Shuffle, Stream

__all__ = ["ItemConfig", "Labelling", "Shuffle", "Stream"]
